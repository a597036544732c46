"""Sets of effects: exactly the legal ones, and a sample that is the same each time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lab.simulation import subsets


@st.composite
def orders(draw: st.DrawFn, most: int = 8) -> list[int]:
    """What each effect needs of those before it."""
    count = draw(st.integers(0, most))
    return [draw(st.integers(0, (1 << place) - 1)) for place in range(count)]


def legal(needs: list[int], mask: int) -> bool:
    return all(mask & needed == needed for place, needed in enumerate(needs) if mask >> place & 1)


class SubsetsTests(SynchronousTestCase):
    @given(orders())
    def test_all(self, needs: list[int]) -> None:
        """All legal sets, each once."""
        wanted = [mask for mask in range(1 << len(needs)) if legal(needs, mask)]
        found = subsets.every(needs, 1 << 8)
        assert found is not None
        self.assertEqual(sorted(found), wanted)
        self.assertIsNone(subsets.every(needs, len(wanted) - 1) if needs else None)

    @given(orders(40), st.integers(0, 3))
    def test_some(self, needs: list[int], seed: int) -> None:
        """Samples are legal, hold the extremes and each single loss, and come again with the seed."""
        found = list(subsets.some(needs, 50, seed))
        self.assertTrue(all(legal(needs, mask) for mask in found))
        whole = (1 << len(needs)) - 1
        self.assertTrue({0, whole} <= set(found))
        for place in range(len(needs)):
            self.assertIn(subsets.without(needs, whole & ~(1 << place)), found)
        self.assertEqual(found, list(subsets.some(needs, 50, seed)))

    def test_limits(self) -> None:
        """2^14 sets are all looked at; with one effect more there are samples."""
        self.assertEqual(len(set(subsets.all_or_some([0] * 14))), 1 << 14)
        found = list(subsets.all_or_some([0] * 15))
        self.assertGreater(len(found), subsets.SAMPLES)
        self.assertLess(len(found), 1 << 14)
