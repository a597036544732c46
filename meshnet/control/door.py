"""The local door of a node: other processes use it over a UNIX socket (docs/wire-format.md §7).

One connection is one stream. A process says one line (`meshnet/control/lines.py`), the door answers with
one, and after CONNECT and ACCEPT the connection is joined to a stream of the mesh. A connection that said
LISTEN owns its port as long as it lives and is told of each stream that comes in; whoever says ACCEPT with
its id gets it. Everything that a process can make the door hold is limited (docs/operations.md, limits),
and one that is slow or says nothing costs only its own connection. It knows its node as `DoorNode`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from meshnet.cipher.address import Target, node_key
from meshnet.cipher.keys import PublicKey
from meshnet.control.lines import (
    Accept,
    Connect,
    LineReader,
    Listen,
    read_request,
    write_error,
    write_incoming,
    write_ok,
)
from meshnet.control.local import BACKLOG, LocalListener, LocalStream
from meshnet.control.server import claim_socket
from meshnet.control.splice import CANCELLED, Flow, pair
from meshnet.errors import CodecError, LocalError, MeshError, TimedOutError, UnreachableError
from meshnet.limits import (
    DOOR_ACCEPT_SECONDS,
    DOOR_CONNECTIONS,
    DOOR_LINE_SECONDS,
    DOOR_PORTS,
    DOOR_UNREAD_LINES,
    DOOR_WAITING,
)
from meshnet.storage.disk import RealDisk
from meshnet.storage.files import discard
from meshnet.streams import Accept as AcceptStream
from meshnet.streams import PortListener, Stream, StreamReader

ID_SIZE: Final = 8
UNREACHABLE: Final = 5
"""Code of a reset (docs/wire-format.md §5): what the stream leads to does not answer."""

_log = Logger()


class DoorClock(Protocol):
    """Calls later."""

    def call_later(self, delay: float, call: Callable[[], None]) -> Callable[[], None]:
        """Calls after `delay` seconds; returns what cancels it."""


class DoorNode(Protocol):
    """What the door needs of its node."""

    @property
    def public_key(self) -> PublicKey:
        """Who it is."""

    @property
    def clock(self) -> DoorClock:
        """The node's clock."""

    def lookup(self, text: str) -> Target:
        """What hex digits, an address or a pet name stand for; raises UsageError."""

    def connect(
        self,
        target: Target,
        port: int,
        reader: StreamReader,
        *,
        via: Sequence[PublicKey] | None = None,
        identity: str = "anonymous",
        policy: str | None = None,
    ) -> Deferred[Stream]:
        """Opens a stream."""

    def listen(self, port: int, accept: AcceptStream, service: str | None = None) -> PortListener:
        """Takes a mesh port, perhaps of a hidden service; raises LocalError if it is taken."""

    def service_key(self, text: str) -> PublicKey:
        """The key of a hidden service of this node; raises UsageError."""


class Waiting:
    """A stream that came in and that no process has accepted yet."""

    __slots__ = ("cancel", "flow", "stream")

    def __init__(self, stream: Stream, flow: Flow, cancel: Callable[[], None]) -> None:
        self.stream = stream
        self.flow = flow
        self.cancel = cancel


