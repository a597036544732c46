"""How much a lane puts together and sends ahead, by its rate."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.limits import LARGEST_RECORD
from meshnet.link.pace import LEAST_AHEAD, LEAST_RECORD, MEASURED_SECONDS, MOST_UNSENT, Pace
from meshnet.link.record import BUFFER_SIZE


class PaceTests(SynchronousTestCase):
    def run_at(self, pace: Pace, rate: float, begin: float, seconds: float) -> None:
        """Sends at this rate, measured whenever that is due."""
        for number in range(round(seconds / MEASURED_SECONDS)):
            self.sent += round(rate * MEASURED_SECONDS)
            now = begin + (number + 1) * MEASURED_SECONDS
            pace.short_at = now
            assert now > pace.due - 1e-6
            pace.measure(self.sent, now)

    def setUp(self) -> None:
        self.sent = 0

    def test_fast(self) -> None:
        """A fast lane has full records, the whole buffer and the largest unsent queue."""
        pace = Pace(BUFFER_SIZE)
        self.assertEqual((pace.record, pace.burst, pace.unsent), (LARGEST_RECORD, BUFFER_SIZE, MOST_UNSENT))
        self.run_at(pace, 200e6, 0.0, 0.1)
        self.assertEqual((pace.record, pace.burst, pace.unsent), (LARGEST_RECORD, BUFFER_SIZE, MOST_UNSENT))
        self.assertLess(abs(pace.rate - 200e6), 1e6)

    def test_slow(self) -> None:
        """A slow one has little of each."""
        pace = Pace(BUFFER_SIZE)
        self.run_at(pace, 1e6, 0.0, 0.1)
        self.assertEqual((pace.record, pace.burst, pace.unsent), (LEAST_RECORD, LEAST_AHEAD, LEAST_AHEAD))

    def test_little_to_send(self) -> None:
        """A lane whose carrier takes all of the little there is closes no record early; but it asks for a
        short queue in the kernel, which is how it will learn."""
        pace = Pace(BUFFER_SIZE)
        self.run_at(pace, 1e6, 0.0, 0.1)
        pace.measure(self.sent, 3.0)
        self.assertEqual((pace.record, pace.burst, pace.unsent), (LARGEST_RECORD, BUFFER_SIZE, LEAST_AHEAD))

    def test_between(self) -> None:
        """2 ms and 5 ms of the rate."""
        pace = Pace(BUFFER_SIZE)
        self.run_at(pace, 10e6, 0.0, 0.1)
        for value, wanted in ((pace.record, 20_000), (pace.burst, 50_000), (pace.unsent, 50_000)):
            self.assertLess(abs(value - wanted), 0.01 * wanted)

    def test_pauses(self) -> None:
        """A pause of a second changes nothing, a long one everything; the first burst says it anew."""
        pace = Pace(BUFFER_SIZE)
        self.run_at(pace, 200e6, 0.0, 1.0)
        pace.measure(self.sent, 1.9)
        self.assertEqual(pace.record, LARGEST_RECORD)
        pace.short_at = 10.0
        pace.measure(self.sent, 10.0)
        self.assertEqual(pace.record, LEAST_RECORD)
        self.run_at(pace, 200e6, 10.0, MEASURED_SECONDS)
        self.assertEqual(pace.record, LARGEST_RECORD)

    def test_unsent_changes_rarely(self) -> None:
        """It is a system call to say it: small changes are not said."""
        pace = Pace(BUFFER_SIZE)
        self.run_at(pace, 10e6, 0.0, 0.1)
        unsent = pace.unsent
        self.run_at(pace, 14e6, 0.1, 2.0)
        self.assertEqual(pace.unsent, unsent)
        self.run_at(pace, 20e6, 2.2, 0.1)
        self.assertGreater(pace.unsent, 90_000)

    @given(st.lists(st.tuples(st.floats(MEASURED_SECONDS, 5.0), st.integers(0, 10**9)), max_size=50))
    def test_bounds(self, steps: list[tuple[float, int]]) -> None:
        """Whatever is sent when, all three stay within theirs."""
        pace, now, sent = Pace(BUFFER_SIZE), 0.0, 0
        for seconds, size in steps:
            now, sent = now + seconds, sent + size
            pace.measure(sent, now)
            self.assertTrue(LEAST_RECORD <= pace.record <= LARGEST_RECORD)
            self.assertTrue(LEAST_AHEAD <= pace.burst <= BUFFER_SIZE)
            self.assertTrue(LEAST_AHEAD <= pace.unsent <= MOST_UNSENT)
