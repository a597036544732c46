"""Nodes that are joined by in-memory streams, for tests of what stands on a node.

`FakeMesh` holds the nodes and one clock; `FakeNode` satisfies `MeshNode`. A stream takes `window` bytes
until the reader at the other end says they are consumed, as a real one does; bytes and ends arrive in a
later turn of the clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from ipaddress import IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock as TwistedClock

from lab.simulation.disk import SimulatedDisk
from meshnet.cipher.address import Target
from meshnet.cipher.keys import PublicKey, SecretKey, parse_public_key
from meshnet.errors import LocalError, MeshError, UnreachableError, UsageError
from meshnet.limits import LARGEST_CELL
from meshnet.node.app import Datagram, Receive, Ways
from meshnet.session.codes import stream_error
from meshnet.streams import Flow

if TYPE_CHECKING:
    from meshnet.storage.disk import Disk
    from meshnet.streams import Accept, PacketSink, PacketSource, StreamReader

WINDOW = 1 << 18


def a_key(number: int) -> PublicKey:
    """A 33-byte stand-in for a public key; it need not be on the curve."""
    return PublicKey(b"\x02" + number.to_bytes(32, "big"))


class FakeClock:
    """The node's clock over any IReactorTime."""

    def __init__(self, reactor: IReactorTime) -> None:
        self.reactor = reactor

    def now(self) -> float:
        """Seconds of the reactor."""
        return self.reactor.seconds()

    def unix(self) -> float:
        """A wall clock that moves with the reactor."""
        return 1_800_000_000 + self.reactor.seconds()

    def call_later(self, delay: float, call: Callable[[], None]) -> Callable[[], None]:
        """Like the node's."""
        later = self.reactor.callLater(delay, call)

        def cancel() -> None:
            if later.active():
                later.cancel()

        return cancel


