"""The exit's name server for its clients: takes their queries at its own address and asks the exit's servers.

Queries and answers go through as they are; only the number of a query (its id) is drawn anew, and each is
asked from a port of its own, so that an answer cannot be guessed. What is denied by name is answered REFUSED,
names under .mesh NXDOMAIN: nobody outside has to know of them. Nothing is cached, nothing is looked up here.
What waits is bounded per client and in all; a query without an answer is forgotten, and the next goes to the
next server.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from secrets import randbelow
from typing import Any, Final

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import DatagramProtocol, Factory, connectionDone
from twisted.protocols.basic import Int16StringReceiver
from twisted.python.failure import Failure

from meshnet.errors import LocalError
from meshnet.node.app import Clock
from meshnet.node.binding import not_bound

DNS_PORT: Final = 53
WAITING: Final = 1_024
"""Queries under way, of all clients."""
WAITING_EACH: Final = 64
"""Of one client."""
CONNECTIONS: Final = 256
"""TCP connections of all clients."""
CONNECTIONS_EACH: Final = 8
ANSWER_SECONDS: Final = 5.0
"""So long a server may take."""
IDLE_SECONDS: Final = 10.0
"""A TCP connection without a query ends after so long (RFC 7766 §6.2.3)."""
LARGEST_QUERY: Final = 4_096
LONGEST_NAME: Final = 255
REFUSED: Final = 5
NO_SUCH_NAME: Final = 3
_HEADER: Final = 12

Judge = Callable[[str], int]
"""What to answer for a name without asking anybody: an RCODE, 0 to ask."""


def question(data: bytes) -> tuple[str, bytes]:
    """The name that a query asks for, in lower case without the final dot, and its question as bytes. Raises
    ValueError for what is no query with one question (RFC 1035 §4.1)."""
    if not _HEADER < len(data) <= LARGEST_QUERY:
        raise ValueError("a query has 13 to 4,096 bytes")
    if data[2] & 0xF8 or data[4:6] != b"\0\1":
        raise ValueError("not one question of a standard query")
    labels, at = [], _HEADER
    while size := data[at]:
        label = data[at + 1 : at + 1 + size]
        if size > 63 or len(label) < size or at + 1 + size >= len(data):
            raise ValueError("a name that is cut, or compressed where it need not be")
        labels.append(label.decode("latin-1"))
        at += 1 + size
    end = at + 5
    if end > len(data) or at - _HEADER >= LONGEST_NAME:
        raise ValueError("a question that is cut, or a name that is too long")
    return ".".join(labels).lower(), data[_HEADER:end]


def said(data: bytes, code: int, asked: bytes) -> bytes:
    """An answer with this RCODE and nothing but the question to a query."""
    flags = bytes((0x80 | (data[2] & 0x79), 0x80 | code))
    return data[:2] + flags + b"\0\1" + bytes(6) + asked


@define(eq=False)
class Forwarder:
    """A name server at some addresses. `servers` are IP addresses that it asks; `judge` is asked first.

    `queries` counts those that were asked on; `refused` the others, by reason.
    """

    reactor: Any
    clock: Clock
    servers: Sequence[str]
    judge: Judge
    queries: int = field(default=0, init=False)
    refused: dict[str, int] = field(factory=dict, init=False)
    _ports: list[Any] = field(factory=list, init=False)
    _next: int = field(default=0, init=False)
    _waiting: Counter[str] = field(factory=Counter, init=False)
    _connections: Counter[str] = field(factory=Counter, init=False)
    _asking: set[_Asking] = field(factory=set, init=False)
    _open: set[_Connection] = field(factory=set, init=False)

    def start(self, addresses: Sequence[str], port: int = DNS_PORT) -> None:
        """Listens there, UDP and TCP; raises LocalError."""
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = self._connection  # type: ignore[method-assign, assignment]
        for address in addresses:
            try:
                udp = self.reactor.listenUDP(port, _Local(self), interface=address, maxPacketSize=65_535)
                self._ports.append(udp)
                self._ports.append(self.reactor.listenTCP(port, factory, interface=address))
            except CannotListenError as problem:
                self.stop()
                raise LocalError(not_bound(f"{address}, port {port}", problem)) from None

    def stop(self) -> Deferred[None]:
        """Closes everything; fires when the ports are free."""
        ports, self._ports = self._ports, []
        closed = DeferredList([maybeDeferred(port.stopListening) for port in ports], consumeErrors=True)
        for asking in list(self._asking):
            asking.over(None)
        for connection in list(self._open):
            connection.transport.abortConnection()
        return closed.addCallback(lambda results: None)

    def refuse(self, reason: str) -> None:
        """One query was not asked on, or not answered, for this reason."""
        self.refused[reason] = self.refused.get(reason, 0) + 1

    def take(self, client: str, data: bytes, answer: Callable[[bytes], None], stream: bool) -> None:
        """A query of a client; `answer` is called at most once. `stream`: it came over TCP, and goes so."""
        try:
            name, asked = question(data)
        except ValueError:
            self.refuse("malformed")
            return
        code = NO_SUCH_NAME if name == "mesh" or name.endswith(".mesh") else self.judge(name)
        if code:
            self.refuse("denied" if code == REFUSED else "mesh")
            answer(said(data, code, asked))
            return
        if self._waiting.total() >= WAITING or self._waiting[client] >= WAITING_EACH:
            self.refuse("waiting")
            return
        self.queries += 1
        self._waiting[client] += 1
        server = self.servers[self._next % len(self.servers)]
        asking = (
            _Stream(self, client, data, asked, answer)
            if stream
            else _Datagram(self, client, data, asked, answer)
        )
        self._asking.add(asking)
        asking.start(server)

    def ended(self, asking: _Asking, client: str, failed: bool) -> None:
        """A query has its answer, or will have none."""
        self._asking.discard(asking)
        self._waiting[client] -= 1
        if not self._waiting[client]:
            del self._waiting[client]
        if failed:
            self._next += 1
            self.refuse("unanswered")

    def _connection(self, address: IAddress) -> _Connection | None:
        client = str(getattr(address, "host", ""))
        if self._connections.total() >= CONNECTIONS or self._connections[client] >= CONNECTIONS_EACH:
            self.refuse("connections")
            return None
        return _Connection(self, client)

    def opened(self, connection: _Connection, client: str) -> None:
        """A client has connected."""
        self._open.add(connection)
        self._connections[client] += 1

    def closed(self, connection: _Connection, client: str) -> None:
        """It has left."""
        self._open.discard(connection)
        self._connections[client] -= 1
        if not self._connections[client]:
            del self._connections[client]


class _Local(DatagramProtocol):
    """Where clients ask."""

    transport: Any

    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """A query."""
        self._forwarder.take(addr[0], datagram, lambda answer: self._answer(answer, addr), stream=False)

    def _answer(self, answer: bytes, address: tuple[str, int]) -> None:
        if self.transport is not None:
            try:
                self.transport.write(answer, address)
            except OSError:  # its buffer is full, the client is gone
                self._forwarder.refuse("unsent")


class _Connection(Int16StringReceiver):
    """A client over TCP: one query at a time, each with its answer."""

    MAX_LENGTH = LARGEST_QUERY
    transport: Any

    def __init__(self, forwarder: Forwarder, client: str) -> None:
        self._forwarder = forwarder
        self._client = client
        self._stop_waiting: Callable[[], None] = lambda: None

    def connectionMade(self) -> None:
        """Waits for a query."""
        self._forwarder.opened(self, self._client)
        self._wait(IDLE_SECONDS)

    def stringReceived(self, string: bytes) -> None:
        """A query: the next one waits for its answer."""
        self._wait(2 * ANSWER_SECONDS)
        self.pauseProducing()
        self._forwarder.take(self._client, string, self._answer, stream=True)

    def lengthLimitExceeded(self, length: int) -> None:
        """No query is so long."""
        self._forwarder.refuse("malformed")
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The client has left."""
        self._stop_waiting()
        self._forwarder.closed(self, self._client)

    def _answer(self, answer: bytes) -> None:
        if self.connected:
            self.sendString(answer)
            self._wait(IDLE_SECONDS)
            self.resumeProducing()

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._stop_waiting = self._forwarder.clock.call_later(seconds, self.transport.abortConnection)


