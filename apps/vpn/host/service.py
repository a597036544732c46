"""The host under a reactor: its book opened at the first call, its calls in a thread, one after the other.

One node has one `HostThread`, which all that change the system share; each has an owner of its own in the
book. Floor 2 of this package: the rest of it knows no Twisted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from apps.vpn.host.host import BOOK, Host
from meshnet.node.app import MeshNode
from meshnet.storage.service import DiskThread

T = TypeVar("T")


class HostThread:
    """Calls with a `Host`. `open_host` makes it; it is called in the thread, once."""

    def __init__(self, reactor: Any, open_host: Callable[[], Host]) -> None:
        self._thread = DiskThread(reactor)
        self._open = open_host
        self._host: Host | None = None

    def call(self, work: Callable[[Host], T]) -> Deferred[T]:
        """Fires with what `work` returns, or fails with what it raises (LocalError and others)."""
        return self._thread.call(self._work, work)

    def close(self) -> Deferred[None]:
        """Takes no more calls, and closes the book behind those that wait; changes stay."""
        if self._host is not None:
            self._thread.call(self._host.close)
        return self._thread.close()

    def _work(self, work: Callable[[Host], T]) -> T:
        if self._host is None:
            self._host = self._open()
        return work(self._host)


def host_of(node: MeshNode) -> HostThread:
    """That of a node: the machine it runs on, its book in the node's data directory."""
    return HostThread(node.reactor, lambda: Host(node.disk, node.data / BOOK, quarantine=node.quarantine))
