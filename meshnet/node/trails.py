"""The past of single links and paths: rings for each of those that were used lately (docs/operations.md).

A link is a neighbour, a path the relays and the end of circuits begun here. Each has the rings of `rings.py`,
at most 16 links and 16 paths; one of an hour takes some 90 kB, an old one 330 kB. A new one takes the place
of the one that said nothing for longest, if that is silent now. Where circuits go is written nowhere but
here, in memory, and ends with the node. Nothing is asked per cell.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from attrs import define, field

from meshnet.limits import TRAILS
from meshnet.node.app import Json
from meshnet.node.rings import History

GAUGES: Final = (
    *("rtt_ms", "loss", "delivery_rate"),
    *("delay_there_ms", "delay_back_ms", "delay_uncertainty_ms", "lost_there", "lost_back"),
)
"""What is measured; all else is counted."""
SILENT: Final = 10.0  # seconds after which a trail may be given up for another


def link_sample(link: Mapping[str, Any]) -> dict[str, float | None]:
    """What is kept of a link, out of the router's pulse."""
    return {name: link.get(name) for name in ("rtt_ms", "loss", "bytes_in", "bytes_out")}


@define(eq=False)
class _Trail:
    seen: float
    history: History = field(factory=History)


class Trails:
    """Rings by key: of a link its neighbour, of a path its nodes, as hex digits."""

    def __init__(self) -> None:
        self._trails: dict[tuple[str, ...], _Trail] = {}

    def __len__(self) -> int:
        return len(self._trails)

    def feed(self, now: float, samples: Iterable[tuple[tuple[str, ...], Mapping[str, float | None]]]) -> None:
        """A sample of each that is there now; called once a second. What is None was not measured."""
        for key, values in samples:
            trail = self._trails.get(key)
            if trail is None:
                if len(self._trails) >= TRAILS and not self._give_up(now):
                    continue
                trail = self._trails[key] = _Trail(now)
            trail.seen = now
            known = {name: float(value) for name, value in values.items() if value is not None}
            gauges = {name: value for name, value in known.items() if name in GAUGES}
            counters = {name: value for name, value in known.items() if name not in GAUGES}
            trail.history.feed(now, counters, gauges)

    def _give_up(self, now: float) -> bool:
        oldest = min(self._trails, key=lambda key: self._trails[key].seen)
        if now - self._trails[oldest].seen < SILENT:
            return False
        del self._trails[oldest]
        return True

    def shown(self, ring: str, now: float) -> list[Json]:
        """For each its `nodes`, how long it has been silent, its `series` and which of these are `gauges`."""
        return [
            {
                "nodes": list(key),
                "silent_seconds": round(now - trail.seen, 1),
                "gauges": sorted(trail.history.gauges),
                "series": trail.history.series(ring),
            }
            for key, trail in self._trails.items()
        ]
