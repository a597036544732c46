"""What tells an end from a breach on a UNIX socket (docs/wire-format.md §7).

Such a socket that is closed looks the same whether its owner had said all it wanted, was killed, or gave
up. So a process may pass one end of a socket pair along with the first bytes of its line (SCM_RIGHTS), and
from then on each side leaves one byte there before it ends its direction. A direction that ends without
that byte was broken. Whoever passes nothing has what UNIX sockets have.
"""

from __future__ import annotations

import array
import os
import socket
from typing import Final

MARK: Final = b"E"
_ONE: Final = socket.CMSG_LEN(array.array("i").itemsize)  # room for one descriptor: the kernel closes others


class Witness:
    """Our end of the pair; never blocks."""

    __slots__ = ("_socket",)

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock

    def leave(self) -> None:
        """Our direction ends in order: to be said before it is shut down."""
        try:
            self._socket.send(MARK)
        except OSError:
            pass  # nobody is left to be told

    def found(self) -> bool:
        """Whether the other direction ended in order; asked once, when it has ended."""
        try:
            return self._socket.recv(1) == MARK
        except OSError:
            return False

    def close(self) -> None:
        """Not needed any more."""
        self._socket.close()


def send_first(sock: socket.socket, line: bytes) -> Witness:
    """Sends a line with one end of a fresh pair; raises OSError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        socket.send_fds(sock, [line], [theirs.fileno()])
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    return Witness(ours)


def receive_first(sock: socket.socket, memory: memoryview) -> tuple[int, Witness | None]:
    """The first bytes of a connection, and the end of a pair that came with them, if one did."""
    size, ancillary, _, _ = sock.recvmsg_into([memory], _ONE)
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers = array.array("i")
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
            for number in numbers:
                return size, _witness(number)
    return size, None


def _witness(descriptor: int) -> Witness | None:
    """A descriptor of a stranger's choice; only what cannot block us will do."""
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError:
        os.close(descriptor)
        return None
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM:
        sock.close()
        return None
    return Witness(sock)
