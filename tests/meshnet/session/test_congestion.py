"""The congestion window, by itself."""

from __future__ import annotations

from math import inf

from twisted.trial.unittest import SynchronousTestCase

from meshnet.session.congestion import INITIAL_WINDOW, SMALLEST_WINDOW, Congestion


class CongestionTests(SynchronousTestCase):
    def grow(self, control: Congestion, seconds: float, start: float = 0.0, trip: float = 0.05) -> float:
        """Acknowledges a full window each round trip for `seconds`; the time reached."""
        now = start
        while now < start + seconds:
            now += trip
            full = control.window
            for _ in range(10):
                control.acknowledged(full // 10, now - trip, now, trip, 1_200, full)
        return now

    def measure(self, control: Congestion, trip: float, number: int, following: int) -> None:
        """A round trip while little was in flight."""
        control.sample(trip, number, following, smoothed=trip, now=0.0, segment=1_200, in_flight=0)

    def test_slow_start(self) -> None:
        """Doubles each round trip while it is full."""
        control = Congestion()
        self.assertEqual(control.window, INITIAL_WINDOW)
        self.grow(control, 0.049)
        self.assertEqual(control.window, 2 * INITIAL_WINDOW)
        self.assertTrue(control.slow_start)

    def test_idle_does_not_grow(self) -> None:
        """A window that is hardly used stays."""
        control = Congestion()
        for i in range(100):
            control.acknowledged(1_200, i, i + 0.05, 0.05, 1_200, 1_200)
        self.assertEqual(control.window, INITIAL_WINDOW)

    def test_once_per_round_trip(self) -> None:
        """Loss cuts to 0.7 and a mark to 0.85, both at most once per round trip."""
        for marked, factor in ((False, 0.7), (True, 0.85)):
            control = Congestion()
            self.grow(control, 0.2)
            window = control.window
            control.cut(1.0, 1.05, marked=marked)
            self.assertEqual(control.window, int(window * factor))
            control.cut(1.04, 1.06, marked=marked)
            control.cut(1.05, 1.07, marked=not marked)
            self.assertEqual((control.window, control.events), (int(window * factor), 1))
            control.cut(1.051, 1.1, marked=marked)
            self.assertEqual(control.events, 2)

    def test_cubic(self) -> None:
        """After a cut it comes back to the old window quickly, then probes carefully, then faster."""
        control = Congestion()
        self.grow(control, 0.3)
        peak = control.window
        control.cut(0.31, 0.31, marked=False)
        now = self.grow(control, 20.0, 0.36)
        self.assertGreater(control.window, peak)
        window = control.window
        self.grow(control, 5.0, now)
        self.assertGreater(control.window, 1.1 * window)

    def test_floor(self) -> None:
        """It never falls below a few of the smallest cells."""
        control = Congestion()
        for i in range(50):
            control.cut(2 * i + 1.0, 2 * i + 1.5, marked=False)
        self.assertEqual(control.window, SMALLEST_WINDOW)
        self.grow(control, 0.3)
        control.collapse()
        self.assertEqual(control.window, SMALLEST_WINDOW)

    def test_early_exit(self) -> None:
        """Slow start ends when round trips grow for some rounds, not for one odd sample."""
        for slower, ends in ((0.0, False), (0.02, True)):
            control, number = Congestion(), 0
            for trip_round in range(14):
                trip = 0.05 + (slower * max(0, trip_round - 3))
                following = number + 12
                for _ in range(12):
                    self.measure(control, trip, number, following)
                    number += 1
                control.acknowledged(1_000, trip_round, trip_round + 0.05, trip, 1_200, control.window)
            self.assertEqual(not control.slow_start, ends)
        control = Congestion()
        self.measure(control, 0.05, 0, 10)
        self.measure(control, 5.0, 1, 10)
        self.assertTrue(control.slow_start and control._threshold == inf)
