"""A reactor of a test's own: turned by hand, and looked at afterwards for what was left behind."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

if sys.platform.startswith("linux"):
    from twisted.internet.epollreactor import EPollReactor as _Reactor
else:
    from twisted.internet.selectreactor import SelectReactor as _Reactor

PATIENCE = 20.0
"""Seconds of real time after which a test is stuck; none waits for it otherwise."""


class OwnReactor:
    """Real sockets and threads under a reactor that nobody else uses."""

    def __init__(self) -> None:
        self.reactor: Any = _Reactor()
        assert isinstance(self.reactor, ReactorBase)
        self.reactor.startRunning(installSignalHandlers=False)
        self.reactor.iterate(0)
        self._own = set(self.reactor.getReaders())

    def until(self, done: Callable[[], object], seconds: float = PATIENCE) -> None:
        """Turns the reactor until `done()`."""
        limit = time.monotonic() + seconds
        while not done():
            if time.monotonic() > limit:
                raise AssertionError("nothing more happened")
            due = self.reactor.timeout()  # `iterate` itself does not look at timers
            self.reactor.iterate(0.05 if due is None else min(due, 0.05))

    def turns(self, number: int = 10) -> None:
        """Lets what is due happen, without waiting for anything."""
        for _ in range(number):
            self.reactor.iterate(0)

    def result(self, deferred: Deferred[Any]) -> Any:
        """Turns the reactor until the result is there; raises it if it is an error."""
        found: list[Any] = []
        deferred.addBoth(found.append)
        self.until(lambda: found)
        if isinstance(found[0], Failure):
            found[0].raiseException()
        return found[0]

    def left(self) -> list[object]:
        """Timers and sockets that still stand."""
        self.turns()
        reactor = self.reactor
        sockets = {*reactor.getReaders(), *reactor.getWriters()} - self._own
        return [*reactor.getDelayedCalls(), *sockets]

    def close(self) -> None:
        """Ends its threads and closes its own descriptors."""
        reactor = self.reactor
        if reactor.threadpool is not None:
            reactor.threadpool.stop()
        reactor.disconnectAll()
        for reader in self._own:
            reader.connectionLost(None)
        if hasattr(reactor, "_poller"):
            reactor._poller.close()
