"""One machine of a mesh sleeps for a while, and the time of all goes on: what its node makes of it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from meshnet.errors import CircuitError, Reason
from meshnet.limits import SESSION_SURVIVES
from meshnet.node.clock import NodeClock
from tests.meshnet.node.routers import PORT, ROW, Collector, RouterCase


class SleepingClock(NodeClock):
    """The clock of a machine that can sleep: what is due meanwhile is done when it wakes, as a reactor does
    that counts by a clock which goes on during sleep."""

    def __init__(self, clock: NodeClock) -> None:
        super().__init__(clock.reactor, clock.now, clock.unix)
        self._asleep = False
        self._due: list[Callable[[], None]] = []

    def call_later(self, delay: float, call: Callable[[], None]) -> Callable[[], None]:
        """See `NodeClock`."""
        cancelled = False

        def run() -> None:
            if not cancelled:
                if self._asleep:
                    self._due.append(run)
                else:
                    call()

        unschedule = super().call_later(delay, run)

        def cancel() -> None:
            nonlocal cancelled
            cancelled = True
            unschedule()

        return cancel

    def sleep(self) -> None:
        """Nothing runs from now on."""
        self._asleep = True

    def wake(self) -> None:
        """What was due is done."""
        self._asleep = False
        due, self._due = self._due, []
        for run in due:
            run()


class AsleepTests(RouterCase):
    """A row of nodes, a stream from alice to bob, one machine that sleeps."""

    def one_sleeps(self, who: str, seconds: float) -> Collector:
        """The stream, after that; it was asked to carry something when the machine was awake again."""
        self.mesh(())
        common = self.m.clock
        sleeper = SleepingClock(common)
        for name in ROW:
            self.m.clock = sleeper if name == who else common
            self.m.add(name)
        self.m.clock = common
        for one, other in pairwise(ROW):
            self.m.link(one, other)
        self.assertTrue(self.m.linked())
        self.m["bob"].router.listen(PORT, self.accept)
        near = self.open("r1", "r2", "r3")
        self.exchange(near)
        self.m.network.run(7)
        sleeper.sleep()
        self.m.network.partition({who})
        self.m.network.run(seconds)
        self.m.network.heal()
        sleeper.wake()
        return near

    def test_streams_go_on(self) -> None:
        """Over the circuit that was there, or over another one where others have taken it down meanwhile."""
        for who, seconds in (("alice", 8), ("alice", 20), ("alice", 50), ("bob", 20), ("r2", 8), ("r2", 20)):
            near = self.one_sleeps(who, seconds)
            began = self.m.network.clock.seconds()
            self.exchange(near, b"awake")
            self.assertLess(self.m.network.clock.seconds() - began, 5, (who, seconds))
            self.m.network.run(40)
            self.exchange(near, b"still here")
            self.end()

    def test_it_was_too_long(self) -> None:
        """Nobody waits for ever: who wakes after hours learns it within seconds, and a new stream stands."""
        near = self.one_sleeps("alice", 100 * SESSION_SURVIVES)
        self.until(lambda: near.error is not None, 5)
        self.assertIn("waited too long", str(near.error))
        self.exchange(self.open("r1", "r2", "r3"), b"a new one")
        self.end()

    def test_the_others_do_not_wait(self) -> None:
        """While a relay sleeps, the stream ends and says what is missing; afterwards a new one stands."""
        near = self.one_sleeps("r2", 60)
        self.assertIn("relay 1", str(near.error))
        self.assertTrue(self.m.linked(60))
        self.exchange(self.open("r1", "r2", "r3"), b"a new one")
        self.end()


class CutTests(RouterCase):
    """Connections lost at an ill moment, as where a machine wakes and calls before it has looked."""

    def test_cut_while_a_circuit_is_made(self) -> None:
        """CREATE was under way on the connection that is lost, at alice's link or a relay's: she hears so as
        soon as the link is back, not by the time-out of 12 s; the next one stands."""
        for cut, before in ((("alice", "r1"), 0.0), (("r2", "r3"), 0.045)):
            self.cut_while_made(cut, before)

    def cut_while_made(self, cut: tuple[str, str], before: float) -> None:
        """The connection between these two is cut so many seconds after CREATE."""
        self.mesh()
        told: list[Any] = []
        began = self.m.network.clock.seconds()
        route = tuple(self.m[name].public for name in ("r1", "r2", "r3", "bob"))
        self.m["alice"].router.dialling.dial(route, lambda outcome, now: told.append((outcome, now)))
        if before:
            self.m.network.run(before)
        self.assertEqual(self.m.internet.sever(*cut), 1)
        self.until(lambda: bool(told), 12)
        outcome, now = told[0]
        self.assertIsInstance(outcome, CircuitError)
        self.assertEqual(outcome.reason, Reason.LINK_LOST)
        self.assertLess(now - began, 5)
        self.exchange(self.open("r1", "r2", "r3"))
        self.end()
