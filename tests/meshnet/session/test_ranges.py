"""Ranges against a set of integers."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.session.ranges import Ranges

STEPS = st.lists(st.tuples(st.sampled_from("+-p"), st.integers(0, 40), st.integers(0, 12)), max_size=40)


class RangesTests(SynchronousTestCase):
    @given(STEPS)
    def test_model(self, steps: list[tuple[str, int, int]]) -> None:
        """It holds what a set would, as few ascending ranges as possible."""
        ranges, model = Ranges(), set()
        for what, start, size in steps:
            if what == "+":
                ranges.add(start, start + size)
                model |= set(range(start, start + size))
            elif what == "-":
                ranges.remove(start, start + size)
                model -= set(range(start, start + size))
            else:
                end = ranges.pop_from(start)
                expected = start
                while expected in model:
                    expected += 1
                self.assertEqual(end, max(expected, start))
                model = {number for number in model if number >= end}
            self.assertEqual({n for low, high in ranges for n in range(low, high)}, model)
            self.assertEqual([number in ranges for number in range(60)], [n in model for n in range(60)])
            pairs = list(ranges)
            self.assertTrue(all(low < high for low, high in pairs))
            self.assertTrue(all(one[1] < two[0] for one, two in pairwise(pairs)))
            self.assertEqual(len(ranges), len(pairs))

    def test_remove_all(self) -> None:
        """What is in another set goes."""
        one, two = Ranges(), Ranges()
        one.add(0, 100)
        two.add(10, 20)
        two.add(90, 120)
        one.remove_all(two)
        self.assertEqual(list(one), [(0, 10), (20, 90)])
        one.clear()
        self.assertEqual(len(one), 0)