class _Asking:
    """A query under way to a server."""

    def __init__(
        self,
        forwarder: Forwarder,
        client: str,
        data: bytes,
        asked: bytes,
        answer: Callable[[bytes], None],
    ) -> None:
        self._forwarder = forwarder
        self._client = client
        self._mine = randbelow(1 << 16).to_bytes(2, "big")
        self._theirs = data[:2]
        self._query = self._mine + data[2:]
        self._asked = asked
        self._answer: Callable[[bytes], None] | None = answer
        self._stop_waiting = forwarder.clock.call_later(ANSWER_SECONDS, lambda: self.over(None))

    def start(self, server: str) -> None:
        """Asks it."""
        raise NotImplementedError

    def end(self) -> None:
        """Closes what it holds."""

    def heard(self, data: bytes) -> None:
        """Something came back: the answer, if number and question fit."""
        asked = data[_HEADER : _HEADER + len(self._asked)]
        if (
            data[:2] == self._mine
            and len(data) > _HEADER
            and data[2] & 0x80
            and asked.lower() == self._asked.lower()
        ):
            self.over(self._theirs + data[2:])

    def over(self, answer: bytes | None) -> None:
        """It is answered, or never will be. Twice is once."""
        tell, self._answer = self._answer, None
        if tell is None:
            return
        self._stop_waiting()
        self.end()
        self._forwarder.ended(self, self._client, answer is None)
        if answer is not None:
            tell(answer)


