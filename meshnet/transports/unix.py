"""UNIX sockets between nodes of one machine: addresses `unix:/path`, to listen also `unix:/path:mode=660`.

The socket's file is 0600 from the moment it exists, or of the mode that the address says. A file that a node
left behind is removed if nobody answers there, and at the end by whoever made it. The bytes go as on TCP.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from typing import Any, Final

from attrs import frozen
from twisted.internet.defer import Deferred, fail, succeed

from meshnet.errors import ConfigError, LocalError, StorageError
from meshnet.storage.disk import RealDisk
from meshnet.storage.files import discard
from meshnet.transports.interface import Attach, Listener
from meshnet.transports.sockets import SocketCarrier, SocketListener, connected

MODE: Final = 0o600
LONGEST_PATH: Final = 107 if sys.platform.startswith("linux") else 103  # bytes; the kernel has no more
CONNECT_SECONDS: Final = 10.0
BACKLOG: Final = 256


@frozen
class Place:
    """A path in the file system, and the mode of the socket there."""

    path: str
    mode: int


def split(rest: str) -> Place:
    """`/path` or `/path:mode=660`. Raises ConfigError."""
    path, option, digits = rest.partition(":mode=")
    mode = MODE
    if option:
        try:
            mode = int(digits, 8)
        except ValueError:
            mode = -1
        if not 0 <= mode <= 0o777 or not digits.isdigit():
            raise ConfigError(f"{rest!r}: {digits!r} is no file mode: write three octal digits, such as 660")
    if not path.startswith("/") or not path.isprintable() or path.endswith("/"):
        raise ConfigError(f"{rest!r} is no UNIX address: write a whole path, such as /run/mesh/link.sock")
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise ConfigError(f"{path!r} has more than {LONGEST_PATH} bytes, which no socket's path may have")
    return Place(path, mode)


class UnixTransport:
    """`unix:/path`."""

    name = "unix"

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def check(self, rest: str) -> None:
        """Raises ConfigError if `rest` is no path."""
        split(rest)

    def dial(self, rest: str, attach: Attach) -> Deferred[None]:
        """Connects; fails with UnreachableError, or CancelledError when cancelled."""
        return Deferred.fromCoroutine(self._dial(rest, attach))

    async def _dial(self, rest: str, attach: Attach) -> None:
        place = split(rest)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        await connected(self._reactor, sock, place.path, CONNECT_SECONDS, f"unix:{place.path}")
        SocketCarrier(self._reactor, sock, attach)

    def listen(self, rest: str, attach: Attach) -> Deferred[Listener]:
        """Binds; fails with LocalError if somebody listens there already, or the path cannot be used."""
        place = split(rest)
        try:
            sock = _bind(place)
        except LocalError:
            return fail()
        except OSError as problem:
            why = problem.strerror or str(problem)
            return fail(LocalError(f"cannot listen on unix:{place.path}: {why}"))
        made = os.stat(place.path)
        return succeed(
            SocketListener(
                self._reactor,
                sock,
                f"unix:{place.path}",
                attach,
                lambda accepted: None,
                stopped=lambda: _remove(place.path, made),
            )
        )


def _bind(place: Place) -> socket.socket:
    _clear(place.path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        os.fchmod(sock.fileno(), place.mode)  # Linux gives the file this mode at once, less the umask
        sock.bind(place.path)
        os.chmod(place.path, place.mode)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _clear(path: str) -> None:
    """Removes a socket that nobody listens on. Raises LocalError if somebody does, or if it is no socket."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise LocalError(f"cannot listen on unix:{path}: a file is there that is no socket; move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        if probe.connect_ex(path) != errno.ECONNREFUSED:
            raise LocalError(f"cannot listen on unix:{path}: the path is in use; stop what listens there")
    _remove(path, found)


def _remove(path: str, ours: os.stat_result) -> None:
    """Removes the file if it is still the same one."""
    try:
        if os.path.samestat(os.lstat(path), ours):
            discard(RealDisk(), path)
    except (OSError, StorageError):
        return  # somebody else was faster, or took the directory away
