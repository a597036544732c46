"""Ends told from breaches: at the door, for programs with endpoints, and what strange descriptors do."""

from __future__ import annotations

import os
import select
import socket
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import clientFromString, connectProtocol

from meshnet.control.attach import ask
from meshnet.control.lines import Connect
from meshnet.control.witness import MARK, receive_first, send_first
from meshnet.errors import UnreachableError
from meshnet.session.codes import StreamResetError
from tests.support.doors import Deaf, DoorCase, Process, run


class WitnessTests(DoorCase):
    def setUp(self) -> None:
        super().setUp()
        self.b.listen(8, self._deaf)

    def _deaf(self, stream: Any) -> Any:
        self.echoes.append(Deaf(stream))
        return self.echoes[-1]

    def open_files(self) -> int:
        """Descriptors of this process."""
        return len(list(Path("/dev/fd").iterdir()))

    async def asked(self) -> tuple[socket.socket, Any]:
        """A process that has a stream to the deaf port, with a witness, and has said a word."""
        sock, witness = ask(self.path, Connect("b", 8))
        self.addCleanup(sock.close)
        self.addCleanup(witness.close)
        sock.sendall(b"hello")
        await self.until(lambda: bool(self.echoes) and self.echoes[-1].data == b"hello")
        await self.readable(sock)
        sock.recv(1_024)
        return sock, witness

    async def readable(self, sock: socket.socket) -> None:
        """Waits for bytes, or the end, without keeping the reactor."""
        await self.until(lambda: bool(select.select([sock], [], [], 0)[0]))

    @run
    async def test_end(self) -> None:
        """With the mark an end is one, both ways; nothing of it reaches the stream."""
        sock, witness = await self.asked()
        witness.leave()
        sock.shutdown(socket.SHUT_WR)
        await self.until(lambda: self.echoes[0].ended)
        self.echoes[0].stream.write(b"bye")
        self.echoes[0].stream.finish()
        await self.until(lambda: not self.door.callers)
        self.assertEqual((sock.recv(100), sock.recv(100)), (b"bye", b""))
        self.assertTrue(witness.found())
        self.assertEqual((self.echoes[0].data, self.echoes[0].why), (b"hello", None))

    @run
    async def test_killed(self) -> None:
        """A process that goes without the mark resets its stream, though nothing was left unread."""
        sock, witness = await self.asked()
        sock.close()
        witness.close()
        await self.until(lambda: self.echoes[0].why is not None)
        self.assertIsInstance(self.echoes[0].why, StreamResetError)
        self.assertFalse(self.echoes[0].ended)

    @run
    async def test_reset(self) -> None:
        """A breach shows also to a process that has ended its own direction."""
        sock, witness = await self.asked()
        witness.leave()
        sock.shutdown(socket.SHUT_WR)
        await self.until(lambda: self.echoes[0].ended)
        self.echoes[0].stream.reset(2)
        await self.until(lambda: not self.door.callers)
        self.assertEqual(sock.recv(100), b"")
        self.assertFalse(witness.found())

    @run
    async def test_endpoints(self) -> None:
        """An abort of a program is a breach at the far side; so is a node's end for a program that has
        finished."""
        endpoint = clientFromString(self.reactor, f"mesh:b:8:node={self.path}")
        first: Any = await connectProtocol(endpoint, Process())
        first.transport.abortConnection()
        await self.until(lambda: bool(self.echoes) and self.echoes[0].why is not None)

        class Why(Process):
            why: Any = None

            def connectionLost(self, reason: Any = None) -> None:
                self.why = reason

        second: Any = await connectProtocol(endpoint, Why())
        second.transport.loseWriteConnection()
        await self.until(lambda: len(self.echoes) == 2 and self.echoes[1].ended)
        self.door.stop()
        await self.until(lambda: second.why is not None)
        self.assertTrue(second.why.check(UnreachableError), second.why)

    @run
    async def test_strange_descriptors(self) -> None:
        """Files, pipes and many of them: none blocks the door, none stays open."""
        await self.turn()  # the reactor opens files of its own when it begins
        before = self.open_files()
        reading, writing = os.pipe()
        null = os.open(os.devnull, os.O_RDWR)
        for descriptors in ([writing], [null], [reading, writing, null], [writing] * 200):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(str(self.path))
            socket.send_fds(sock, [b"CONNECT b 7\nhello"], descriptors)
            said = b""
            while b"hello" not in said:
                await self.readable(sock)
                said += sock.recv(200)
            sock.shutdown(socket.SHUT_WR)
            await self.until(lambda: not self.door.callers)
            sock.close()
        for descriptor in (reading, writing, null):
            os.close(descriptor)
        self.assertEqual(self.open_files(), before)

    def test_full_pair(self) -> None:
        """A pair that nobody reads, or that is gone, never blocks and never raises."""
        left, right = socket.socketpair()
        witness = send_first(left, b"x")
        size, theirs = receive_first(right, memoryview(bytearray(10)))
        assert theirs is not None
        self.assertEqual(size, len(MARK))
        for _ in range(100_000):
            witness.leave()
        self.assertTrue(theirs.found())
        theirs.close()
        witness.leave()
        self.assertFalse(witness.found())
        witness.close()
        left.close()
        right.close()
