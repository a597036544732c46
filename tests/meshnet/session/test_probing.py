"""What probes tell of a circuit: from counts and times, right, late, doubled or invented."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.session.probing import OPEN, Probing

COUNT = st.integers(0, (1 << 62) - 1)


class ProbingTests(SynchronousTestCase):
    """Both sides."""

    def test_losses(self) -> None:
        """Of a hundred cells each way ten are lost there and twenty back; later reports outweigh it."""
        probing = Probing()
        probing.told(probing.ask(1, 0.0), 0, 1, 1, 1, 0.1)
        probing.told(probing.ask(101, 10.0), 0, 91, 101, 81, 10.1)
        self.assertAlmostEqual(probing.lost_there, 0.1)
        self.assertAlmostEqual(probing.lost_back, 0.2)
        for step in range(1, 30):
            counts = 101 + 100 * step, 91 + 100 * step
            token = probing.ask(counts[0], 10.0 + step)
            probing.told(token, 0, counts[1], counts[0], counts[1] - 10, 10.1 + step)
        self.assertLess(probing.lost_there, 0.001)
        self.assertLess(probing.lost_back, 0.001)

    def test_times(self) -> None:
        """The answering side's clock begins with its first probe; how clocks differ does not matter."""
        near, far = Probing(), Probing()
        for sent in (5.0, 15.0, 25.0):
            token = near.ask(1, sent)
            near.told(token, far.time(1_000_000.0 + sent + 0.03), 1, 1, 1, sent + 0.04)
        self.assertAlmostEqual(near.trip, 0.04)
        self.assertAlmostEqual(near.delays.there + near.delays.back, 0.04, places=5)
        self.assertLessEqual(abs(near.delays.there - 0.03), near.delays.uncertainty)
        self.assertLess(near.delays.uncertainty, 0.03)

    def test_strays(self) -> None:
        """Answers to nothing, doubled ones and those that come too late say nothing."""
        probing = Probing()
        first = probing.ask(1, 0.0)
        for number in range(OPEN):
            probing.ask(2 + number, 1.0 + number)
        self.assertIsNone(probing.told(first, 0, 1, 1, 1, 20.0))
        self.assertIsNone(probing.told(999, 0, 1, 1, 1, 20.0))
        self.assertIsNotNone(probing.told(first + 1, 0, 1, 1, 1, 20.0))
        self.assertIsNone(probing.told(first + 1, 0, 1, 1, 1, 20.0))
        self.assertEqual((probing.asked, probing.answered), (OPEN + 1, 1))

    @given(st.lists(st.tuples(COUNT, COUNT, COUNT), min_size=1, max_size=20))
    def test_invented(self, reports: list[tuple[int, int, int]]) -> None:
        """Whatever the other side claims, shares stay shares, and nothing raises."""
        probing = Probing()
        for number, (time, received, sent) in enumerate(reports):
            token = probing.ask(10 * number, float(number))
            probing.told(token, time, received, sent, 10 * number, number + 0.5)
            self.assertTrue(0.0 <= probing.lost_there <= 1.0)
            self.assertTrue(0.0 <= probing.lost_back <= 1.0)
