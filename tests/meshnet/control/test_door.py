"""The local door with real sockets: the node behind it is a stand-in, its processes are stock Twisted."""

from __future__ import annotations

import os
import socket
import stat

from meshnet.control import door as door_module
from meshnet.control.door import Door
from meshnet.control.lines import read_incoming
from meshnet.errors import LocalError, UnreachableError
from meshnet.limits import (
    DOOR_ACCEPT_SECONDS,
    DOOR_LINE,
    DOOR_LINE_SECONDS,
    DOOR_LINGER_BYTES,
    DOOR_PORTS,
    DOOR_READ,
    DOOR_WAITING,
)
from meshnet.session.codes import StreamResetError
from tests.support.doors import Deaf, DoorCase, Process, run
from tests.support.nodes import sentence_of

NOTHING = {"connections": 0, "ports": 0, "waiting": 0}


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
        self.assertEqual(self.door.snapshot(), {**NOTHING, "streams": 1})

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
            b"x" * 300_000: 2,
            b"\xff\xfe\n": 2,
            b"CONNECT nobody 7\n": 2,
            b"CONNECT b 0\n": 2,
            b"ACCEPT 12\n": 4,
            f"CONNECT 02{'ab' * 32} 7\n".encode(): 4,
            b"CONNECT b 8\n": 5,
            b"LISTEN 7 address=mesh1\n": 2,
            b"LISTEN 7\nmore": 2,
        }.items():
            said = await self.says(line)
            self.assertRegex(said, rf"^ERR {number} ['A-Z].*\.\n$")
        self.assertEqual(self.door.callers, {})

    @run
    async def test_line_in_pieces(self) -> None:
        """A line may come byte by byte."""
        process = await self.process()
        for byte in b"CONNECT b 7\nx":
            process.transport.write(bytes([byte]))
            await self.turn()
        await self.until(lambda: process.data.endswith(b"\nx"))

    @run
    async def test_silence(self) -> None:
        """Who connects and says nothing, or half a line, is sent away after ten seconds; who has said its
        line is not."""
        node = self.by_hand()
        silent, half = await self.process(), await self.process(b"CONN")
        busy = await self.process(b"CONNECT b 7\n")
        node.seconds.advance(0)
        await self.until(lambda: len(self.door.callers) == 3 and self.door.streams == 1)
        node.seconds.advance(DOOR_LINE_SECONDS)
        await self.until(lambda: silent.ended and half.ended)
        self.assertRegex(silent.data.decode(), "^ERR 6 No line came .*\n$")
        self.assertEqual(half.data, silent.data)
        self.assertFalse(busy.ended)

    @run
    async def test_far_reset(self) -> None:
        """A reset of the far side closes the connection without a shutdown before."""
        process = await self.process(b"CONNECT b 7\nx")
        await self.until(lambda: process.data.endswith(b"x"))
        self.echoes[0].stream.reset(2)
        await self.until(lambda: process.ended and not self.door.callers)

    @run
    async def test_process_goes(self) -> None:
        """A process that closes has said all it wanted: its bytes arrive, and their end. What comes for it
        is dropped; when that is much, the stream is reset."""
        self.b.listen(8, lambda stream: self.echoes.append(Deaf(stream)) or self.echoes[-1])  # type: ignore[arg-type, func-returns-value, return-value]
        data = os.urandom(1 << 20)
        process = await self.process(b"CONNECT b 8\n")
        await self.answer(process)
        process.transport.write(data)
        process.transport.loseConnection()
        await self.until(lambda: bool(self.echoes) and self.echoes[0].ended)
        deaf = self.echoes[0]
        self.assertEqual(deaf.data, data)
        sent = 0
        while not deaf.stream.gone and sent < 2 * DOOR_LINGER_BYTES:
            sent += deaf.stream.write(bytes(1 << 16))
            await self.turn()
        await self.until(lambda: deaf.why is not None)
        self.assertIsInstance(deaf.why, StreamResetError)
        self.assertEqual(self.door.callers, {})

    @run
    async def test_process_killed(self) -> None:
        """One that goes with bytes unread, as a killed one does, resets its stream."""
        sock = socket.socket(socket.AF_UNIX)
        self.addCleanup(sock.close)
        sock.connect(str(self.path))
        sock.sendall(b"CONNECT b 7\nhello")
        await self.until(lambda: bool(self.echoes) and self.echoes[0].data == b"hello")
        await self.until(lambda: len(sock.recv(200, socket.MSG_PEEK)) > 70)
        sock.close()
        await self.until(lambda: self.echoes[0].why is not None)
        await self.until(lambda: not self.door.callers)

    @run
    async def test_stalled(self) -> None:
        """A process that reads nothing stops its own sender, and nobody else's."""
        data = bytes(1 << 20)
        stalled = await self.process(b"CONNECT b 7\n")
        stalled.transport.pauseProducing()
        self.b.ports[9] = lambda stream: self.echoes.append(Deaf(stream)) or self.echoes[-1]  # type: ignore[assignment, func-returns-value]
        await self.until(lambda: bool(self.echoes))
        far = self.echoes[0].stream
        written = 0
        for _ in range(100):
            written += far.write(data)
            await self.turn()
        self.assertLess(written, 4 << 20)
        other = await self.process(b"CONNECT b 7\nhello")
        await self.until(lambda: other.data.endswith(b"hello"))
        stalled.transport.resumeProducing()
        await self.until(lambda: len(stalled.data) > written)

    @run
    async def test_fast_process(self) -> None:
        """What a process writes faster than its stream takes it stays in its own socket."""

        class Slow(Deaf):
            def data_received(self, data: memoryview) -> None:
                self.data += data

        self.b.listen(8, lambda stream: self.echoes.append(Slow(stream)) or self.echoes[-1])  # type: ignore[arg-type, func-returns-value, return-value]
        sock = socket.socket(socket.AF_UNIX)
        self.addCleanup(sock.close)
        sock.connect(str(self.path))
        sock.sendall(b"CONNECT b 8\n")
        sock.setblocking(False)
        sent = 0
        for _ in range(200):
            try:
                sent += sock.send(bytes(1 << 20))
            except BlockingIOError:
                pass
            await self.turn()
        self.assertLess(sent, self.mesh.window + 2 * DOOR_READ + (4 << 20))
        slow = self.echoes[0]
        self.assertEqual(len(slow.data), self.mesh.window)


