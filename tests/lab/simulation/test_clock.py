"""The clock of simulations: the same calls at the same times as Twisted's."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lab.simulation import clock as module
from lab.simulation.clock import VirtualClock

TIMES = st.integers(0, 6)
NESTED = 1_000
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("plan"), TIMES, TIMES),
        st.tuples(st.sampled_from(("cancel", "reset", "delay")), st.integers(0, 20), TIMES),
        st.tuples(st.just("advance"), TIMES, TIMES),
    ),
    max_size=40,
)


def run(clock: Clock, steps: list[tuple[str, int, int]]) -> list[tuple[float, int]]:
    """When which calls were made; some plan one more."""
    made: list[tuple[float, int]] = []
    calls: list[Any] = []

    def made_now(number: int, further: int) -> None:
        made.append((clock.seconds(), number))
        if further:
            clock.callLater(further, made_now, number + NESTED, 0)

    for what, one, other in steps:
        if what == "plan":
            calls.append(clock.callLater(one, made_now, len(calls), other))
        elif what == "advance":
            clock.advance(one)
        elif calls and calls[one % len(calls)].active():
            arguments = () if what == "cancel" else (other,)
            getattr(calls[one % len(calls)], what)(*arguments)
    waiting = [each.getTime() for each in clock.getDelayedCalls()]
    return [*made, *((time, -1) for time in sorted(waiting))]


class VirtualClockTests(SynchronousTestCase):
    """Held against Twisted's."""

    @given(STEPS)
    def test_same_as_twisted(self, steps: list[tuple[str, int, int]]) -> None:
        """Whatever is planned, cancelled and put off: the same calls are made at the same times. Only among
        those of one moment the order may differ, where one of them was put off."""
        mine, theirs = run(VirtualClock(), steps), run(Clock(), steps)
        moved = any(what in ("reset", "delay") for what, _, _ in steps)
        if moved:
            mine, theirs = sorted(mine), sorted(theirs)
        self.assertEqual(mine, theirs)

    def test_following(self) -> None:
        """The next time is that of a call that will be made, whatever became of those before."""
        clock = VirtualClock()
        self.assertIsNone(clock.following())
        first, second = clock.callLater(1, list), clock.callLater(2, list)
        clock.callLater(3, list)
        first.cancel()
        second.delay(4)
        self.assertEqual(clock.following(), 3)
        clock.advance(3)
        self.assertEqual(clock.following(), 6)

    def test_cancelled_calls_do_not_stay(self) -> None:
        """Who plans and cancels for ever makes no heap that grows."""
        clock = VirtualClock()
        for _ in range(5 * module.IDLE):
            clock.callLater(1_000, list).cancel()
        self.assertLessEqual(len(clock._heap), module.IDLE + 1)
        self.assertEqual(clock.getDelayedCalls(), [])
