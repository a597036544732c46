"""A mesh stream with the face of a TCP connection, for any Twisted protocol.

`StreamTransport` stands between a stream and a protocol, with back-pressure both ways: bytes are credited to
the sender only once the protocol took them while it was not paused, and a producer that writes is paused
while the stream takes no more. What it holds is bounded by the stream's window on one side and by what its
producer writes in one go on the other. It opens nothing itself and never imports a node: what it needs of
one is declared here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol, cast

from attrs import frozen
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHalfCloseableDescriptor,
    IHalfCloseableProtocol,
    IProducer,
    IProtocol,
    IPullProducer,
    IPushProducer,
    ITransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from meshnet.cipher.keys import PublicKey
from meshnet.errors import LocalError, MeshError
from meshnet.streams import Accept, PortListener, Stream, StreamReader

LINGER_SECONDS: Final = 60.0
"""So long a closed transport waits for the other side to finish before it resets the stream."""
LINGER_BYTES: Final = 1 << 20
"""So many bytes that arrive after `loseConnection` are thrown away before the stream is reset."""
PIECE: Final = 1 << 16
"""What was held is given out in pieces of so many bytes."""

CANCELLED: Final = 2
UNREACHABLE: Final = 5
"""Codes of a reset (docs/wire-format.md §5): we want no more; what the stream leads to does not answer."""


class Clock(Protocol):
    """Calls later."""

    def call_later(self, delay: float, call: Callable[[], None]) -> Callable[[], None]:
        """Calls after `delay` seconds; returns what cancels it."""


class Node(Protocol):
    """What an endpoint needs of a node, in this process or behind its local door. What its `lookup` gives
    is only handed back to its `connect`."""

    @property
    def public_key(self) -> PublicKey | None:
        """Who it is, if that is known here."""

    @property
    def clock(self) -> Clock:
        """The node's clock."""

    def connect(
        self,
        target: Any,
        port: int,
        reader: StreamReader,
        *,
        via: Sequence[Any] | None = None,
        identity: str = "anonymous",
        policy: str | None = None,
    ) -> Deferred[Stream]:
        """Opens a stream."""

    def listen(self, port: int, accept: Accept, service: str | None = None) -> PortListener:
        """Takes a mesh port, perhaps of a hidden service; raises LocalError if it is taken."""

    def lookup(self, text: str) -> Any:
        """Whom hex digits or a pet name stand for; raises UsageError."""


@implementer(IAddress)
@frozen
class MeshAddress:
    """A node or hidden service by its key, and a port of it: `key` is None for an anonymous caller, `port` 0
    where none is known."""

    key: PublicKey | None
    port: int

    @property
    def host(self) -> str:
        """The node as a name: protocols that know only TCP's addresses look for one."""
        return self.key.hex() if self.key is not None else "anonymous"

    def __str__(self) -> str:
        return f"mesh:{self.host}:{self.port}"


