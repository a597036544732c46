"""Joins two Twisted connections into one: what one side receives the other sends, with back-pressure.

Each side is the other transport's producer, so a slow side pauses the fast one: local TCP stops being read, a
mesh stream stops being credited. An end of one side becomes a half close of the other; a loss of one aborts
the other. Until two sides are joined, a `Side` gives what it receives to `received`.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from apps.vpn.counts import Counts
from apps.vpn.messages import Code, as_reason, code_of
from meshnet.errors import MeshError


class Role:
    """All connections of one role: their counts, and the sides that are open (two for a joined stream)."""

    __slots__ = ("_waiting", "counts", "sides")

    def __init__(self, counts: Counts) -> None:
        self.counts = counts
        self.sides: set[Side] = set()
        self._waiting: list[Deferred[None]] = []

    def stop(self) -> Deferred[None]:
        """Aborts all; fires when none is left."""
        for side in list(self.sides):
            side.transport.abortConnection()
        done: Deferred[None] = Deferred()
        self._waiting.append(done)
        self._tell()
        return done

    def lost(self, side: Side) -> None:
        """A side has ended."""
        self.sides.discard(side)
        self._tell()

    def _tell(self) -> None:
        if not self.sides:
            waiting, self._waiting = self._waiting, []
            for done in waiting:
                done.callback(None)


@implementer(IHalfCloseableProtocol, IPushProducer)
class Side(TwistedProtocol):
    """One side of a joint. `to_mesh` says which way the bytes count that it receives."""

    transport: Any
    to_mesh = False

    def __init__(self, role: Role) -> None:
        self.role = role
        self.other: Side | None = None
        self.read_ended = False
        self.gone = False

    # what kinds of sides do before they are joined

    def opened(self) -> None:
        """The connection is made."""

    def received(self, data: bytes) -> None:
        """Bytes before the joint; dropped unless overridden."""

    def closed(self, reason: Failure) -> None:
        """The connection ended before the joint."""

    def mesh_failed(self, why: MeshError) -> None:
        """The mesh ended the joint: not the other side's wish, but refused, unreachable or timed out."""

    # Twisted calls these

    def connectionMade(self) -> None:
        """Counts itself in."""
        self.role.sides.add(self)
        self.opened()

    def dataReceived(self, data: bytes) -> None:
        """Passes on."""
        if self.other is None:
            self.received(data)
        else:
            self.pass_on(data)

    def readConnectionLost(self) -> None:
        """The far end sends no more; it may still receive."""
        self.read_ended = True
        if self.other is not None:
            self._pass_end(self.other)

    def writeConnectionLost(self) -> None:
        """We send no more, or the peer wants no more; reading goes on. What the other side still sends is
        dropped."""
        if self.other is not None and not self.other.read_ended:
            self.other.transport.resumeProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Ends the other side too: in order after an orderly end, else at once."""
        self.gone = True
        other, self.other = self.other, None
        if other is None:
            self.closed(reason)
        else:
            self._end(other, reason)
        self.role.lost(self)

    def _end(self, other: Side, reason: Failure) -> None:
        if isinstance(reason.value, MeshError) and code_of(reason.value) is not Code.FAILED:
            self.role.counts.refuse(
                as_reason(reason.value)
            )  # the port is not open there, the circuit is lost
            self.mesh_failed(reason.value)
            other.mesh_failed(reason.value)
        other.other = None
        self.role.counts.open -= 1
        other.transport.unregisterProducer()
        if reason.check(ConnectionDone):
            other.transport.loseConnection()
        else:
            other.transport.abortConnection()

    # the other side's transport calls these

    def pauseProducing(self) -> None:
        """It takes no more for now."""
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """It takes more."""
        self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """It is lost; `connectionLost` of the other side follows and knows whether in order."""

    # the joint

    def join(self, other: Side, mine: bytes = b"", theirs: bytes = b"") -> None:
        """Joins two open sides, paused or not; `mine` and `theirs` are bytes that this and the other side
        received before."""
        self.other, other.other = other, self
        self.role.counts.open += 1
        self.role.counts.streams += 1
        for side, early in ((self, mine), (other, theirs)):
            peer = side.other
            if peer is None:  # the first of them ended the other
                return
            peer.transport.registerProducer(side, True)
            if early:
                side.pass_on(early)
        for side in (self, other):
            side.transport.resumeProducing()
            if side.read_ended and side.other is not None:
                side._pass_end(side.other)

    def pass_on(self, data: bytes) -> None:
        """Sends what this side received to the other."""
        assert self.other is not None
        if self.to_mesh:
            self.role.counts.to_mesh += len(data)
        else:
            self.role.counts.from_mesh += len(data)
        self.other.transport.write(data)

    def _pass_end(self, other: Side) -> None:
        other.transport.unregisterProducer()
        if other.read_ended:
            other.transport.loseConnection()
            self.transport.loseConnection()
        else:
            other.transport.loseWriteConnection()