class ListenTests(DoorCase):
    async def listening(self, port: int = 80) -> Process:
        """A process that has a port."""
        process = await self.process(f"LISTEN {port}\n".encode())
        self.assertEqual(await self.answer(process), f"OK {self.a.public_key.hex()}")
        return process

    async def told(self, listener: Process, count: int = 1) -> int:
        """The id of the stream that it is told of last, of so many."""
        await self.until(lambda: len(listener.lines()) == 1 + count)
        word, number, key = listener.lines()[-1].split(" ")
        self.assertEqual((word, key), ("INCOMING", self.b.public_key.hex()))
        return int(number)

    @run
    async def test_accept(self) -> None:
        """INCOMING tells an id; ACCEPT on another connection gets the stream and what came before."""
        listener = await self.listening()
        caller = Deaf()
        (await self.called(80, caller)).write(b"early")
        number = await self.told(listener)
        process = await self.process(f"ACCEPT {number}\nlate".encode())
        await self.until(lambda: process.data == f"OK {self.b.public_key.hex()}\nearly".encode())
        await self.until(lambda: caller.data == b"late")
        caller.stream.finish()
        process.transport.loseConnection()
        await self.until(lambda: caller.ended and len(self.door.callers) == 1)
        self.assertRegex(await self.says(f"ACCEPT {number}\n".encode()), "^ERR 4 No stream waits ")

    @run
    async def test_ids_are_random(self) -> None:
        """Ids tell nothing of each other."""
        listener = await self.listening()
        for count in range(1, 6):
            await self.called(80, Deaf())
            await self.told(listener, count)
        ids = {read_incoming(line).id for line in listener.lines()[1:]}
        self.assertEqual(len(ids), 5)
        self.assertTrue(all(number > 1 << 40 for number in ids))

    @run
    async def test_late(self) -> None:
        """What nobody accepts within ten seconds is reset, its caller told that nobody answers."""
        node = self.by_hand()
        listener = await self.listening()
        caller = Deaf()
        await self.called(80, caller)
        number = await self.told(listener)
        node.seconds.advance(DOOR_ACCEPT_SECONDS)
        await self.until(lambda: caller.why is not None)
        self.assertIsInstance(caller.why, UnreachableError)
        self.assertRegex(await self.says(f"ACCEPT {number}\n".encode()), "^ERR 4 ")
        self.assertEqual(self.door.snapshot()["waiting"], 0)

    @run
    async def test_caller_goes(self) -> None:
        """A stream that goes before it was accepted is not there any more."""
        listener = await self.listening()
        stream = await self.called(80, Deaf())
        number = await self.told(listener)
        stream.reset(2)
        await self.until(lambda: not self.door.waiting)
        self.assertRegex(await self.says(f"ACCEPT {number}\n".encode()), "^ERR 4 ")

    @run
    async def test_port_belongs_to_the_connection(self) -> None:
        """A taken port is ERR 1; it is free when its connection ends, and stays while it is half-closed."""
        listener = await self.listening()
        self.assertRegex(await self.says(b"LISTEN 80\n"), "^ERR 1 .*taken")
        listener.transport.loseWriteConnection()
        await self.called(80, Deaf())
        await self.told(listener)
        listener.transport.loseConnection()
        other = await self.listening(81)
        other.transport.loseConnection()
        await self.until(lambda: 81 not in self.a.ports)

    @run
    async def test_many_wait(self) -> None:
        """More streams than may wait are refused at once."""
        listener = await self.listening()
        callers = [Deaf() for _ in range(DOOR_WAITING + 3)]
        for caller in callers:
            await self.called(80, caller)
        await self.told(listener, DOOR_WAITING)
        await self.until(lambda: sum(caller.why is not None for caller in callers) == 3)

    @run
    async def test_many_ports(self) -> None:
        """A named number of ports, and no more."""
        self.patch(door_module, "DOOR_PORTS", 2)
        self.assertGreater(DOOR_PORTS, 2)
        await self.listening(1)
        await self.listening(2)
        self.assertRegex(await self.says(b"LISTEN 3\n"), "^ERR 1 Processes hold 2 ")

    @run
    async def test_sleeping_listener(self) -> None:
        """A listener that does not read its lines costs the door a few of them; then its streams are
        refused."""
        self.patch(door_module, "DOOR_UNREAD_LINES", 4_096)
        self.patch(door_module, "DOOR_WAITING", 1 << 20)
        listener = await self.listening()
        listener.transport.pauseProducing()
        refused = None
        callers = []
        for _ in range(20_000):
            callers.append(Deaf())
            stream = await self.called(80, callers[-1])
            refused = self.door.offer(stream, next(iter(self.door.callers.values())))
            if refused is None:
                break
        self.assertIsNone(refused)


