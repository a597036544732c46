"""Rings of past samples, so that graphs need no Prometheus: 1 s × 300, 10 s × 360, 1 min × 1,440, 1 h × 720.

A series is a counter (a ring keeps how much it grew in each step) or a gauge (its mean). Memory has an end:
2,820 steps of 12 bytes per series, 36 kB, which it has after a month; 10 kB after an hour, 28 kB after a day.
`now` comes from outside.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Final

RINGS: Final = (("1s", 1.0, 300), ("10s", 10.0, 360), ("1min", 60.0, 1_440), ("1h", 3_600.0, 720))
"""Name, step in seconds, places."""


class Ring:
    """The last `places` steps of one series. Room is taken as time passes: what is young is small."""

    __slots__ = ("_counts", "_places", "_slot", "_step", "_sums")

    def __init__(self, step: float, places: int) -> None:
        self._step = step
        self._places = places
        self._sums = array("d")
        self._counts = array("I")
        self._slot: int | None = None

    def add(self, now: float, value: float) -> None:
        """Adds a sample to the step that `now` (monotonic seconds, never going back) lies in."""
        slot = int(now // self._step)
        if self._slot is None:
            self._slot = slot
        more = min(self._places, slot + 1) - len(self._sums)
        if more > 0:
            self._sums.extend([0.0] * more)
            self._counts.extend([0] * more)
        for passed in range(max(self._slot + 1, slot - self._places + 1), slot + 1):
            self._sums[passed % self._places] = 0.0
            self._counts[passed % self._places] = 0
        self._slot = slot
        self._sums[slot % self._places] += value
        self._counts[slot % self._places] += 1

    def sums(self) -> list[float]:
        """What was added in each step, oldest first, the running step last."""
        return [self._sums[i] for i in self._order()]

    def means(self) -> list[float]:
        """The mean of each step, 0 where nothing was added."""
        return [self._sums[i] / max(1, self._counts[i]) for i in self._order()]

    def _order(self) -> list[int]:
        if self._slot is None:
            return []
        return [(self._slot - back) % self._places for back in reversed(range(len(self._sums)))]


class History:
    """All rings of a node, fed once a second."""

    def __init__(self) -> None:
        self._rings: dict[str, dict[str, Ring]] = {}
        self._last: dict[str, float] = {}
        self.gauges: set[str] = set()
        """Names of the series that are gauges; the others are counters."""
        self._started: float | None = None

    def feed(self, now: float, counters: Mapping[str, float], gauges: Mapping[str, float]) -> None:
        """One sample of every series. A counter's first sample counts as no growth."""
        if self._started is None:
            self._started = now
        since = now - self._started
        for name, value in counters.items():
            grown = max(0.0, value - self._last.get(name, value))
            self._last[name] = value
            self._add(name, since, grown)
        for name, value in gauges.items():
            self.gauges.add(name)
            self._add(name, since, value)

    def _add(self, name: str, now: float, value: float) -> None:
        rings = self._rings.get(name)
        if rings is None:
            rings = self._rings[name] = {ring: Ring(step, places) for ring, step, places in RINGS}
        for ring in rings.values():
            ring.add(now, value)

    def series(self, ring: str) -> dict[str, list[float]]:
        """Every series of the ring of this name, oldest first: growth of counters, means of gauges."""
        return {
            name: rings[ring].means() if name in self.gauges else rings[ring].sums()
            for name, rings in self._rings.items()
        }