@implementer(ITransport, IPushProducer, IConsumer, IHalfCloseableDescriptor)
class StreamTransport:
    """A mesh stream as a Twisted transport; it is also the stream's reader.

    Make it, give it as the reader, then `attach` the stream and a protocol: what arrived in between is held.
    `connectionLost` comes once, never from within a call of the protocol: ConnectionDone after an orderly
    end, ConnectionAborted after `abortConnection`, else the MeshError that ended the stream.
    A protocol that provides IHalfCloseableProtocol may go on writing after `readConnectionLost`. Where the
    peer wants no more, what is written is dropped, a producer is stopped, and `writeConnectionLost` tells
    such a protocol; reading goes on.
    """

    __slots__ = (
        "_cancel_linger",
        "_clock",
        "_closing",
        "_finish_sent",
        "_gone",
        "_held",
        "_host",
        "_linger",
        "_lost_reason",
        "_owed",
        "_paused",
        "_peer",
        "_peer_finished",
        "_pending",
        "_producer",
        "_producer_paused",
        "_protocol",
        "_pulling",
        "_read_ended",
        "_stream",
        "_streaming",
        "_waiting",
        "_write_closing",
        "received",
        "sent",
    )

    disconnecting = property(lambda self: self._closing or self._gone, doc="`loseConnection` was called.")

    def __init__(self, clock: Clock, host: MeshAddress, peer: MeshAddress) -> None:
        self._clock = clock
        self._host = host
        self._peer = peer
        self._stream: Stream | None = None
        self._protocol: IProtocol | None = None
        self._pending: deque[memoryview] = deque()  # written, not taken by the stream
        self._held = bytearray()  # received while paused or before the protocol was there
        self._owed = 0  # bytes received and not credited
        self._paused = False
        self._producer: Any = None
        self._streaming = False
        self._producer_paused = False
        self._pulling = False
        self._write_closing = False  # finish once `_pending` is empty
        self._finish_sent = False
        self._closing = False
        self._peer_finished = False
        self._read_ended = False  # the protocol knows that the peer finished
        self._gone = False  # connectionLost is under way or done
        self._lost_reason: BaseException | None = None
        self._linger = 0
        self._cancel_linger: Callable[[], None] | None = None
        self._waiting: Deferred[Stream] | None = None
        self.received = 0  # bytes given to the protocol
        self.sent = 0  # bytes taken by the stream

    def attach(self, stream: Stream, protocol: IProtocol, peer: MeshAddress | None = None) -> None:
        """Joins the stream and the protocol, and delivers what was held. `peer` is the far side's address
        where it was not known before."""
        self._protocol = protocol
        self._peer = peer or self._peer
        if self._gone:  # lost in between
            protocol.makeConnection(cast(Any, self))
            self._clock.call_later(0, self._connection_lost)
            return
        self._stream = stream
        protocol.makeConnection(cast(Any, self))
        self._deliver()
        if self._pending:
            self.drained()

    def taken(self, stream: Stream) -> Deferred[Stream]:
        """Before `attach`: fires with the stream once the far side has taken it, fails with what ended it
        first, as a refusal. Cancelling it ends the stream."""
        waiting = self._waiting = Deferred(lambda _: stream.reset(CANCELLED))
        if self._gone:
            self._settle(None)
        else:  # a refusal comes in the turn in which it is met: who waits for the next has heard of it
            stream.when_met(lambda: self._settle_soon(stream))
        return waiting

    # -- the stream calls these (StreamReader)

    def data_received(self, data: memoryview) -> None:
        """Bytes of the peer: given to the protocol, or held while it is paused."""
        if self._gone or self._closing:
            self._discard(len(data))
            return
        if self._protocol is None or self._paused or self._held:
            self._held += data
            self._owed += len(data)
            return
        self._owed += len(data)
        self.received += len(data)
        self._protocol.dataReceived(bytes(data))
        self._credit()

    def finished(self) -> None:
        """The peer sends no more; the protocol hears of it once it has taken everything."""
        self._peer_finished = True
        if self._closing:
            self._end_linger()
        else:
            self._end_read()

    def lost(self, why: MeshError) -> None:
        """The stream is gone."""
        self._stream = None
        self._end_linger()
        self._lose(why)

    def drained(self) -> None:
        """The stream takes bytes again."""
        stream = self._stream
        if stream is None or self._gone:
            return
        pending = self._pending
        while pending and not stream.stopped:
            data = pending[0]
            taken = stream.write(data)
            self.sent += taken
            if self._stream is None:
                return
            if taken < len(data):
                pending[0] = data[taken:]
                return
            pending.popleft()
        if stream.stopped and not self._finish_sent:
            self._end_write()
            return
        if self._write_closing or (self._closing and self._producer is None):
            self._finish()
        elif self._producer is not None and self._producer_paused:
            self._producer_paused = False
            self._producer.resumeProducing()
        elif self._producer is not None and not self._streaming:
            self._pull_soon()

    # -- ITransport

    def write(self, data: bytes) -> None:
        """Sends bytes; what the stream does not take is kept, and the producer paused."""
        if self._gone or self._write_closing or not data:
            return
        if self._closing and self._producer is None:
            return
        if self._stream is None or self._pending:
            self._pending.append(memoryview(bytes(data)))
        else:
            taken = self._stream.write(data)
            self.sent += taken
            if taken == len(data):
                return
            if self._stream is not None and self._stream.stopped:
                self._end_write()
                return
            self._pending.append(memoryview(bytes(data))[taken:])
        if self._producer is not None and self._streaming:  # again if somebody else resumed it
            self._producer_paused = True
            self._producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Sends several pieces as one."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Sends what is pending, then ends the connection in order."""
        if self._gone or self._closing:
            return
        self._closing = True
        self._held.clear()
        self._discard(0)
        if self._producer is None:
            self._close_if_flushed()

    def abortConnection(self) -> None:
        """Ends the connection now; what is pending is lost."""
        self.reset_connection(CANCELLED)

    def reset_connection(self, code: int) -> None:
        """The same with a code that the peer's error comes from: CANCELLED, UNREACHABLE, or 256 and above."""
        if not self._gone:
            self._reset(code)
            self._lose(ConnectionAborted())

    def loseWriteConnection(self) -> None:
        """Sends what is pending, then tells the peer that no more follows; reading goes on."""
        if self._gone or self._closing or self._write_closing:
            return
        self._write_closing = True
        self._close_if_flushed()

    def getPeer(self) -> MeshAddress:
        """The far side's address."""
        return self._peer

    def getHost(self) -> MeshAddress:
        """Our address."""
        return self._host

    # -- IPushProducer: the stream as a source of bytes

    def pauseProducing(self) -> None:
        """Holds what arrives; the sender's window closes."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Gives out what was held and credits the sender again."""
        self._paused = False
        self._deliver()

    def stopProducing(self) -> None:
        """The consumer is gone: closes."""
        self.loseConnection()

    # -- IConsumer: the stream as a sink

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Pauses and resumes `producer` with the stream's room; raises RuntimeError if there is one."""
        if self._producer is not None:
            raise RuntimeError(f"{self._producer!r} is registered already")
        if self._gone or (self._stream is not None and self._stream.stopped):
            producer.stopProducing()
            return
        self._producer = producer
        self._streaming = streaming
        self._producer_paused = False
        if not streaming:
            self._pull_soon()
        elif self._pending:
            self._producer_paused = True
            cast(IPushProducer, producer).pauseProducing()

    def unregisterProducer(self) -> None:
        """The producer is done."""
        self._producer = None
        if self._closing:
            self._close_if_flushed()

    # -- IHalfCloseableDescriptor

    def writeConnectionLost(self, reason: Failure) -> None:
        """Tells a half-closeable protocol that what it wrote has been handed over, end included."""
        half = self._half()
        if half is not None:
            half.writeConnectionLost()

    def readConnectionLost(self, reason: Failure) -> None:
        """Tells the protocol that the peer finished: half-closeable ones go on, all others are done."""
        half = self._half()
        if half is not None:
            half.readConnectionLost()
            if self._finish_sent:
                self._lose(ConnectionDone())
            return
        if self._pending:
            self._reset()
        elif self._stream is not None and not self._finish_sent:
            self._finish_sent = True
            self._stream.finish()
        self._lose(ConnectionDone())

    # -- within

    def _half(self) -> IHalfCloseableProtocol | None:
        return cast("IHalfCloseableProtocol | None", IHalfCloseableProtocol(self._protocol, None))

    def _credit(self) -> None:
        if self._owed and not self._paused and not self._held and self._stream is not None:
            owed, self._owed = self._owed, 0
            self._stream.consumed(owed)

    def _deliver(self) -> None:
        held, protocol = self._held, self._protocol
        if protocol is None:
            return
        while held and not self._paused and not self._gone and not self._closing:
            data = bytes(held[:PIECE])
            del held[:PIECE]
            self.received += len(data)
            protocol.dataReceived(data)
        self._credit()
        self._end_read()

    def _end_read(self) -> None:
        if not self._peer_finished or self._read_ended or self._held or self._paused or self._gone:
            return
        if self._protocol is None or self._closing:
            return
        self._read_ended = True
        self.readConnectionLost(Failure(ConnectionDone()))

    def _close_if_flushed(self) -> None:
        if not self._pending:
            self._finish()

    def _finish(self) -> None:
        """Everything is written: tell the peer, and end or linger."""
        stream = self._stream
        if stream is None:  # loseConnection before the stream is there: attach() comes back here by drained()
            return
        if not self._finish_sent:
            self._finish_sent = True
            stream.finish()
            if not self._closing:
                self._clock.call_later(0, self._write_lost)
        if self._closing and not self._gone:
            if not self._peer_finished:
                self._cancel_linger = self._clock.call_later(LINGER_SECONDS, self._reset_lingering)
            self._lose(ConnectionDone())

    def _end_write(self) -> None:
        """The peer wants no more of ours: there is nothing left to write, nor an end to tell."""
        self._pending.clear()
        self._write_closing = self._finish_sent = True
        producer, self._producer = self._producer, None
        if not self._closing:
            self._clock.call_later(0, self._write_lost)
        if producer is not None:
            producer.stopProducing()
        if self._closing:
            self._finish()

    def _write_lost(self) -> None:
        if not self._gone:
            self.writeConnectionLost(Failure(ConnectionDone()))
            if self._read_ended:
                self._lose(ConnectionDone())

    def _discard(self, size: int) -> None:
        """Bytes that nobody wants: credited so that the peer can finish, up to LINGER_BYTES."""
        self._linger += size
        size += self._owed
        self._owed = 0
        if self._linger > LINGER_BYTES:
            self._reset_lingering()
        elif size and self._stream is not None:
            self._stream.consumed(size)

    def _reset_lingering(self) -> None:
        self._end_linger()
        self._reset()
        self._lose(ConnectionLost("the peer went on sending after the connection was closed"))

    def _reset(self, code: int = CANCELLED) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.reset(code)

    def _end_linger(self) -> None:
        if self._cancel_linger is not None:
            self._cancel_linger()
            self._cancel_linger = None

    def _lose(self, why: BaseException) -> None:
        if self._gone:
            return
        self._gone = True
        self._lost_reason = why
        self._pending.clear()
        self._held.clear()
        self._clock.call_later(0, self._connection_lost)

    def _settle_soon(self, stream: Stream) -> None:
        self._clock.call_later(0, lambda: self._settle(stream))

    def _settle(self, stream: Stream | None) -> None:
        """Tells who waits for the far side: None says that the stream has ended."""
        waiting, self._waiting = self._waiting, None
        if waiting is None or waiting.called:
            return
        if stream is None or self._gone:
            waiting.errback(self._lost_reason or ConnectionLost())
        else:
            waiting.callback(stream)

    def _connection_lost(self) -> None:
        self._settle(None)
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        if self._protocol is not None and self._lost_reason is not None:
            self._protocol.connectionLost(Failure(self._lost_reason))

    def _pull_soon(self) -> None:
        if not self._pulling:
            self._pulling = True
            self._clock.call_later(0, self._pull)

    def _pull(self) -> None:
        self._pulling = False
        if self._producer is not None and not self._streaming and not self._pending and not self._gone:
            cast(IPullProducer, self._producer).resumeProducing()
            if not self._pending:
                self._pull_soon()


