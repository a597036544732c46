"""Connections inside one process: addresses `memory:name`. For tests and for nodes that share a process.

Bytes are copied into the other side's buffer in a later turn, at most `PIPE` unread ones each way, so
back-pressure behaves as on a socket.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger

from meshnet.errors import ConfigError, LinkLostError, LocalError, MeshError, UnreachableError
from meshnet.transports.interface import Attach, ByteSink, Listener

PIPE: Final = 256 << 10

_log = Logger()


class _Carrier:
    """One end; what it has written and the other end has not read lies in `_unread`."""

    remote = ""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._unread = bytearray()
        self._scheduled = False
        self._paused = False
        self._open = True
        self._short = False
        self.sink: ByteSink | None = None
        self.other: _Carrier

    def write(self, data: memoryview) -> int:
        """Bytes taken, as far as `PIPE` goes."""
        if not self._open:
            return len(data)
        taken = min(len(data), PIPE - len(self._unread))
        self._unread += data[:taken]
        self._short = taken < len(data)
        self._schedule()
        return taken

    def pause(self) -> None:
        """Receives no more until `resume`."""
        self._paused = True

    def resume(self) -> None:
        """Receives again."""
        self._paused = False
        self.other._schedule()

    def close(self) -> None:
        """Ends both sides; what was written before still arrives."""
        if self._open:
            self._open = False
            self._reactor.callLater(0, self._tell, "closed by this side")
            self._schedule()

    def _tell(self, why: str) -> None:
        if self.sink is not None:  # else `attach` raised: there is nobody to tell
            self.sink.lost(LinkLostError(why))

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._reactor.callLater(0, self._deliver)

    def _deliver(self) -> None:
        self._scheduled = False
        other = self.other
        while self._unread and other._open and not other._paused:
            self._pass_on(other)
        if self._open and self._short and len(self._unread) < PIPE and self.sink is not None:
            self._short = False
            self.sink.drained()
        if not self._open and other._open and not (self._unread and other._paused):
            other._open = False
            other._tell("the other side closed the connection")

    def _pass_on(self, other: _Carrier) -> None:
        """Fills the other side's buffer once. What its sink raises ends the connection."""
        assert other.sink is not None  # a carrier without a sink is not open
        try:
            room = other.sink.buffer()
            size = min(len(room), len(self._unread))
            room[:size] = self._unread[:size]
            del self._unread[:size]
            other.sink.filled(size)
        except Exception:
            _log.failure("a connection in memory failed")
            other.close()


class _Listener:
    def __init__(self, names: dict[str, Attach], name: str) -> None:
        self._names = names
        self._name = name
        self.address = f"memory:{name}"

    def stop(self) -> None:
        """The name is free again; connections stay."""
        self._names.pop(self._name, None)


class MemoryTransport:
    """`memory:name`. Nodes that shall reach each other share one object."""

    name = "memory"

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._listening: dict[str, Attach] = {}

    def check(self, rest: str) -> None:
        """Raises ConfigError if the name is empty."""
        if not rest:
            raise ConfigError("memory: needs a name")

    def dial(self, rest: str, attach: Attach) -> Deferred[None]:
        """Connects at once; fails with UnreachableError if nobody listens on that name, or with what
        `attach` raises."""
        accept = self._listening.get(rest)
        if accept is None:
            why: MeshError = UnreachableError(f"nothing listens on memory:{rest}")
            return fail(why)
        near, far = _Carrier(self._reactor), _Carrier(self._reactor)
        near.other, far.other = far, near
        try:
            far.sink = accept(far)
        except Exception:
            _log.failure("a connection to memory:{name} could not be taken", name=rest)
            far.close()
        try:
            near.sink = attach(near)
        except Exception:
            near.close()
            return fail()
        return succeed(None)

    def listen(self, rest: str, attach: Attach) -> Deferred[Listener]:
        """Takes the name; fails with LocalError if it is taken."""
        if rest in self._listening:
            return fail(LocalError(f"cannot listen on memory:{rest}: the name is in use"))
        self._listening[rest] = attach
        return succeed(_Listener(self._listening, rest))
