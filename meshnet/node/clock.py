"""Time as a node sees it: monotonic seconds, wall seconds, later calls.

The only place of a node that reads the clocks of the machine. Cores get their `now` and `unix` from here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock as TestClock

Seconds = Callable[[], float]
_BOOTED = getattr(time, "CLOCK_BOOTTIME", None)


elapsed: Seconds = time.monotonic if _BOOTED is None else partial(time.clock_gettime, _BOOTED)
"""Monotonic seconds, those included that the machine slept through where it can tell (Linux).

So deadlines are over after a sleep as they are for everybody else, and the sleep itself is seen. Asked for at
every event: nothing of Python's stands between.
"""


class NodeClock:
    """A clock over a reactor; `now` and `unix` can be replaced, as `virtual_clock` does."""

    __slots__ = ("now", "reactor", "unix")

    now: Seconds
    unix: Seconds

    def __init__(self, reactor: IReactorTime, now: Seconds = elapsed, unix: Seconds = time.time) -> None:
        self.reactor = reactor
        self.now = now
        self.unix = unix

    def call_later(self, delay: float, call: Callable[[], None]) -> Callable[[], None]:
        """Calls after `delay` ≥ 0 seconds; returns what cancels it, harmless if it already ran."""
        later = self.reactor.callLater(max(0.0, delay), call)

        def cancel() -> None:
            if later.active():
                later.cancel()

        return cancel


def steady(reactor: Any) -> None:
    """Lets a reactor count its delays by the monotonic clock.

    Twisted counts them by the wall clock: when that is set back an hour, every timer stands still for an
    hour. For programs that own their reactor, before anything is scheduled; one that has calls waiting is
    left as it is.
    """
    if not reactor.getDelayedCalls():
        reactor.seconds = elapsed


def virtual_clock(clock: TestClock, unix_start: float = 1_800_000_000.0) -> NodeClock:
    """A clock that moves only with Twisted's test clock; both of its times agree."""
    return NodeClock(clock, clock.seconds, lambda: unix_start + clock.seconds())
