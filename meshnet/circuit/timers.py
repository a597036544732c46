"""When circuits must be looked at next: a heap of calls, cheap to cancel."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Final

Call = Callable[[float], object]

_SPARE: Final = 1_024


class Timer:
    """One call to come; `call` is None once cancelled or made."""

    __slots__ = ("call",)

    def __init__(self, call: Call) -> None:
        self.call: Call | None = call


class Timers:
    """Calls by time, in monotonic seconds."""

    __slots__ = ("_cancelled", "_heap", "_order")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = count()
        self._cancelled = 0

    def add(self, when: float, call: Call) -> Timer:
        """`call(now)` will be made at the first `run` from `when` on."""
        timer = Timer(call)
        heapq.heappush(self._heap, (when, next(self._order), timer))
        return timer

    def cancel(self, timer: Timer | None) -> None:
        """`timer` is not called, and lets go of what it refers to; harmless if it was."""
        if timer is None or timer.call is None:
            return
        timer.call = None
        self._cancelled += 1
        if self._cancelled > _SPARE and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].call is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def next(self) -> float | None:
        """When `run` is due."""
        heap = self._heap
        while heap and heap[0][2].call is None:
            heapq.heappop(heap)
            self._cancelled -= 1
        return heap[0][0] if heap else None

    def run(self, now: float) -> None:
        """Makes all calls that are due."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            timer = heapq.heappop(heap)[2]
            call, timer.call = timer.call, None
            if call is None:
                self._cancelled -= 1
            else:
                call(now)
                heap = self._heap
