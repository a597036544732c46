"""A session, the circuit it runs over, and the one timer it needs: what `router.py` keeps of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from meshnet.cipher.keys import PublicKey
from meshnet.circuit.arrival import Arrival
from meshnet.circuit.end import CircuitEnd
from meshnet.circuit.origin import OriginCircuit
from meshnet.errors import MeshError
from meshnet.node.services import Service
from meshnet.session.path import Path
from meshnet.session.session import Session

Route = tuple[PublicKey, ...]
"""Relays in order, then the last hop."""


class Turns(Protocol):
    """Who runs conversations: the router."""

    def soon(self, call: Callable[[float], None]) -> None:
        """Runs `call(now)` in a later turn, and sends what it made."""

    def later(self, delay: float, call: Callable[[float], None]) -> Callable[[], None]:
        """The same after `delay` seconds; returns what cancels it."""

    def settle(self, conversation: Conversation, now: float) -> None:
        """Acts on the session's events."""


class Conversation:
    """One session over one circuit; `route` is empty where the other side opened it. `service` is whose
    ports are open to the other side.

    `on_end` is set by who waits for something of the session: it is called once, with the reason, if the
    session ends.
    """

    __slots__ = (
        "_cancel",
        "_due",
        "_stirred",
        "_stopped",
        "_turns",
        "born",
        "circuit",
        "end",
        "on_end",
        "pinged",
        "route",
        "service",
        "session",
    )

    def __init__(
        self, turns: Turns, circuit: OriginCircuit | Arrival, route: Route, service: Service, now: float
    ) -> None:
        self._turns = turns
        self._stirred = False
        self._stopped = False
        self._due: float | None = None
        self._cancel: Callable[[], None] | None = None
        self.circuit = circuit
        self.route = route
        self.service = service
        self.end: CircuitEnd | None = None
        self.session: Session | None = None
        self.on_end: Callable[[MeshError, float], None] | None = None
        self.born = now
        self.pinged = now

    def wake(self, path: Path) -> None:
        """The session has cells to send."""
        if self.end is not None:
            self.end.wake()

    def notify(self, session: Session) -> None:
        """The session has events or an earlier deadline."""
        if not self._stirred and not self._stopped:
            self._stirred = True
            self._turns.soon(self._settle)

    def lose(self, why: MeshError, now: float) -> None:
        """The circuit is gone."""
        if self.session is not None:
            self.session.path_lost(self.session.path, why)
            self._settle(now)

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

    def _settle(self, now: float) -> None:
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
            self._settle(now)
