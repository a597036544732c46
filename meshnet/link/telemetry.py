"""What a link knows of itself: round trip, loss, and throughput over 1 s, 10 s, 1 min and 1 h.

Plain numbers fed by the lane and by PONG frames; `tick` once a second moves the rings. Nothing here reads
a clock. The loss is that of pings: on a stream connection a lost cell is counted by the session.
"""

from __future__ import annotations

from collections import deque
from typing import Final

SPANS: Final = (("1s", 1), ("10s", 10), ("1min", 60), ("1h", 3_600))
PINGS_REMEMBERED: Final = 64


def micros(now: float) -> int:
    """Seconds as PING and PONG carry them."""
    return int(now * 1_000_000) & 0xFFFF_FFFF_FFFF_FFFF


class Throughput:
    """Bytes per second of a growing count over the spans of `SPANS`.

    Two rings of (seconds, count): one entry a second for the last minute, one a minute for the last hour.
    """

    __slots__ = ("_minutes", "_seconds")

    def __init__(self) -> None:
        self._seconds: deque[tuple[float, int]] = deque(maxlen=62)
        self._minutes: deque[tuple[float, int]] = deque(maxlen=62)

    def tick(self, count: int, now: float) -> None:
        """`count` is the total at time `now`; called about once a second."""
        self._seconds.append((now, count))
        if not self._minutes or now - self._minutes[-1][0] >= 60:
            self._minutes.append((now, count))

    def rate(self, span: float) -> float:
        """Mean bytes per second over the last `span` seconds, or over what is known of them."""
        if not self._seconds:
            return 0.0
        now, count = self._seconds[-1]
        ring, step = (self._seconds, 1) if span <= 60 else (self._minutes, 60)
        then, before = next((entry for entry in reversed(ring) if now - entry[0] >= span - step / 2), ring[0])
        return (count - before) / (now - then) if now > then else 0.0

    def rates(self) -> dict[str, int]:
        """Span name to bytes per second."""
        return {name: round(self.rate(span)) for name, span in SPANS}


class Telemetry:
    """Of the pings over one lane, over all its connections."""

    __slots__ = (
        "_open", "_peer_time", "_token", "delivery_rate", "last_heard", "peer_bytes", "peer_cells", "pings",
        "pongs", "rtt", "rtt_min", "rtt_var",
    )  # fmt: skip

    def __init__(self) -> None:
        self.rtt = 0.0
        self.rtt_min = 0.0
        self.rtt_var = 0.0
        self.pings = 0
        self.pongs = 0
        self.last_heard = 0.0
        self.peer_bytes = 0
        self.peer_cells = 0
        self.delivery_rate = 0.0
        self._peer_time = 0
        self._token = 0
        self._open: dict[int, float] = {}

    def ping(self, now: float) -> int:
        """Notes a ping sent now; returns its token."""
        self._token += 1
        self.pings += 1
        self._open[self._token] = now
        while len(self._open) > PINGS_REMEMBERED:
            del self._open[next(iter(self._open))]
        return self._token

    def pong(self, token: int, now: float) -> float | None:
        """Notes the answer; returns when the ping was sent, None if no such ping is open (a stray or doubled
        answer)."""
        sent = self._open.pop(token, None)
        if sent is None:
            return None
        sample = max(now - sent, 0.0)
        if self.pongs == 0:
            self.rtt, self.rtt_var, self.rtt_min = sample, sample / 2, sample
        else:  # RFC 9002 §5.3
            self.rtt_var += (abs(self.rtt - sample) - self.rtt_var) / 4
            self.rtt += (sample - self.rtt) / 8
            self.rtt_min = min(self.rtt_min, sample)
        self.pongs += 1
        return sent

    def delivered(self, received: int, cells: int, time: int) -> None:
        """What the neighbour has received on this connection by its own clock (µs), as PONG tells.

        `delivery_rate` is bytes per second between the last two PONGs of one connection.
        """
        if received >= self.peer_bytes and time > self._peer_time > 0:
            self.delivery_rate = (received - self.peer_bytes) * 1e6 / (time - self._peer_time)
        self.peer_bytes, self.peer_cells, self._peer_time = received, cells, time

    def waits_for(self, token: int) -> bool:
        """Whether this ping has had no answer yet."""
        return token in self._open

    def unanswered(self, now: float) -> float:
        """Seconds that the oldest open ping has waited, 0 if none is open."""
        return now - next(iter(self._open.values())) if self._open else 0.0

    def reset_pings(self, keep_counts: bool = False) -> None:
        """The connection has ended: its pings will not be answered and do not count as lost. `keep_counts`:
        it has not, only nobody knows what became of them."""
        if not keep_counts:
            self.peer_bytes = self.peer_cells = self._peer_time = 0
        self.pings -= len(self._open)
        self._open.clear()

    @property
    def loss(self) -> float:
        """Share of pings that were never answered, 0 to 1, those under way not counted."""
        asked = self.pings - len(self._open)
        return 1 - self.pongs / asked if asked > 0 else 0.0
