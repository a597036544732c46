"""A link: one neighbour, with the tables its cells are looked up in and the outlet its frames leave by.

It outlives its connections: when one is lost, tables and labels stay for `LINK_SURVIVES` seconds, so that
circuits go on over the next. It answers PING, keeps telemetry, and hands the frames of circuits to whoever
registered for their kinds. It does no I/O and reads no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from meshnet.cipher.keys import PublicKey
from meshnet.codec import decode, encode
from meshnet.errors import Drop, ProtocolError, TimedOutError
from meshnet.limits import LARGEST_CELL
from meshnet.link.frame import PAD, PING, PONG, Hello, Ping, Pong, instance_of
from meshnet.link.lane import Lane, Run, Steps
from meshnet.link.outlet import Outbox, Outlet
from meshnet.link.telemetry import Telemetry

FrameReceiver = Callable[["Link", int, memoryview, float], None]
"""Takes the body (borrowed) of a frame of one of its kinds; raises ProtocolError to close the connection."""

PING_EVERY: Final = 5.0
SILENT: Final = 20.0  # with a ping unanswered so long, and nothing else heard, the connection is given up
_CELL_FRAME: Final = 13  # what a frame's length counts beyond a cell's body


class Link:
    """A neighbour, from its first HELLO until it has been gone for `LINK_SURVIVES` seconds."""

    __slots__ = (
        "_heard_bytes", "_next_ping", "_receivers", "address", "backward", "bytes_received_before",
        "cells_before", "connections", "drops", "forward", "hello", "lane", "lost_at", "outlet", "peer",
        "runs", "telemetry", "up_since",
    )  # fmt: skip

    def __init__(self, peer: PublicKey, outbox: Outbox, receivers: Mapping[int, FrameReceiver]) -> None:
        self.peer = peer
        self.outlet = Outlet(outbox)
        self.forward: Steps = {}
        self.backward: Steps = {}
        self.runs: dict[int, Run] = {}
        self.drops = [0] * len(Drop)
        self.telemetry = Telemetry()
        self.lane: Lane | None = None
        self.hello: Hello | None = None
        self.address = ""
        self.connections = 0
        self.up_since = 0.0
        self.lost_at: float | None = None
        self.bytes_received_before = 0
        self.cells_before = 0
        self._receivers = receivers
        self._next_ping = 0.0
        self._heard_bytes = 0

    def serve(
        self, lane: Lane, hello: Hello, write: Callable[[memoryview], int], address: str, now: float
    ) -> None:
        """`lane` carries this link from now on; what the one before has not sent yet still goes over that."""
        self._count()
        self.lane, self.hello, self.address = lane, hello, address
        self.lost_at = None
        self.up_since = now
        self.connections += 1
        self._next_ping = now
        self._heard_bytes = 0
        self.telemetry.last_heard = now
        lane.serve(self, self.control)
        self.outlet.serve(lane.sealer, write)

    def is_another(self, hello: Hello) -> bool:
        """Whether `hello` comes from another run of the neighbour's node than the last one did."""
        return self.hello is not None and instance_of(self.hello) != instance_of(hello)

    def stop(self, now: float) -> None:
        """The connection is gone; the tables stay."""
        if self.lane is not None:
            self._count()
            self.lane = None
            self.lost_at = now
        self.outlet.stop()

    def send(self, kind: int, body: bytes) -> bool:
        """Sends a control frame ahead of waiting cells; false if the link is down or its queue full."""
        return self.outlet.send(kind, body)

    def control(self, kind: int, body: memoryview, now: float) -> None:
        """A frame that is no cell. Raises ProtocolError."""
        receiver = self._receivers.get(kind)
        if receiver is not None:
            receiver(self, kind, body, now)
        elif kind == PING:
            self._pong(decode(Ping, body), now)
        elif kind == PONG:
            pong = decode(Pong, body)
            if self.telemetry.pong(pong.token, now):
                self.telemetry.delivered(pong.bytes, pong.cells, pong.time)
        elif kind != PAD and kind % 2 == 0:
            raise ProtocolError(f"frame kind {kind} is not known here and may not be skipped")

    def tick(self, now: float) -> None:
        """Once a second: telemetry and PING. Raises TimedOutError when the neighbour is silent."""
        telemetry = self.telemetry
        telemetry.sent.tick(self.bytes_sent, now)
        telemetry.received.tick(self.bytes_received, now)
        if self.lane is None:
            return
        if self.bytes_received != self._heard_bytes:
            self._heard_bytes = self.bytes_received
            telemetry.last_heard = now
        if telemetry.unanswered(now) > SILENT and now - telemetry.last_heard > SILENT:
            raise TimedOutError(f"nothing heard for {SILENT:.0f} s")
        if now >= self._next_ping:
            self.ping(now)

    def ping(self, now: float) -> int:
        """Asks the neighbour for a PONG; returns the token, for `telemetry.waits_for`."""
        self._next_ping = now + PING_EVERY
        token = self.telemetry.ping(now)
        self.send(PING, encode(Ping(token=token, time=_micros(now))))
        return token

    @property
    def up(self) -> bool:
        """A connection serves it."""
        return self.lane is not None

    @property
    def max_cell(self) -> int:
        """The largest cell body, tag included, that this neighbour takes."""
        if self.hello is None:
            return LARGEST_CELL
        return min(LARGEST_CELL, self.hello.largest_frame - _CELL_FRAME)

    @property
    def bytes_sent(self) -> int:
        """Bytes given to carriers, over all connections."""
        return self.outlet.sealer.bytes_sent

    @property
    def bytes_received(self) -> int:
        """Bytes received, over all connections."""
        return self.bytes_received_before + (self.lane.bytes_received if self.lane else 0)

    @property
    def cells_received(self) -> int:
        """Cells received, over all connections."""
        return self.cells_before + (self.lane.cells if self.lane else 0)

    def snapshot(self, now: float) -> dict[str, Any]:
        """For status pages: JSON-able, times in ms, rates in bytes per second."""
        telemetry = self.telemetry
        return {
            "peer": self.peer.hex(),
            "address": self.address,
            "up": self.up,
            "dialled": bool(self.lane and self.lane.dialled),
            "lanes": 1 if self.up else 0,
            "connections": self.connections,
            "up_seconds": round(now - self.up_since, 1) if self.up else 0,
            "rtt_ms": round(telemetry.rtt * 1e3, 3) if telemetry.pongs else None,
            "loss": round(telemetry.loss, 4),
            "bytes_in": self.bytes_received,
            "bytes_out": self.bytes_sent,
            "cells_in": self.cells_received,
            "rates_in": telemetry.received.rates(),
            "rates_out": telemetry.sent.rates(),
            "delivery_rate": round(telemetry.delivery_rate),
            "circuits": len(self.forward) + len(self.backward),
            "waiting": self.outlet.waiting,
            "control_dropped": self.outlet.control_dropped,
            "dropped": {drop.name.lower(): n for drop, n in zip(Drop, self.drops, strict=True) if n},
        }

    def _count(self) -> None:
        """The present connection's counts become past ones; its open pings count for nothing."""
        if self.lane is not None:
            self.bytes_received_before += self.lane.bytes_received
            self.cells_before += self.lane.cells
        self.telemetry.reset_pings()

    def _pong(self, ping: Ping, now: float) -> None:
        lane = self.lane
        if lane is None:
            return
        pong = Pong(ping.token, ping.time, _micros(now), lane.bytes_received, lane.cells)
        self.send(PONG, encode(pong))


def _micros(now: float) -> int:
    return int(now * 1_000_000) & 0xFFFF_FFFF_FFFF_FFFF