class Door:
    """The door at `path`. `random(n)` gives n bytes."""

    def __init__(self, node: DoorNode, reactor: Any, path: Path, random: Callable[[int], bytes]) -> None:
        self.node = node
        self.reactor = reactor
        self.path = path
        self.random = random
        self.waiting: dict[int, Waiting] = {}
        self.ports = 0
        """Mesh ports that processes hold now."""
        self.streams = 0
        """Streams that went through the door since it opened."""
        self.callers: dict[LocalStream, Caller] = {}
        self._listener: LocalListener | None = None

    def start(self) -> None:
        """Makes the socket, for this user only; raises LocalError with what is in the way."""
        claim_socket(self.path, "local door's socket", "[control] attach")
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(os.fspath(self.path))
            self.path.chmod(0o600)  # nobody can connect before listen()
            sock.listen(BACKLOG)
        except OSError as problem:
            sock.close()
            why = os.strerror(problem.errno or 0).lower()
            raise LocalError(f"Cannot make the local door's socket {self.path}: {why}.") from None
        self._listener = LocalListener(self.reactor, sock, self._taken)

    def stop(self) -> None:
        """Closes everything; processes see their connections end, the far sides a reset."""
        if self._listener is None:
            return
        self._listener.stop()
        self._listener = None
        discard(RealDisk(), self.path)
        for caller in list(self.callers.values()):
            caller.abort()
        for number in list(self.waiting):
            self.turn_away(number)

    def snapshot(self) -> dict[str, int]:
        """What it does now: connections, ports, waiting; and streams, a count since the start."""
        now = {"connections": len(self.callers), "ports": self.ports, "waiting": len(self.waiting)}
        return {**now, "streams": self.streams}

    def offer(self, stream: Stream, owner: Owner) -> StreamReader | None:
        """A stream came to a process's port: it is told, and has ten seconds to accept it."""
        if self._listener is None or len(self.waiting) >= DOOR_WAITING:
            return None
        number = int.from_bytes(self.random(ID_SIZE), "big")
        if number in self.waiting or not owner.tell(write_incoming(number, stream.peer)):
            return None
        flow = Incoming(self, number)
        cancel = self.node.clock.call_later(DOOR_ACCEPT_SECONDS, lambda: self.turn_away(number))
        self.waiting[number] = Waiting(stream, flow, cancel)
        return flow

    def take(self, number: int) -> Waiting:
        """The stream with that id; raises UnreachableError where there is none (any more)."""
        waiting = self.waiting.pop(number, None)
        if waiting is None:
            seconds = f"{DOOR_ACCEPT_SECONDS:.0f} seconds"
            raise UnreachableError(f"No stream waits with the id {number}; each waits {seconds} at most.")
        waiting.cancel()
        return waiting

    def turn_away(self, number: int) -> None:
        """Nobody accepted it."""
        waiting = self.waiting.pop(number, None)
        if waiting is not None:
            waiting.cancel()
            waiting.stream.reset(UNREACHABLE)

    def forget(self, number: int) -> None:
        """The far side gave it up."""
        waiting = self.waiting.pop(number, None)
        if waiting is not None:
            waiting.cancel()

    def _taken(self, sock: socket.socket) -> None:
        caller = Caller(self)
        stream = LocalStream(self.reactor, sock, caller, self._gone, lasting=True)
        self.callers[stream] = caller
        caller.begin(stream)

    def _gone(self, stream: LocalStream) -> None:
        self.callers.pop(stream).gone()


class Incoming(Flow):
    """From a stream that came in to the process that accepts it; until then it may go away."""

    __slots__ = ("_door", "_number")

    def __init__(self, door: Door, number: int) -> None:
        super().__init__()
        self._door = door
        self._number = number

    def lost(self, why: MeshError) -> None:
        """No process needs to be offered it any more."""
        self._door.forget(self._number)
        super().lost(why)


class Outgoing(Flow):
    """From the stream that CONNECT opens to its process. It holds what comes until the process has been
    told OK; if the far side refuses, the process is told that instead."""

    __slots__ = ("_answer",)

    def __init__(self, answer: Callable[[MeshError | None], None]) -> None:
        super().__init__()
        self._answer = answer

    def data_received(self, data: memoryview) -> None:
        """Bytes say that the stream was accepted."""
        super().data_received(data)
        if self.sink is None:
            self._answer(None)

    def finished(self) -> None:
        """So does an end."""
        super().finished()
        if self.sink is None:
            self._answer(None)

    def lost(self, why: MeshError) -> None:
        """It was refused, or was lost later."""
        waited = self.sink is None
        super().lost(why)
        if waited:
            self._answer(why)


class Owner(Protocol):
    """A connection that holds a port."""

    def tell(self, line: bytes) -> bool:
        """Sends a line; false if too many wait to be read."""


