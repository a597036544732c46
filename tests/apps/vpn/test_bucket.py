"""The rate limit of a client, in virtual time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from apps.vpn.bucket import BURST_SECONDS, LEAST_BURST, Bucket

RATE = 10_000_000


class BucketTests(SynchronousTestCase):
    def test_rate(self) -> None:
        """Over ten virtual seconds of flood the rate passes, and a burst more; at most one packet beside."""
        bucket, passed = Bucket(RATE, 0.0), 0
        for step in range(100_000):
            if bucket.take(1_500, step / 10_000):
                passed += 1_500
        self.assertLess(abs(passed - (RATE * 10 + bucket.burst)), 2 * 1_500)
        self.assertGreater(bucket.refused, 0)

    def test_superpackets(self) -> None:
        """Packets larger than what is left pass on credit, and are paid for afterwards."""
        bucket = Bucket(1_000, 0.0)
        self.assertEqual(bucket.burst, LEAST_BURST)
        for _ in range(3):
            self.assertTrue(bucket.take(60_000, 0.0))
        self.assertFalse(bucket.take(40, 0.0))
        debt = 180_000 - LEAST_BURST
        self.assertAlmostEqual(bucket.wait(0.0), (debt + 1) / 1_000)
        self.assertFalse(bucket.take(40, debt / 1_000))
        self.assertTrue(bucket.take(40, (debt + 1) / 1_000))

    def test_idle(self) -> None:
        """Who sends nothing saves up a burst, no more."""
        bucket = Bucket(RATE, 0.0)
        bucket.take(bucket.burst, 0.0)
        self.assertGreater(bucket.wait(0.0), 0)
        bucket.wait(1_000.0)
        self.assertEqual(bucket._held, RATE * BURST_SECONDS)

    def test_no_limit(self) -> None:
        """Rate 0 lets all through; another rate holds from then on."""
        bucket = Bucket(0, 0.0)
        self.assertTrue(all(bucket.take(60_000, 0.0) for _ in range(1_000)))
        bucket.change(1_000)
        while bucket.take(60_000, 0.0):
            pass
        self.assertEqual(bucket.refused, 1)

    @given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(0, 65_535)), max_size=50))
    def test_clocks(self, steps: list[tuple[float, int]]) -> None:
        """Whatever the clock does, it never holds more than a burst, and never waits less than nothing."""
        bucket = Bucket(RATE, 0.0)
        for now, size in steps:
            bucket.take(size, now)
            self.assertLessEqual(bucket._held, bucket.burst)
            self.assertGreaterEqual(bucket.wait(now), 0.0)
