"""TCP between neighbours: addresses `tcp:host:port`. Name look-up and connecting block nothing."""

from __future__ import annotations

import errno
import socket
from typing import Any, Final

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.defer import TimeoutError as LateError
from twisted.internet.threads import deferToThreadPool

from meshnet.errors import ConfigError, LocalError, MeshError, UnreachableError
from meshnet.transports.interface import Attach, Listener
from meshnet.transports.known import KnownAddresses
from meshnet.transports.race import Address, Race, by_turns
from meshnet.transports.sockets import SocketCarrier, SocketListener, mark

CONNECT_SECONDS: Final = 10.0
ADDRESSES_TRIED: Final = 4  # of a name with many
LOOK_UP_AGAIN: Final = 3.0  # seconds for a name whose last addresses are known
BACKLOG: Final = 256
NOTSENT_LOWAT: Final = 128 << 10
"""Unsent bytes beyond which the queue is ours, not the kernel's (docs/wire-format.md §4), at first: the lane
knows its rate and says less where it is low (`limit_unsent`). On fast ones less costs: 32 KiB took a quarter
of a stream's throughput over loopback."""
UNACKNOWLEDGED: Final = 20  # seconds until the kernel gives up on bytes that nobody acknowledges
KEEP_IDLE, KEEP_EVERY, KEEP_TRIES = 10, 5, 2  # seconds, seconds, probes: a silent peer is dead in 20 s
_OPTIONS: Final = (
    (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
    (socket.IPPROTO_TCP, "TCP_NOTSENT_LOWAT", NOTSENT_LOWAT),
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", KEEP_IDLE),
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", KEEP_EVERY),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", KEEP_TRIES),
    (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", UNACKNOWLEDGED * 1_000),
)


def tune(sock: socket.socket) -> None:
    """No delay, a short unsent queue, and a dead peer noticed in seconds; what the platform lacks is left as
    it is."""
    for level, name, value in _OPTIONS:
        option = getattr(socket, name, None)
        try:
            if option is not None:
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
    """`tcp:host:port`. `known` are the addresses that names had last."""

    name = "tcp"

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.known = KnownAddresses()

    def check(self, rest: str) -> None:
        """Raises ConfigError if `rest` is not host:port."""
        split(rest)

    def dial(self, rest: str, attach: Attach) -> Deferred[None]:
        """Looks the name up anew and connects to the first of its addresses that answers.

        Fails with UnreachableError or TimedOutError, or CancelledError when cancelled.
        """
        return Deferred.fromCoroutine(self._dial(rest, attach))

    async def _dial(self, rest: str, attach: Attach) -> None:
        host, port = split(rest)
        addresses = by_turns(await self._resolve(host, port))[:ADDRESSES_TRIED]
        try:
            sock = await Race(self._reactor, addresses, CONNECT_SECONDS).won
        except MeshError as why:
            raise type(why)(f"tcp:{rest}: {why}") from None
        tune(sock)
        SocketCarrier(self._reactor, sock, attach)

    async def _resolve(self, host: str, port: int) -> list[Address]:
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
        except (OSError, ValueError):  # ValueError: no name at all, such as one with a label of 64 letters
            return await self._look_up(host, port)
        return [(entry[0], entry[4]) for entry in found]

    async def _look_up(self, host: str, port: int) -> list[Address]:
        """A name's addresses. Those it had last serve if it cannot be looked up now, as in a tunnel whose
        other end has to be dialled first."""
        known = self.known.find(host, port)
        pool = self._reactor.getThreadPool()
        look_up = deferToThreadPool(
            self._reactor, pool, socket.getaddrinfo, host, port, type=socket.SOCK_STREAM
        )
        if known:
            look_up.addTimeout(LOOK_UP_AGAIN, self._reactor)  # the thread goes on, nobody listens
        try:
            found: list[Address] = [(entry[0], entry[4]) for entry in await look_up]
        except (OSError, ValueError, LateError) as problem:
            if known:
                return known
            why = problem.strerror if isinstance(problem, OSError) else "it cannot be a name"
            raise UnreachableError(f"the name {host} is unknown: {why}") from None
        self.known.learn(host, port, found)
        return found

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
        mark(sock)
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