class SocketTests(DoorCase):
    @run
    async def test_file(self) -> None:
        """The socket is for its user only, and goes with the door, which may be opened again."""
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        process, listener = await self.process(b"CONNECT b 7\n"), await self.process(b"LISTEN 80\n")
        await self.answer(process)
        await self.answer(listener)
        self.door.stop()
        self.door.stop()
        await self.until(lambda: process.ended and listener.ended)
        await self.until(lambda: self.echoes[0].why is not None)
        self.assertEqual((self.path.exists(), self.a.ports, self.door.snapshot()["ports"]), (False, {}, 0))
        self.new_door(self.a)

    @run
    async def test_too_many(self) -> None:
        """One connection more than allowed is told so; those before it go on."""
        self.patch(door_module, "DOOR_CONNECTIONS", 2)
        first = await self.process(b"CONNECT b 7\n")
        await self.answer(first)
        await self.process()
        self.assertRegex(await self.says(b""), "^ERR 1 This node serves 2 connections ")
        first.transport.write(b"x")
        await self.until(lambda: first.data.endswith(b"x"))

    @run
    async def test_a_thousand(self) -> None:
        """A thousand connections at a time, each with its stream."""
        socks = [socket.socket(socket.AF_UNIX) for _ in range(1_000)]
        for number, sock in enumerate(socks):
            self.addCleanup(sock.close)
            sock.connect(str(self.path))
            sock.sendall(b"CONNECT b 7\n%04d" % number)
        await self.until(
            lambda: len(self.echoes) == 1_000 and all(len(each.data) == 4 for each in self.echoes)
        )
        self.assertEqual(self.door.snapshot(), {**NOTHING, "connections": 1_000, "streams": 1_000})
        for sock in socks:
            sock.close()
        await self.until(lambda: not self.door.callers)

    def test_places(self) -> None:
        """A path that is too long, a file in the way, a folder that is not there, a node that answers
        already: one sentence each. A stale socket is replaced."""
        long = self.folder / ("x" * 120)
        for path, text in {
            long: r"longer than 107 bytes; set \[control\] attach",
            self.folder: "in the way of the local door",
            self.folder / "no" / "attach.sock": "Cannot make the local door's socket",
            self.path: "Another node answers",
        }.items():
            error = self.assertRaises(LocalError, Door(self.a, self.reactor, path, os.urandom).start)
            self.assertRegex(sentence_of(error), text)
        stale = self.folder / "stale.sock"
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(stale))
        door = Door(self.a, self.reactor, stale, os.urandom)
        door.start()
        door.stop()

    @run
    async def test_fault(self) -> None:
        """A node that fails at a line: the process gets a sentence, the log the rest, the door goes on."""

        def fail(text: str) -> None:
            raise RuntimeError("a fault")

        self.patch(self.a, "lookup", fail)
        self.assertRegex(await self.says(b"CONNECT b 7\n"), "^ERR 1 The node failed")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
