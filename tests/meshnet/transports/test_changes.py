"""Changes of the machine's network: what counts as one, and how often it is told."""

from __future__ import annotations

import socket
from struct import pack

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from meshnet.transports.changes import AGAIN, SETTLE, Changes, changes_in, kernel_socket, watch
from meshnet.transports.conformance import OwnReactor

NEW_ADDRESS, DELETED_ROUTE, NEW_LINK = 20, 25, 16


def message(kind: int, size: int = 20) -> bytes:
    """One of rtnetlink's."""
    return pack("=IHHII", size, kind, 0, 0, 0).ljust(size + 3 & ~3, b"\0")


class Reactor(Clock):
    """Time, and one reader."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[object] = []

    def addReader(self, reader: object) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: object) -> None:
        self.readers.remove(reader)


class MessageTests(SynchronousTestCase):
    """What the kernel says."""

    def test_kinds(self) -> None:
        """Addresses and routes count, also behind others; links' own news do not."""
        self.assertTrue(changes_in(message(NEW_ADDRESS)))
        self.assertTrue(changes_in(message(NEW_LINK, 33) + message(DELETED_ROUTE)))
        self.assertFalse(changes_in(message(NEW_LINK) + message(NEW_LINK)))
        self.assertFalse(changes_in(b""))

    @given(st.binary(max_size=200))
    def test_any_bytes(self, data: bytes) -> None:
        """Answered, without end never."""
        self.assertIn(changes_in(data), (True, False))


class ChangesTests(SynchronousTestCase):
    """When it is told."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.near.setblocking(False)
        self.told: list[float] = []
        self.changes = Changes(self.reactor, self.near, lambda: self.told.append(self.reactor.seconds()))
        self.addCleanup(self.far.close)
        self.addCleanup(self.changes.stop)

    def happens(self, *kinds: int) -> None:
        for kind in kinds:
            self.far.send(message(kind))
        self.changes.doRead()

    def test_together(self) -> None:
        """Many changes at once are one; those that follow soon are told later, once."""
        self.happens(NEW_ADDRESS, DELETED_ROUTE, NEW_ADDRESS)
        self.reactor.pump([0.5] * 4)
        self.assertEqual(self.told, [SETTLE])
        for _ in range(5):
            self.happens(DELETED_ROUTE)
            self.reactor.advance(1)
        self.reactor.pump([0.5] * 40)
        self.assertEqual(self.told, [SETTLE, SETTLE + AGAIN])

    def test_nothing(self) -> None:
        """News of no interest are read and not told."""
        self.happens(NEW_LINK, NEW_LINK)
        self.reactor.pump([1] * 20)
        self.assertEqual(self.told, [])

    def test_stop(self) -> None:
        """While a change waits to be told; twice."""
        self.happens(NEW_ADDRESS)
        self.changes.stop()
        self.changes.stop()
        self.reactor.pump([1] * 20)
        self.assertEqual((self.told, self.reactor.readers, self.reactor.getDelayedCalls()), ([], [], []))

    def test_the_real_kernel(self) -> None:
        """Its socket opens and closes under a reactor, where there is one; a reactor without readers watches
        nothing."""
        world = OwnReactor()
        self.addCleanup(world.close)
        stop = watch(world.reactor, lambda: None)
        world.turns()
        stop()
        self.assertEqual(world.left(), [])
        watch(Clock(), lambda: None)()
        if (sock := kernel_socket()) is not None:
            sock.close()
