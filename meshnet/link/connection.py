"""A connection: a carrier and the lane that reads and writes over it; the transport's sink.

    carrier ⇄ Connection ⇄ Lane ─ tables, control ─→ link
                                ←───── outlet ────── seat

One turn of the reactor reads the clock once. What goes wrong on a connection, be it a fault of ours, ends
that connection and no other. Which connection serves its lane is decided elsewhere (`contest.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from meshnet.errors import LinkLostError, MeshError
from meshnet.link.lane import Lane
from meshnet.link.link import Link
from meshnet.link.outlet import Outbox
from meshnet.link.seat import Seat


class Carrier(Protocol):
    """What a connection needs of a transport's (`meshnet.transports.interface.ByteCarrier` in all)."""

    def write(self, data: memoryview) -> int:
        """Bytes taken."""

    def close(self) -> None:
        """Ends it."""


class ConnectionOwner(Protocol):
    """Who made it: the driver of the links."""

    @property
    def now(self) -> Callable[[], float]:
        """Monotonic seconds."""

    @property
    def outbox(self) -> Outbox:
        """What a turn has made and is to be sent at its end."""

    def ended(self, connection: Connection, why: MeshError) -> None:
        """The connection is gone."""

    def failed(self, what: str) -> None:
        """Something raised what it should not; called where it is caught."""


class Connection:
    """One carrier from its first byte to its end; `link` and `seat` are known from the HELLO on."""

    __slots__ = (
        "_now", "_outbox", "_owner", "address", "born", "buffer", "carrier", "closing", "lane", "link",
        "seat", "why",
    )  # fmt: skip

    def __init__(self, owner: ConnectionOwner, carrier: Carrier, lane: Lane, address: str) -> None:
        self._owner = owner
        self.carrier = carrier
        self.lane = lane
        self.address = address
        self.buffer = lane.buffer
        self._now = owner.now
        self._outbox = owner.outbox
        self.born = owner.now()
        self.link: Link | None = None
        self.seat: Seat | None = None
        self.closing = False
        self.why: MeshError | None = None

    def filled(self, size: int) -> None:
        """Bytes have come: open them, act on them, then send what that made."""
        outbox, now = self._outbox, self._now()
        outbox.reading = True
        try:
            if self.lane.filled(size, now):
                self.send_acts()
        except MeshError as problem:
            self.close(problem)
        except Exception:
            self._failed()
        try:
            outbox.flush(now)
        except Exception:
            self._owner.failed("sending")

    def drained(self) -> None:
        """The carrier takes bytes again."""
        seat = self.seat
        if seat is not None and seat.lane is self.lane:
            outbox, now = self._outbox, self._now()
            outbox.reading = True
            try:
                seat.outlet.drained(now)
            except Exception:
                self._failed()
            try:
                outbox.flush(now)
            except Exception:
                self._owner.failed("sending")

    def lost(self, why: MeshError) -> None:
        """The connection has ended."""
        self._owner.ended(self, self.lane.ended(self.why or why))

    def close(self, why: MeshError) -> None:
        """Ends the connection for this reason."""
        if not self.closing:
            self.closing = True
            self.why = why
            self.carrier.close()

    def send_acts(self) -> None:
        """Gives the handshake's bytes to the carrier, which is empty and takes so few at once."""
        acts = self.lane.outgoing
        if acts and self.carrier.write(memoryview(bytes(acts))) < len(acts):
            raise LinkLostError("the connection does not take even a handshake")
        acts.clear()

    def _failed(self) -> None:
        """A fault of our own: it costs this connection and a report, not the node."""
        self._owner.failed(f"a connection over {self.address}")
        self.close(LinkLostError("an internal error, see the log"))
