"""The clocks of a node: what a wall clock that is set does not change."""

from __future__ import annotations

import time

from twisted.internet.base import ReactorBase
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from meshnet.node.clock import NodeClock, elapsed, steady, virtual_clock


class WokenReactor(ReactorBase):
    """A reactor that waits for nothing and that nobody runs."""

    def installWaker(self) -> None:
        """None is needed."""


class SteadyTests(SynchronousTestCase):
    """Delays go by the monotonic clock."""

    def test_a_clock_set_back(self) -> None:
        """A call that is due is made, whatever the wall clock says meanwhile."""
        reactor, made = WokenReactor(), []
        steady(reactor)
        reactor.callLater(0, made.append, 1)
        later = reactor.callLater(3_600, made.append, 2)
        self.patch(time, "time", lambda: 0.0)
        reactor.runUntilCurrent()
        self.assertEqual(made, [1])
        self.assertLess(abs(later.getTime() - elapsed() - 3_600), 60)
        later.cancel()

    def test_too_late(self) -> None:
        """A reactor with calls waiting keeps the clock that they were counted by."""
        reactor = WokenReactor()
        waiting = reactor.callLater(9, lambda: None)
        before = reactor.seconds
        steady(reactor)
        self.assertIs(reactor.seconds, before)
        waiting.cancel()


class NodeClockTests(SynchronousTestCase):
    """What cores are told."""

    def test_monotonic_and_wall(self) -> None:
        """`now` never goes back; `unix` is the wall clock."""
        clock = NodeClock(Clock())
        self.assertLessEqual(clock.now(), clock.now())
        self.assertLess(abs(clock.unix() - time.time()), 60)

    def test_later(self) -> None:
        """A call comes in time, and not when it was cancelled; cancelling twice is harmless."""
        time_machine, made = Clock(), []
        clock = virtual_clock(time_machine)
        clock.call_later(1, lambda: made.append("kept"))
        cancel = clock.call_later(1, lambda: made.append("cancelled"))
        cancel()
        time_machine.advance(1)
        cancel()
        self.assertEqual(made, ["kept"])
        self.assertEqual(clock.now(), 1)
