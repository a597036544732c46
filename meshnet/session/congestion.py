"""Congestion control of one circuit: CUBIC (RFC 9438) with an early way out of slow start (RFC 9406).

Counts bytes of sealed cells. Loss cuts the window to 0.7, cells marked by a relay (as ECN-CE, RFC 8511) to
0.85, at most once per round trip; a queue of our own that stands on the way, to what the path needs without
it (`standing.py`); losing everything for long, to the minimum. The window grows only
while it is what holds the sender back. It never looks at packet numbers but to tell rounds apart.
"""

from __future__ import annotations

from math import inf
from typing import Final

from meshnet.limits import SMALLEST_CELL
from meshnet.session.standing import Standing

INITIAL_WINDOW: Final = 10 * SMALLEST_CELL
SMALLEST_WINDOW: Final = 4 * SMALLEST_CELL
LOSS_FACTOR: Final = 0.7
MARK_FACTOR: Final = 0.85
_C: Final = 0.4  # segments per second³
_FRIENDLY: Final = 3 * (1 - LOSS_FACTOR) / (1 + LOSS_FACTOR)

# HyStart++ (RFC 9406 §4.3)
_ROUND_SAMPLES: Final = 8
_LEAST_RISE: Final = 0.004
_MOST_RISE: Final = 0.016
_CAREFUL_DIVISOR: Final = 4
_CAREFUL_ROUNDS: Final = 5


class Congestion:
    """`window` is how many bytes may be in flight; `events` counts the times it was cut."""

    __slots__ = (
        "_epoch", "_friendly", "_k", "_peak", "_recovery_from", "_start", "_threshold", "events",
        "standing", "window",
    )  # fmt: skip

    def __init__(self) -> None:
        self.window = INITIAL_WINDOW
        self.events = 0
        self._threshold: float = inf
        self._recovery_from = -inf  # cells sent until then belong to the last event
        self._epoch: float | None = None
        self._peak = 0.0  # the window before the last cut, in bytes
        self._k = 0.0
        self._friendly = 0.0
        self._start = _SlowStart()
        self.standing = Standing()

    @property
    def slow_start(self) -> bool:
        """Whether the window doubles each round trip."""
        return self.window < self._threshold

    def acknowledged(
        self, size: int, sent_at: float, now: float, trip: float, segment: int, in_flight: int
    ) -> None:
        """`size` bytes arrived, the newest sent at `sent_at`; `in_flight` bytes before that.

        `trip` is the smoothed round trip, `segment` the present size of a cell.
        """
        if sent_at <= self._recovery_from:
            return
        if self.window < self._threshold:
            if self.window < 2 * in_flight:
                self.window += size // self._start.divisor
        elif in_flight + 2 * segment >= self.window:
            self._avoid(size, now, trip, segment)
        else:
            self._epoch = None  # time in which the app had nothing to send does not count

    def sample(
        self,
        trip: float,
        number: int,
        next_number: int,
        *,
        smoothed: float,
        now: float,
        segment: int,
        in_flight: int,
    ) -> None:
        """A round trip of `trip` seconds, measured on cell `number`, when `in_flight` bytes were, and what it
        is on the average; the next cell is `next_number`, and `segment` the present size of one."""
        if self.window < self._threshold and self._start.sample(trip, number, next_number):
            self._threshold = self.window
        full = in_flight + 2 * segment >= self.window
        window = self.standing.sample(trip, smoothed, full, self.window, now)
        if window:
            self._peak = (self.window + window) / 2
            self.window = max(window, SMALLEST_WINDOW)
            self._threshold = self.window
            self._recovery_from = now
            self._epoch = None

    def cut(self, sent_at: float, now: float, *, marked: bool) -> None:
        """A cell sent at `sent_at` was lost, or arrived `marked`; at most one cut per round trip."""
        if sent_at <= self._recovery_from:
            return
        self.events += 1
        self._recovery_from = now
        self._epoch = None
        window = float(self.window)
        # Fast convergence: a window that did not come back to its peak leaves room to others.
        self._peak = window * (1 + LOSS_FACTOR) / 2 if window < self._peak else window
        factor = MARK_FACTOR if marked else LOSS_FACTOR
        self.window = max(SMALLEST_WINDOW, int(window * factor))
        self._threshold = self.window

    def collapse(self) -> None:
        """Nothing has come through for long (RFC 9002 §7.6)."""
        self.window = SMALLEST_WINDOW
        self._recovery_from = -inf
        self._epoch = None

    def _avoid(self, size: int, now: float, trip: float, segment: int) -> None:
        window = self.window
        if self._epoch is None:
            self._epoch = now
            self._friendly = float(window)
            self._peak = max(self._peak, float(window))
            self._k = ((self._peak - window) / segment / _C) ** (1 / 3)
        after = now - self._epoch + trip - self._k
        target = self._peak + _C * segment * after * after * after
        target = min(max(target, window), 1.5 * window)
        alpha = _FRIENDLY if self._friendly < self._peak else 1.0
        self._friendly += alpha * SMALLEST_CELL * size / window  # whoever it is friendly to has small ones
        if target < self._friendly:
            self.window = max(window, int(self._friendly))
        else:
            self.window = window + int((target - window) * size / window)


class _SlowStart:
    """Leaves slow start when round trips get longer, but not for one odd round."""

    __slots__ = ("_baseline", "_careful", "_last", "_round_end", "_samples", "_shortest", "divisor")

    def __init__(self) -> None:
        self.divisor = 1
        self._round_end = 0
        self._last = inf
        self._shortest = inf
        self._samples = 0
        self._baseline = inf
        self._careful = 0

    def sample(self, trip: float, number: int, next_number: int) -> bool:
        """Whether slow start is over."""
        if number >= self._round_end:
            self._round_end = next_number
            self._last, self._shortest, self._samples = self._shortest, inf, 0
            if self.divisor > 1:
                self._careful += 1
                if self._careful >= _CAREFUL_ROUNDS:
                    return True
        self._shortest = min(self._shortest, trip)
        self._samples += 1
        if self._samples < _ROUND_SAMPLES or self._last == inf:
            return False
        if self.divisor > 1:
            if self._shortest < self._baseline:
                self.divisor = 1
        elif self._shortest >= self._last + min(max(self._last / 8, _LEAST_RISE), _MOST_RISE):
            self._baseline = self._shortest
            self.divisor = _CAREFUL_DIVISOR
            self._careful = 0
        return False
