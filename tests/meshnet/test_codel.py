"""When a queue stands, and how often it is said."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.codel import Codel
from meshnet.limits import QUEUE_INTERVAL, QUEUE_TARGET

LONG = 2 * QUEUE_TARGET


class CodelTests(SynchronousTestCase):
    def said(self, codel: Codel, begin: float, end: float, waited: float, short: bool = False) -> list[float]:
        """The moments of signals if a member leaves every millisecond."""
        moments = [begin + number / 1_000 for number in range(round((end - begin) * 1_000))]
        return [now for now in moments if codel.signal(waited, short, now)]

    def test_a_burst(self) -> None:
        """What waits long for less than an interval is a burst; one member that did not wait ends it."""
        codel = Codel()
        self.assertEqual(self.said(codel, 0.0, 0.09, LONG), [])
        self.assertFalse(codel.signal(0.0, False, 0.09))
        self.assertEqual(self.said(codel, 0.091, 0.18, LONG), [])
        self.assertFalse(codel.in_a_row)

    def test_a_queue_that_stands(self) -> None:
        """It is told after an interval, then after ever shorter ones, by the root of how many there were."""
        moments = self.said(Codel(), 1.0, 2.0, LONG)
        self.assertAlmostEqual(moments[0], 1.0 + QUEUE_INTERVAL, places=2)
        gaps = [after - before for before, after in pairwise(moments)]
        for number, gap in enumerate(gaps, 1):
            self.assertLess(abs(gap - QUEUE_INTERVAL / number**0.5), 0.0021)
        self.assertGreater(len(moments), 15)

    def test_short_queues(self) -> None:
        """Where no less could wait, nothing is said, however long it takes."""
        self.assertEqual(self.said(Codel(), 0.0, 1.0, 1.0, short=True), [])

    def test_it_goes_on(self) -> None:
        """A queue that stands again soon after is told at the pace that was reached; later from the start."""
        for pause, fast in ((0.3, True), (30.0, False)):
            codel = Codel()
            self.said(codel, 0.0, 2.0, LONG)
            codel.signal(0.0, False, 2.0)
            moments = self.said(codel, 2.0 + pause, 3.0 + pause, LONG)
            self.assertEqual(moments[1] - moments[0] < QUEUE_INTERVAL / 3, fast)

    @given(st.lists(st.tuples(st.floats(0, 0.05), st.floats(0, 0.2), st.booleans()), max_size=200))
    def test_any_queue(self, members: list[tuple[float, float, bool]]) -> None:
        """Nothing is said of who waited little, and nothing sooner than an interval after him."""
        codel, now, calm = Codel(), 1.0, 1.0
        for gap, waited, short in members:
            now += gap
            told = codel.signal(waited, short, now)
            if waited < QUEUE_TARGET or short:
                self.assertFalse(told or codel.in_a_row)
                calm = now
            elif told:
                self.assertGreaterEqual(now, calm + QUEUE_INTERVAL * 0.999)
