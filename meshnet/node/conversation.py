"""A session, the circuits it runs over, and the one timer it needs: what `router.py` keeps of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from attrs import frozen

from meshnet.cipher.address import Target
from meshnet.cipher.keys import SecretKey
from meshnet.circuit.arrival import Arrival
from meshnet.circuit.end import CircuitEnd
from meshnet.circuit.origin import OriginCircuit
from meshnet.errors import MeshError
from meshnet.node.app import Ways
from meshnet.node.services import Service
from meshnet.session.path import Path
from meshnet.session.session import Session

PROBED_AFTER: Final = 1.0
"""Seconds after which a circuit is asked for the first time."""

Route = tuple[Target, ...]
"""Relays in order, then the last hop, or the address of a hidden service."""


@frozen
class Course:
    """How to get to `target` where nobody names a route: as a path policy says; None: the config's."""

    target: Target
    policy: str | None = None


Journey = Route | Course


class Turns(Protocol):
    """Who runs conversations: the router."""

    def soon(self, call: Callable[[float], None]) -> None:
        """Runs `call(now)` in a later turn, and sends what it made."""

    def later(self, delay: float, call: Callable[[float], None]) -> Callable[[], None]:
        """The same after `delay` seconds; returns what cancels it."""

    def settle(self, conversation: Conversation, now: float) -> None:
        """Acts on the session's events."""


class Leg:
    """One circuit of a conversation, as the router and as the session know it.

    `path` and `end` are set when the circuit stands. `fresh_until` is when it should be replaced;
    `drains_since` is set when another has taken over, `probe_at` says when it is asked again.
    """

    __slots__ = (
        "born",
        "circuit",
        "drains_since",
        "end",
        "fresh_until",
        "judged",
        "path",
        "probe_at",
        "reports",
    )

    path: Path

    def __init__(self, circuit: OriginCircuit | Arrival, now: float, fresh_until: float = 0.0) -> None:
        self.circuit = circuit
        self.born = now
        self.fresh_until = fresh_until
        self.end: CircuitEnd | None = None
        self.drains_since: float | None = None
        self.probe_at = now + PROBED_AFTER
        self.reports = 0  # answers to probes that were looked at
        self.judged = False  # as good, for its relays

    def wake(self, path: Path) -> None:
        """The session has cells to send here."""
        if self.end is not None:
            self.end.wake()


class Conversation:
    """One session and its circuits, `legs`; `route` is empty where the other side opened it. With a `course`
    or `ways` it is the way that was chosen last, and the next circuit may take another. `service` is whose
    ports are open to the other side, `identity` who we said we are; calls along `journey` are sent over it.

    `on_end` is set by who waits for something of the session: it is called once, with the reason, if the
    session ends.
    """

    __slots__ = (
        "_cancel",
        "_due",
        "_stirred",
        "_stopped",
        "_turns",
        "course",
        "identity",
        "journey",
        "legs",
        "on_end",
        "pinged",
        "route",
        "service",
        "session",
        "ways",
    )

    def __init__(
        self,
        turns: Turns,
        route: Route,
        service: Service,
        now: float,
        identity: SecretKey | None = None,
    ) -> None:
        self._turns = turns
        self._stirred = False
        self._stopped = False
        self._due: float | None = None
        self._cancel: Callable[[], None] | None = None
        self.route = route
        self.journey: Journey = route
        self.course: Course | None = None
        self.ways: Ways | None = None
        self.service = service
        self.identity = identity
        self.legs: dict[OriginCircuit | Arrival, Leg] = {}
        self.session: Session | None = None
        self.on_end: Callable[[MeshError, float], None] | None = None
        self.pinged = now

    @property
    def wanders(self) -> bool:
        """Whether its next circuit may take another way."""
        return self.ways is not None or self.course is not None

    @property
    def leg(self) -> Leg | None:
        """The circuit that the session sends over; None while it has none."""
        return None if self.session is None else self.leg_of(self.session.path)

    def leg_of(self, path: Path) -> Leg | None:
        """The circuit of a path; None if it is gone."""
        return next((leg for leg in self.legs.values() if leg.path is path), None)

    def notify(self, session: Session) -> None:
        """The session has events or an earlier deadline."""
        if not self._stirred and not self._stopped:
            self._stirred = True
            self._turns.soon(self.settle)

    def lose(self, circuit: OriginCircuit | Arrival, why: MeshError, now: float) -> None:
        """One circuit is gone."""
        leg = self.legs.pop(circuit, None)
        if leg is not None:
            leg.path.session.paths.lose(leg.path, why, now)
            self.settle(now)

    def ended(self, why: MeshError, now: float) -> None:
        """The session is over: tells who waits."""
        told, self.on_end = self.on_end, None
        if told is not None:
            told(why, now)

    def stop(self) -> None:
        """No more timers; what is planned already does nothing."""
        self._stopped = True
        if self._cancel is not None:
            self._cancel()
            self._cancel = None

    def settle(self, now: float) -> None:
        """Acts on the session's events now, and sets the timer it needs."""
        self._stirred = False
        session = self.session
        if session is None or self._stopped:
            return
        self._turns.settle(self, now)
        due = session.deadline()
        if due is None or self._stopped:
            return
        if self._due is None or due < self._due or self._cancel is None:
            if self._cancel is not None:
                self._cancel()
            self._due = due
            self._cancel = self._turns.later(max(due - now, 0.0), self._tick)

    def _tick(self, now: float) -> None:
        self._cancel = None
        self._due = None
        if self.session is not None:
            self.session.tick(now)
            self.settle(now)
