"""How fast a lane sends, and what follows from it: how much is put together, and how much goes ahead.

    record     2 ms      sealed together: it is opened, and passed on, only when all of it has arrived
    burst      5 ms      taken from those that wait for their turn at once: what is sealed leaves in order
    unsent     5 ms      that the carrier holds unsent, in which nothing can overtake either

On a fast lane all three are as large as they can be, because each costs calls; on a slow one they are small,
so that a cell that comes now waits for little. The rate is that of the busiest ten milliseconds of the last
one to two seconds; it is no more than what was to be sent, so the first two are bounded by it only where the
carrier has been short of late. Pure: time is an argument.
"""

from __future__ import annotations

from math import inf
from typing import Final

from meshnet.limits import LARGEST_RECORD

RECORD_SECONDS: Final = 0.002
AHEAD_SECONDS: Final = 0.005
LEAST_RECORD: Final = 8 << 10
LEAST_AHEAD: Final = 16 << 10
MOST_UNSENT: Final = 256 << 10
MEASURED_SECONDS: Final = 0.01
WINDOW_SECONDS: Final = 1.0


class Pace:
    """One lane's. `rate` in bytes per second; `record`, `burst` and `unsent` in bytes; `due` is when
    `measure` has something to say, `short_at` when the carrier last took bytes again after a short write."""

    __slots__ = (
        "_at", "_best", "_bytes", "_most", "_previous", "_window_end", "burst", "due", "record",
        "short_at", "unsent",
    )  # fmt: skip

    def __init__(self, buffer: int) -> None:
        """`buffer` is the most that can be sealed ahead."""
        self._most = buffer
        self._at = 0.0
        self._bytes = 0
        self._best = self._previous = 0.0
        self._window_end = 0.0
        self.due = MEASURED_SECONDS
        self.short_at = -inf
        self.record = LARGEST_RECORD
        self.burst = buffer
        self.unsent = MOST_UNSENT

    @property
    def rate(self) -> float:
        """Bytes per second."""
        return max(self._best, self._previous)

    def measure(self, sent: int, now: float) -> None:
        """`sent` bytes went to the carrier in all."""
        rate = (sent - self._bytes) / (now - self._at)
        self._at, self._bytes, self.due = now, sent, now + MEASURED_SECONDS
        if now >= self._window_end:
            self._previous = self._best if now < self._window_end + WINDOW_SECONDS else 0.0
            self._best, self._window_end = 0.0, now + WINDOW_SECONDS
        self._best = max(self._best, rate)
        rate = self.rate
        ahead = max(int(rate * AHEAD_SECONDS), LEAST_AHEAD)
        if now - self.short_at < 2 * WINDOW_SECONDS:
            self.record = min(max(int(rate * RECORD_SECONDS), LEAST_RECORD), LARGEST_RECORD)
            self.burst = min(ahead, self._most)
        else:
            self.record, self.burst = LARGEST_RECORD, self._most
        unsent = min(ahead, MOST_UNSENT)
        if not self.unsent // 2 < unsent < 2 * self.unsent:
            self.unsent = unsent
