"""Connects to the first of several addresses that answers (after RFC 8305, "Happy Eyeballs").

    0 ms: the first · 250 ms later, or when it failed: the second, beside it · …

Families take turns, so that a machine whose IPv6 leads nowhere loses a quarter of a second, not a minute. The
first connection that stands wins, the others are closed. All of it happens on the reactor; nothing blocks.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from functools import partial
from itertools import chain, zip_longest
from typing import Any, Final

from twisted.internet.defer import Deferred

from meshnet.errors import MeshError, UnreachableError
from meshnet.transports.sockets import Connecting, mark, unreachable

NEXT_ADDRESS: Final = 0.25  # seconds until the next address is tried beside the one before

Address = tuple[int, Any]
"""A family of `socket` and what its `connect` takes."""


def by_turns(found: Sequence[Address]) -> list[Address]:
    """The same addresses, the families alternating; the one that the resolver put first begins."""
    families = list(dict.fromkeys(family for family, _ in found))
    columns = [[entry for entry in found if entry[0] == family] for family in families]
    return [entry for entry in chain.from_iterable(zip_longest(*columns)) if entry is not None]


class Race:
    """`won` fires with a connected socket, or fails with the last address's error; it may be cancelled."""

    def __init__(self, reactor: Any, addresses: Sequence[Address], seconds: float) -> None:
        self.won: Deferred[socket.socket] = Deferred(lambda _: self._stop())
        self._reactor = reactor
        self._left = list(addresses)
        self._seconds = seconds
        self._why: MeshError = UnreachableError("the name has no address")
        self._running: dict[socket.socket, Connecting] = {}
        self._timer: Any = None
        self._next()

    def _next(self) -> None:
        """Tries the next address beside those under way."""
        self._timer = None
        while self._left:
            family, address = self._left.pop(0)
            try:
                sock = socket.socket(family, socket.SOCK_STREAM)
            except OSError as problem:  # no descriptors, or no such family here
                self._why = unreachable(problem.errno or errno.EAFNOSUPPORT)
                continue
            mark(sock)
            self._running[sock] = Connecting(
                self._reactor, sock, address, self._seconds, partial(self._decided, sock)
            )
            if self._left:
                self._timer = self._reactor.callLater(NEXT_ADDRESS, self._next)
            return
        if not self._running:
            self.won.errback(self._why)

    def _decided(self, sock: socket.socket, why: MeshError | None) -> None:
        del self._running[sock]
        if why is None:
            self._stop()
            self.won.callback(sock)
            return
        self._why = why
        if self._timer is not None:
            self._timer.cancel()
            self._next()
        elif not self._running:
            self.won.errback(self._why)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._left.clear()
        for connecting in self._running.values():
            connecting.cancel()
        self._running.clear()
