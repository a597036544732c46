"""The model of large networks, at small sizes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from lab.benches import disjoint
from lab.load import scale


class Sizes(SynchronousTestCase):
    """What grows, and what does not."""

    def test_served(self) -> None:
        """Ten times the nodes: a whole view costs about ten times, a small node's questions hardly more."""
        rows = [scale.served(count, 3) for count in (100, 1_000)]
        grown = {what: rows[1][what] / rows[0][what] for what in rows[0] if what.endswith("bytes_per_s")}
        self.assertTrue(7 < grown["whole_view_bytes_per_s"] <= 10.5, grown)
        self.assertTrue(9 < grown["service_in_bytes_per_s"] < 11, grown)
        self.assertLess(grown["small_bytes_per_s"], 2.5)

    def test_flooded(self) -> None:
        """Every node holds every record, and the cost is counted."""
        row = scale.flooded(12, 60.0)
        self.assertEqual(row["records_held"], 12)
        self.assertGreater(row["flooded_bytes_per_s"], 0)

    def test_powers(self) -> None:
        """A value that doubles with the size has power 1, one that stays 0."""
        rows: list[dict[str, float]] = [{"nodes": 10, "a": 3, "b": 7}, {"nodes": 20, "a": 6, "b": 7}]
        self.assertEqual(scale.powers(rows), {"a": 1.0, "b": 0.0})


class Searches(SynchronousTestCase):
    """Ours beside those of libraries, where they are installed."""

    def test_alike(self) -> None:
        """All that can run find ways of the same cost."""
        rows = disjoint.compare(200, 5)
        self.assertEqual(rows[0]["search"], "own")
        self.assertEqual(len({row["cost"] for row in rows}), 1)
