"""The timer of a session: one at a time, and none after the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from meshnet.errors import MeshError
from meshnet.node.conversation import Conversation, Leg

CIRCUIT: Any = object()


class FakeSession:
    """A session, and its only path, with a deadline that a test sets."""

    def __init__(self) -> None:
        self.due: float | None = None
        self.ticks: list[float] = []
        self.lost: list[MeshError] = []
        self.path = self
        self.session = self
        self.paths = self

    def deadline(self) -> float | None:
        return self.due

    def tick(self, now: float) -> None:
        self.ticks.append(now)
        self.due = None

    def lose(self, path: object, why: MeshError, now: float) -> None:
        self.lost.append(why)


class ConversationTests(SynchronousTestCase):
    """With a router that only keeps time."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.settled: list[float] = []
        self.on_settle: Callable[[], object] = lambda: None
        self.session = FakeSession()
        self.conversation = Conversation(self, (), None, 0.0)  # type: ignore[arg-type]
        self.conversation.session = self.session  # type: ignore[assignment]

    # conversation.Turns

    def soon(self, call: Callable[[float], None]) -> None:
        self.later(0, call)

    def later(self, delay: float, call: Callable[[float], None]) -> Callable[[], None]:
        timer = self.clock.callLater(delay, lambda: call(self.clock.seconds()))

        def cancel() -> None:
            if timer.active():
                timer.cancel()

        return cancel

    def settle(self, conversation: Conversation, now: float) -> None:
        self.settled.append(now)
        self.on_settle()

    def notify(self, due: float | None = None) -> None:
        self.session.due = due
        self.conversation.notify(self.session)  # type: ignore[arg-type]

    def test_once_a_turn(self) -> None:
        """However often the session notifies, its events are looked at once, in a later turn."""
        for _ in range(5):
            self.notify()
        self.assertEqual(self.settled, [])
        self.clock.advance(0)
        self.assertEqual(self.settled, [0.0])

    def test_deadlines(self) -> None:
        """The session is ticked when it is due; an earlier deadline replaces a later one."""
        self.notify(10.0)
        self.clock.advance(0)
        self.notify(3.0)
        self.clock.advance(0)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(3.0)
        self.assertEqual(self.session.ticks, [3.0])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_deadline_that_has_passed(self) -> None:
        """It is ticked in the next turn."""
        self.clock.advance(5.0)
        self.notify(1.0)
        self.clock.advance(0)
        self.clock.advance(0)
        self.assertEqual(self.session.ticks, [5.0])

    def test_stop(self) -> None:
        """Nothing happens any more, whether it was planned, due, or is notified afterwards."""
        self.notify(3.0)
        self.clock.advance(0)
        self.notify(2.0)
        self.conversation.stop()
        self.conversation.stop()
        self.notify(1.0)
        self.clock.advance(10)
        self.assertEqual((self.session.ticks, self.settled), ([], [0.0]))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopped_while_it_is_looked_at(self) -> None:
        """What its last events lead to may be its own end: no timer is made."""
        self.on_settle = self.conversation.stop
        self.notify(7.0)
        self.clock.advance(0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lost(self) -> None:
        """A lost circuit is told to the session, whose events are looked at in the same turn."""
        why = MeshError("gone")
        leg = self.conversation.legs[CIRCUIT] = Leg(CIRCUIT, 0.0)
        leg.path = self.session  # type: ignore[assignment]
        self.conversation.lose(CIRCUIT, why, 4.0)
        self.conversation.lose(CIRCUIT, why, 5.0)
        self.assertEqual((self.session.lost, self.settled), ([why], [4.0]))

    def test_who_waits_is_told_once(self) -> None:
        """Of the end, with the reason."""
        told: list[Any] = []
        why = MeshError("gone")
        self.conversation.ended(why, 1.0)
        self.conversation.on_end = lambda why, now: told.append((why, now))
        self.conversation.ended(why, 2.0)
        self.conversation.ended(why, 3.0)
        self.assertEqual(told, [(why, 2.0)])

    def test_without_a_session(self) -> None:
        """Before the session is there nothing can happen."""
        self.conversation.session = None
        self.conversation.lose(CIRCUIT, MeshError("gone"), 0.0)
        self.conversation.notify(None)  # type: ignore[arg-type]
        self.clock.advance(1)
        self.assertEqual(self.settled, [])
