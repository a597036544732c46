"""Rings of past samples."""

from __future__ import annotations

from array import array
from sys import getsizeof

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.node.rings import RINGS, History, Ring


class RingTests(SynchronousTestCase):
    def test_sums_and_gaps(self) -> None:
        """Samples of one step add up; steps without a sample are zero."""
        ring = Ring(10.0, 5)
        for now, value in ((0, 1), (9.9, 2), (10, 4), (35, 8)):
            ring.add(now, value)
        self.assertEqual(ring.sums(), [3, 4, 0, 8])

    def test_wraps(self) -> None:
        """Only the last places stay, also after a long silence."""
        ring = Ring(1.0, 3)
        for now in range(5):
            ring.add(now, now)
        self.assertEqual(ring.sums(), [2, 3, 4])
        ring.add(1_000_000, 7)
        self.assertEqual(ring.sums(), [0, 0, 7])

    @given(steps=st.lists(st.tuples(st.floats(0, 50), st.integers(0, 9)), min_size=1, max_size=40))
    def test_against_a_plain_list(self, steps: list[tuple[float, int]]) -> None:
        """A ring says what a list of everything would say."""
        ring, now, everything = Ring(5.0, 8), 0.0, {}
        for wait, value in steps:
            now += wait
            ring.add(now, value)
            slot = int(now // 5.0)
            everything[slot] = everything.get(slot, 0) + value
        last = int(now // 5.0)
        expected = [everything.get(slot, 0) for slot in range(max(0, last - 7), last + 1)]
        assert ring.sums() == expected

    def test_room(self) -> None:
        """What is young takes little room; none takes more than its places, whenever it begins."""
        for first in (0, 3, 1_000):
            ring, young = Ring(1.0, 300), getsizeof(array("d", [0.0] * (first + 16)))
            for second in range(10):
                ring.add(first + second, 1.0)
            self.assertLessEqual(getsizeof(ring._sums), min(young, getsizeof(array("d", [0.0] * 320))))
            for second in range(10, 2_000):
                ring.add(first + second, 1.0)
            self.assertEqual((len(ring._sums), len(ring._counts)), (300, 300))
            self.assertEqual(ring.sums(), [1.0] * 300)


class HistoryTests(SynchronousTestCase):
    def test_counters_and_gauges(self) -> None:
        """Counters show growth, gauges their mean; a counter that starts again shows no negative growth."""
        history = History()
        for second, (count, level) in enumerate([(100, 1), (110, 2), (5, 3), (6, 4)]):
            history.feed(1_000.5 + second, {"bytes": count}, {"links": level})
        self.assertEqual(history.series("1s"), {"bytes": [0, 10, 0, 1], "links": [1, 2, 3, 4]})
        self.assertEqual(history.series("10s"), {"bytes": [11], "links": [2.5]})

    def test_the_four_rings(self) -> None:
        """Their steps and lengths are the documented ones."""
        self.assertEqual(
            [(step, places) for _, step, places in RINGS], [(1, 300), (10, 360), (60, 1440), (3600, 720)]
        )
