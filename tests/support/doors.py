"""A door of a stand-in node with real sockets, and a process beside it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from meshnet.control.door import Door
from tests.support.nodes import eventually
from tests.support.streams import FakeClock, FakeMesh, FakeNode, FakeStream


@implementer(IHalfCloseableProtocol)
class Process(Protocol):
    """What a process sees of its connection: stock Twisted, no word of the mesh."""

    transport: Any

    def __init__(self) -> None:
        self.data = b""
        self.ended = False

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def readConnectionLost(self) -> None:
        self.ended = True

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Any = None) -> None:
        self.ended = True

    def lines(self) -> list[str]:
        """All of it as lines."""
        return self.data.decode().splitlines()


class Echo:
    """A reader at the far end that sends back what it gets, and notes how it ends."""

    def __init__(self, stream: FakeStream | None = None) -> None:
        self.stream: Any = stream
        self.why: Exception | None = None
        self.ended = False
        self.data = b""

    def data_received(self, data: memoryview) -> None:
        self.data += data
        assert self.stream.write(data) == len(data)
        self.stream.consumed(len(data))

    def finished(self) -> None:
        self.ended = True
        self.stream.finish()

    def lost(self, why: Exception) -> None:
        self.why = why

    def drained(self) -> None:
        pass


class Deaf(Echo):
    """One that reads and never answers, and finishes when told."""

    def data_received(self, data: memoryview) -> None:
        self.data += data
        self.stream.consumed(len(data))

    def finished(self) -> None:
        self.ended = True


class DoorNode:
    """A stand-in node whose own clock is moved by hand: only the door's time-outs run by it."""

    def __init__(self, node: FakeNode) -> None:
        self.seconds = Clock()
        self.clock = FakeClock(self.seconds)
        self.public_key = node.public_key
        self.lookup, self.connect, self.listen = node.lookup, node.connect, node.listen


class DoorCase(TestCase):
    """A door of node a; node b echoes on port 7."""

    def setUp(self) -> None:
        from twisted.internet import reactor  # noqa: TID251  (the test's own)

        self.reactor: Any = reactor
        self.folder = Path(tempfile.mkdtemp(prefix="meshnet-test-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.path = self.folder / "attach.sock"
        self.mesh = FakeMesh(reactor)
        self.a, self.b = self.mesh.node("a"), self.mesh.node("b")
        self.echoes: list[Echo] = []
        self.b.listen(7, self._echo)
        self.door = self.new_door(self.a)

    def new_door(self, node: Any) -> Door:
        """A door at the same place, open until the test ends."""
        door = Door(node, self.reactor, self.path, os.urandom)
        door.start()
        self.addCleanup(door.stop)
        return door

    def by_hand(self) -> DoorNode:
        """The same door again, its time moved by hand."""
        self.door.stop()
        node = DoorNode(self.a)
        self.door = self.new_door(node)
        return node

    def _echo(self, stream: Any) -> Any:
        self.echoes.append(Echo(stream))
        return self.echoes[-1]

    async def process(self, data: bytes = b"") -> Process:
        """A process that has connected and said this."""
        endpoint = UNIXClientEndpoint(self.reactor, str(self.path))
        made: Process = await endpoint.connect(Factory.forProtocol(Process))
        self.addCleanup(made.transport.abortConnection)
        made.transport.write(data)
        return made

    async def until(self, holds: Callable[[], bool]) -> None:
        await eventually(holds)

    async def turn(self) -> None:
        """One turn of the reactor."""
        later: Deferred[None] = Deferred()
        self.reactor.callLater(0, later.callback, None)
        await later

    async def answer(self, process: Process) -> str:
        """The first line it gets."""
        await self.until(lambda: b"\n" in process.data)
        return process.lines()[0]

    async def says(self, data: bytes) -> str:
        """What the door answers a process that says this, and then hangs up."""
        process = await self.process(data)
        await self.until(lambda: process.ended)
        process.transport.abortConnection()
        return process.data.decode()

    async def called(self, port: int, reader: Echo) -> Any:
        """A stream that node b opens to a port of node a."""
        reader.stream = await self.b.connect(self.a.public_key, port, reader, identity="node")
        return reader.stream


def run(test: Any) -> Callable[[DoorCase], Deferred[None]]:
    """A coroutine as a test."""

    def running(self: DoorCase) -> Deferred[None]:
        return Deferred.fromCoroutine(test(self))

    running.__doc__ = test.__doc__
    return running