class _Datagram(_Asking):
    """By UDP, from a socket of its own."""

    _socket: Any = None

    def start(self, server: str) -> None:
        """Sends it once; the client asks again."""
        protocol = _Heard(self)
        interface = "::" if ":" in server else "0.0.0.0"  # noqa: S104
        try:
            self._socket = self._forwarder.reactor.listenUDP(
                0, protocol, interface=interface, maxPacketSize=65_535
            )
            self._socket.connect(server, DNS_PORT)
            self._socket.write(self._query)
        except (OSError, CannotListenError):
            self.over(None)

    def end(self) -> None:
        """Its socket goes."""
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.stopListening()


class _Heard(DatagramProtocol):
    """A socket that hears one server."""

    def __init__(self, asking: _Datagram) -> None:
        self._asking = asking

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """Something from there."""
        self._asking.heard(datagram)

    def connectionRefused(self) -> None:
        """Nobody listens there."""
        self._asking.over(None)


class _Stream(_Asking):
    """By TCP, over a connection of its own."""

    _connecting: Deferred[Any] | None = None
    _protocol: _Asker | None = None

    def start(self, server: str) -> None:
        """Connects and asks."""
        made = TCP6ClientEndpoint if ":" in server else TCP4ClientEndpoint
        endpoint = made(self._forwarder.reactor, server, DNS_PORT, timeout=round(ANSWER_SECONDS))
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = lambda address: _Asker(self)  # type: ignore[method-assign, assignment]
        self._connecting = endpoint.connect(factory)
        self._connecting.addCallbacks(self._connected, lambda failure: self.over(None))

    def end(self) -> None:
        """Its connection goes."""
        connecting, self._connecting = self._connecting, None
        if connecting is not None and not connecting.called:
            connecting.cancel()
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.transport.abortConnection()

    def _connected(self, protocol: Any) -> None:
        if self._answer is None:
            protocol.transport.abortConnection()
            return
        self._protocol = protocol
        protocol.sendString(self._query)


class _Asker(Int16StringReceiver):
    """A connection to a server."""

    MAX_LENGTH = 65_535
    transport: Any

    def __init__(self, asking: _Stream) -> None:
        self._asking = asking

    def stringReceived(self, string: bytes) -> None:
        """An answer."""
        self._asking.heard(string)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The server has ended it."""
        self._asking.over(None)
