"""Bytes a second of a tunnel, from one sample a second while it is up."""

from __future__ import annotations

from collections import deque
from typing import Final

from meshnet.node.app import Json

SAMPLES: Final = 11
"""The last ten seconds, and where they began."""


class Rates:
    """Say `sample` once a second."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int, int]] = deque(maxlen=SAMPLES)

    def clear(self) -> None:
        """Begins anew."""
        self._samples.clear()

    def sample(self, now: float, came: int, went: int) -> None:
        """Bytes so far, which only grow."""
        self._samples.append((now, came, went))

    def describe(self) -> Json:
        """`in_1s`, `out_1s`, `in_10s`, `out_10s`: bytes per second."""
        return {
            f"{way}_{name}": self._rate(place, count)
            for name, count in (("1s", 2), ("10s", SAMPLES))
            for way, place in (("in", 1), ("out", 2))
        }

    def _rate(self, place: int, count: int) -> int:
        """Over the last seconds; over less, if there are not so many yet."""
        if len(self._samples) < 2:
            return 0
        last, first = self._samples[-1], self._samples[max(0, len(self._samples) - count)]
        return max(0, round((last[place] - first[place]) / (last[0] - first[0])))
