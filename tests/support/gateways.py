"""An exit for packets without a kernel, and clients of it in memory."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from apps.vpn.gateway import INTERFACE, Gateway
from apps.vpn.host.host import Host
from apps.vpn.lease import (
    PACKETS_PORT,
    ClientConversation,
    Granted,
    Lease,
    LeaseError,
    Refused,
    Wish,
)
from apps.vpn.packets.virtio import HEADER, PLAIN
from apps.vpn.settings import Exit
from meshnet.storage.disk import RealDisk
from tests.support.machine import TOOLS, Machine
from tests.support.nodes import new_folder
from tests.support.streams import FakeMesh, FakeNode
from tests.support.tcp import NamedReactor
from tests.support.tuns import FakeDevice, frames

T = TypeVar("T")
INTERNET = "8.8.8.8"


class HereHost:
    """A host whose calls are made at once."""

    def __init__(self, open_host: Callable[[], Host]) -> None:
        self.open = open_host
        self.host: Host | None = None

    def call(self, work: Callable[[Host], T]) -> Deferred[T]:
        if self.host is None:
            self.host = self.open()
        return maybeDeferred(work, self.host)


class Customer:
    """A client in memory: `got` are packets that came to it."""

    def __init__(self, node: FakeNode) -> None:
        self.node = node
        self.talk = ClientConversation(Wish())
        self.lease: Lease | None = None
        self.why: LeaseError | None = None
        self.ended = False
        self.got: list[bytes] = []
        self.waiting_: list[bytes] = []
        self.stream: Any = None

    def ask(self, wish: Wish | None = None, identity: str = "anonymous") -> Customer:
        self.talk = ClientConversation(wish or Wish())
        (exit_,) = [key for key, node in self.node.mesh.nodes.items() if node.name == "exit"]
        self.node.connect(exit_, PACKETS_PORT, self, via=(), identity=identity).addCallback(self._opened)
        self.node.mesh.flush()
        return self

    def _opened(self, stream: Any) -> None:
        self.stream = stream
        stream.write(self.talk.ask())

    def send(self, packet: bytes) -> None:
        frame = PLAIN + packet
        self.waiting_.append(len(frame).to_bytes(2, "big") + frame)
        self.stream.packets_ready()
        self.node.mesh.flush()

    # StreamReader, PacketSource, PacketSink

    def data_received(self, data: memoryview) -> None:
        self.stream.consumed(len(data))
        for event in self.talk.receive(data):
            if isinstance(event, Granted):
                if self.lease is None:
                    self.stream.carry(self, self)
                self.lease = event.lease
            elif isinstance(event, Refused):
                self.why = event.why

    def finished(self) -> None:
        self.ended = True

    def lost(self, why: Any) -> None:
        self.ended = True
        self.why = why

    def drained(self) -> None:
        pass

    def waiting(self) -> int:
        return sum(map(len, self.waiting_))

    def accompany(self) -> None:
        pass

    def pour(self, room: memoryview, now: float) -> int:
        body = b"".join(self.waiting_)
        self.waiting_.clear()
        room[: len(body)] = body
        return len(body)

    def packets_received(self, body: memoryview, marked: bool) -> None:
        self.got += [frame[HEADER:] for frame in frames(bytes(body))]


class GatewayCase(SynchronousTestCase):
    """A gateway over a machine that is none, an interface and streams in memory."""

    def setUp(self) -> None:
        self.reactor = NamedReactor()
        self.mesh = FakeMesh(self.reactor)
        self.user, self.node = self.mesh.node("user"), self.mesh.node("exit")
        self.machine = Machine(INTERFACE)
        self.folder = new_folder(self)
        self.proc = self.folder / "proc"
        for key, value in (("net/ipv4/ip_forward", 0), ("net/ipv6/conf/all/forwarding", 0)):
            self.sysctl(key, value)
        self.resolv = self.folder / "resolv.conf"
        self.resolv.write_text("# none\nnameserver 9.9.9.9\nnameserver fe80::1%eth0\nnameserver\nsearch x\n")
        self.devices: list[FakeDevice] = []
        self.broken: Exception | None = None
        self.watched: list[str] = []
        self.tools = TOOLS
        self.gateway = self.make()

    def sysctl(self, key: str, value: int | None = None) -> int:
        path = self.proc / key
        if value is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{value}\n")
        return int(path.read_text())

    def make(self) -> Gateway:
        host: Any = HereHost(
            lambda: Host(
                RealDisk(), self.folder / "host.log", tools=self.tools, run=self.machine.run, proc=self.proc
            )
        )
        return Gateway(self.node, host, self.open_device, self.resolv, self.watch)  # type: ignore[arg-type]

    def watch(self, gateway: Gateway, changed: Callable[[], None]) -> Any:
        self.changed = changed
        return SimpleNamespace(stop=lambda: self.watched.append("stopped"))

    def open_device(self, name: str, mtu: int, addresses: Any) -> FakeDevice:
        if self.broken is not None:
            raise self.broken
        device = FakeDevice()
        self.devices.append(device)
        self.addresses = [str(each) for each in addresses]
        return device

    def apply(self, settings: Exit) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.gateway.apply(settings)))

    def start(self, **settings: Any) -> Exit:
        made = Exit(packets=True, **settings)
        self.apply(made)
        return made

    def customer(self, wish: Wish | None = None, identity: str = "anonymous") -> Customer:
        return Customer(self.user).ask(wish, identity)

    def leased(self, wish: Wish | None = None) -> tuple[Customer, Lease]:
        customer = self.customer(wish)
        assert customer.lease is not None, customer.why
        return customer, customer.lease

    def arrive(self, packet: bytes) -> None:
        """A packet for a client comes out of the interface."""
        self.devices[-1].frames.append(PLAIN + packet)
        for reader in self.reactor.getReaders():
            reader.doRead()
        self.mesh.flush()

    @property
    def rules(self) -> str:
        return self.machine.tables.get("meshnet_exit", "")

    def dropped(self, way: str = "in") -> dict[str, int]:
        found: dict[str, int] = self.gateway.describe()[f"dropped_{way}"]
        return found
