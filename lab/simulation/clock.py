"""The clock of simulations: Twisted's test clock, with what is planned in a heap.

Twisted's sorts all calls whenever one is planned or run, which in a network of many nodes takes more time
than the nodes do. This one, too, moves only when told, and runs calls of one moment in the order in which
they were planned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from typing import Any

from twisted.internet.base import DelayedCall
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock

IDLE = 1_000
"""So many cancelled calls may lie in the heap, and as many as there are others, until it is made anew."""


class VirtualClock(Clock):
    """Where Twisted takes a reactor for its time, this does."""

    def __init__(self) -> None:
        super().__init__()
        self._heap: list[tuple[float, int, DelayedCall]] = []
        self._planned = 0
        self._cancelled = 0

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kw: object
    ) -> IDelayedCall:
        """As the reactor's."""
        call = DelayedCall(self.rightNow + delay, callable, args, kw, self._cancel, self._push, self.seconds)
        self._push(call)
        return call

    def _push(self, call: DelayedCall) -> None:
        """Also where a call is now to come earlier; the place that it had is found to be no more."""
        self._planned += 1
        heappush(self._heap, (call.getTime(), self._planned, call))

    def _cancel(self, call: DelayedCall) -> None:
        self._cancelled += 1
        if self._cancelled > IDLE and 2 * self._cancelled > len(self._heap):
            self._heap = [each for each in self._heap if each[2].active() and each[2] is not call]
            heapify(self._heap)
            self._cancelled = 0

    def following(self) -> float | None:
        """When the next call is due; None if nothing is planned."""
        heap = self._heap
        while heap:
            time, order, call = heap[0]
            if not call.active():
                heappop(heap)
                self._cancelled -= bool(call.cancelled)
            elif call.getTime() > time:  # it was put off
                heappop(heap)
                heappush(heap, (call.getTime(), order, call))
            else:
                return time
        return None

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        """Those that wait, the next first."""
        waiting = {id(call): call for _, _, call in self._heap if call.active()}
        return sorted(waiting.values(), key=DelayedCall.getTime)

    def advance(self, amount: float) -> None:
        """Moves the time, and runs what is due."""
        self.rightNow += amount
        while (due := self.following()) is not None and due <= self.rightNow:
            call: Any = heappop(self._heap)[2]
            call.called = 1
            call.func(*call.args, **call.kw)
