"""What is kept of circuits: for how long, and of how many ways."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from meshnet.limits import WAYS_MEASURED
from meshnet.topology.measured import HOLDS, Measurements
from tests.support.topology import name


class MeasurementsTests(SynchronousTestCase):
    """The memory of ways."""

    def test_holds(self) -> None:
        """For ten minutes after the last circuit that went there; the newest counts."""
        kept, way = Measurements(), (name(1), name(2))
        kept.note(way, 0.1, None, 0.0)
        kept.note(way, 0.2, 0.5, 300.0)
        self.assertEqual(kept.known(HOLDS + 1.0)[way].delay, 0.1)
        self.assertEqual(dict(kept.known(HOLDS + 300.0)), {})
        self.assertEqual(len(kept), 0)

    def test_bounded(self) -> None:
        """Of so many ways and no more; those noted last stay."""
        kept = Measurements()
        for number in range(WAYS_MEASURED + 10):
            kept.note((name(1), name(2 + number)), 0.1, None, float(number) / 1_000)
        self.assertEqual(len(kept), WAYS_MEASURED)
        self.assertIn((name(1), name(WAYS_MEASURED + 11)), kept.known(1.0))
        self.assertNotIn((name(1), name(2)), kept.known(1.0))
