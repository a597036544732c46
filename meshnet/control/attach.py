"""A node that runs in another process, used by its local door (docs/wire-format.md §7).

`AttachedNode` does for endpoints what a node of this process does: it opens streams, takes ports, and knows
what names mean, because it passes them on as they were written. Its streams are connections to the door. A
port that was taken once is taken again, with growing pauses, whenever the node comes back.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from meshnet.cipher.keys import PublicKey
from meshnet.control.lines import (
    Accept,
    Connect,
    LineReader,
    Listen,
    Request,
    read_answer,
    read_incoming,
    write_request,
)
from meshnet.control.local import LocalStream
from meshnet.control.witness import Witness, send_first
from meshnet.errors import MeshError, UnreachableError
from meshnet.streams import Accept as AcceptStream
from meshnet.streams import Stream, StreamReader

PATIENCE: Final = 1.0  # seconds that taking a port may keep a program from everything else
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between attempts to take a port again

_log = Logger()


class ReactorClock:
    """The clock that streams of an attached node run by."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def call_later(self, delay: float, call: Callable[[], None]) -> Callable[[], None]:
        """Calls after `delay` seconds; returns what cancels it, harmless if it already ran."""
        later = self._reactor.callLater(delay, call)

        def cancel() -> None:
            if later.active():
                later.cancel()

        return cancel


class AttachedNode:
    """The node whose local door is at `path`."""

    public_key: PublicKey | None = None
    """Not known here; a port that was taken knows it."""

    def __init__(self, reactor: Any, path: Path) -> None:
        self.path = path
        self.clock = ReactorClock(reactor)
        self._reactor = reactor

    def lookup(self, text: str) -> str:
        """The same text: the node itself knows what it stands for."""
        return text

    def connect(
        self,
        target: str,
        port: int,
        reader: StreamReader,
        *,
        via: Sequence[str] | None = None,
        identity: str = "anonymous",
        policy: str | None = None,
    ) -> Deferred[Stream]:
        """Opens a stream; fails with what the node said, or UnreachableError where none runs."""
        request = Connect(target, port, identity, None if via is None else tuple(via), policy)
        call = Call(self, request, lambda stream: reader)
        call.stream.port = port
        return call.done

    def listen(self, port: int, accept: AcceptStream, service: str | None = None) -> AttachedPort:
        """Takes a port of the node, and keeps it. Raises what the node said, or UnreachableError."""
        return AttachedPort(self, Listen(port, service), accept)

    def dial(self, reader: StreamReader, request: Request) -> LocalStream:
        """A connection to the door that has asked for this; raises UnreachableError, UsageError."""
        sock, witness = ask(self.path, request)
        return LocalStream(self._reactor, sock, reader, _nothing, lasting=False, witness=witness)


def ask(path: Path, request: Request) -> tuple[socket.socket, Witness]:
    """A connection that has said its line, and what tells its end from a breach."""
    line = write_request(request)
    sock = open_door(path)
    try:
        return sock, send_first(sock, line)
    except OSError:
        sock.close()
        raise UnreachableError("The node closed the connection.") from None


def open_door(path: Path) -> socket.socket:
    """A connected socket; raises UnreachableError with what to do."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(PATIENCE)  # it takes that long only where a node hangs
    try:
        sock.connect(os.fspath(path))
    except OSError as problem:
        sock.close()
        if isinstance(problem, PermissionError):
            text = f"No permission to use {path}; run as the user that runs the node."
        elif isinstance(problem, TimeoutError):
            text = f"The node at {path} takes no connection; it has too much to do."
        else:
            text = f"No node answers on {path}; start it with meshnet up."
        raise UnreachableError(text) from None
    return sock


class Call:
    """A request that turns its connection into a stream: CONNECT or ACCEPT.

    `done` fires with the stream once the node said OK; `choose(stream)` then gives its reader, None to
    refuse it. Cancelling `done` closes the connection.
    """

    def __init__(
        self, node: AttachedNode, request: Request, choose: Callable[[Stream], StreamReader | None]
    ) -> None:
        self._lines = LineReader()
        self._choose = choose
        self.stream = node.dial(self, request)
        self.done: Deferred[Stream] = Deferred(lambda _: self.stream.reset())

    def data_received(self, data: memoryview) -> None:
        """The answer; what follows it is the stream's."""
        stream = self.stream
        try:
            line, used = self._lines.feed(data)
            stream.consumed(used)
            if line is None:
                return
            stream.peer = read_answer(line).key
        except MeshError as error:
            self._fail(error)
            return
        reader = self._choose(stream)
        if reader is None:
            stream.reset()
            return
        stream.reader = reader
        self.done.callback(stream)
        if used < len(data):
            reader.data_received(data[used:])

    def finished(self) -> None:
        """The node closed it without a word."""
        self._fail(UnreachableError("The node closed the connection without an answer."))

    def lost(self, why: MeshError) -> None:
        """The same."""
        self._fail(UnreachableError("The node closed the connection without an answer."))

    def drained(self) -> None:
        """Nothing waits."""

    def _fail(self, error: MeshError) -> None:
        self.stream.reset()
        if not self.done.called:
            self.done.errback(error)