class FakeStream:
    """One end of a stream."""

    def __init__(self, clock: FakeClock, port: int, peer: PublicKey | None, window: int) -> None:
        self.clock = clock
        self._port = port
        self._peer = peer
        self.window = window
        self.reader: StreamReader | None = None
        self.other: FakeStream | None = None
        self.in_flight = 0  # written and not consumed by the other end
        self.short = False
        self.finish_sent = False
        self.gone = False
        self.unwanted = False
        self.inbox: deque[Callable[[], None]] = deque()
        self.accepted = True
        self.met: list[Callable[[], None]] | None = []
        self.delivered = 0
        self.credited = 0
        self.source: PacketSource | None = None
        self.sink: PacketSink | None = None
        self.heard = self.probes = 0
        self.mute = False  # nobody answers any more

    @property
    def port(self) -> int:
        """The mesh port."""
        return self._port

    @property
    def peer(self) -> PublicKey | None:
        """The other node."""
        return self._peer

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Takes what the window allows."""
        if self.gone or self.finish_sent:
            raise LocalError("write after the end")
        if self.unwanted:
            return 0
        size = min(len(data), self.window - self.in_flight)
        self.short = size < len(data)
        if size:
            self.in_flight += size
            piece = bytes(data[:size])
            self._other.arrive(lambda: self._other.deliver(piece))
        return size

    @property
    def stopped(self) -> bool:
        """Whether the other end has said so."""
        return self.gone or self.unwanted

    def stop(self) -> None:
        """Wants no more of the other end."""
        other = self._other
        other.unwanted = True
        if other.short:
            other.short = False
            self.clock.call_later(0, other.drained)

    def finish(self) -> None:
        """Sends the end."""
        if not self.finish_sent and not self.gone:
            self.finish_sent = True
            self._other.arrive(lambda: self._other.reading.finished())

    def reset(self, code: int = 0) -> None:
        """Ends both directions; this side hears nothing more."""
        if not self.gone:
            self.gone = True
            self.inbox.clear()
            self._other.lose(stream_error(code, self._port))

    def lose(self, why: MeshError) -> None:
        """Ends this side, in a later turn."""
        if not self.gone:
            self.gone = True
            self.inbox.clear()
            if self.reader is not None:
                self.clock.call_later(0, lambda: self.reading.lost(why))

    def consumed(self, size: int) -> None:
        """Opens the sender's window again."""
        self.credited += size
        assert self.credited <= self.delivered, "credited more than was delivered"
        sender = self._other
        sender.in_flight -= size
        if sender.short and not sender.gone:
            sender.short = False
            self.clock.call_later(0, sender.drained)

    def when_met(self, call: Callable[[], None]) -> None:
        """Calls when the other end was asked."""
        if self.met is None:
            call()
        else:
            self.met.append(call)

    def carry(self, source: PacketSource, sink: PacketSink) -> None:
        """Carries packets, too: in later turns, each as it was poured into a room of `largest_packets`."""
        self.source, self.sink = source, sink
        self.packets_ready()

    def packets_ready(self) -> None:
        """Passes on what the source has."""
        self.clock.call_later(0, self._pass_packets)

    def _pass_packets(self) -> None:
        if self.met is not None:  # the other end is asked first, as OPEN goes before PACKETS
            self.met.append(self._pass_packets)
            return
        while not self.gone and self.source is not None and self.source.waiting():
            room = bytearray(self.largest_packets)
            size = self.source.pour(memoryview(room), self.clock.now())
            if not size:
                return
            if self._other.sink is not None and not self._other.gone:
                self._other.sink.packets_received(memoryview(room)[:size], False)

    @property
    def largest_packets(self) -> int:
        """As on a path without narrow relays."""
        return LARGEST_CELL - 25

    def flow(self) -> Flow:
        """Nothing was measured."""
        return Flow(0.0, 0.0, 0, 0, heard=self.heard)

    def probe(self) -> None:
        """The other end is there as long as its sink is."""
        self.probes += 1
        if not self.mute:
            self.heard += 1

    def acknowledged(self) -> None:
        """The other end was asked."""
        met, self.met = self.met or [], None
        for call in met:
            call()

    @property
    def _other(self) -> FakeStream:
        assert self.other is not None
        return self.other

    @property
    def reading(self) -> StreamReader:
        """Who reads this end."""
        assert self.reader is not None
        return self.reader

    def opened(self, accept: Accept | None) -> None:
        """The OPEN has come; None refuses, as a real session does: the caller hears it later."""
        if self.gone:
            return
        self.reader = accept(self) if accept is not None else None
        if self.reader is None:
            self.reset(1)
        self._other.acknowledged()
        self.met = None
        self.accepted = True
        while self.inbox and not self.gone:
            self.inbox.popleft()()

    def drained(self) -> None:
        """Tells the writer that there is room."""
        if not self.gone:
            self.reading.drained()

    def deliver(self, piece: bytes) -> None:
        """Gives bytes to the reader, in memory that is wiped afterwards."""
        self.delivered += len(piece)
        memory = bytearray(piece)
        view = memoryview(memory)
        self.reading.data_received(view)
        view.release()
        memory[:] = bytes(len(memory))

    def arrive(self, what: Callable[[], None]) -> None:
        """Queues an arrival at this end."""
        if not self.gone:
            self.inbox.append(what)
            self.clock.call_later(0, self._next)

    def _next(self) -> None:
        if self.inbox and not self.gone and self.accepted:
            self.inbox.popleft()()


class FakeListener:
    """A mesh port of a fake node."""

    def __init__(self, ports: dict[int, Any], port: int) -> None:
        self.ports = ports
        self.port = port

    def stop(self) -> None:
        """Gives the port back."""
        self.ports.pop(self.port, None)


