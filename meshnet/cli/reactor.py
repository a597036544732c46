"""The reactor of a node: Twisted's for epoll, with nothing between an event and who it is for.

Around every event Twisted asks the descriptor for its name, sets up a context in which its old log would say
it, and looks whether the descriptor is still one: more work than a node does for some cells. Descriptors of a
class that says `direct` are called at once. Everything else, be it another descriptor, an error or a hang-up,
goes Twisted's own way. Where there is no epoll, the reactor is Twisted's choice.
"""

from __future__ import annotations

import sys
from select import EPOLLIN, EPOLLOUT
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import installReactor
from twisted.python import log


class DirectReactor(EPollReactor):
    """Calls `doRead` and `doWrite` of direct descriptors itself; what they return is not looked at."""

    def doPoll(self, timeout: float | None) -> None:
        """Waits for events, at most so many seconds (None: for ever), and passes them on."""
        selectables: dict[int, Any] = self._selectables
        for descriptor, event in self._poller.poll(-1 if timeout is None else timeout, len(selectables) or 1):
            selectable: Any = selectables.get(descriptor)
            if selectable is None:  # removed by an event before
                continue
            if event & ~(EPOLLIN | EPOLLOUT) or not getattr(selectable, "direct", False):
                log.callWithLogger(selectable, self._doReadOrWrite, selectable, descriptor, event)
                continue
            try:
                if event & EPOLLIN:
                    selectable.doRead()
                if event & EPOLLOUT and descriptor in selectables:
                    selectable.doWrite()
            except Exception:
                log.err()
                self._disconnectSelectable(selectable, sys.exc_info()[1], bool(event & EPOLLIN))

    doIteration = doPoll


def install() -> None:
    """Makes it the reactor of this process, unless there is one already."""
    if "twisted.internet.reactor" not in sys.modules:
        installReactor(DirectReactor())
