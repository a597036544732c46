"""What is acknowledged, and when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.limits import ACK_DELAY, ACK_EVERY, ACK_RANGES
from meshnet.session import items
from meshnet.session.acks import Acks
from tests.meshnet.session.test_items import Log


def written(acks: Acks, now: float = 0.0) -> tuple:
    """The ACK that `acks` writes, as the reader tells it."""
    room = memoryview(bytearray(1_200))
    end = acks.write(room, 0, 1_200, now)
    log = Log()
    items.read(room[:end], log)
    return log.told[0]


class AcksTests(SynchronousTestCase):
    def test_every_so_many(self) -> None:
        """So many cells in order make it due; one sets the deadline."""
        acks = Acks()
        acks.received(0, 1.0, True, False)
        self.assertFalse(acks.due)
        self.assertEqual(acks.deadline, 1.0 + ACK_DELAY)
        for number in range(1, ACK_EVERY):
            self.assertFalse(acks.due)
            acks.received(number, 1.001, True, False)
        self.assertTrue(acks.due)
        self.assertEqual(written(acks, 1.002), ("ack", ACK_EVERY - 1, 1_000, 0, [(0, ACK_EVERY - 1)]))
        self.assertFalse(acks.due or acks.waiting)
        self.assertIsNone(acks.deadline)

    def test_late(self) -> None:
        """After the delay a lone cell is acknowledged."""
        acks = Acks()
        acks.received(0, 1.0, True, False)
        acks.tick(1.0)
        self.assertFalse(acks.due)
        acks.tick(1.0 + ACK_DELAY)
        self.assertTrue(acks.due)

    def test_gap_and_mark(self) -> None:
        """A gap, its filling and a congestion mark are told at once."""
        for number, marked in ((2, False), (1, True)):
            acks = Acks()
            acks.received(0, 0.0, True, False)
            acks.received(number, 0.0, True, marked)
            self.assertTrue(acks.due)
        acks = Acks()
        acks.received(0, 0.0, False, False)
        acks.received(2, 0.0, False, False)
        self.assertFalse(acks.due, "acknowledgements are not acknowledged")
        acks.received(1, 0.0, True, True)
        self.assertTrue(acks.due)
        self.assertEqual(written(acks), ("ack", 2, 0, 1, [(0, 2)]))

    def test_gaps_are_forgotten(self) -> None:
        """A gap is told 16 times at least, 32 at most; then an ACK is short again."""
        acks = Acks()
        acks.received(0, 0.0, True, False)
        told = 0
        for number in range(2, 200):
            acks.received(number, 0.0, True, False)
            ranges = written(acks)[4]
            self.assertEqual(ranges[0][1], number)
            told += len(ranges) > 1
        self.assertTrue(16 <= told <= 32, str(told))

    def test_no_room(self) -> None:
        """Without room nothing is written and it stays due."""
        acks = Acks()
        acks.received(0, 0.0, True, False)
        acks.hurry()
        room = memoryview(bytearray(10))
        self.assertEqual(acks.write(room, 4, 10, 0.0), 4)
        self.assertTrue(acks.due)

    @given(st.lists(st.integers(0, 300), unique=True, min_size=1))
    def test_model(self, numbers: list[int]) -> None:
        """An ACK names the 32 highest ranges of what was received (large numbers too)."""
        for above in (0, 1 << 31):
            acks = Acks()
            for number in numbers:
                acks.received(above + number, 0.0, True, False)
            _, largest, _, _, ranges = written(acks)
            told = {n for low, high in ranges for n in range(low, high + 1)}
            model = {above + number for number in numbers}
            self.assertEqual(largest, max(model))
            self.assertTrue(told <= model)
            self.assertLessEqual(len(ranges), ACK_RANGES)
            if len(ranges) < ACK_RANGES:
                self.assertEqual(told, model)