class Caller:
    """A connection of a process: reads its line, then acts on it or steps aside."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._lines = LineReader()
        self._stream: LocalStream
        self._port: PortListener | None = None
        self._unsent = bytearray()
        self._cancel: Callable[[], None] = lambda: None

    def begin(self, stream: LocalStream) -> None:
        """The connection stands: its line is awaited."""
        self._stream = stream
        if len(self._door.callers) > DOOR_CONNECTIONS:
            self.refuse(LocalError(f"This node serves {DOOR_CONNECTIONS} connections of processes at most."))
            return
        late = TimedOutError(f"No line came within {DOOR_LINE_SECONDS:.0f} seconds.")
        self._cancel = self._door.node.clock.call_later(DOOR_LINE_SECONDS, lambda: self.refuse(late))

    def abort(self) -> None:
        """The door closes: the stream of this connection is reset."""
        self._stream.reader.lost(UnreachableError("the node of this program stops"))
        self._stream.reset()

    def refuse(self, error: MeshError) -> None:
        """Says why, and ends the connection."""
        self._cancel()
        self.tell(write_error(error))
        self._stream.reset()

    def tell(self, line: bytes) -> bool:
        """Sends a line; false if so much waits to be read that the process seems to sleep."""
        if len(self._unsent) > DOOR_UNREAD_LINES:
            return False
        self._unsent += line
        self.drained()
        return True

    def gone(self) -> None:
        """The connection is closed; a port it held is free."""
        self._cancel()
        if self._port is not None:
            self._port.stop()
            self._port = None
            self._door.ports -= 1

    # -- StreamReader

    def data_received(self, data: memoryview) -> None:
        """Bytes of the line."""
        if self._port is not None:
            self.refuse(CodecError("A connection that listens says nothing more."))
            return
        try:
            line, used = self._lines.feed(data)
            self._stream.consumed(used)
            if line is not None:
                self._cancel()
                self._act(line, data[used:])
        except MeshError as error:
            self.refuse(error)
        except Exception:
            _log.failure("a line of the local door could not be acted on")
            self.refuse(MeshError("The node failed at this; its log says why."))

    def finished(self) -> None:
        """The process sends no more. One that listens may go on listening."""
        if self._port is None:
            self._stream.reset()

    def lost(self, why: MeshError) -> None:
        """The process has gone: `gone` did what there was to do."""

    def drained(self) -> None:
        """The process reads its lines again."""
        if self._unsent:
            with memoryview(self._unsent) as view:
                taken = self._stream.write(view)
            del self._unsent[:taken]

    # -- within

    def _act(self, line: str, rest: memoryview) -> None:
        match read_request(line):
            case Connect() as request:
                self._connect(request, rest)
            case Listen() as request:
                self._listen(request, rest)
            case Accept(number):
                self._accept(number, rest)

    def _connect(self, request: Connect, rest: memoryview) -> None:
        """The stream gets the process's bytes at once; the process gets OK once the far side accepted."""
        node = self._door.node
        target = node.lookup(request.address)
        via = None if request.via is None else tuple(node_key(node.lookup(hop)) for hop in request.via)
        near = Flow()

        def answer(error: MeshError | None) -> None:
            if error is not None:
                self.refuse(error)
            elif far.sink is None and far.broken is None and self._stream.open:
                self._stream.write(write_ok(far.source.peer if far.source else None))
                far.open(self._stream)

        def opened(stream: Stream) -> None:
            if not self._stream.open:
                stream.reset(CANCELLED)
                return
            self._door.streams += 1
            pair(near, self._stream, far, stream)
            near.open(stream)
            stream.when_met(met)

        def met() -> None:  # a refusal comes with it: who waits a turn has heard of it
            node.clock.call_later(0, lambda: answer(None))

        def failed(failure: Failure) -> None:
            error = failure.value
            if not isinstance(error, MeshError):
                _log.failure("a stream for a process could not be opened", failure)
                error = MeshError("The node failed at this; its log says why.")
            answer(error)

        far = Outgoing(answer)
        self._step_aside(near, rest)
        d = maybeDeferred(
            node.connect,
            target,
            request.port,
            far,
            via=via,
            identity=request.identity,
            policy=request.policy,
        )
        d.addCallbacks(opened, failed)

    def _listen(self, request: Listen, rest: memoryview) -> None:
        if self._door.ports >= DOOR_PORTS:
            raise LocalError(f"Processes hold {DOOR_PORTS} mesh ports of this node already.")
        if len(rest):
            raise CodecError("A connection that listens says nothing more.")
        node, service = self._door.node, request.service
        key = node.public_key if service is None else node.service_key(service)
        self._port = node.listen(request.port, lambda stream: self._door.offer(stream, self), service)
        self._door.ports += 1
        self._stream.lasting = False  # a process that has gone holds no port
        self.tell(write_ok(key))

    def _accept(self, number: int, rest: memoryview) -> None:
        waiting = self._door.take(number)
        near, far, stream = Flow(), waiting.flow, waiting.stream
        self._step_aside(near, rest)
        self._door.streams += 1
        self._stream.write(write_ok(stream.peer))  # the first bytes of a socket: there is room
        pair(near, self._stream, far, stream)
        near.open(stream)
        far.open(self._stream)

    def _step_aside(self, flow: Flow, rest: memoryview) -> None:
        """From now on the bytes of the process belong to a stream."""
        self._stream.reader = flow
        if len(rest):
            flow.data_received(rest)
