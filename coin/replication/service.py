"""Replication on a node: the network's peers over TCP and over streams of the mesh.

A TCP peer is known by its IP address (of IPv6 the first 64 bits), a mesh peer by its key: who calls over the
mesh must say who it is. Frames for the Go node leave one at a time with a pause between, since it loses a
whole frame that is followed by a part of another in one read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from ipaddress import IPv6Address, ip_address
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from coin.replication.introduction import is_ours
from coin.replication.network import Network
from coin.replication.peer import Peer
from meshnet.cipher.keys import parse_public_key
from meshnet.errors import LocalError, MeshError
from meshnet.limits import COIN_QUEUE
from meshnet.node.app import MeshNode
from meshnet.stream_transport import MeshAddress, accept_transport, connect_transport
from meshnet.streams import PortListener, Stream, StreamReader

PAUSE: Final = 0.02
"""Between frames to a peer of another make."""
DIAL_SECONDS: Final = 10.0
DIALS: Final = 8
"""At a time, and connections to strangers that are kept."""


def place_of(host: str) -> str:
    """What a TCP peer is banned by."""
    address = ip_address(host.partition("%")[0])
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return f"{IPv6Address(int(address) >> 64 << 64)}/64"
    return str(address)


@implementer(IPushProducer)
class PeerProtocol(Protocol):
    """A connection to a peer: bytes in, frames out, a bounded queue between."""

    def __init__(self, owner: Peers, address: str, place: str, outgoing: bool) -> None:
        self._owner = owner
        self.address = address
        self.place = place
        self.outgoing = outgoing
        self.peer: Peer | None = None
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._paused = False
        self._closing = False
        self._timer: Callable[[], None] | None = None

    def connectionMade(self) -> None:
        """Tells the network."""
        transport: Any = self.transport
        transport.registerProducer(self, True)
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
        self._owner.opened(self)

    def dataReceived(self, data: bytes) -> None:
        """Gives it to the peer."""
        if self.peer is not None and not self._closing:
            self.peer.filled(data, self._owner.now())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tells the network."""
        if self._timer is not None:
            self._timer()
        self._waiting.clear()
        self._closing = True
        self._owner.closed(self)

    # -- Connection

    def send(self, frame: bytes) -> None:
        """Takes a frame; a peer that does not read is left."""
        if self._closing:
            return
        self._waiting.append(frame)
        self._size += len(frame)
        if self._size > COIN_QUEUE:
            self._closing = True
            self._abort()
            return
        self._pour()

    def close(self) -> None:
        """Ends it after what waits."""
        self._closing = True
        if not self._waiting and self.transport is not None:
            self.transport.loseConnection()

    def _abort(self) -> None:
        transport: Any = self.transport
        self._waiting.clear()
        if transport is not None:
            transport.abortConnection()

    def _pour(self) -> None:
        if self._timer is not None or self.transport is None:
            return
        while self._waiting and not self._paused:
            frame = self._waiting.popleft()
            self._size -= len(frame)
            self.transport.write(frame)
            if self._waiting and self._careful():
                self._timer = self._owner.later(PAUSE, self._again)
                return
        if self._closing and not self._waiting:
            self.transport.loseConnection()

    def _careful(self) -> bool:
        extra = self.peer.extra if self.peer is not None else None
        return self.address.startswith("tcp:") and (extra is None or not is_ours(extra.agent))

    def _again(self) -> None:
        self._timer = None
        self._pour()

    # -- IPushProducer

    def pauseProducing(self) -> None:
        """The transport's buffer is full."""
        self._paused = True

    def resumeProducing(self) -> None:
        """It takes more."""
        self._paused = False
        self._pour()

    def stopProducing(self) -> None:
        """The connection ends."""


