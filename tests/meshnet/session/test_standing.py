"""Queues of one's own on the way are seen, those of others are not cut for."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.session.standing import DEEPEST, LEAST_DELAY, OF_LATE, STANDS, Standing
from tests.meshnet.session.pair import Pair
from tests.meshnet.session.test_packets import Way, some

TRIP = 0.002


class StandingTests(SynchronousTestCase):
    def judge(self, standing: Standing, trip: float, begin: float, seconds: float, window: int) -> list[int]:
        """Windows that come of round trips of `trip`, one each millisecond."""
        moments = [begin + number / 1_000 for number in range(round(seconds * 1_000))]
        return [new for now in moments if (new := standing.sample(trip, trip, True, window, now))]

    def test_a_standing_queue(self) -> None:
        """Long round trips for a while cut the window to what goes without them; short bursts do not."""
        standing = Standing()
        self.assertEqual(self.judge(standing, TRIP, 0.0, 0.1, 100_000), [])
        self.assertEqual(self.judge(standing, 3 * TRIP + LEAST_DELAY, 0.1, STANDS * 0.9, 100_000), [])
        self.assertEqual(self.judge(standing, TRIP, 0.2, 0.01, 100_000), [])
        self.assertEqual(self.judge(standing, TRIP + LEAST_DELAY, 0.3, 0.11, 100_000), [50_000])
        self.assertEqual(standing.cuts, 1)

    def test_no_deeper_than_the_queue(self) -> None:
        """The cut leaves what fills the way without a queue."""
        standing = Standing()
        self.judge(standing, 0.1, 0.0, 0.1, 100_000)
        (window,) = self.judge(standing, 0.125, 0.1, 0.4, 100_000)
        self.assertEqual(window, 80_000)

    def test_not_our_queue(self) -> None:
        """Where a cut shortens nothing it is taken back, and the long way is the way."""
        standing = Standing()
        self.judge(standing, TRIP, 0.0, 0.1, 100_000)
        windows = self.judge(standing, 10 * TRIP, 0.1, 2.0, 100_000)
        self.assertEqual(windows, [50_000, 100_000])
        self.assertEqual(standing.cuts, 0)
        self.assertEqual(standing.base, 10 * TRIP)
        self.assertEqual(self.judge(standing, TRIP, 2.2, 1.0, 100_000), [])
        self.assertEqual(standing.base, TRIP)

    def test_a_window_that_is_not_full(self) -> None:
        """What one does not fill one does not cut."""
        standing = Standing()
        self.judge(standing, TRIP, 0.0, 0.1, 100_000)
        self.assertEqual(
            [standing.sample(0.1, 0.1, False, 100_000, 0.1 + n / 100) for n in range(100)], [0] * 100
        )

    def test_a_longer_way(self) -> None:
        """The shortest round trip is forgotten after a while: a way may get longer."""
        standing = Standing()
        self.judge(standing, TRIP, 0.0, 0.1, 100_000)
        for second in range(int(2 * OF_LATE) + 1):
            standing.sample(0.1, 0.1, False, 100_000, second + 1.0)
        self.assertEqual(standing.base, 0.1)

    @given(st.lists(st.tuples(st.floats(1e-6, 1.0), st.booleans(), st.floats(0.0, 0.3)), max_size=300))
    def test_any_trips(self, samples: list[tuple[float, bool, float]]) -> None:
        """No cut goes below its share, and nothing above a window that once was."""
        standing, window, now, most = Standing(), 1_000_000, 0.0, 1_000_000
        for trip, full, gap in samples:
            now += gap
            new = standing.sample(trip, trip, full, window, now)
            if new:
                self.assertGreaterEqual(new, int(window * DEEPEST))
                self.assertLessEqual(new, most)
                window = new


class PathTests(SynchronousTestCase):
    """Whole sessions over a deep queue that never marks, and over a way that somebody else fills."""

    def test_a_silent_queue(self) -> None:
        """A flow of packets that would fill megabytes keeps round trips short, and the rate."""
        trips, arrived = [], 0
        pair = Pair(1, delay=0.001, rate=10e6, queue=8 << 20)
        way = Way(pair, some(200, 1_000) * 500)
        pair.run(2.0)
        for _ in range(60):
            before = sum(way.far.bodies)
            pair.run(0.1)
            arrived += sum(way.far.bodies) - before
            trips.append(pair.a.session.path.rtt)
        self.assertTrue(way.source.packets)
        self.assertGreater(arrived, 0.9 * 6.0 * 10e6)
        self.assertLess(sorted(trips)[30], 0.008)
        self.assertGreater(pair.a.session.path.congestion.standing.cuts, 1)

    def test_a_way_that_others_fill(self) -> None:
        """Round trips that are long whatever one does cost no rate."""
        rates = []
        for late in (0.0, 0.05):
            pair = Pair(2, delay=0.005, rate=2e6, queue=1 << 20)
            way = Way(pair, some(200, 1_000) * 300)
            pair.run(3.0)
            pair.delay += late
            pair.run(8.0)
            before = sum(way.far.bodies)
            pair.run(3.0)
            rates.append((sum(way.far.bodies) - before) / 3.0)
        self.assertGreater(rates[1], 0.85 * rates[0])

    def test_noise(self) -> None:
        """Round trips that jump about are no queue."""
        rng, standing = random.Random(3), Standing()
        trips = [TRIP + rng.uniform(0, 0.02) for _ in range(5_000)]
        cuts = [standing.sample(trip, 0.01, True, 10**6, n / 1_000) for n, trip in enumerate(trips)]
        self.assertFalse(any(cuts))
