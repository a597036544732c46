"""Circuits of conversations that name no route: along ways that the topology finds, another one if one fails.

A circuit on a course that is silent is doubted early, since there may be another way; what becomes of it
speaks for or against its relays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from meshnet.cipher.address import proves
from meshnet.cipher.keys import PublicKey, SecretKey
from meshnet.circuit.origin import OriginCircuit
from meshnet.errors import MeshError, UnreachableError
from meshnet.node.calls import Waiter
from meshnet.node.conversation import Conversation, Course, Leg, Route
from meshnet.node.dialling import Standing
from meshnet.node.hedge import Hedge
from meshnet.node.spares import Spares
from meshnet.topology.record import Name, name_of
from meshnet.topology.suspicion import EARLY

if TYPE_CHECKING:
    from meshnet.node.router import Router
    from meshnet.node.topology import Topology

DOUBTED: Final = 2.0  # seconds of silence after which a circuit must show that it lives

PIECES: Final = 4  # circuits, one over the other, that lead to a node far away: 29 hops

UNPROVEN: Final = 2.0  # seconds of silence after which a new circuit is given up for another way …
PROVEN: Final = 3  # … but not the last of so many

Told = Callable[[Route, Standing | MeshError, float], None]
"""Told once of the route that stands, or of one that failed and why."""


class Courses:
    """One per router whose node knows the network."""

    def __init__(self, router: Router, topology: Topology) -> None:
        self._router = router
        self._topology = topology
        self.spares = Spares(router, topology)

    def begin(
        self,
        course: Course,
        identity: SecretKey | None,
        waiter: Waiter,
        tries: int = 1,
        avoid: frozenset[Name] = frozenset(),
    ) -> None:
        """Begins a circuit along a way of a course, for the `tries`th time, and a session over it; ways over
        `avoid` come last. `waiter` is told."""

        def told(route: Route, outcome: Standing | MeshError, now: float) -> None:
            made = self._router.converse(outcome, route, identity, now)
            if isinstance(made, Conversation):
                made.course = made.journey = course
                self.prove(made, course, tries, waiter, now)
            else:
                waiter(made, now)

        self.dial(course, told, avoid)

    def dial(self, course: Course, told: Told, avoid: frozenset[Name] = frozenset()) -> None:
        """Begins circuits along the ways of a course, one behind the other, until one stands; those over
        `avoid` last."""
        now = self._router.now()
        try:
            routes = self._topology.routes(course.target, course.policy, now, avoid)
        except MeshError as problem:
            if not (isinstance(problem, UnreachableError) and self._far(course, told, now)):
                told((course.target,), problem, now)
            return
        self._hedge(routes, told, now)

    def _far(self, course: Course, told: Told, now: float) -> bool:
        """Goes over waypoints, where one circuit does not reach; false if there is no such way."""
        pieces = self._topology.long_way(course.target, course.policy)
        if not 2 <= len(pieces) <= PIECES:
            return False
        self._next_piece(pieces, (), course, told, now)
        return True

    def _next_piece(
        self,
        pieces: Sequence[tuple[PublicKey, ...]],
        before: tuple[PublicKey, ...],
        course: Course,
        told: Told,
        now: float,
    ) -> None:
        """A link to the end of the first piece, behind the waypoint `before`; at last the circuit."""
        inner = pieces[0][1:-1]
        route: Route = (*before, *inner, course.target)
        if len(pieces) == 1:
            self._hedge([route], told, now)
            return
        waypoint = pieces[0][-1]

        def reached(why: MeshError | None, now: float) -> None:
            if why is None:
                self._next_piece(pieces[1:], (waypoint,), course, told, now)
            else:
                told(route, why, now)

        self._router.through.reach(waypoint, (*before, *inner), reached, now)

    def _hedge(self, routes: list[Route], told: Told, now: float) -> None:
        def tried(route: Route, silent: bool, now: float) -> None:
            if silent:
                self._topology.died(route, now)

        Hedge(self._router, routes, told, tried).start(now)

    def prove(
        self, conversation: Conversation, course: Course, tries: int, waiter: Waiter, now: float
    ) -> None:
        """Tells `waiter` of a new conversation when its other end has answered, since a relay can build
        circuits and drop what they carry. Another way is tried where nothing came for `UNPROVEN` seconds;
        the last one is taken as it is."""
        session, route = conversation.session, conversation.route
        if session is None or len(route) == 1 or tries >= PROVEN:
            waiter(conversation, now)
            return

        def answered(trip: float) -> None:
            cancel()
            conversation.on_end = None
            waiter(conversation, self._router.now())

        def silent(now: float) -> None:
            cancel()
            conversation.on_end = None
            self._topology.died(route, now)
            self._router.hang_up(conversation, now)
            avoid = frozenset(name_of(proves(each)) for each in route[:-1])
            self.begin(course, conversation.identity, waiter, tries + 1, avoid)

        cancel = self._router.later(UNPROVEN, silent)
        conversation.on_end = lambda why, now: silent(now)
        self._router.on_pong(session, session.ping(now), answered)

    def next_route(self, conversation: Conversation) -> Route:
        """Where the next circuit of a conversation goes that lost its last one: on a course another way, if
        there is one."""
        course = conversation.course
        if course is None:
            return conversation.route
        avoid = frozenset(name_of(proves(each)) for each in conversation.route[:-1])
        try:
            return self._topology.routes(course.target, course.policy, self._router.now(), avoid)[0]
        except MeshError:
            return conversation.route

    def tick(self, conversation: Conversation, now: float) -> None:
        """Twice a second, for each conversation begun here."""
        session, leg = conversation.session, conversation.leg
        if conversation.course is None or session is None or leg is None:
            return
        if leg.path.recovery.quiet(now) > DOUBTED:
            session.paths.doubt(now)
        if not leg.judged and now - leg.born >= EARLY and leg.path.stands:
            leg.judged = True
            self._topology.lived(conversation.route, now)
        for each in conversation.legs.values():
            self._measure(each, now)
        self.spares.tick(conversation, now)

    def _measure(self, leg: Leg, now: float) -> None:
        """What a circuit took speaks for its way, or against it."""
        probing, circuit = leg.path.probing, leg.circuit
        if probing is not None and probing.answered > leg.reports and isinstance(circuit, OriginCircuit):
            leg.reports = probing.answered
            self._topology.measured(circuit.route, probing.least_trip, probing.loss, now)

    def lost(self, conversation: Conversation, leg: Leg, now: float) -> None:
        """A circuit of a conversation is gone, not by our wish."""
        circuit = leg.circuit
        if conversation.course is not None and isinstance(circuit, OriginCircuit) and now - leg.born < EARLY:
            self._topology.died(circuit.route, now)
