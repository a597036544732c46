"""Circuits in reserve: a conversation on a course keeps a second circuit, for when the first one fails.

    after 3 s with streams    built over the best way that shares no relay with the one in use, where there is
                              one, else another that differs; AUTH and SPARE tell the last hop
    every 10 s                probed, so that it stays and both ends know that it stands
    every minute              given up for another if it is worn, or its way no longer among the best three
    when the other is silent or lost    used (`meshnet.session.paths`), and a new one is built

It carries nothing but probes until then: about 130 bytes in ten seconds on each link, both ways together. One
of each session, as many of a node as its config says, none where there are no streams. What routes the
policy allows is the topology's business; so those of `private` pass its guards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import define

from meshnet.cipher.address import proves
from meshnet.circuit.origin import OriginCircuit
from meshnet.errors import MeshError
from meshnet.limits import SPARES
from meshnet.node.conversation import Conversation, Leg
from meshnet.node.renewal import join
from meshnet.topology.record import name_of

if TYPE_CHECKING:
    from meshnet.node.dialling import Standing
    from meshnet.node.router import Router
    from meshnet.node.topology import Topology

AFTER: Final = 3.0  # seconds of a circuit that has streams, before it gets a spare
PROVEN: Final = 5.0  # seconds for the other end to acknowledge a spare
LOOK: Final = 60.0  # seconds between looks at whether another way has become better
FIRST_PAUSE: Final = 10.0  # seconds after a failed attempt, doubled each time
LONGEST_PAUSE: Final = 320.0
DOUBTED: Final = 2.0  # seconds of silence after which a spare must show that it lives


@define(eq=False)
class _Plan:
    """What is kept of one conversation: the circuit on its way, and when what is due."""

    circuit: OriginCircuit | None = None
    stands: bool = False
    not_before: float = 0.0
    pause: float = FIRST_PAUSE
    look_at: float = 0.0

    def wait(self, now: float) -> None:
        """After an attempt in vain."""
        self.not_before = now + self.pause
        self.pause = min(2 * self.pause, LONGEST_PAUSE)


class Spares:
    """One per router whose node knows the network. Counts: `built` spares, `used` ones, `failed` attempts."""

    def __init__(self, router: Router, topology: Topology) -> None:
        self._router = router
        self._topology = topology
        self._plans: dict[Conversation, _Plan] = {}
        self.built = self.used = self.failed = 0

    def __len__(self) -> int:
        return len(self._plans)

    @property
    def standing(self) -> int:
        """How many spares stand now."""
        return sum(self._of(conversation) is not None for conversation in self._plans)

    def tick(self, conversation: Conversation, now: float) -> None:
        """Twice a second, for each conversation begun here."""
        session, leg = conversation.session, conversation.leg
        if session is None or leg is None or conversation.course is None:
            return
        plan, spare = self._plans.get(conversation), self._of(conversation)
        if plan is not None and spare is not None:
            self._look(conversation, spare, plan, now)
        elif not isinstance(leg.circuit, OriginCircuit) or leg.circuit.route != conversation.route:
            return  # it has just turned to another circuit, and the news of that is still on its way
        elif session.streams and leg.path.stands and now - leg.born >= AFTER:
            if plan is None and len(self._plans) < min(self._topology.spares, SPARES):
                plan = self._plans[conversation] = _Plan()
            if plan is not None and plan.circuit is None and now >= plan.not_before:
                self._build(conversation, plan, now)

    def forget(self, conversation: Conversation, now: float) -> None:
        """The conversation is over."""
        plan = self._plans.pop(conversation, None)
        if plan is not None and plan.circuit is not None:
            self._router.dialling.give_up(plan.circuit, now)

    def turned(self, conversation: Conversation) -> None:
        """Its spare is in use."""
        plan = self._plans.get(conversation)
        if plan is not None:
            self.used += 1
            plan.stands, plan.pause = False, FIRST_PAUSE

    @staticmethod
    def _of(conversation: Conversation) -> Leg | None:
        return next((leg for leg in conversation.legs.values() if leg.path.spare), None)

    # making one

    def _build(self, conversation: Conversation, plan: _Plan, now: float) -> None:
        def told(outcome: Standing | MeshError, now: float) -> None:
            plan.circuit = None
            if isinstance(outcome, MeshError):
                self._failed(plan, now)
            else:
                self._join(conversation, plan, outcome, now)

        route = self._router.next_route(conversation)
        if route == conversation.route or len(route) == 1:
            plan.wait(now)  # there is no other way
            return
        plan.circuit = self._router.dial_circuit(route, told)

    def _join(self, conversation: Conversation, plan: _Plan, standing: Standing, now: float) -> None:
        try:
            join(self._router, conversation, standing, now, spare=True)
        except MeshError:
            self._failed(plan, now)
            return
        plan.stands = False
        plan.look_at = now + LOOK

    def _failed(self, plan: _Plan, now: float) -> None:
        self.failed += 1
        plan.wait(now)

    # keeping it

    def _look(self, conversation: Conversation, spare: Leg, plan: _Plan, now: float) -> None:
        path, session = spare.path, conversation.session
        if not path.stands:
            if now - spare.born >= PROVEN:
                self._give_up(conversation, spare, now)
                self._failed(plan, now)
            return
        if not plan.stands:
            plan.stands, plan.pause = True, FIRST_PAUSE
            self.built += 1
        if path.recovery.quiet(now) > DOUBTED:
            path.recovery.doubt(now)
            path.ping(0)
            path.wake(path)
        if session is None or not session.streams:
            return
        if now >= plan.look_at:
            plan.look_at = now + LOOK
            if now >= spare.fresh_until or self._worse(conversation, spare, now):
                self._give_up(conversation, spare, now)

    def _worse(self, conversation: Conversation, spare: Leg, now: float) -> bool:
        """Whether its way is no longer among those that would be taken."""
        course, circuit = conversation.course, spare.circuit
        assert course is not None
        avoid = frozenset(name_of(proves(each)) for each in conversation.route[:-1])
        try:
            routes = self._topology.routes(course.target, course.policy, now, avoid)
        except MeshError:
            return False
        return isinstance(circuit, OriginCircuit) and circuit.route not in routes

    def _give_up(self, conversation: Conversation, spare: Leg, now: float) -> None:
        self._router.drop(conversation, spare, now)
