"""Disk calls for a program that runs on a reactor: in a thread, one after another, in the order asked.

Floor 2: the part of storage that knows Twisted. A sync takes milliseconds, during which the reactor must not
stand still.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorThreads
from twisted.internet.threads import deferToThreadPool

from meshnet.errors import LocalError

P = ParamSpec("P")
T = TypeVar("T")


class DiskThread:
    """Runs blocking calls in the reactor's thread pool, never two at a time.

    `reactor` is any with threads (`getThreadPool`, `callFromThread`). Whoever shares a `Journal` or a file
    between calls needs no lock as long as all of them go through one `DiskThread`.
    """

    def __init__(self, reactor: IReactorThreads | IReactorFromThreads) -> None:
        self._reactor: Any = reactor
        self._waiting: deque[tuple[Deferred[Any], Callable[[], Any]]] = deque()
        self._busy = False
        self._closing: list[Deferred[None]] = []
        self._closed = False

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Run `function` in the thread when those asked before are done; its result or its exception.

        A call that still waits can be cancelled; one that runs is finished, and its result forgotten.
        """
        result: Deferred[T] = Deferred()
        if self._closed:
            result.errback(LocalError("the disk thread is closed"))
            return result
        self._waiting.append((result, lambda: function(*args, **kwargs)))
        self._next()
        return result

    def close(self) -> Deferred[None]:
        """Take no more calls; fires when those that wait are done."""
        self._closed = True
        done: Deferred[None] = Deferred()
        self._closing.append(done)
        self._next()
        return done

    def _next(self) -> None:
        while self._waiting and not self._busy:
            result, function = self._waiting.popleft()
            if result.called:  # cancelled while it waited
                continue
            self._busy = True
            running = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), function)
            running.addBoth(self._finished, result)
        if not self._waiting and not self._busy:
            closing, self._closing = self._closing, []
            for done in closing:
                done.callback(None)

    def _finished(self, outcome: Any, result: Deferred[Any]) -> None:
        self._busy = False
        if not result.called:
            result.callback(outcome)
        self._next()
