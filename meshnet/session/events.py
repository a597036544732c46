"""What a session tells its owner (`Session.events`), all but the bytes of streams."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import field, frozen

from meshnet.cipher.keys import PublicKey
from meshnet.errors import MeshError

if TYPE_CHECKING:
    from meshnet.session.path import Path
    from meshnet.session.session import Session
    from meshnet.session.streams import Stream


@frozen
class Opened:
    """The other end is there and AUTH was believed; at the last hop `identity` is the caller, or None."""

    identity: PublicKey | None


@frozen
class DatagramReceived:
    """A datagram to our port `target`; an answer goes to `source`."""

    source: int
    target: int
    data: bytes


@frozen
class Ponged:
    """The answer to `Session.ping`, `trip` seconds after it was asked."""

    token: int
    trip: float


@frozen
class AppFailed:
    """A reader or the accept hook raised `error`; its stream was reset, nothing else happened."""

    stream: Stream
    error: Exception


@frozen
class PathDead:
    """A circuit of the session carries nothing any more; it should be torn down."""

    path: Path = field(repr=False)
    error: MeshError


@frozen
class Joined:
    """At the origin: another circuit has joined, and from now on the session sends there."""

    path: Path = field(repr=False)


@frozen
class Turned:
    """At the origin: the session sends over `path` from now on, which was in reserve, and no longer over
    `former`, which may be gone."""

    path: Path = field(repr=False)
    former: Path = field(repr=False)


@frozen
class Moved:
    """At the last hop: the circuit has joined `session`, where `path` belongs from now on; the session that
    tells this was only made to hear of it, and is over."""

    path: Path = field(repr=False)
    session: Session = field(repr=False)


@frozen
class Closed:
    """The session is over; the last event. `by_peer` says that the other side sent CLOSE."""

    error: MeshError
    by_peer: bool


Event = Opened | DatagramReceived | Ponged | AppFailed | PathDead | Joined | Turned | Moved | Closed
