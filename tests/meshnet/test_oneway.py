"""One-way delays: the truth lies within what is stated, whatever clocks and queues do."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.oneway import DRIFT, SAMPLES, WINDOW, OneWay

PING_EVERY = 5.0
FLOAT = 1e-6  # what numbers as large as clocks lose


class Peer:
    """A neighbour behind a simulated path: its clock is `skew` off and drifts; delays differ each way."""

    def __init__(
        self, seed: int, skew: float, drift: float, there: float, back: float, jitter: float
    ) -> None:
        self.random = random.Random(seed)
        self.skew, self.drift = skew, drift
        self.least_there, self.least_back, self.jitter = there, back, jitter
        self.now = 1_000.0

    def clock(self, now: float) -> float:
        """What it shows, in whole microseconds."""
        return int((now + self.skew + self.drift * now) * 1e6) / 1e6

    def ping(self, delays: OneWay) -> tuple[float, float, float]:
        """One ping; returns the true delays there and back, and the clocks' true difference."""
        there = self.least_there + self.random.expovariate(1) * self.jitter
        back = self.least_back + self.random.expovariate(3) * self.jitter / 3
        sent = self.now
        delays.answered(sent, self.clock(sent + there), sent + there + back)
        self.now += PING_EVERY
        return there, back, self.skew + self.drift * (sent + there)


class OneWayTests(SynchronousTestCase):
    """One neighbour."""

    @given(
        st.integers(0, 1 << 30),
        st.floats(-1e6, 1e6),
        st.floats(-0.9 * DRIFT, 0.9 * DRIFT),
        st.floats(0, 2),
        st.floats(0, 2),
        st.floats(0, 0.5),
    )
    def test_the_truth_is_within(
        self, seed: int, skew: float, drift: float, there: float, back: float, jitter: float
    ) -> None:
        """Skew, drift, asymmetric paths, jitter: each delay and the offset are right within ± uncertainty,
        and that is no more than half of this round trip."""
        peer, delays = Peer(seed, skew, drift, there, back, jitter), OneWay()
        for _ in range(80):
            true_there, true_back, true_offset = peer.ping(delays)
            slack = delays.uncertainty + FLOAT + 2 * DRIFT * (true_there + true_back)
            self.assertLessEqual(abs(delays.there - true_there), slack)
            self.assertLessEqual(abs(delays.back - true_back), slack)
            self.assertLessEqual(abs(delays.offset - true_offset), slack)
            self.assertAlmostEqual(delays.there + delays.back, true_there + true_back, places=5)
            self.assertLessEqual(delays.uncertainty, (true_there + true_back) / 2 * (1 + 1e-3) + 2 * FLOAT)
        self.assertEqual(delays.steps, 0)

    def test_jitter_helps(self) -> None:
        """Among many answers some were fast: the uncertainty falls to half of the least delays together."""
        peer, delays = Peer(1, 17.0, 0.0, 0.010, 0.010, 0.1), OneWay()
        for _ in range(60):
            peer.ping(delays)
        self.assertLess(delays.uncertainty, 0.030)
        self.assertGreater(delays.uncertainty, 0.0099)

    def test_asymmetry(self) -> None:
        """A queue that fills one way only shows on that way, once its path was seen empty."""
        peer, delays = Peer(1, 3.0, 0.0, 0.005, 0.005, 0.0), OneWay()
        peer.ping(delays)
        peer.least_there = 0.5
        for _ in range(10):
            peer.ping(delays)
        self.assertLess(abs(delays.there - 0.5), 0.02)
        self.assertLess(abs(delays.back - 0.005), 0.02)

    @given(st.integers(0, 1 << 30), st.floats(-1e5, 1e5).filter(lambda step: abs(step) > 0.2))
    def test_a_step_is_noticed(self, seed: int, step: float) -> None:
        """A clock that is set by more than the round trip: the window begins anew, and is right again."""
        peer, delays = Peer(seed, 0.0, 0.0, 0.02, 0.05, 0.01), OneWay()
        for _ in range(20):
            peer.ping(delays)
        peer.skew += step
        for _ in range(3):
            there, back, _ = peer.ping(delays)
            if abs(step) > 1:
                self.assertEqual(delays.steps, 1)
                self.assertLessEqual(abs(delays.there - there), delays.uncertainty + FLOAT)
                self.assertLessEqual(abs(delays.back - back), delays.uncertainty + FLOAT)

    def test_a_small_step_is_forgotten_with_the_window(self) -> None:
        """Less than the round trip cannot be told from a queue at first; when the window has moved on it is
        right again."""
        peer, delays = Peer(1, 0.0, 0.0, 0.05, 0.05, 0.0), OneWay()
        for _ in range(10):
            peer.ping(delays)
        peer.skew += 0.04
        for _ in range(int(WINDOW / PING_EVERY) + 5):
            there, back, _ = peer.ping(delays)
        self.assertLessEqual(abs(delays.there - there), delays.uncertainty + FLOAT)
        self.assertLessEqual(abs(delays.back - back), delays.uncertainty + FLOAT)

    @given(
        st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, (1 << 64) - 1), st.floats(0, 1e4)), max_size=30)
    )
    def test_any_times(self, answers: list[tuple[float, int, float]]) -> None:
        """Whatever a hostile neighbour says of its clock: numbers stay numbers, memory stays bounded."""
        delays = OneWay()
        for sent, time, trip in answers:
            delays.answered(sent, time / 1e6, sent + trip)
            self.assertTrue(delays.known)
            self.assertGreaterEqual(delays.uncertainty, 0)
            self.assertEqual(delays.there, delays.there)

    def test_memory(self) -> None:
        """However often it is pinged."""
        peer, delays = Peer(1, 0.0, 1e-4, 0.1, 0.1, 1.0), OneWay()
        for _ in range(2_000):
            peer.ping(delays)
            peer.now -= PING_EVERY * 0.99
        self.assertLessEqual(len(delays._samples), SAMPLES)
        delays.forget()
        self.assertFalse(delays.known)
