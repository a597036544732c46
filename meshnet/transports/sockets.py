"""Stream sockets of our own under the reactor: what TCP and UNIX connections share.

The kernel receives straight into the sink's buffer and sends from the caller's memory; Twisted's own
transports would copy.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from meshnet.errors import LinkLostError, MeshError, TimedOutError, UnreachableError
from meshnet.transports.gate import Gate
from meshnet.transports.interface import Attach, ByteSink

AGAIN: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR, errno.ENOBUFS})
EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
INTERNET: Final = frozenset({socket.AF_INET, socket.AF_INET6})
ACCEPTS_PER_TURN: Final = 16
ACCEPT_AGAIN: Final = 0.5  # seconds, after descriptors or memory ran out
ACCEPT_SOON: Final = 0.05  # after too many came at once

MARK: Final = 0x6D657368
"""What the kernel knows packets of links by, where this process may say so (SO_MARK, socket(7)): what leads
all other packets into a tunnel lets these pass. A transport marks each socket that leads to neighbours."""
_SO_MARK: Final = 36

_log = Logger()


def mark(sock: socket.socket) -> bool:
    """Marks a socket before it is connected or bound; false where this process may not, or not on this
    system. A listening socket hands its mark on to those that it accepts."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_MARK, MARK)
    except OSError:  # without CAP_NET_ADMIN: then this process cannot make such a tunnel either
        return False
    return True


@implementer(IReadWriteDescriptor)
class SocketCarrier:
    """A connected, non-blocking stream socket under the reactor. What `attach` raises closes it and goes on
    to the caller; what its sink raises later is logged by the reactor and ends the connection."""

    direct = True  # meshnet/cli/reactor.py

    def __init__(self, reactor: Any, sock: socket.socket, attach: Attach) -> None:
        sock.setblocking(False)
        self._reactor = reactor
        self._socket = sock
        self._receive_into = sock.recv_into
        self._send = sock.send
        self._closing = False
        self._paused = False
        self._sink: ByteSink | None = None
        self.remote = remote(sock)
        try:
            self._sink = attach(self)
        except BaseException:
            self.close()
            raise
        self._buffer = self._sink.buffer
        self._filled = self._sink.filled
        if not self._paused and not self._closing:
            reactor.addReader(self)

    def write(self, data: memoryview) -> int:
        """Bytes the kernel took; asks for `drained` if it was not all."""
        if self._closing:
            return len(data)
        try:
            taken = self._send(data)
        except OSError as problem:
            if problem.errno not in AGAIN:
                self._end(_lost(problem))
                return len(data)
            taken = 0
        if taken < len(data):
            self._reactor.addWriter(self)
        return taken

    def limit_unsent(self, size: int) -> None:
        """The kernel holds no more than about `size` bytes that it has not sent, where it can be told."""
        option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
        if option is None or self._closing or self._socket.family not in INTERNET:
            return
        with suppress(OSError):
            self._socket.setsockopt(socket.IPPROTO_TCP, option, size)

    def pause(self) -> None:
        """Stops reading."""
        self._paused = True
        self._reactor.removeReader(self)

    def resume(self) -> None:
        """Reads again."""
        if self._paused and not self._closing:
            self._paused = False
            self._reactor.addReader(self)

    def close(self) -> None:
        """Ends the connection; the sink's `lost` follows in a later turn."""
        self._end(LinkLostError("closed by this side"))

    def fileno(self) -> int:
        """For the reactor."""
        return self._socket.fileno()

    def doRead(self) -> None:
        """The kernel has bytes: one receive into all the room the sink has."""
        try:
            size = self._receive_into(self._buffer())
        except OSError as problem:
            if problem.errno not in AGAIN:
                self._end(_lost(problem))
            return
        if size:
            self._filled(size)
        else:
            self._end(LinkLostError("the other side closed the connection"))

    def doWrite(self) -> None:
        """The kernel takes bytes again."""
        self._reactor.removeWriter(self)
        if self._sink is not None and not self._closing:  # it may have closed in this turn's doRead
            self._sink.drained()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor found the socket broken, or is stopping."""
        self._end(LinkLostError("the connection broke"))

    def logPrefix(self) -> str:
        """For the reactor's log."""
        return "mesh"

    def _end(self, why: MeshError) -> None:
        if self._closing:
            return
        self._closing = True
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        self._socket.close()
        self._reactor.callLater(0, self._tell, why)

    def _tell(self, why: MeshError) -> None:
        if self._sink is not None:  # else `attach` raised: there is nobody to tell
            self._sink.lost(why)


def remote(sock: socket.socket) -> str:
    """Where the other end of a socket is, for people; empty if it cannot be said."""
    try:
        name = sock.getpeername()
    except OSError:
        return ""
    if not isinstance(name, tuple):
        return f"unix:{name}" if name else ""
    host, port = name[:2]
    return f"tcp:[{host}]:{port}" if ":" in host else f"tcp:{host}:{port}"


def _lost(problem: OSError) -> LinkLostError:
    return LinkLostError(f"the connection broke: {os.strerror(problem.errno or 0)}")


