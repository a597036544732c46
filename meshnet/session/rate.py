"""How fast a circuit delivers, and the size of cell that follows from it (docs/wire-format.md §4).

A sample is the bytes acknowledged between the sending and the acknowledgement of one cell, over the longer
of the two intervals (the one in which they were sent, the one in which they were acknowledged). Samples
taken while the sender had nothing more to send count only if they are higher. The rate is the highest of the
last one to two windows of ten round trips (at least one second).
"""

from __future__ import annotations

from typing import Final

from meshnet.limits import SMALLEST_CELL

CELL_SECONDS: Final = 0.002  # a cell takes about this long on the path's slowest link
WINDOW_TRIPS: Final = 10
WINDOW_SECONDS: Final = 1.0


class DeliveryRate:
    """Bytes per second that arrive; 0.0 until measured. `cell_size` is what the next cell may take."""

    __slots__ = (
        "_best", "_previous", "_window_end", "cell_size", "delivered", "delivered_at", "first_sent_at",
        "largest_cell", "limited_until",
    )  # fmt: skip

    def __init__(self, largest_cell: int) -> None:
        self.largest_cell = largest_cell
        self.cell_size = min(SMALLEST_CELL, largest_cell)
        self.delivered = 0  # bytes acknowledged in all
        self.delivered_at = 0.0
        self.first_sent_at = 0.0  # when the newest acknowledged cell was sent
        self.limited_until = 0  # until `delivered` exceeds it, the sender had too little to send
        self._best = 0.0
        self._previous = 0.0
        self._window_end = 0.0

    @property
    def rate(self) -> float:
        """Bytes per second."""
        return max(self._best, self._previous)

    def restart(self, now: float) -> None:
        """The first cell after nothing was in flight is being sent."""
        self.first_sent_at = self.delivered_at = now

    def idle(self, in_flight: int) -> None:
        """The sender has nothing more to send although it might."""
        self.limited_until = max(self.delivered + in_flight, 1)

    def acknowledged(
        self,
        sent_at: float,
        delivered: int,
        delivered_at: float,
        first_sent_at: float,
        limited: bool,
        now: float,
        trip: float,
    ) -> None:
        """The newest cell of an ACK; `delivered` … `limited` as noted when it was sent, `trip` smoothed."""
        self.delivered_at = now
        self.first_sent_at = sent_at
        if self.limited_until and self.delivered > self.limited_until:
            self.limited_until = 0
        interval = max(sent_at - first_sent_at, now - delivered_at)
        if interval <= 0.0 or interval < 0.5 * trip:
            return  # a burst of acknowledgements says nothing of the path
        rate = (self.delivered - delivered) / interval
        if now >= self._window_end:
            if limited and rate < self.rate:
                return  # an idle flow keeps what it knows
            self._previous, self._best = self._best, 0.0
            self._window_end = now + max(WINDOW_TRIPS * trip, WINDOW_SECONDS)
        if rate > self._best and not (limited and rate < self._previous):
            self._best = rate
        wanted = int(CELL_SECONDS * self.rate)
        self.cell_size = min(max(wanted, SMALLEST_CELL), self.largest_cell)
