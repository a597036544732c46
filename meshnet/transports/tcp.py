"""TCP between neighbours: addresses `tcp:host:port`. Name look-up and connecting block nothing."""

from __future__ import annotations

import errno
import socket
from typing import Any, Final

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.threads import deferToThreadPool

from meshnet.errors import ConfigError, LocalError, MeshError, UnreachableError
from meshnet.transports.interface import Attach, Listener
from meshnet.transports.sockets import Connecting, SocketCarrier, SocketListener, unreachable

CONNECT_SECONDS: Final = 10.0
ADDRESSES_TRIED: Final = 4  # of a name with many
BACKLOG: Final = 256
NOTSENT_LOWAT: Final = 128 << 10  # beyond this the queue is ours, not the kernel's (docs/wire-format.md §4)
_TCP_NOTSENT_LOWAT: Final = getattr(socket, "TCP_NOTSENT_LOWAT", 25)


def tune(sock: socket.socket) -> None:
    """No delay, a short unsent queue, and keep-alive; what the platform lacks is left as it is."""
    for level, option, value in (
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, NOTSENT_LOWAT),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    ):
        try:
            sock.setsockopt(level, option, value)
        except OSError:
            continue


def split(rest: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port` to its parts. Raises ConfigError."""
    host, colon, port = rest.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if (
        not colon
        or not host.isprintable()
        or not host.strip()
        or not (port.isascii() and port.isdigit())
        or int(port) > 65_535
    ):
        raise ConfigError(f"{rest!r} is no TCP address: write host:port, such as 127.0.0.1:7001")
    return host, int(port)


def join(host: str, port: int) -> str:
    """The parts as one text; IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class TcpTransport:
    """`tcp:host:port`."""

    name = "tcp"

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def check(self, rest: str) -> None:
        """Raises ConfigError if `rest` is not host:port."""
        split(rest)

    def dial(self, rest: str, attach: Attach) -> Deferred[None]:
        """Connects to the first of the name's addresses that answers.

        Fails with UnreachableError or TimedOutError, or CancelledError when cancelled.
        """
        return Deferred.fromCoroutine(self._dial(rest, attach))

    async def _dial(self, rest: str, attach: Attach) -> None:
        host, port = split(rest)
        why: MeshError = UnreachableError("the name has no address")
        for family, address in await self._resolve(host, port):
            try:
                sock = socket.socket(family, socket.SOCK_STREAM)
            except OSError as problem:  # no descriptors, or no IPv6 here
                why = unreachable(problem.errno or errno.EAFNOSUPPORT)
                continue
            try:
                await self._connect(sock, address)
            except MeshError as problem:
                why = problem
                continue
            tune(sock)
            SocketCarrier(self._reactor, sock, attach)
            return
        raise type(why)(f"tcp:{rest}: {why}")

    async def _resolve(self, host: str, port: int) -> list[tuple[int, Any]]:
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
        except (OSError, ValueError):  # ValueError: no name at all, such as one with a label of 64 letters
            pool = self._reactor.getThreadPool()
            look_up = deferToThreadPool(
                self._reactor, pool, socket.getaddrinfo, host, port, type=socket.SOCK_STREAM
            )
            try:
                found = await look_up
            except (OSError, ValueError) as problem:
                why = problem.strerror if isinstance(problem, OSError) else "it cannot be a name"
                raise UnreachableError(f"the name {host} is unknown: {why}") from None
        return [(entry[0], entry[4]) for entry in found[:ADDRESSES_TRIED]]

    def _connect(self, sock: socket.socket, address: object) -> Deferred[None]:
        connected: Deferred[None] = Deferred(lambda _: connecting.cancel())

        def done(why: MeshError | None) -> None:
            if why is None:
                connected.callback(None)
            else:
                connected.errback(why)

        connecting = Connecting(self._reactor, sock, address, CONNECT_SECONDS, done)
        return connected

    def listen(self, rest: str, attach: Attach) -> Deferred[Listener]:
        """Binds; fails with LocalError if the port is in use or not ours to take."""
        host, port = split(rest)
        try:
            sock = _bind(host, port)
        except (OSError, ValueError) as problem:
            return fail(LocalError(f"cannot listen on tcp:{rest}: {_why(problem)}"))
        address = f"tcp:{join(*sock.getsockname()[:2])}"
        return succeed(SocketListener(self._reactor, sock, address, attach, tune))


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _why(problem: OSError | ValueError) -> str:
    if not isinstance(problem, OSError):
        return "this cannot be a name"
    if problem.errno == errno.EADDRINUSE:
        return "the port is in use; stop what uses it or choose another"
    if problem.errno in (errno.EACCES, errno.EPERM):
        return "this user may not; choose a port above 1023"
    if problem.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address"
    return problem.strerror or str(problem)