def connect_transport(
    node: Node,
    target: Any,
    port: int,
    make_protocol: Callable[[MeshAddress], IProtocol | None],
    *,
    via: Sequence[Any] | None = None,
    identity: str = "anonymous",
    policy: str | None = None,
    taken: bool = False,
) -> Deferred[IProtocol]:
    """Opens a stream and joins it to the protocol that `make_protocol(peer address)` returns.

    `target` and `via` are what `node.lookup` gave; `policy` says which ways may be found where `via` is None.
    Fails as `Node.connect` does. With `taken` it waits a round trip for the far side to take the stream, and
    fails if that refuses; without, the protocol writes at once, and its connection is lost then. Cancelling
    it ends the stream.
    """
    nobody = MeshAddress(None, port)
    transport = StreamTransport(node.clock, MeshAddress(node.public_key, 0), nobody)

    def opened(stream: Stream) -> IProtocol:
        peer = MeshAddress(stream.peer, port)
        protocol = make_protocol(peer)
        if protocol is None:
            stream.reset(CANCELLED)
            raise LocalError(f"nothing in this program wanted the stream to {peer}")
        transport.attach(stream, protocol, peer)
        return protocol

    d: Deferred[Any] = maybeDeferred(
        node.connect, target, port, transport, via=via, identity=identity, policy=policy
    )
    if taken:
        d.addCallback(transport.taken)
    return d.addCallback(opened)


def accept_transport(
    node: Node,
    stream: Stream,
    make_protocol: Callable[[MeshAddress], IProtocol | None],
    host: MeshAddress | None = None,
) -> StreamReader | None:
    """Joins an incoming stream to the protocol that `make_protocol(peer address)` returns; None refuses it.

    `host` is our address, by default the node's key and the stream's port. The protocol is connected in a
    later turn, when the stream knows its reader.
    """
    peer = MeshAddress(stream.peer, 0)
    protocol = make_protocol(peer)
    if protocol is None:
        return None
    transport = StreamTransport(node.clock, host or MeshAddress(node.public_key, stream.port), peer)
    node.clock.call_later(0, lambda: transport.attach(stream, protocol))
    return transport
