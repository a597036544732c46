"""The past of links and paths: what is kept of which, and that it has an end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.limits import TRAILS
from meshnet.node.trails import SILENT, Trails


class TrailTests(SynchronousTestCase):
    """Rings by key."""

    def test_kinds(self) -> None:
        """Counters are shown as growth, gauges as means; what was not measured leaves no mark."""
        trails = Trails()
        for second in range(25):
            trip = 20.0 if second >= 10 else None
            trails.feed(float(second), [(("aa",), {"bytes_in": 100.0 * second, "rtt_ms": trip})])
        (shown,) = trails.shown("1s", 25.0)
        self.assertEqual((shown["nodes"], shown["silent_seconds"]), (["aa"], 1.0))
        self.assertEqual(shown["gauges"], ["rtt_ms"])
        self.assertEqual(shown["series"]["bytes_in"], [0.0] + [100.0] * 24)
        self.assertEqual(shown["series"]["rtt_ms"][-15:], [20.0] * 15)
        (slow,) = trails.shown("10s", 25.0)
        self.assertEqual(slow["series"]["bytes_in"], [900.0, 1_000.0, 500.0])
        self.assertEqual(slow["series"]["rtt_ms"][-1], 20.0)

    def test_room(self) -> None:
        """Who is new waits until another has fallen silent, and then takes the place of the most silent."""
        trails = Trails()
        full = [((str(number),), {"bytes_in": 1.0}) for number in range(TRAILS)]
        trails.feed(0.0, full)
        trails.feed(1.0, [*full[1:], (("new",), {"bytes_in": 1.0})])
        self.assertEqual(len(trails), TRAILS)
        self.assertNotIn(["new"], [each["nodes"] for each in trails.shown("1s", 1.0)])
        trails.feed(SILENT, [*full[1:], (("new",), {"bytes_in": 1.0})])
        kept = [each["nodes"] for each in trails.shown("1s", SILENT)]
        self.assertIn(["new"], kept)
        self.assertNotIn(["0"], kept)

    @given(st.lists(st.tuples(st.integers(0, 40), st.floats(0, 30)), max_size=60))
    def test_bound(self, said: list[tuple[int, float]]) -> None:
        """However links come and go, no more than so many are kept."""
        trails, now = Trails(), 0.0
        for number, wait in said:
            now += wait
            trails.feed(now, [((str(number),), {"bytes_in": now})])
            assert len(trails) <= TRAILS
