"""Several addresses of one name: who is tried when, and what is left of those that lost."""

from __future__ import annotations

import socket
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from meshnet.errors import TimedOutError, UnreachableError
from meshnet.transports import race
from meshnet.transports.conformance import OwnReactor
from meshnet.transports.race import Race, by_turns

SIX, FOUR = socket.AF_INET6, socket.AF_INET


class OrderTests(SynchronousTestCase):
    """Families by turns."""

    def test_by_turns(self) -> None:
        """The resolver's first begins; the order within a family stays."""
        found = [(SIX, 1), (SIX, 2), (SIX, 3), (FOUR, 4), (FOUR, 5)]
        self.assertEqual(by_turns(found), [(SIX, 1), (FOUR, 4), (SIX, 2), (FOUR, 5), (SIX, 3)])
        self.assertEqual(by_turns([]), [])

    @given(st.lists(st.tuples(st.sampled_from([SIX, FOUR]), st.integers())))
    def test_nothing_is_lost(self, found: list[tuple[int, int]]) -> None:
        """Every address once."""
        self.assertEqual(sorted(by_turns(found)), sorted(found))


class Slow:
    """Stands for `Connecting`: decides when a test says so."""

    made: list[Slow]

    def __init__(self, reactor: Any, sock: socket.socket, address: Any, seconds: float, done: Any) -> None:
        self.sock, self.address, self.done, self.cancelled = sock, address, done, False
        Slow.made.append(self)

    def cancel(self) -> None:
        self.cancelled = True
        self.sock.close()

    def fail(self, why: Exception) -> None:
        self.sock.close()
        self.done(why)


class RaceTests(SynchronousTestCase):
    """Connections that take their time."""

    def setUp(self) -> None:
        self.world = OwnReactor()
        self.addCleanup(self.world.close)
        Slow.made = []
        self.patch(race, "Connecting", Slow)

    def race(self, count: int) -> Race:
        return Race(self.world.reactor, [(FOUR, number) for number in range(count)], 10.0)

    def wait(self, number: int) -> None:
        """Until so many are under way; the reactor's own time passes."""
        self.world.until(lambda: len(Slow.made) == number)

    def test_a_silent_address_costs_a_moment(self) -> None:
        """The second is tried beside it; whoever stands first wins, and the other is closed."""
        running = self.race(3)
        self.wait(2)
        one, two = Slow.made
        two.done(None)
        self.assertIs(self.successResultOf(running.won), two.sock)
        self.assertTrue(one.cancelled)
        two.sock.close()
        self.assertEqual((self.world.left(), len(Slow.made)), ([], 2))

    def test_a_failure_hurries_the_next(self) -> None:
        """Nobody waits for the quarter of a second then; the last one's reason is told."""
        running = self.race(3)
        for number in range(3):
            self.assertEqual(len(Slow.made), number + 1)
            Slow.made[number].fail(UnreachableError(f"number {number}"))
        self.assertEqual(str(self.failureResultOf(running.won, UnreachableError).value), "number 2")
        self.assertEqual(self.world.left(), [])

    def test_the_first_may_still_win(self) -> None:
        """After the second has failed."""
        running = self.race(2)
        self.wait(2)
        Slow.made[1].fail(TimedOutError("too late"))
        self.assertNoResult(running.won)
        Slow.made[0].done(None)
        self.successResultOf(running.won).close()
        self.assertEqual(self.world.left(), [])

    def test_cancelled(self) -> None:
        """At any time: everything under way is closed, nobody is tried any more."""
        for under_way in (1, 2, 3):
            Slow.made = []
            running = self.race(3)
            self.wait(under_way)
            running.won.cancel()
            self.failureResultOf(running.won, CancelledError)
            self.assertTrue(all(each.cancelled for each in Slow.made))
            self.assertEqual((self.world.left(), len(Slow.made)), ([], under_way))