class Peers:
    """All connections of a network, those that are dialled and those that come."""

    def __init__(
        self, node: MeshNode, network: Network, *, mesh_port: int, strangers: bool, unix: Callable[[], float]
    ) -> None:
        self._node = node
        self._network = network
        self._mesh_port = mesh_port
        self._strangers = strangers
        self._unix = unix
        self._protocols: set[PeerProtocol] = set()
        self._dialling: dict[str, Deferred[Any]] = {}
        self._ports: list[Any] = []
        self._listener: PortListener | None = None
        self._stopped = False

    def now(self) -> float:
        """Monotonic seconds."""
        return self._node.clock.now()

    def later(self, delay: float, call: Callable[[], None]) -> Callable[[], None]:
        """Calls later; returns what cancels it."""
        return self._node.clock.call_later(delay, call)

    @property
    def tcp_ports(self) -> list[int]:
        """Where it listens."""
        return [port.getHost().port for port in self._ports]

    @property
    def dialling(self) -> list[str]:
        """Whom it calls now."""
        return list(self._dialling)

    def listen(self, places: Iterable[tuple[str, int]]) -> None:
        """Takes TCP ports and the mesh port; raises LocalError."""
        for host, port in places:
            try:
                self._ports.append(self._node.reactor.listenTCP(port, _Incoming(self), interface=host))
            except CannotListenError as error:
                raise LocalError(
                    f"Cannot listen on {host}:{port} ([coin] listen): {error.socketError}."
                ) from None
        self._listener = self._node.listen(self._mesh_port, self._accept)

    def _accept(self, stream: Stream) -> StreamReader | None:
        if stream.peer is None:
            return None  # who does not say who it is cannot be held to anything
        key = stream.peer.hex()
        return accept_transport(
            self._node, stream, lambda peer: PeerProtocol(self, f"mesh:{key}", key, False)
        )

    def tick(self) -> None:
        """Once a second: dials."""
        if self._stopped or len(self._dialling) >= DIALS:
            return
        connected = [each.address for each in self._protocols] + list(self._dialling)
        strangers = self._strangers and sum(each.outgoing for each in self._protocols) < DIALS
        address = self._network.addresses.next(connected, self.now(), strangers)
        if address is not None:
            self._dial(address)

    def _dial(self, address: str) -> None:
        dialled: Deferred[Any] = maybeDeferred(self._connect, address)
        self._dialling[address] = dialled

        def over(result: Any) -> None:
            self._dialling.pop(address, None)  # a failure is tried again later

        dialled.addBoth(over)

    def _connect(self, address: str) -> Deferred[Any]:
        kind, _, rest = address.partition(":")
        if kind == "mesh":
            key = parse_public_key(rest)

            def make(peer: MeshAddress) -> PeerProtocol:
                return PeerProtocol(self, address, rest, True)

            return connect_transport(self._node, key, self._mesh_port, make, identity="node")
        host, _, port = rest.rpartition(":")
        endpoint = HostnameEndpoint(self._node.reactor, host.strip("[]"), int(port), DIAL_SECONDS)
        return endpoint.connect(_Outgoing(self, address))

    def opened(self, protocol: PeerProtocol) -> None:
        """A connection is there."""
        if self._stopped:
            protocol.close()
            return
        self._protocols.add(protocol)
        protocol.peer = self._network.connected(
            protocol, protocol.place, protocol.address, self.now(), outgoing=protocol.outgoing
        )

    def closed(self, protocol: PeerProtocol) -> None:
        """A connection is gone."""
        self._protocols.discard(protocol)
        if protocol.peer is not None:
            protocol.peer.life.lose()

    def stop(self) -> Deferred[None]:
        """Closes all."""
        self._stopped = True
        if self._listener is not None:
            self._listener.stop()
        waiting = [maybeDeferred(port.stopListening) for port in self._ports]
        for dialled in list(self._dialling.values()):
            dialled.cancel()
        self._network.stop()
        for protocol in list(self._protocols):
            protocol.close()
        self._ports.clear()
        return DeferredList(waiting, consumeErrors=True).addCallback(lambda results: None)


class _Incoming(Factory):
    noisy = False

    def __init__(self, owner: Peers) -> None:
        self._owner = owner

    def buildProtocol(self, addr: Any) -> PeerProtocol:
        """A connection that came."""
        host = f"[{addr.host}]" if ":" in addr.host else addr.host
        return PeerProtocol(self._owner, f"tcp:{host}:{addr.port}", place_of(addr.host), False)


class _Outgoing(Factory):
    noisy = False

    def __init__(self, owner: Peers, address: str) -> None:
        self._owner = owner
        self._address = address

    def buildProtocol(self, addr: Any) -> PeerProtocol:
        """A connection that was dialled."""
        return PeerProtocol(self._owner, self._address, place_of(addr.host), True)


def sentence(error: BaseException) -> str:
    """An error for the log."""
    return str(error) if isinstance(error, MeshError) else f"{type(error).__name__}: {error}"