class FakeNode:
    """A node without a network; `routes` records how each stream was asked for."""

    def __init__(self, mesh: FakeMesh, name: str, reactor: Any) -> None:
        self.mesh = mesh
        self.name = name
        self.public_key = SecretKey(bytes([len(mesh.nodes) + 1]) * 32).public
        self.reactor = reactor
        self.clock = FakeClock(reactor)
        self.registry = CollectorRegistry()
        self.disk: Disk = SimulatedDisk()
        self.data = Path("/nowhere")
        self.ports: dict[int, Accept] = {}
        self.routes: list[tuple[PublicKey, tuple[PublicKey, ...] | None, str]] = []
        self.streams: list[FakeStream] = []
        self.datagram_ports: dict[int, Receive] = {}
        self.datagrams_taken = True

    def turn(self, call: Callable[[float], None]) -> None:
        """At once."""
        call(self.clock.now())

    def send_datagram(
        self,
        target: PublicKey,
        port: int,
        data: bytes,
        *,
        source: int = 0,
        via: Sequence[PublicKey] | None = None,
        identity: str = "anonymous",
        policy: str | None = None,
    ) -> Deferred[bool]:
        """Arrives in a later turn, and may be answered."""
        if self.mesh.connect_error is not None:
            return fail(self.mesh.connect_error)
        caller = self.public_key if identity == "node" else None
        self.clock.call_later(0, lambda: self._deliver(target, port, source, data, caller))
        return succeed(self.datagrams_taken)

    def _deliver(
        self, target: PublicKey, port: int, source: int, data: bytes, caller: PublicKey | None
    ) -> None:
        receive = self.mesh.nodes[target].datagram_ports.get(port)

        def reply(answer: bytes) -> bool:
            self.clock.call_later(0, lambda: back(answer))
            return self.datagrams_taken

        def back(answer: bytes) -> None:
            mine = self.datagram_ports.get(source)
            if mine is not None:
                mine(Datagram(port, answer, target, lambda data: False))

        if receive is not None:
            receive(Datagram(source, data, caller, reply))

    def listen_datagrams(self, port: int, receive: Receive, service: str | None = None) -> FakeListener:
        """Takes a datagram port."""
        if port in self.datagram_ports:
            raise LocalError(f"datagram port {port} is taken")
        self.datagram_ports[port] = receive
        return FakeListener(self.datagram_ports, port)

    def connect(
        self,
        target: PublicKey,
        port: int,
        reader: StreamReader,
        *,
        via: Sequence[PublicKey] | None = None,
        identity: str = "anonymous",
        policy: str | None = None,
        ways: Ways | None = None,
    ) -> Deferred[Any]:
        """Joins two ends, in a later turn."""
        self.routes.append((target, None if via is None else tuple(via), identity))
        if self.mesh.connect_error is not None:
            return fail(self.mesh.connect_error)
        d: Deferred[Any] = Deferred()
        self.clock.call_later(0, lambda: self._join(d, target, port, reader, identity))
        return d

    def _join(
        self, d: Deferred[Any], target: PublicKey, port: int, reader: StreamReader, identity: str
    ) -> None:
        node = self.mesh.nodes.get(target)
        if node is None:
            d.errback(UnreachableError("no way leads to that node"))
            return
        caller = self.public_key if identity == "node" else None
        near = FakeStream(self.clock, port, target, self.mesh.window)
        far = FakeStream(node.clock, port, caller, self.mesh.window)
        near.other, far.other, near.reader = far, near, reader
        accept = node.ports.get(port)
        far.accepted = False
        self.streams.append(near)
        node.streams.append(far)
        d.callback(near)
        self.clock.call_later(0, lambda: far.opened(accept))

    def listen(self, port: int, accept: Accept, service: str | None = None) -> FakeListener:
        """Takes a port; there are no services."""
        if service is not None:
            self.service_key(service)
        if port in self.ports:
            raise LocalError(f"mesh port {port} is taken")
        self.ports[port] = accept
        return FakeListener(self.ports, port)

    def service_key(self, text: str) -> PublicKey:
        """No service is here."""
        raise UsageError(f"This node has no hidden service {text!r}.")

    def known(self) -> dict[str, Target]:
        """The other nodes of the mesh."""
        others = [node for node in self.mesh.nodes.values() if node is not self]
        return {node.name: node.public_key for node in others}

    def neighbours(self) -> list[PublicKey]:
        """All of them."""
        return [node.public_key for node in self.mesh.nodes.values() if node is not self]

    def key_of(self, address: IPv6Address) -> PublicKey | None:
        """There is no topology."""
        return None

    def route_to(self, target: Target, via: Sequence[PublicKey] | None) -> tuple[PublicKey, ...]:
        """No configured route."""
        return tuple(via or ())

    def lookup(self, text: str) -> PublicKey:
        """A node of the mesh by name, or hex."""
        for node in self.mesh.nodes.values():
            if text in (node.name, node.public_key.hex()):
                return node.public_key
        if len(text) == 66 and text.startswith("02"):
            return PublicKey(bytes.fromhex(text))
        try:
            return parse_public_key(text)
        except MeshError as error:
            raise UsageError(f"{text!r} is no public key and no known name") from error


class FakeMesh:
    """All nodes; `flush` runs until nothing is under way."""

    def __init__(self, reactor: Any = None, window: int = WINDOW) -> None:
        self.reactor: Any = TwistedClock() if reactor is None else reactor
        self.window = window
        self.nodes: dict[PublicKey, FakeNode] = {}
        self.connect_error: MeshError | None = None

    def node(self, name: str) -> FakeNode:
        """A new node."""
        node = FakeNode(self, name, self.reactor)
        self.nodes[node.public_key] = node
        return node

    def flush(self, turns: int = 200) -> None:
        """Runs what is due now, up to so many turns."""
        for _ in range(turns):
            self.reactor.advance(0)
