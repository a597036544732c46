"""A lane of a link: the place where one connection after another serves, with what outlives them.

    outlet       frames leave here, whichever connection serves
    contest      which connection serves
    telemetry    of the pings over this lane

It answers PING on its own lane, keeps counts over all its connections, and says when a connection is silent.
Labels and tables belong to the link. It does no I/O and reads no clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from meshnet.codec import encode
from meshnet.errors import TimedOutError
from meshnet.limits import LINK_SILENCE
from meshnet.link.contest import CHALLENGE_TRIPS, Contest
from meshnet.link.frame import PING, PONG, Ping, Pong
from meshnet.link.lane import Lane
from meshnet.link.outlet import Outbox, Outlet
from meshnet.link.telemetry import Telemetry, micros

PING_EVERY: Final = 5.0
CHECKED: Final = 3.0  # seconds for the answer where the connection is in doubt, or 4 round trips


class Seat:
    """Lane `number` of a link; `lane` is the connection that serves it, None while there is none."""

    __slots__ = (
        "_asked", "_bytes_before", "_cells_before", "_check", "_check_until", "_heard_bytes", "_next_ping",
        "address", "connections", "contest", "lane", "number", "outlet", "telemetry", "up_since",
    )  # fmt: skip

    def __init__(self, number: int, outbox: Outbox) -> None:
        self.number = number
        self.outlet = Outlet(outbox)
        self.contest: Contest[Any] = Contest()
        self.telemetry = Telemetry()
        self.lane: Lane | None = None
        self.address = ""
        self.connections = 0
        self.up_since = 0.0
        self._check = 0  # the token of the last `check`
        self._check_until = 0.0
        self._asked = 0  # the token of the contest's last question
        self._bytes_before = 0
        self._cells_before = 0
        self._next_ping = 0.0
        self._heard_bytes = 0

    def serve(self, lane: Lane, write: Callable[[memoryview], int], address: str, now: float) -> None:
        """`lane` carries this lane from now on; what the one before has not sent yet still goes over that."""
        self._count()
        self.lane, self.address = lane, address
        self.up_since = now
        self.connections += 1
        self._next_ping = now
        self._heard_bytes = self._check = 0
        self.telemetry.last_heard = now
        self.outlet.serve(lane.sealer, write)

    def stop(self) -> None:
        """The connection is gone; what waits for room waits for the next one."""
        if self.lane is not None:
            self._count()
            self.lane = None
        self.outlet.stop()

    def tick(self, now: float) -> None:
        """Once a second: PING. Raises TimedOutError when the neighbour is silent."""
        if self.lane is None:
            return
        telemetry = self.telemetry
        if self.bytes_received != self._heard_bytes:
            self._heard_bytes = self.bytes_received
            telemetry.last_heard = now
        if self._check and now >= self._check_until:
            self._check, asked = 0, self._check
            if telemetry.waits_for(asked):
                raise TimedOutError("no answer to the question whether the neighbour is still there")
        silent = min(telemetry.unanswered(now), now - telemetry.last_heard)
        if silent > LINK_SILENCE:
            raise TimedOutError(f"nothing heard for {LINK_SILENCE:.0f} s")
        if now >= self._next_ping:
            self.ping(now)

    def ping(self, now: float) -> int:
        """Asks the neighbour for a PONG; returns the token, for `telemetry.waits_for`."""
        self._next_ping = now + PING_EVERY
        token = self.telemetry.ping(now)
        self.outlet.send(PING, encode(Ping(token=token, time=micros(now))))
        return token

    def check(self, now: float) -> None:
        """Nobody knows whether the connection still stands: asks, with little patience. Pings of before are
        forgotten, since their answers may have come while nobody could read them."""
        if self.lane is not None:
            self.telemetry.reset_pings(keep_counts=True)
            self._check = self.ping(now)
            self._check_until = now + max(CHECKED, CHALLENGE_TRIPS * self.telemetry.rtt)

    def ask(self, now: float) -> None:
        """The same for the contest, which is told of the PONG."""
        self._asked = self.ping(now)

    def pong(self, ping: Ping, now: float) -> None:
        """Answers a PING, over the connection that serves."""
        lane = self.lane
        if lane is not None:
            answer = Pong(ping.token, ping.time, micros(now), lane.bytes_received, lane.cells)
            self.outlet.send(PONG, encode(answer))

    def ponged(self, pong: Pong, now: float) -> float | None:
        """An answer has come; when its ping was sent, None if no such ping is open."""
        sent = self.telemetry.pong(pong.token, now)
        if sent is not None:
            self.telemetry.delivered(pong.bytes, pong.cells, pong.time)
            if pong.token == self._asked:
                self.contest.answered(now)
        return sent

    @property
    def bytes_received(self) -> int:
        """Bytes received, over all connections."""
        return self._bytes_before + (self.lane.bytes_received if self.lane else 0)

    @property
    def cells_received(self) -> int:
        """Cells received, over all connections."""
        return self._cells_before + (self.lane.cells if self.lane else 0)

    def snapshot(self, now: float) -> dict[str, Any]:
        """For status pages: JSON-able."""
        telemetry = self.telemetry
        return {
            "lane": self.number,
            "up": self.lane is not None,
            "address": self.address,
            "dialled": bool(self.lane and self.lane.dialled),
            "connections": self.connections,
            "up_seconds": round(now - self.up_since, 1) if self.lane else 0,
            "rtt_ms": round(telemetry.rtt * 1e3, 3) if telemetry.pongs else None,
            "bytes_in": self.bytes_received,
            "bytes_out": self.outlet.sealer.bytes_sent,
            "waiting": self.outlet.waiting,
        }

    def _count(self) -> None:
        """The present connection's counts become past ones; its open pings count for nothing."""
        if self.lane is not None:
            self._bytes_before += self.lane.bytes_received
            self._cells_before += self.lane.cells
        self.telemetry.reset_pings()
