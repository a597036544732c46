"""TCP without sockets: a reactor with a resolver, and transports that show what was done to them."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IPushProducer
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

FULL = 1 << 16


class LocalTransport:
    """The TCP side of a protocol: `taken` is what the far end took, `waiting` what it has not yet.

    While `stuck`, nothing is taken; more than 64 KiB waiting pauses the producer, as Twisted does.
    """

    def __init__(self, reactor: Any, protocol: Any) -> None:
        self.reactor = reactor
        self.protocol = protocol
        self.taken = bytearray()
        self.waiting = bytearray()
        self.stuck = False
        self.reading = True
        self.write_closed = False
        self.closed = ""
        self.producer: Any = None
        self.producer_paused = False
        self.no_delay = False
        protocol.makeConnection(self)

    # what the protocol does

    def write(self, data: bytes) -> None:
        """Queues bytes."""
        assert type(data) is bytes
        if not self.closed and not self.write_closed:
            self.waiting += data
            if self.stuck:
                if self.producer is not None and len(self.waiting) > FULL:
                    self.producer_paused = True
                    self.producer.pauseProducing()
            else:
                self.release()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Keeps it."""
        assert streaming and self.producer is None
        assert IPushProducer.providedBy(producer)
        self.producer = producer

    def unregisterProducer(self) -> None:
        """Forgets it."""
        self.producer = None

    def pauseProducing(self) -> None:
        """Stops reading."""
        self.reading = False

    def resumeProducing(self) -> None:
        """Reads again."""
        self.reading = True

    def stopProducing(self) -> None:
        """The consumer has gone."""
        self.loseConnection()

    def loseWriteConnection(self) -> None:
        """Ends one direction."""
        self.write_closed = True

    def loseConnection(self) -> None:
        """Closes in order."""
        self._close("lost", ConnectionDone())

    def abortConnection(self) -> None:
        """Closes at once."""
        self._close("aborted", ConnectionAborted())

    def getHost(self) -> IPv4Address:
        """Our end."""
        return IPv4Address("TCP", "127.0.0.1", 1_080)

    def getPeer(self) -> IPv4Address:
        """The far end."""
        return IPv4Address("TCP", "127.0.0.7", 50_000)

    def setTcpNoDelay(self, on: bool) -> None:
        """Noted."""
        self.no_delay = on

    # what the far end does

    def release(self) -> None:
        """The far end takes everything."""
        self.taken += self.waiting
        self.waiting.clear()
        if self.producer is not None and self.producer_paused:
            self.producer_paused = False
            self.producer.resumeProducing()

    def arrive(self, data: bytes) -> None:
        """Bytes of the far end; they have to be asked for."""
        assert self.reading, "bytes for a paused protocol"
        self.protocol.dataReceived(data)

    def finish(self) -> None:
        """The far end ends its direction."""
        self.protocol.readConnectionLost()

    def break_off(self) -> None:
        """The far end resets."""
        self._close("broken", ConnectionLost())

    def _close(self, how: str, why: Exception) -> None:
        if not self.closed:
            self.closed = how
            self.reactor.callLater(0, self._tell, why)

    def _tell(self, why: Exception) -> None:
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()
        self.protocol.connectionLost(Failure(why))


class UdpTransport:
    """The UDP socket of a protocol: `sent` is what it wrote; `arrive` brings it a datagram."""

    def __init__(self, protocol: Any, interface: str, port: int) -> None:
        self.protocol = protocol
        self.host = (
            IPv6Address("UDP", interface, port) if ":" in interface else IPv4Address("UDP", interface, port)
        )
        self.sent: list[tuple[bytes, tuple[str, int]]] = []
        self.error: Exception | None = None
        self.stopped = False
        self.peer: tuple[str, int] | None = None

    def getHost(self) -> IPv4Address | IPv6Address:
        """Where it is bound."""
        return self.host

    def connect(self, host: str, port: int) -> None:
        """Hears and writes to this address alone."""
        self.peer = (host, port)

    def write(self, data: bytes, address: tuple[str, int] | None = None) -> None:
        """Sends, or fails as told."""
        assert type(data) is bytes and not self.stopped
        assert (address is None) == (self.peer is not None)
        if self.error is not None:
            raise self.error
        self.sent.append((data, address or self.peer or ("", 0)))

    def stopListening(self) -> None:
        """Closes it."""
        self.stopped = True

    def arrive(self, data: bytes, host: str, port: int) -> None:
        """A datagram comes."""
        self.protocol.datagramReceived(data, (host, port))


class NamedReactor(MemoryReactorClock):
    """A memory reactor whose resolver answers from `names` (name to addresses; None: never), with UDP."""

    def __init__(self) -> None:
        super().__init__()
        self.udp: list[UdpTransport] = []
        self.names: dict[str, list[str] | None] = {}
        self.asked: list[str] = []
        self.nameResolver: Any = self

    def listenUDP(self, port: int, protocol: Any, interface: str = "", maxPacketSize: int = 8_192) -> Any:
        """As IReactorUDP; ports are given out from 40,000 on."""
        assert maxPacketSize == 65_535, "datagrams would be cut"
        made = UdpTransport(protocol, interface, port or 40_000 + len(self.udp))
        self.udp.append(made)
        protocol.transport = made
        return made

    def resolveHostName(self, receiver: Any, name: str, port: int = 0, *args: Any, **options: Any) -> Any:
        """As IHostnameResolver."""
        self.asked.append(name)
        receiver.resolutionBegan(None)
        found = self.names.get(name, [])
        if found is None:
            return receiver
        for text in found:
            kind = IPv6Address if ip_address(text.partition("%")[0]).version == 6 else IPv4Address
            receiver.addressResolved(kind("TCP", text, port))
        receiver.resolutionComplete()
        return receiver

    @property
    def dialled(self) -> list[tuple[str, int]]:
        """Every TCP connection tried so far."""
        return [(client[0], client[1]) for client in self.tcpClients]

    def accept(self, which: int = -1) -> LocalTransport:
        """The dialled connection stands."""
        factory: Any = self.tcpClients[which][2]
        return LocalTransport(self, factory.buildProtocol(None))

    def decline(self, why: Exception, which: int = -1) -> None:
        """The dialled connection fails."""
        factory: Any = self.tcpClients[which][2]
        factory.clientConnectionFailed(None, Failure(why))

    def connect(self, listener: int = 0) -> LocalTransport:
        """A client of a listening port."""
        factory: Any = self.tcpServers[listener][1]
        protocol = factory.buildProtocol(None)
        if protocol is None:
            raise ConnectionRefusedError
        return LocalTransport(self, protocol)
