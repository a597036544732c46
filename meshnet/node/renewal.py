"""Conversations that outlive their circuits: a new one before the old one ends, or after it was lost.

    in time    at three quarters of a circuit's greatest age, or of its packet numbers, while it is used
    on demand  `renew`
    too late   the last circuit was lost, and streams wait
    in doubt   it has been silent for a while, and there are other ways

Every attempt is the same: a circuit along the same route (where there are other ways, along one of them if
the last was lost or is silent), and AUTH that joins the session. When both ends send over the new one, the
old one is read until it is quiet, then taken down. Where there is none, attempts follow each other with
growing pauses, until the session gives up. A circuit that is lost soon after it joined counts: a relay that
changes cells, or drops what it took, costs some circuits and then the session, with a sentence. Only who
began a session does this; the last hop waits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from attrs import define, field
from twisted.internet.defer import Deferred

from meshnet.cipher.address import proves
from meshnet.circuit.origin import OriginCircuit
from meshnet.errors import CircuitError, MeshError, Reason, TimedOutError, UnreachableError
from meshnet.limits import BROKEN_CIRCUITS, BROKEN_SECONDS, CIRCUIT_LIFE, PACKETS
from meshnet.node.app import Json
from meshnet.node.calls import Waiter
from meshnet.node.conversation import Conversation, Leg, Route
from meshnet.session.events import Turned
from meshnet.session.path import Path

if TYPE_CHECKING:
    from meshnet.node.dialling import Standing
    from meshnet.node.router import Router

FRESH: Final = CIRCUIT_LIFE * 3 / 4  # seconds; an older circuit is replaced, or takes no new streams
SPREAD: Final = 1 / 8  # of that, earlier at random, so that what began together is not renewed together
WORN: Final = PACKETS // 4 * 3  # packet numbers
FIRST_PAUSE: Final = 0.5  # seconds between attempts, doubled each time
LONGEST_PAUSE: Final = 4.0
LATER: Final = 20.0  # seconds until a circuit that still stands is tried to be replaced again
QUIET: Final = 1.0  # a replaced circuit that carried nothing for so long is taken down
DRAIN_SECONDS: Final = 10.0  # and any after so long
TICK: Final = 0.5  # seconds between two calls of `tick`
SILENCE: Final = 0.6  # seconds without an answer, or SILENT_PROBES time-outs, after which others are tried
SILENT_PROBES: Final = 3
WAY_SECONDS: Final = 1.0  # or so many time-outs, for another way to stand; twice as long at each next one
MOST_DOUBLED: Final = 3  # times
SHORTER: Final = 8  # pauses are, by so much, where the next attempt takes another way
ASKED_AFTER: Final = 0.4  # of nothing, after something, until a way is asked whether it stands
ANSWER: Final = 0.1  # what comes so soon after may be the answer


PASSING: Final = frozenset({Reason.BUSY, Reason.NEXT_BUSY, Reason.TIMEOUT, Reason.LINK_LOST})


def _is_final(why: MeshError) -> bool:
    """Whether a node of the route says that there is no way now."""
    return isinstance(why, CircuitError) and why.hop is not None and why.reason not in PASSING


def _broken(count: int, why: MeshError) -> UnreachableError:
    """What the streams of a session are told when its route cannot keep a circuit."""
    last = str(why).rstrip(".")
    return UnreachableError(
        f"{count} circuits in a row broke soon after they stood, the last one since {last}: a node of the "
        "route changes or drops what it carries; choose another route"
    )


def join(
    router: Router,
    conversation: Conversation,
    standing: Standing,
    now: float,
    spare: bool = False,
    route: Route = (),
) -> Leg:
    """A circuit that stands joins the session of a conversation, which goes along `route` then, if that is
    given. Raises MeshError if it cannot: then the circuit is gone."""
    session, circuit = conversation.session, standing.circuit
    assert session is not None
    leg = Leg(circuit, now, router.renewals.fresh_until(now))
    try:
        leg.path = session.paths.join(
            standing.keys,
            now=now,
            wake=leg.wake,
            max_cell=standing.max_cell,
            trip=standing.setup,
            spare=spare,
        )
    except MeshError:
        router.circuits.destroy(circuit, now)
        raise
    try:
        end = circuit.attach(leg.path)
    except CircuitError as problem:
        session.paths.lose(leg.path, problem, now)
        raise
    conversation.route = route or conversation.route
    router.add_leg(conversation, leg, end)
    end.wake()
    return leg


@define
class _Survival:
    """Of a conversation that lost its last circuit and has another `since` then; `broken` is how many went
    before it in a row, each soon."""

    since: float
    broken: int = 0


@define(eq=False)
class _Attempt:
    """To give one conversation a new circuit, `elsewhere` if the last one leads nowhere. `circuit` is on its
    way, `path` is to join."""

    conversation: Conversation
    circuit: OriginCircuit | None = None
    path: Path | None = None
    route: Route = ()
    elsewhere: bool = False
    tries: int = 0
    waiters: list[Waiter] = field(factory=list)
    cancel: Callable[[], None] = lambda: None


class Renewals:
    """One per router. Counts: `renewed` circuits, `survived` losses of the last circuit of a session,
    `failed` attempts."""

    def __init__(self, router: Router, random: Callable[[int], bytes]) -> None:
        self._router = router
        self._random = random
        self._attempts: dict[Conversation, _Attempt] = {}
        self._not_before: dict[Conversation, float] = {}
        self._survivals: dict[Conversation, _Survival] = {}
        self.renewed = 0
        self.survived = 0
        self.failed = 0

    def __len__(self) -> int:
        return len(self._attempts) + len(self._not_before) + len(self._survivals)

    def fresh_until(self, now: float) -> float:
        """When a circuit that stands from `now` on is to be replaced."""
        return now + FRESH * (1 - SPREAD * self._chance())

    def _chance(self) -> float:
        return int.from_bytes(self._random(2), "big") / 65_536

    # what asks for it

    def tick(self, conversation: Conversation, now: float) -> None:
        """Twice a second, for each conversation begun here."""
        session, leg = conversation.session, conversation.leg
        if session is None or leg is None:
            return
        leg.drains_since = None  # if what was to take over is lost already
        for other in list(conversation.legs.values()):
            if other.drains_since is not None and self._drained(other, now):
                self._router.drop(conversation, other, now)
        if conversation in self._attempts or now < self._not_before.get(conversation, now):
            return
        if not (session.streams or session.outbox.work):
            return
        if conversation.wanders and self._silent(conversation, leg, now):
            if not session.paths.turn(now):
                self._begin(conversation, elsewhere=True)
        elif now >= leg.fresh_until or max(leg.path.recovery.next, leg.path.window.next) >= WORN:
            self._begin(conversation)

    @staticmethod
    def _silent(conversation: Conversation, leg: Leg, now: float) -> bool:
        """Whether a circuit seems to lead nowhere any more. One that has just become quiet is asked, since
        who only receives has nothing in flight that could stay without an answer."""
        session, path, end = conversation.session, leg.path, leg.end
        if session is None or end is None:
            return False
        patience = max(SILENCE, SILENT_PROBES * path.recovery.probe_timeout())
        if path.recovery.sent:
            return path.recovery.quiet(now) > patience
        if session.outbox.work or path.own:  # its link takes nothing
            return now - end.used > patience
        spoke = end.used > conversation.pinged + max(ANSWER, 2 * path.recovery.trip)  # not that answer alone
        if spoke and now - end.used >= ASKED_AFTER:
            conversation.pinged = now
            session.ping(now)
        return False

    def renew(self, conversation: Conversation, waiter: Waiter) -> None:
        """A new circuit now; `waiter` is told when it has taken over, or why it does not."""
        attempt = self._attempts.get(conversation)
        if attempt is None:
            attempt = self._attempts[conversation] = _Attempt(conversation)
        attempt.waiters.append(waiter)
        if attempt.circuit is None and attempt.path is None:  # do not wait for the pause
            attempt.cancel()
            self._dial(attempt, self._router.now())

    def renew_all(self, conversations: Sequence[Conversation]) -> Deferred[list[Json]]:
        """All of them, now; fires when every one has come to an end: `route` (hex digits), `streams`, and
        `error`, a sentence, where it failed."""
        reports: list[Json] = []
        result: Deferred[list[Json]] = Deferred()
        left = len(conversations)

        def told(conversation: Conversation, outcome: Conversation | MeshError) -> None:
            nonlocal left
            session = conversation.session
            report: Json = {"route": [proves(hop).hex() for hop in conversation.route]}
            report["streams"] = session.streams if session is not None else 0
            if isinstance(outcome, MeshError):
                report["error"] = str(outcome)
            reports.append(report)
            left -= 1
            if not left:
                result.callback(reports)

        for each in conversations:
            self.renew(each, lambda outcome, now, each=each: told(each, outcome))  # type: ignore[misc]
        if not conversations:
            result.callback(reports)
        return result

    def wait(self, conversation: Conversation, waiter: Waiter) -> None:
        """There is no circuit now: `waiter` is told what comes of the attempt under way, or the next one."""
        self.renew(conversation, waiter)

    def lost(self, conversation: Conversation, path: Path, why: MeshError, now: float) -> None:
        """A circuit of a conversation that goes on is gone."""
        attempt, session = self._attempts.get(conversation), conversation.session
        if attempt is not None and attempt.path is path:
            self._failed(attempt, why, now)
        elif attempt is None and session is not None and session.paths.waits_until is not None:
            broken = self._count(conversation, now)
            if broken < BROKEN_CIRCUITS or conversation.ways is not None:
                self._begin(conversation, self._pause(broken) if broken else 0.0)
            else:
                session.end(_broken(broken, why))

    def _count(self, conversation: Conversation, now: float) -> int:
        """How many circuits in a row, this one included, were lost soon after they took over from another."""
        survival = self._survivals.get(conversation)
        if survival is None:
            return 0
        survival.broken = survival.broken + 1 if now - survival.since < BROKEN_SECONDS else 0
        return survival.broken

    def joined(self, conversation: Conversation, path: Path, now: float) -> None:
        """Both ends know the new circuit."""
        for leg in conversation.legs.values():
            if leg.path is not path and not leg.path.spare and leg.drains_since is None:
                leg.drains_since = now
                path.session.paths.relieve(leg.path, now)
        attempt = self._attempts.get(conversation)
        if attempt is None or attempt.path is not path:
            return
        self._drop(conversation)
        if len(conversation.legs) > 1:
            self.renewed += 1
        else:
            self.survived += 1
            self._survivals.setdefault(conversation, _Survival(now)).since = now
        for waiter in attempt.waiters:
            waiter(conversation, now)

    def turned(self, conversation: Conversation, event: Turned, now: float) -> None:
        """Another circuit that stood already has taken over; the former one must show whether it lives."""
        leg, former = conversation.leg_of(event.path), conversation.leg_of(event.former)
        if leg is not None and isinstance(leg.circuit, OriginCircuit):
            leg.drains_since = None
            conversation.route = leg.circuit.route
        if former is not None:
            former.drains_since = now
            former.path.recovery.doubt(now)
            former.path.ping(0)
            former.path.wake(former.path)
        attempt = self._attempts.get(conversation)
        if attempt is not None and attempt.elsewhere and attempt.circuit is not None:
            self._router.dialling.give_up(attempt.circuit, now)
            self._drop(conversation)
            for waiter in attempt.waiters:
                waiter(conversation, now)

    def forget(self, conversation: Conversation, why: MeshError, now: float) -> None:
        """The conversation is over."""
        attempt = self._attempts.get(conversation)
        self._drop(conversation)
        self._survivals.pop(conversation, None)
        if attempt is None:
            return
        if attempt.circuit is not None:
            self._router.dialling.give_up(attempt.circuit, now)
        for waiter in attempt.waiters:
            waiter(why, now)

    # how it goes

    @staticmethod
    def _drained(leg: Leg, now: float) -> bool:
        assert leg.drains_since is not None
        if now >= leg.drains_since + DRAIN_SECONDS:
            return True
        used = leg.drains_since if leg.end is None else leg.end.used
        return not leg.path.recovery.sent and now >= used + QUIET

    def _begin(self, conversation: Conversation, pause: float = 0.0, elsewhere: bool = False) -> None:
        attempt = self._attempts[conversation] = _Attempt(conversation, elsewhere=elsewhere)
        self._not_before.pop(conversation, None)
        attempt.cancel = self._router.later(pause, lambda now: self._dial(attempt, now))

    def _pause(self, tries: int) -> float:
        """Before the next attempt, after so many."""
        return min(FIRST_PAUSE * 2.0 ** (tries - 1), LONGEST_PAUSE) * (1 + self._chance() / 4)

    def _drop(self, conversation: Conversation) -> None:
        attempt = self._attempts.pop(conversation, None)
        self._not_before.pop(conversation, None)
        if attempt is not None:
            attempt.cancel()

    def _dial(self, attempt: _Attempt, now: float) -> None:
        attempt.tries += 1
        attempt.path = None

        def told(outcome: Standing | MeshError, now: float) -> None:
            attempt.circuit = None
            if isinstance(outcome, MeshError):
                self._failed(attempt, outcome, now)
            else:
                self._join(attempt, outcome, now)

        try:
            route = self._route(attempt)
        except MeshError as problem:
            self._failed(attempt, problem, now)
            return
        if attempt.conversation.wanders:
            seconds = self._patience(attempt)
            attempt.cancel = self._router.later(seconds, lambda now: self._too_slow(attempt, now))
        attempt.circuit = self._router.dial_circuit(route, told)

    def _route(self, attempt: _Attempt) -> Route:
        """The same route again; another one, where there is, if the last circuit was lost or is silent.
        Raises UsageError if there is no way now."""
        conversation = attempt.conversation
        session = conversation.session
        lost = session is not None and session.paths.waits_until is not None
        another = lost or attempt.elsewhere or conversation.ways is not None
        route = self._router.next_route(conversation) if another else conversation.route
        attempt.route = route
        return route

    @staticmethod
    def _patience(attempt: _Attempt) -> float:
        """Seconds for this one to stand, where there are others; more where round trips are long."""
        leg = attempt.conversation.leg
        probe = leg.path.recovery.probe_timeout() if leg is not None else 0.0
        return max(WAY_SECONDS * 2.0 ** min(attempt.tries - 1, MOST_DOUBLED), SILENT_PROBES * probe)

    def _too_slow(self, attempt: _Attempt, now: float) -> None:
        """There may be other ways; this one does not stand yet."""
        why = TimedOutError("the circuit did not stand in time")
        circuit, path = attempt.circuit, attempt.path
        attempt.circuit = None
        if path is not None:
            path.session.paths.give_up(path, why, now)  # and so `lost`, which fails the attempt
            attempt.conversation.settle(now)
            return
        if circuit is not None:
            self._router.dialling.give_up(circuit, now)
        self._failed(attempt, why, now)

    def _join(self, attempt: _Attempt, standing: Standing, now: float) -> None:
        try:
            leg = join(self._router, attempt.conversation, standing, now, route=attempt.route)
        except MeshError as problem:
            self._failed(attempt, problem, now)
        else:
            attempt.path = leg.path

    def _failed(self, attempt: _Attempt, why: MeshError, now: float) -> None:
        conversation = attempt.conversation
        session = conversation.session
        self.failed += 1
        attempt.path = None
        waiters, attempt.waiters = attempt.waiters, []
        wanders = conversation.wanders
        attempt.cancel()
        if session is not None and session.live:
            session.paths.unreachable(why, now, final=not wanders and _is_final(why))
        if session is None or not session.live:
            self._drop(conversation)
        elif session.paths.waits_until is None:
            self._drop(conversation)
            if not attempt.elsewhere:
                self._not_before[conversation] = now + LATER
        else:
            pause = self._pause(attempt.tries) / (SHORTER if conversation.ways is not None else 1)
            attempt.cancel = self._router.later(pause, lambda now: self._dial(attempt, now))
        for waiter in waiters:
            waiter(why, now)
