"""Whether a queue of our own stands on the way, seen from the sender: round trips that stay long.

Links over TCP lose nothing: what is too much for a path piles up in sockets and makes round trips longer, for
everything that shares the path and most of all for the packets inside our own cells. Relays mark only what
waits in their own queues. So where the window is what holds the sender back, and for a while not one round
trip has come near the shortest of late, the window is cut to what the path needs without that queue.

A cut after which round trips are as long as before was for nothing: the queue is somebody else's. Then it is
taken back, and the round trip of now is the one to compare with. Pure; floats are seconds.
"""

from __future__ import annotations

from math import inf
from typing import Final

LEAST_DELAY: Final = 0.004  # a queue that is worth a cut; an eighth of the round trip, within these
MOST_DELAY: Final = 0.016
STANDS: Final = 0.1  # how long all round trips must have been longer
TRIPS: Final = 3  # and so many of them
DEEPEST: Final = 0.5  # no single cut goes below this share of the window
OF_LATE: Final = 10.0  # the shortest round trip is that of the last one or two such spans


class Standing:
    """The judge of one circuit's window. `cuts` counts those that stand."""

    __slots__ = (
        "_before", "_expected", "_fresh", "_old", "_renew_at", "_since", "_window", "cuts",
    )  # fmt: skip

    def __init__(self) -> None:
        self._old = self._fresh = inf  # shortest round trips, of the last span and of this
        self._renew_at = -inf
        self._since: float | None = None  # round trips have been long since
        self._before = 0.0  # what they were on the average before the last cut; 0.0 if it helped
        self._expected = 0.0  # by how much that should have shortened it
        self._window = 0  # the window then
        self.cuts = 0

    @property
    def base(self) -> float:
        """The shortest round trip of late."""
        return min(self._old, self._fresh)

    def sample(self, trip: float, smoothed: float, full: bool, window: int, now: float) -> int:
        """A round trip, and what it is on the average, while the window was `full` or not; the new window, 0
        to keep it."""
        if now >= self._renew_at:
            self._old, self._fresh, self._renew_at = self._fresh, trip, now + OF_LATE
        self._fresh = min(self._fresh, trip)
        base = self.base
        if trip < base + min(max(base / 8, LEAST_DELAY), MOST_DELAY):
            self._since, self._before = None, 0.0
            return 0
        if not full:  # acknowledgements come in bursts: the first tells whether the window held back
            return 0
        if self._since is None:
            self._since = now
        if now - self._since < max(STANDS, TRIPS * smoothed):
            return 0
        self._since = None
        if self._before and self._before - smoothed < self._expected / 4:
            self._old = self._fresh = smoothed
            self._before = 0.0
            self.cuts -= 1
            return max(window, self._window)
        share = max(base / smoothed, DEEPEST)
        self._before, self._expected, self._window = smoothed, smoothed * (1 - share), window
        self.cuts += 1
        return int(window * share)
