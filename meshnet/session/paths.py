"""The circuits of a session: how they join, which one is sent over, what happens when one is lost.

Both ends send over the newest circuit that both know: the origin from when its AUTH was acknowledged, the
last hop from when it came. The others are read until they end. What was in flight on a circuit that is lost
goes again over another; while streams live the session waits for a new one, but not for ever.

A circuit may join as a spare: it is acknowledged and probed, and nothing of the session goes over it until
the one in use is lost, or leaves what it was given without an answer for `SPARE_SILENCE` seconds and three
probe time-outs. Then the end that sees it first sends there what was in flight, and says USE: then the other
does the same.

At the last hop a circuit comes with a session of its own, which gives it away if AUTH names another. An id
that nobody has is answered like a wrong proof, by the same work and the same CLOSE.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from meshnet.errors import Drop, MeshError, UnreachableError, UsageError
from meshnet.limits import LARGEST_CELL, SESSION_PATHS, SESSION_SILENCE, SPARE_HEARD, SPARE_SILENCE
from meshnet.session import items
from meshnet.session.codes import Code, ForgottenError
from meshnet.session.events import Joined, Moved, PathDead, Turned
from meshnet.session.keys import SESSION_ID_SIZE, CircuitKeys, check_join, join_auth
from meshnet.session.packing import SILENT
from meshnet.session.path import Path

if TYPE_CHECKING:
    from meshnet.session.session import Session

FOLLOWED: Final = 1.0  # seconds between two changes by the other end that make us send again
PROBES: Final = 3  # time-outs without an answer after which a spare is used


class Paths:
    """The paths of one session, the newest last. `survives` is how many seconds streams outlive the last one,
    `waits_until` when that time is over, None while there is a path; `why` tells what became of the last one.
    """

    __slots__ = (
        "_alive_at", "_each", "_followed_at", "_session", "_vain", "survives", "waits_until", "why",
    )  # fmt: skip

    def __init__(self, session: Session, first: Path, survives: float) -> None:
        self._session = session
        self._each = [first]
        self._alive_at = 0.0  # the last that is known of the last path
        self._followed_at = -FOLLOWED
        self._vain: float | None = None  # a silence, by its beginning, in which no spare was fit
        self.survives = survives
        self.waits_until: float | None = None
        self.why: MeshError | None = None

    def __iter__(self) -> Iterator[Path]:
        return iter(self._each)

    def __len__(self) -> int:
        return len(self._each)

    def __contains__(self, path: object) -> bool:
        return path in self._each

    # what the owner does

    def join(
        self,
        keys: CircuitKeys,
        *,
        now: float,
        wake: Callable[[Path], object],
        max_cell: int = LARGEST_CELL,
        trip: float | None = None,
        spare: bool = False,
    ) -> Path:
        """At the origin: adds a circuit to the same last hop. The circuit should then ask `fill`. `Joined`
        tells that the session sends over it, `PathDead` that this will not come about. A `spare` one is kept
        in reserve once it `stands`; `Turned` tells that it is in use.

        Raises the session's own error if it has ended, UsageError before it is `confirmed`.
        """
        session = self._session
        if not session.live:
            raise session.fault
        if not session.confirmed or not session.keys.initiator:
            raise UsageError("only the origin adds a circuit, and only once the first was acknowledged")
        path = Path(session, keys, max_cell, trip, wake)
        if spare:
            path.say_spare()
        path.say_auth(join_auth(keys, session.keys))
        self._add(path, now)
        return path

    def lose(self, path: Path, why: MeshError, now: float) -> None:
        """The circuit is gone. Without any, the session waits for another if it may, else ends with `why`."""
        session = self._session
        if path not in self._each:
            return
        self._each.remove(path)
        alive_at = path.recovery.alive_at(now)
        path.quit()
        if not session.live or not session.confirmed:
            if not self._each:
                session.end(why)
            return
        standing = [each for each in self._each if each.stands]
        if standing:
            if session.path not in self._each:
                self._turn_to(next((each for each in reversed(standing) if each.spare), standing[-1]))
        elif self.waits_until is not None:
            self.why = why
        elif self.survives and session.streams:
            self.why = why
            self._alive_at = alive_at
            self.waits_until = now + self.survives
            session.timer(self.waits_until)
        else:
            session.end(why)

    def unreachable(self, why: MeshError, now: float, final: bool = False) -> None:
        """No other circuit could be made, this time: streams that the other side may not have heard of end
        with `why`; and if there are no others, the session. `final` says that a node of the route gave that
        answer: then the session waits no longer than it would have for a circuit that is silent."""
        session = self._session
        if self.waits_until is None:
            return
        self.why = why
        session.lose_streams(lambda stream: not stream.met, why)
        if session.live and (not session.wanted or (final and now >= self._alive_at + SESSION_SILENCE)):
            session.end(why)

    def doubt(self, now: float) -> None:
        """Time has passed in which nothing ran: asks over every path whether it is still there."""
        for path in self._each:
            path.recovery.doubt(now)
            path.ping(0)
            path.wake(path)

    def turn(self, now: float) -> bool:
        """Sends over a spare from now on, since the circuit in use leads nowhere; false if there is none that
        was heard of late."""
        spare = self._fit(now)
        if spare is None:
            return False
        self._turn_to(spare)
        return True

    def relieve(self, path: Path, now: float) -> None:
        """What a circuit that is silent, and not the one in use, had in flight goes over that."""
        since, used = path.recovery.silent_since, self._session.path
        if path in self._each and path is not used and since is not None and now >= since + SPARE_SILENCE:
            path.recovery.abandon()
            used.wake(used)

    # what cells and time bring

    def deadline(self) -> float | None:
        """When `tick` has something to do, or None."""
        times = [time for path in self._each if (time := path.deadline()) is not None]
        turns_at = self._turns_at()
        if turns_at is not None:
            times.append(turns_at)
        if self.waits_until is not None:
            times.append(self.waits_until)
        return min(times, default=None)

    def tick(self, now: float) -> None:
        """Time has passed."""
        if self.waits_until is not None and now >= self.waits_until:
            self._session.end(self.why or UnreachableError("the session has lost its circuit"))
            return
        turns_at = self._turns_at()
        if turns_at is not None and now >= turns_at and not self.turn(now):
            self._vain = self._session.path.recovery.silent_since
        for path in list(self._each):
            if path.recovery.dead(now):
                silence = f"the other end has not answered for {SESSION_SILENCE:.0f} seconds"
                self.give_up(path, UnreachableError(f"{silence}; the circuit is given up"), now)
            else:
                path.tick(now)
        for path in self._each:
            if path.wants():
                path.wake(path)

    def give_up(self, path: Path, why: MeshError, now: float) -> None:
        """A circuit is of no use any more: its owner takes it down."""
        self._session.tell(PathDead(path, why))
        self.lose(path, why, now)

    def confirmed(self, path: Path) -> None:
        """At the origin: AUTH of this circuit was acknowledged."""
        session, each = self._session, self._each
        path.stands = True
        if path is session.path or path not in each:
            return
        if path.spare:
            if session.path not in each:
                self._turn_to(path)
            return
        if session.path not in each or each.index(path) > each.index(session.path):
            self._send_over(path)
        session.tell(Joined(path))

    def refused(self, path: Path, code: int, why: MeshError, now: float) -> None:
        """At the origin: CLOSE came over a circuit that was to join, and is only about that."""
        if code != Code.AUTH:
            self.give_up(path, why, now)
            return
        why = ForgottenError("the other end has forgotten the session: it was restarted, or waited too long")
        self.give_up(path, why, now)
        if self.waits_until is not None:
            self._session.end(why)

    def hand_over(self, path: Path, number: int, plain: memoryview, now: float, marked: bool) -> Drop | None:
        """At the last hop: the first AUTH of a circuit. If it proves that another session is meant, that one
        has the circuit from now on, and reads the cell; None if not."""
        session = self._session
        proof = items.join_proof(plain)
        if not proof:
            return None
        other = session.joinable.get(proof[:SESSION_ID_SIZE])
        keys = session.keys if other is None else other.keys
        if not check_join(path.keys, keys, proof) or other is None:
            return None
        path.auth = (items.AUTH_JOIN, proof)
        self._each.remove(path)
        other.paths.admit(path, now)
        drop = other.opened(path, number, plain, now, marked)
        for earlier, kept, mark in session.held.take():
            other.opened(path, earlier, memoryview(kept), now, mark)
        session.tell(Moved(path, other))
        session.end(UnreachableError("its circuit has joined another session"))
        return drop

    def admit(self, path: Path, now: float) -> None:
        """At the last hop: a circuit has proved that it belongs to this session."""
        former = self._session.path
        path.move(self._session)
        path.stands = True
        self._add(path, now)
        self._send_over(path)
        self.relieve(former, now)

    def rest(self, path: Path) -> None:
        """At the last hop: a circuit is kept in reserve; it has been sent over since it joined."""
        path.spare = True
        others = [each for each in self._each if each.stands and not each.spare]
        if path is self._session.path and others:
            self._send_over(others[-1])

    def follow(self, path: Path, now: float) -> None:
        """The other end sends over this circuit from now on, and the one in use leads nowhere. Who says so
        again and again does not make us send more than the windows allow."""
        if path not in self._each or not path.stands:
            return
        path.spare = False
        if path is not self._session.path:
            self._replace(path, again=now >= self._followed_at + FOLLOWED)
            self._followed_at = now

    def _turns_at(self) -> float | None:
        """When the circuit in use is given up for a spare; None while it answers, or there is no spare."""
        recovery = self._session.path.recovery
        since = recovery.silent_since
        if since is None or since == self._vain or not any(each.spare for each in self._each):
            return None
        return since + max(SPARE_SILENCE, PROBES * recovery.probe_timeout())

    def _fit(self, now: float) -> Path | None:
        """The newest spare, if it was heard of late and owes no answer now."""
        for path in reversed(self._each):
            if path.spare and path.stands and path is not self._session.path:
                since = path.recovery.silent_since
                if now < path.acks.heard_at + SPARE_HEARD and (since is None or now < since + SPARE_SILENCE):
                    return path
        return None

    def _turn_to(self, path: Path) -> None:
        """Sends over another circuit; if it was a spare, the other end is told to do so, too."""
        if path.spare:
            path.say_use()
        self._replace(path)

    def _replace(self, path: Path, again: bool = True) -> None:
        """Sends over this circuit, and `again` what was in flight on the one in use until now."""
        session = self._session
        former = session.path
        self._send_over(path)
        if again and former in self._each:
            former.recovery.abandon()
        if session.keys.initiator:
            session.tell(Turned(path, former))

    def _add(self, path: Path, now: float) -> None:
        """The newest; beyond so many the oldest ends that is not sent over."""
        if len(self._each) >= SESSION_PATHS:
            oldest = next(each for each in self._each if each is not self._session.path)
            self.give_up(oldest, UnreachableError("the session has newer circuits"), now)
        self._each.append(path)

    def _send_over(self, path: Path) -> None:
        session = self._session
        session.path.outbox = SILENT
        path.outbox = session.outbox
        session.path = path
        self.waits_until = self.why = None
        path.wake(path)
