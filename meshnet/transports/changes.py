"""Notices that the machine's addresses or routes have changed, so that links are looked at in time.

On Linux the kernel tells (rtnetlink); elsewhere nobody does, and silence on the links has to. Nothing here
says what has changed: whoever asked looks at everything. Changes that come together are told once.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection
from struct import Struct, error
from typing import Any, Final

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

SETTLE: Final = 1.0  # seconds after the first of several changes
AGAIN: Final = 10.0  # seconds until changes are told again
LARGEST_MESSAGE: Final = 65_536
MESSAGES_PER_TURN: Final = 16
_GROUPS: Final = 0x10 | 0x40 | 0x100 | 0x400  # addresses and routes, IPv4 and IPv6 (rtnetlink(7))
ADDRESSES_AND_ROUTES: Final = frozenset({20, 21, 24, 25})
"""Types of messages: new and deleted addresses and routes."""
_head = Struct("=IH").unpack_from  # length of the message, its header included, and its type


def changes_in(data: bytes, types: Collection[int] = ADDRESSES_AND_ROUTES) -> bool:
    """Whether among the messages of rtnetlink is one of these types, such as that an address has come."""
    start = 0
    while start < len(data):
        try:
            length, kind = _head(data, start)
        except error:
            return False
        if kind in types:
            return True
        if length < 16:
            return False
        start += length + 3 & ~3
    return False


def kernel_socket(groups: int = _GROUPS, protocol: int = 0) -> socket.socket | None:
    """Where the kernel tells; None where it does not. `groups` and `protocol` are those of netlink(7)."""
    family = getattr(socket, "AF_NETLINK", None)
    if family is None:
        return None
    try:
        sock = socket.socket(family, socket.SOCK_RAW, protocol)
    except OSError:  # forbidden, as in some containers
        return None
    try:
        sock.setblocking(False)
        sock.bind((0, groups))
    except OSError:
        sock.close()
        return None
    return sock


@implementer(IReadDescriptor)
class Changes:
    """Calls `changed` some time after something has changed, until `stop`. `tells` says of what the kernel
    sent whether it is of interest; `settle` and `again` are seconds, as above."""

    def __init__(
        self,
        reactor: Any,
        sock: socket.socket,
        changed: Callable[[], None],
        *,
        tells: Callable[[bytes], bool] = changes_in,
        settle: float = SETTLE,
        again: float = AGAIN,
    ) -> None:
        self._reactor = reactor
        self._socket = sock
        self._changed = changed
        self._tells = tells
        self._settle = settle
        self._again = again
        self._timer: Any = None
        self._quiet_until = reactor.seconds()
        reactor.addReader(self)

    def stop(self) -> None:
        """Tells no more; twice is once."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._socket.fileno() >= 0:
            self._reactor.removeReader(self)
            self._socket.close()

    def fileno(self) -> int:
        """For the reactor."""
        return self._socket.fileno()

    def doRead(self) -> None:
        """The kernel has something to tell."""
        for _ in range(MESSAGES_PER_TURN):
            try:
                data = self._socket.recv(LARGEST_MESSAGE)
            except BlockingIOError:
                return
            except OSError:  # more changes than the kernel keeps (ENOBUFS): changes they are
                self._note()
                return
            if self._tells(data):
                self._note()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor is stopping."""
        self.stop()

    def logPrefix(self) -> str:
        """For the reactor's log."""
        return "mesh"

    def _note(self) -> None:
        if self._timer is None:
            wait = max(self._settle, self._quiet_until - self._reactor.seconds())
            self._timer = self._reactor.callLater(wait, self._tell)

    def _tell(self) -> None:
        self._timer = None
        self._quiet_until = self._reactor.seconds() + self._again
        self._changed()


def watch(reactor: Any, changed: Callable[[], None]) -> Callable[[], None]:
    """Calls `changed` when the network of this machine has; returns what ends that."""
    sock = kernel_socket() if IReactorFDSet.providedBy(reactor) else None
    return Changes(reactor, sock, changed).stop if sock is not None else lambda: None
