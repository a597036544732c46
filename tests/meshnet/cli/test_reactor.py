"""The reactor of a node, with descriptors of the kernel."""

from __future__ import annotations

import socket
import sys
from typing import Any

from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, SynchronousTestCase
from zope.interface import implementer


@implementer(IReadWriteDescriptor)
class Ear:
    """One end of a pair of sockets that keeps what happens; `reading` runs in its `doRead`."""

    direct = True

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.events: list[str] = []
        self.why: Any = None
        self.reading = lambda: None

    def fileno(self) -> int:
        return self.near.fileno()

    def doRead(self) -> None:
        self.near.recv(100)
        self.events.append("read")
        self.reading()

    def doWrite(self) -> None:
        self.events.append("write")

    def connectionLost(self, reason: Failure) -> None:
        self.events.append("lost")
        self.why = reason

    def logPrefix(self) -> str:
        self.events.append("named")
        return "ear"


class Indirect(Ear):
    """One that knows nothing of this reactor."""

    direct = False


class ReactorTests(SynchronousTestCase):
    def setUp(self) -> None:
        if not sys.platform.startswith("linux"):
            raise SkipTest("epoll is of Linux")
        from meshnet.cli.reactor import DirectReactor

        self.reactor: Any = DirectReactor()
        self.addCleanup(self.close)

    def close(self) -> None:
        self.reactor.removeAll()
        self.reactor._poller.close()

    def ear(self, kind: type[Ear] = Ear, writes: bool = False) -> Ear:
        """A new one, under the reactor."""
        ear = kind()
        self.addCleanup(ear.near.close)
        self.addCleanup(ear.far.close)
        self.addCleanup(self.reactor.removeWriter, ear)
        self.addCleanup(self.reactor.removeReader, ear)
        self.reactor.addReader(ear)
        if writes:
            self.reactor.addWriter(ear)
        return ear

    def test_direct(self) -> None:
        """Reading and writing, in one turn; nobody asks for a name."""
        ear = self.ear(writes=True)
        ear.far.send(b"x")
        self.reactor.doPoll(0)
        self.assertEqual(ear.events, ["read", "write"])

    def test_others(self) -> None:
        """They go Twisted's own way."""
        ear = self.ear(Indirect)
        ear.far.send(b"x")
        self.reactor.doPoll(0)
        self.assertEqual(ear.events, ["named", "read"])

    def test_nothing(self) -> None:
        """Nothing has happened."""
        ear = self.ear()
        self.reactor.doPoll(0)
        self.assertEqual(ear.events, [])

    def test_gone_while_it_reads(self) -> None:
        """Who leaves the reactor in its doRead is not asked to write."""
        ear = self.ear(writes=True)

        def leave() -> None:
            self.reactor.removeReader(ear)
            self.reactor.removeWriter(ear)

        ear.reading = leave
        ear.far.send(b"x")
        self.reactor.doPoll(0)
        self.assertEqual(ear.events, ["read"])

    def test_removed_by_another(self) -> None:
        """Of two that have something to read, each removes the other: one is called."""
        one, other = self.ear(), self.ear()
        one.reading = lambda: self.reactor.removeReader(other)
        other.reading = lambda: self.reactor.removeReader(one)
        one.far.send(b"x")
        other.far.send(b"x")
        self.reactor.doPoll(0)
        self.assertEqual(one.events + other.events, ["read"])

    def test_fault(self) -> None:
        """What one raises is logged and ends it; the others go on."""
        ear, other = self.ear(), self.ear()

        def fail() -> None:
            raise ValueError("a fault")

        ear.reading = fail
        ear.far.send(b"x")
        other.far.send(b"x")
        self.reactor.doPoll(0)
        self.assertEqual(ear.events, ["read", "lost"])
        self.assertEqual(other.events, ["read"])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_hung_up(self) -> None:
        """Bytes that came before the other side went are read; what follows is Twisted's to say."""
        ear = self.ear()
        ear.far.send(b"x")
        ear.far.close()
        self.reactor.doPoll(0)
        self.assertIn("read", ear.events)