class AttachedPort:
    """A port of an attached node; `port` is its number, `key` the node's once known."""

    def __init__(self, node: AttachedNode, request: Listen, accept: AcceptStream) -> None:
        self.port = request.port
        self.key: PublicKey | None = None
        self.taken: Deferred[None] = Deferred(lambda _: self.stop())
        """Fires once, when the port is taken for the first time; fails with what the node said."""
        self._node = node
        self._request = request
        self._accept = accept
        self._pause = FIRST_PAUSE
        self._cancel: Callable[[], None] = lambda: None
        self._stopped = False
        self._lines = LineReader()
        self._held = False
        self._stream = self._dial()
        if not _same_process(self._stream):
            self._stream.wait(PATIENCE)

    def stop(self) -> None:
        """Gives it back; streams stay."""
        self._stopped = True
        self._cancel()
        self._stream.reset()

    def _dial(self) -> LocalStream:
        self._lines = LineReader()
        self._held = False
        return self._node.dial(self, self._request)

    # -- StreamReader

    def data_received(self, data: memoryview) -> None:
        """OK, then INCOMING lines."""
        stream, rest = self._stream, data
        stream.consumed(len(data))
        try:
            while len(rest) and not self._stopped:
                line, used = self._lines.feed(rest)
                rest = rest[used:]
                if line is not None:
                    self._line(line)
        except MeshError as error:
            stream.reset()
            self._again(error)

    def finished(self) -> None:
        """The node closed the connection."""
        self.lost(UnreachableError("the node closed the connection"))

    def lost(self, why: MeshError) -> None:
        """The node has gone; it may come back."""
        self._stream.reset()
        self._again(UnreachableError("The node has gone."))

    def drained(self) -> None:
        """Nothing waits."""

    # -- within

    def _line(self, line: str) -> None:
        if self._held:
            self._incoming(read_incoming(line).id)
            return
        self.key = read_answer(line).key
        self._held = True
        self._pause = FIRST_PAUSE
        if not self.taken.called:
            self.taken.callback(None)
        else:
            _log.info("mesh port {port} is taken again", port=self.port)

    def _incoming(self, number: int) -> None:
        try:
            call = Call(self._node, Accept(number), self._accept)
        except MeshError as error:
            _log.warn("a stream could not be accepted: {error}", error=str(error))
            return
        call.stream.port = self.port
        call.done.addErrback(lambda failure: _log.debug("a stream went: {why}", why=str(failure.value)))

    def _again(self, why: MeshError) -> None:
        if self._stopped:
            return
        if not self.taken.called:
            self._stopped = True
            self.taken.errback(why)
            return
        if self._held:
            _log.warn("mesh port {port} is lost: {why} It will be taken again.", port=self.port, why=why)
        self._held = False
        pause, self._pause = self._pause, min(self._pause * 2, LONGEST_PAUSE)
        self._cancel = self._node.clock.call_later(pause, self._retry)

    def _retry(self) -> None:
        try:
            self._stream = self._dial()
        except MeshError as error:
            self._again(error)


def _same_process(stream: LocalStream) -> bool:
    """Whether the node runs under this very reactor: then waiting for its answer would wait for ever."""
    return stream.peer_process() in (0, os.getpid())


def _nothing(stream: LocalStream) -> None:
    """Nobody counts the connections of a program."""
