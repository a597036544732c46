"""Bytes a second of a tunnel, from one sample a second while it is up."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from meshnet.node.app import Clock, Json

SAMPLES: Final = 11
"""The last ten seconds, and where they began."""


class Rates:
    """`totals` gives bytes that came and that went, which only grow; less than before: they began anew."""

    def __init__(self, clock: Clock, totals: Callable[[], tuple[int, int]]) -> None:
        self._clock = clock
        self._totals = totals
        self._samples: deque[tuple[float, int, int]] = deque(maxlen=SAMPLES)
        self._cancel: Callable[[], None] | None = None

    def begin(self) -> None:
        """Samples from now on; twice is once."""
        if self._cancel is None:
            self._samples.clear()
            self._sample()

    def stop(self) -> None:
        """No more."""
        if self._cancel is not None:
            self._cancel()
            self._cancel = None

    def describe(self) -> Json:
        """`in_1s`, `out_1s`, `in_10s`, `out_10s`: bytes per second."""
        now = (self._clock.now(), *self._totals())
        return {
            f"{way}_{name}": self._rate(now, place, count)
            for name, count in (("1s", 2), ("10s", SAMPLES))
            for way, place in (("in", 1), ("out", 2))
        }

    def _rate(self, now: tuple[float, int, int], place: int, count: int) -> int:
        """Over the last whole seconds; over less, if there is no more."""
        if not self._samples:
            return 0
        last = self._samples[-1] if len(self._samples) > 1 else now
        first = self._samples[max(0, len(self._samples) - count)]
        seconds = last[0] - first[0]
        return max(0, round((last[place] - first[place]) / seconds)) if seconds > 0 else 0

    def _sample(self) -> None:
        self._samples.append((self._clock.now(), *self._totals()))
        self._cancel = self._clock.call_later(1.0, self._sample)