@implementer(IReadWriteDescriptor)
class Connecting:
    """A socket on its way: `done` gets None when it stands, else the error. Times out by itself; whoever
    needs it no more calls `cancel`, which closes the socket and calls nobody."""

    def __init__(
        self,
        reactor: Any,
        sock: socket.socket,
        address: object,
        seconds: float,
        done: Callable[[MeshError | None], None],
    ) -> None:
        self._reactor = reactor
        self._socket = sock
        self._done = done
        self._descriptor = sock.fileno()
        sock.setblocking(False)
        try:
            code = sock.connect_ex(address)  # type: ignore[arg-type]
        except OSError as problem:
            code = problem.errno or errno.EINVAL
        self._timer = reactor.callLater(seconds, self._late, seconds)
        if code == errno.EAGAIN and sock.family == socket.AF_UNIX:
            reactor.callLater(0, self._finish, UnreachableError("it takes no more connections now"))
        elif code in (0, errno.EISCONN, errno.EINPROGRESS, errno.EAGAIN):
            reactor.addWriter(self)
        else:
            reactor.callLater(0, self._finish, unreachable(code))

    def fileno(self) -> int:
        """For the reactor."""
        return self._descriptor

    def doWrite(self) -> None:
        """The kernel has decided."""
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._finish(unreachable(code) if code else None)

    def doRead(self) -> None:
        """Never asked for."""

    def connectionLost(self, reason: Failure) -> None:
        """The reactor found the socket broken (refused, as a rule), or is stopping."""
        if self._descriptor < 0:
            return
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._finish(unreachable(code or errno.ECONNREFUSED))

    def logPrefix(self) -> str:
        """For the reactor's log."""
        return "mesh"

    def _late(self, seconds: float) -> None:
        self._finish(TimedOutError(f"no answer within {seconds:.0f} s"))

    def cancel(self) -> None:
        """Gives up; harmless if it has finished."""
        if self._settled():
            self._socket.close()

    def _finish(self, why: MeshError | None) -> None:
        if self._settled():
            if why is not None:
                self._socket.close()
            self._done(why)

    def _settled(self) -> bool:
        """Out of the reactor; false if it was already."""
        if self._descriptor < 0:
            return False
        self._reactor.removeWriter(self)
        self._descriptor = -1
        if self._timer.active():
            self._timer.cancel()
        return True


async def connected(reactor: Any, sock: socket.socket, address: object, seconds: float, name: str) -> None:
    """Connects `sock`, or closes it and raises an error that begins with `name`. May be cancelled."""
    standing: Deferred[None] = Deferred(lambda _: connecting.cancel())

    def done(why: MeshError | None) -> None:
        if why is None:
            standing.callback(None)
        else:
            standing.errback(type(why)(f"{name}: {why}"))

    connecting = Connecting(reactor, sock, address, seconds, done)
    await standing


@implementer(IReadWriteDescriptor)
class SocketListener:
    """A listening socket under the reactor. `tune` runs on each accepted one, `stopped` when it is closed."""

    def __init__(
        self,
        reactor: Any,
        sock: socket.socket,
        address: str,
        attach: Attach,
        tune: Callable[[socket.socket], None],
        stopped: Callable[[], None] = lambda: None,
    ) -> None:
        self._reactor = reactor
        self._gate = Gate(reactor.seconds())
        self._socket = sock
        self._attach = attach
        self._tune = tune
        self._stopped = stopped
        self._pause: Any = None
        self.address = address
        reactor.addReader(self)

    def stop(self) -> None:
        """Closes the listening socket; connections stay."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._socket.fileno() >= 0:
            self._reactor.removeReader(self)
            self._socket.close()
            self._stopped()

    def fileno(self) -> int:
        """For the reactor."""
        return self._socket.fileno()

    def doRead(self) -> None:
        """Accepts what waits, a bounded number each turn and second; hangs up on whom the gate turns away."""
        gate, now = self._gate, self._reactor.seconds()
        for _ in range(ACCEPTS_PER_TURN):
            if not gate.accepts(now):
                self._rest(ACCEPT_SOON)
                return
            try:
                sock, address = self._socket.accept()
            except OSError as problem:
                if problem.errno in EXHAUSTED:
                    why = os.strerror(problem.errno or 0)
                    _log.warn("{address} accepts nobody now: {why}", address=self.address, why=why)
                    self._rest(ACCEPT_AGAIN)
                return
            if not gate.admits(address[0] if isinstance(address, tuple) else "", now):
                sock.close()
                continue
            self._tune(sock)
            try:
                SocketCarrier(self._reactor, sock, self._attach)
            except Exception:
                _log.failure("a connection to {address} could not be taken", address=self.address)
            if self._socket.fileno() < 0:
                return  # stopped meanwhile

    @property
    def turned_away(self) -> int:
        """Connections that were hung up on before their handshake, since there were too many."""
        return self._gate.turned_away

    def know(self, where: str) -> None:
        """A connection from there, as its carrier's `remote`, has become a neighbour's."""
        host = where.partition(":")[2].rpartition(":")[0].removeprefix("[").removesuffix("]")
        if host:
            self._gate.know(host)

    def _rest(self, seconds: float) -> None:
        """Whoever waits keeps the socket readable: without a pause the reactor would ask without end."""
        self._reactor.removeReader(self)
        self._pause = self._reactor.callLater(seconds, self._again)

    def _again(self) -> None:
        self._pause = None
        self._reactor.addReader(self)

    def doWrite(self) -> None:
        """Never asked for."""

    def connectionLost(self, reason: Failure) -> None:
        """The reactor is stopping."""
        self.stop()

    def logPrefix(self) -> str:
        """For the reactor's log."""
        return "mesh"


def unreachable(code: int) -> UnreachableError:
    """A connect error as a sentence's end."""
    if code == errno.ECONNREFUSED:
        return UnreachableError("nothing listens there")
    return UnreachableError(f"it cannot be reached: {os.strerror(code)}")
