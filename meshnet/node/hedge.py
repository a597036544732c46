"""Circuits along several routes, one behind the other: the first that stands is taken.

The next route is tried when the last has failed, or has said nothing for `PATIENCE` seconds: a relay that
drops what it takes then costs that long, not the ten seconds that a circuit may take.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from meshnet.circuit.origin import OriginCircuit
from meshnet.errors import MeshError, UnreachableError
from meshnet.node.conversation import Route
from meshnet.node.dialling import Dialling, Standing, Told

PATIENCE: Final = 1.5

Ended = Callable[[Route, Standing | MeshError, float], None]
"""Told once: the route that stands with its circuit, or the first that failed and why."""
Tried = Callable[[Route, bool, float], None]
"""Told of each route that was tried in vain: `silent` if it never answered."""


class Dialler(Protocol):
    """What dials: the router."""

    dialling: Dialling

    def dial_circuit(self, route: Route, told: Told) -> OriginCircuit | None:
        """Begins a circuit."""

    def later(self, delay: float, call: Callable[[float], None]) -> Callable[[], None]:
        """Runs `call(now)` after a while; returns what cancels it."""


class Hedge:
    """One attempt to reach one target. `routes` are at least one, the best first."""

    def __init__(self, dialler: Dialler, routes: Sequence[Route], ended: Ended, tried: Tried) -> None:
        self._dialler = dialler
        self._routes = list(routes)
        self._ended = ended
        self._tried = tried
        self._pending: dict[Route, OriginCircuit] = {}
        self._next = 0
        self._over = False
        self._first: tuple[Route, MeshError] | None = None
        self._cancel: Callable[[], None] = lambda: None

    def start(self, now: float) -> None:
        """Tries the first route."""
        self._more(now)

    def give_up(self, now: float) -> None:
        """Nobody waits any more."""
        self._finish(now)

    def _more(self, now: float) -> None:
        """Tries the next route; ends if there is none and none is under way."""
        self._cancel()
        while not self._over and self._next < len(self._routes):
            route = self._routes[self._next]
            self._next += 1
            circuit = self._dialler.dial_circuit(
                route,
                lambda outcome, now, route=route: self._told(route, outcome, now),  # type: ignore[misc]
            )
            if circuit is not None and not self._over:
                self._pending[route] = circuit
                if self._next < len(self._routes):
                    self._cancel = self._dialler.later(PATIENCE, self._more)
                return
        if not self._over and not self._pending:
            route, why = self._first or (self._routes[0], UnreachableError("there is no route"))
            self._finish(now)
            self._ended(route, why, now)

    def _told(self, route: Route, outcome: Standing | MeshError, now: float) -> None:
        self._pending.pop(route, None)
        if self._over:
            return
        if isinstance(outcome, MeshError):
            self._tried(route, False, now)
            if self._first is None:
                self._first = (route, outcome)
            if not self._pending:
                self._dialler.later(0.0, self._more)
            return
        for silent in self._pending:
            self._tried(silent, True, now)
        self._finish(now)
        self._ended(route, outcome, now)

    def _finish(self, now: float) -> None:
        self._over = True
        self._cancel()
        pending, self._pending = self._pending, {}
        for circuit in pending.values():
            self._dialler.dialling.give_up(circuit, now)
