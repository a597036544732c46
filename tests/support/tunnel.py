"""A tunnel over streams in memory, on a machine that is none, for its tests: everything in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from apps.vpn.client import service, system
from apps.vpn.client.service import TunnelClient
from apps.vpn.host.host import BOOK, Host
from apps.vpn.lease import (
    PACKETS_PORT,
    Asked,
    ExitConversation,
    Lease,
    Offloads,
    RefusalCode,
    Wish,
)
from apps.vpn.settings import Tunnel
from apps.vpn.tun import mtu
from meshnet.errors import MeshError, MissingDependencyError
from meshnet.storage.disk import RealDisk
from meshnet.streams import Stream
from tests.support.machine import TOOLS, Machine
from tests.support.nodes import new_folder
from tests.support.streams import FakeMesh, FakeNode
from tests.support.tuns import FakeDevice, FakeReactor

if TYPE_CHECKING:
    from apps.vpn.host.service import HostThread
    from meshnet.node.app import MeshNode

LEASE = Lease(
    IPv4Address("100.64.0.7"),
    IPv6Address("fd64::7"),
    (IPv4Address("100.64.0.1"),),
    1_400,
    Offloads.NONE,
    keeps=60,
    ticket=b"t" * 16,
)
OLD = "nameserver 192.0.2.53\n"


class FakeExit:
    """An exit that gives `lease`, or refuses with `code`; `silent`: says nothing."""

    def __init__(self, node: FakeNode) -> None:
        self.node = node
        self.lease = LEASE
        self.code: RefusalCode | None = None
        self.silent = False
        self.asked: list[Wish] = []
        self.streams: list[Stream] = []
        self.listener = node.listen(PACKETS_PORT, self.accept)

    def accept(self, stream: Stream) -> Any:
        self.streams.append(stream)
        return FakeTenant(self, stream)


class FakeTenant:
    """Who reads one of its streams."""

    def __init__(self, of: FakeExit, stream: Stream) -> None:
        self.of = of
        self.stream = stream
        self.conversation = ExitConversation()
        self.ended = False

    def data_received(self, data: memoryview) -> None:
        self.stream.consumed(len(data))
        for event in self.conversation.receive(data):
            assert isinstance(event, Asked)
            self.of.asked.append(event.wish)
            if self.of.silent:
                continue
            if self.of.code is not None:
                self.stream.write(self.conversation.denied(self.of.code, "for a reason"))
            else:
                self.stream.write(self.conversation.granted(self.of.lease))

    def finished(self) -> None:
        self.ended = True

    def lost(self, why: MeshError) -> None:
        self.ended = True

    def drained(self) -> None:
        pass


class DirectHost:
    """A host without a thread; `held` keeps its answers until they are let go."""

    def __init__(self, open_host: Callable[[], Host]) -> None:
        self.host = open_host()
        self.held: list[Callable[[], object]] | None = None

    def call(self, work: Callable[[Host], Any]) -> Deferred[Any]:
        if self.held is None:
            return self._result(work)
        answer: Deferred[Any] = Deferred()
        self.held.append(lambda: self._result(work).chainDeferred(answer))
        return answer

    def let_go(self) -> None:
        held, self.held = self.held or [], None
        for each in held:
            each()

    def _result(self, work: Callable[[Host], Any]) -> Deferred[Any]:
        try:
            return succeed(work(self.host))
        except Exception:
            return fail()


class TunnelCase(SynchronousTestCase):
    """A user, an exit, a machine."""

    def setUp(self) -> None:
        self.folder = new_folder(self)
        self.reactor = FakeReactor()
        self.mesh = FakeMesh(self.reactor)
        self.user, self.far = self.mesh.node("user"), self.mesh.node("far")
        self.user.disk = RealDisk()
        self.user.data = self.folder
        self.exit = FakeExit(self.far)
        self.machine = Machine("eth0")
        self.resolv = self.folder / "resolv.conf"
        self.resolv.write_text(OLD)
        self.proc = self.folder / "proc"
        self.v6 = self.proc / "net/ipv6/conf/all/disable_ipv6"
        self.v6.parent.mkdir(parents=True)
        self.v6.write_text("0\n")
        self.devices: list[FakeDevice] = []
        self.mtus: list[int] = []
        self.changed: list[Callable[[], None]] = []
        self.patch(service, "HostWatch", self.watch)
        self.patch(mtu, "set_mtu", lambda name, index, mtu: self.mtus.append(mtu))
        self.settings = Tunnel(self.far.public_key)
        self.own = system.Own()
        self.rightless = False
        self.before = self.machine.state()
        self.tunnel = self.new_tunnel()

    def new_tunnel(self) -> TunnelClient:
        """As a node that has just started has it."""
        self.host = DirectHost(
            lambda: Host(
                RealDisk(),
                self.folder / BOOK,
                tools=TOOLS,
                run=self.machine.run,
                resolv=self.resolv,
                proc=self.proc,
            )
        )
        self.addCleanup(self.host.host.close)
        node, host = cast("MeshNode", self.user), cast("HostThread", self.host)
        return TunnelClient(
            node,
            host,
            own=lambda: self.own,
            open_device=self.open,
            resolv=self.resolv,
            may=self.may,
        )

    def may(self) -> None:
        if self.rightless:
            raise MissingDependencyError("No right.")

    def open(self, name: str, mtu: int) -> FakeDevice:
        device = FakeDevice()
        device.name, device.mtu = name, mtu
        close = device.close

        def gone() -> None:
            close()
            self.machine.remove(name)

        device.close = gone  # type: ignore[method-assign]
        self.devices.append(device)
        self.machine.interfaces.add(name)
        return device

    def watch(self, reactor: Any, later: Any, file: Path, changed: Callable[[], None]) -> Any:
        self.changed.append(changed)
        return type("Watch", (), {"stop": lambda self: None})()

    def flush(self, seconds: float = 0.0) -> None:
        self.reactor.advance(seconds)
        self.mesh.flush(20)

    def up(self, **more: Any) -> dict[str, Any]:
        """Up, with these differences; what `describe` says."""
        up = self.tunnel.up(evolve(self.settings, **more))
        self.flush()
        return self.successResultOf(up)

    def state(self) -> str:
        return str(self.tunnel.describe()["state"])

    def assert_as_before(self) -> None:
        self.assertEqual(self.machine.state(), self.before)
        self.assertEqual(self.resolv.read_text(), OLD)
        self.assertEqual(self.host.host.standing(), ())
        self.assertTrue(all(device.closed for device in self.devices))
