"""A link: one neighbour, with the tables its cells are looked up in and the lanes its frames leave by.

    label mod lanes ──→ seat ──→ outlet ──→ the connection that serves this lane
    forward, backward, runs: by label, the same for all lanes

It outlives its connections: when the last is lost, tables and labels stay for `LINK_SURVIVES` seconds, so
that circuits go on over the next. It keeps telemetry, and hands the frames of circuits to whoever registered
for their kinds. It does no I/O and reads no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from meshnet.cipher.keys import PublicKey
from meshnet.codec import decode
from meshnet.errors import Drop, ProtocolError
from meshnet.limits import LARGEST_CELL
from meshnet.link.frame import PAD, PING, PONG, Hello, Ping, Pong, instance_of
from meshnet.link.lane import Lane, Run, Steps
from meshnet.link.outlet import Outbox, Outlet
from meshnet.link.seat import Seat
from meshnet.link.telemetry import Telemetry, Throughput
from meshnet.oneway import OneWay

FrameReceiver = Callable[["Link", int, memoryview, float], None]
"""Takes the body (borrowed) of a frame of one of its kinds; raises ProtocolError to close the connection."""

_CELL_FRAME: Final = 13  # what a frame's length counts beyond a cell's body


class Link:
    """A neighbour, from its first HELLO until it has been gone for `LINK_SURVIVES` seconds.

    `lanes` is the greater of what both sides' HELLOs say; a neighbour that comes back with another number is
    another run of its node.
    """

    __slots__ = (
        "_outbox", "_past", "_receivers", "_standing", "backward", "delays", "drops", "forward", "hello",
        "lanes", "lost_at", "own_lanes", "peer", "received", "runs", "seats", "sent", "up_since",
    )  # fmt: skip

    def __init__(
        self, peer: PublicKey, outbox: Outbox, receivers: Mapping[int, FrameReceiver], own_lanes: int = 1
    ) -> None:
        self.peer = peer
        self.forward: Steps = {}
        self.backward: Steps = {}
        self.runs: dict[int, Run] = {}
        self.drops = [0] * len(Drop)
        self.hello: Hello | None = None
        self.own_lanes = own_lanes
        self.lanes = own_lanes
        self.seats = [Seat(number, outbox) for number in range(own_lanes)]
        self.up_since = 0.0
        self.lost_at: float | None = None
        self.sent = Throughput()
        self.received = Throughput()
        self.delays = OneWay()
        self._outbox = outbox
        self._receivers = receivers
        self._standing: Sequence[int] = ()
        self._past = [0] * 5  # bytes in, bytes out, cells in, connections, control dropped: of seats before

    # Lanes

    def common_lanes(self, hello: Hello) -> int:
        """The number of lanes with a neighbour that says this."""
        return max(self.own_lanes, hello.lanes)

    def is_another(self, hello: Hello) -> bool:
        """Whether `hello` comes from another run of the neighbour's node than the last one did."""
        if self.hello is None:
            return False
        return instance_of(self.hello) != instance_of(hello) or self.common_lanes(hello) != self.lanes

    def greet(self, hello: Hello) -> bool:
        """Takes a neighbour's HELLO before its connection is used; true if it is another run of its node.

        Then all control frames that wait are forgotten, and connections of its former run end.
        """
        another = self.is_another(hello)
        self.hello = hello
        if another:
            for seat in self.seats:
                seat.contest.forget()
                seat.outlet.forget()
                seat.stop()
            self._note_lanes()
            self.delays.forget()
        if len(self.seats) != self.common_lanes(hello):
            self._reseat(self.common_lanes(hello))
        return another

    def serve(
        self, number: int, lane: Lane, write: Callable[[memoryview], int], address: str, now: float
    ) -> None:
        """`lane` carries lane `number` of this link from now on."""
        if not self.up:
            self.up_since = now
        self.lost_at = None
        seat = self.seats[number]
        self.read(number, lane)
        seat.serve(lane, write, address, now)
        self._note_lanes()

    def read(self, number: int, lane: Lane) -> None:
        """`lane` is read from now on: its cells go to our tables, its other frames to `control`."""
        seat = self.seats[number]
        lane.serve(self, lambda kind, body, now: self.control(seat, kind, body, now))

    def stop(self, number: int, now: float) -> None:
        """The connection of lane `number` is gone; the tables stay."""
        was_up = self.up
        self.seats[number].stop()
        self._note_lanes()
        if was_up and not self.up:
            self.lost_at = now

    @property
    def standing(self) -> Sequence[int]:
        """The lanes that a connection serves now, by number."""
        return self._standing

    @property
    def up(self) -> bool:
        """A connection serves one of its lanes."""
        return bool(self._standing)

    def _note_lanes(self) -> None:
        self._standing = tuple(seat.number for seat in self.seats if seat.lane is not None)

    def _reseat(self, lanes: int) -> None:
        """As many seats as both sides agree on; none of the former has a connection."""
        for seat in self.seats:
            for place, count in enumerate(self._counts(seat)):
                self._past[place] += count
        self.lanes = lanes
        self.seats = [Seat(number, self._outbox) for number in range(lanes)]

    # Frames

    def outlet(self, label: int) -> Outlet:
        """Where frames of `label` leave: lane `label` modulo `lanes`."""
        return self.seats[label % self.lanes].outlet

    def send(self, kind: int, body: bytes, label: int = 0) -> bool:
        """Sends a control frame about `label` ahead of waiting cells; false if the lane is down or its queue
        full."""
        return self.outlet(label).send(kind, body)

    def control(self, seat: Seat, kind: int, body: memoryview, now: float) -> None:
        """A frame that is no cell came by the lane of `seat`. Raises ProtocolError."""
        receiver = self._receivers.get(kind)
        if receiver is not None:
            receiver(self, kind, body, now)
        elif kind == PING:
            seat.pong(decode(Ping, body), now)
        elif kind == PONG:
            pong = decode(Pong, body)
            sent = seat.ponged(pong, now)
            if sent is not None:
                self.delays.answered(sent, pong.time / 1e6, now)
        elif kind != PAD and kind % 2 == 0:
            raise ProtocolError(f"frame kind {kind} is not known here and may not be skipped")

    def tick(self, now: float) -> None:
        """Once a second: throughput. The seats have ticks of their own."""
        self.sent.tick(self.bytes_sent, now)
        self.received.tick(self.bytes_received, now)

    @property
    def max_cell(self) -> int:
        """The largest cell body, tag included, that this neighbour takes."""
        if self.hello is None:
            return LARGEST_CELL
        return min(LARGEST_CELL, self.hello.largest_frame - _CELL_FRAME)

    # Numbers

    @staticmethod
    def _counts(seat: Seat) -> tuple[int, int, int, int, int]:
        return (
            seat.bytes_received,
            seat.outlet.sealer.bytes_sent,
            seat.cells_received,
            seat.connections,
            seat.outlet.control_dropped,
        )

    @property
    def bytes_received(self) -> int:
        """Bytes received, over all connections."""
        return self._past[0] + sum(seat.bytes_received for seat in self.seats)

    @property
    def bytes_sent(self) -> int:
        """Bytes given to carriers, over all connections."""
        return self._past[1] + sum(seat.outlet.sealer.bytes_sent for seat in self.seats)

    @property
    def cells_received(self) -> int:
        """Cells received, over all connections."""
        return self._past[2] + sum(seat.cells_received for seat in self.seats)

    @property
    def connections(self) -> int:
        """Connections that have served one of its lanes."""
        return self._past[3] + sum(seat.connections for seat in self.seats)

    @property
    def control_dropped(self) -> int:
        """Control frames for which there was no room."""
        return self._past[4] + sum(seat.outlet.control_dropped for seat in self.seats)

    @property
    def telemetry(self) -> Telemetry:
        """That of the first lane that stands, else of lane 0."""
        return self.seats[self._standing[0] if self._standing else 0].telemetry

    def snapshot(self, now: float) -> dict[str, Any]:
        """For status pages: JSON-able, times in ms, rates in bytes per second."""
        telemetry = self.telemetry
        first = self.seats[self._standing[0] if self._standing else 0]
        seats = self.seats
        shown = {
            "peer": self.peer.hex(),
            "address": first.address,
            "up": self.up,
            "dialled": bool(first.lane and first.lane.dialled),
            "lanes": self.lanes,
            "lanes_up": len(self._standing),
            "connections": self.connections,
            "up_seconds": round(now - self.up_since, 1) if self.up else 0,
            "rtt_ms": round(telemetry.rtt * 1e3, 3) if telemetry.pongs else None,
            "loss": round(telemetry.loss, 4),
            **self._shown_delays(),
            "bytes_in": self.bytes_received,
            "bytes_out": self.bytes_sent,
            "cells_in": self.cells_received,
            "rates_in": self.received.rates(),
            "rates_out": self.sent.rates(),
            "delivery_rate": round(sum(seat.telemetry.delivery_rate for seat in seats)),
            "circuits": len(self.forward) + len(self.backward),
            "waiting": sum(seat.outlet.waiting for seat in seats),
            "control_dropped": self.control_dropped,
            "dropped": {drop.name.lower(): n for drop, n in zip(Drop, self.drops, strict=True) if n},
        }
        if self.lanes > 1:
            shown["lane"] = [seat.snapshot(now) for seat in seats]
        return shown

    def _shown_delays(self) -> dict[str, Any]:
        """How long the last answered ping took there, and its answer back; right within ± uncertainty."""
        delays = self.delays
        names = ("delay_there_ms", "delay_back_ms", "delay_uncertainty_ms")
        values = (delays.there, delays.back, delays.uncertainty)
        shown: dict[str, Any] = dict.fromkeys(names)
        if delays.known:
            shown = {name: round(value * 1e3, 3) for name, value in zip(names, values, strict=True)}
        return {**shown, "clock_steps": delays.steps}
