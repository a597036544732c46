"""The local door with real sockets: the node behind it is a stand-in, its processes are stock Twisted."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from meshnet.control.door import Door
from meshnet.limits import DOOR_CONNECTIONS, DOOR_LINE
from tests.support.nodes import eventually
from tests.support.streams import FakeMesh, FakeNode, FakeStream


@implementer(IHalfCloseableProtocol)
class Process(Protocol):
    """What a process sees of its connection."""

    transport: Any

    def __init__(self) -> None:
        self.data = b""
        self.ended = False
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def readConnectionLost(self) -> None:
        self.ended = True

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Any = None) -> None:
        self.ended = self.lost = True

    def lines(self) -> list[str]:
        """All of it as lines."""
        return self.data.decode().splitlines()


class Echo:
    """A reader at the far end that sends back what it gets."""

    def __init__(self, stream: FakeStream) -> None:
        self.stream = stream
        self.why: Exception | None = None
        self.data = b""

    def data_received(self, data: memoryview) -> None:
        self.data += data
        assert self.stream.write(data) == len(data)
        self.stream.consumed(len(data))

    def finished(self) -> None:
        self.stream.finish()

    def lost(self, why: Exception) -> None:
        self.why = why

    def drained(self) -> None:
        pass


class DoorCase(TestCase):
    """A door of node a; node b echoes on port 7."""

    window = 1 << 18

    def setUp(self) -> None:
        from twisted.internet import reactor  # noqa: TID251  (the test's own)

        self.reactor: Any = reactor
        self.folder = Path(tempfile.mkdtemp(prefix="meshnet-test-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.path = self.folder / "attach.sock"
        self.mesh = FakeMesh(reactor, self.window)
        self.a, self.b = self.mesh.node("a"), self.mesh.node("b")
        self.echoes: list[Echo] = []
        self.b.listen(7, self._echo)
        self.door = self.new_door(self.a)

    def new_door(self, node: FakeNode) -> Door:
        door = Door(node, self.reactor, self.path, os.urandom)
        door.start()
        self.addCleanup(door.stop)
        return door

    def _echo(self, stream: Any) -> Any:
        self.echoes.append(Echo(stream))
        return self.echoes[-1]

    async def process(self, data: bytes = b"") -> Process:
        """A process that has connected and said this."""
        endpoint = UNIXClientEndpoint(self.reactor, str(self.path))
        made: Any = await endpoint.connect(Factory.forProtocol(Process))
        self.addCleanup(made.transport.abortConnection)
        made.transport.write(data)
        return made

    async def until(self, holds: Callable[[], bool]) -> None:
        await eventually(holds)

    async def says(self, data: bytes) -> str:
        """What the door answers a process that says this, and then hangs up."""
        process = await self.process(data)
        await self.until(lambda: process.ended)
        process.transport.abortConnection()
        return process.data.decode()


def run(test: Any) -> Callable[[DoorCase], Deferred[None]]:
    """A coroutine as a test."""

    def running(self: DoorCase) -> Deferred[None]:
        return Deferred.fromCoroutine(test(self))

    running.__doc__ = test.__doc__
    return running


class ConnectTests(DoorCase):
    @run
    async def test_echo(self) -> None:
        """CONNECT, then raw bytes both ways, those sent along with the line among them; then half-close."""
        process = await self.process(b"CONNECT b 7 as=node via=a,b\nhello ")
        process.transport.write(b"world")
        ok = f"OK {self.b.public_key.hex()}\n".encode()
        await self.until(lambda: process.data == ok + b"hello world")
        keys = (self.a.public_key, self.b.public_key)
        self.assertEqual(self.a.routes, [(self.b.public_key, keys, "node")])
        process.transport.loseWriteConnection()
        await self.until(lambda: process.ended)
        await self.until(lambda: not self.door.callers)
        self.assertEqual(self.door.snapshot(), {"connections": 0, "ports": 0, "waiting": 0, "streams": 1})

    @run
    async def test_many_bytes(self) -> None:
        """Megabytes go through windows and socket buffers unharmed."""
        data = os.urandom(1 << 20) * 3
        process = await self.process(b"CONNECT b 7\n")
        process.transport.write(data)
        process.transport.loseWriteConnection()
        await self.until(lambda: process.ended)
        self.assertTrue(process.data.endswith(data), len(process.data))

    @run
    async def test_wrong_lines(self) -> None:
        """Each gets its number and a sentence, and the connection ends."""
        for line, number in {
            b"HELLO\n": 2,
            b"x" * DOOR_LINE: 2,
            b"\xff\xfe\n": 2,
            b"CONNECT nobody 7\n": 2,
            b"CONNECT b 0\n": 2,
            b"ACCEPT 12\n": 4,
            f"CONNECT 02{'ab' * 32} 7\n".encode(): 4,
            b"LISTEN 7 address=mesh1\n": 2,
        }.items():
            said = await self.says(line)
            self.assertRegex(said, rf"^ERR {number} ['A-Z].*\.\n$")
        self.assertEqual(self.door.callers, {})


class ListenTests(DoorCase):
    async def listening(self, port: int = 80) -> Process:
        process = await self.process(f"LISTEN {port}\n".encode())
        await self.until(lambda: process.data.endswith(b"\n"))
        self.assertEqual(process.lines(), [f"OK {self.a.public_key.hex()}"])
        return process

    @run
    async def test_accept(self) -> None:
        """INCOMING tells an id; ACCEPT on another connection gets the stream and what came before."""
        listener = await self.listening()
        echo = Echo(None)  # type: ignore[arg-type]  # given below
        echo.stream = await self.b.connect(self.a.public_key, 80, echo, identity="node")
        echo.stream.write(b"early")
        await self.until(lambda: len(listener.lines()) == 2)
        word, number, key = listener.lines()[1].split(" ")
        self.assertEqual((word, key), ("INCOMING", self.b.public_key.hex()))
        process = await self.process(f"ACCEPT {number}\n".encode())
        await self.until(lambda: process.data == f"OK {key}\nearly".encode())
        process.transport.loseConnection()
        await self.until(lambda: not self.door.waiting and len(self.door.callers) == 1)
        self.assertRegex(await self.says(f"ACCEPT {number}\n".encode()), "^ERR 4 ")

    @run
    async def test_port_belongs_to_the_connection(self) -> None:
        """A taken port is ERR 1; it is free when its connection ends."""
        listener = await self.listening()
        self.assertRegex(await self.says(b"LISTEN 80\n"), "^ERR 1 .*taken")
        listener.transport.loseConnection()
        await self.until(lambda: not self.a.ports)
        await self.listening()


class SocketTests(DoorCase):
    @run
    async def test_file(self) -> None:
        """The socket is for its user only, and goes with the door, which may be opened again."""
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        process = await self.process()
        self.door.stop()
        self.door.stop()
        await self.until(lambda: process.ended)
        self.assertFalse(self.path.exists())
        self.new_door(self.a)
        self.assertLess(0, DOOR_CONNECTIONS)
