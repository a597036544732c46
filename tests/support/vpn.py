"""A client and an exit of the VPN in one process, whose interfaces are in hosts of the lab.

    user ═ TUN ═ (mesh, real nodes, TCP on loopback) ═ TUN ═ exit ─ cable ─ net

What runs in a host is a process of `ip netns exec`; what this process opens there it opens in a thread that
stands in the host (`Host.inside`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from apps.vpn.host.host import Host as System
from apps.vpn.lease import PACKETS_PORT, ClientConversation, Granted, Lease, LeaseError, Wish
from apps.vpn.tun.device import Device
from apps.vpn.tun.linux import open_linux
from apps.vpn.tun.reader import Tun
from lab.namespaces import Host, Hosts
from meshnet.errors import MeshError
from meshnet.storage.disk import RealDisk

T = TypeVar("T")
NET4 = "8.8.8.8"
NET6 = "2606:4700::8"
PRIVATE4 = "192.168.77.1"


class ReactorThere:
    """A reactor whose sockets are made in a host."""

    def __init__(self, reactor: Any, host: Host) -> None:
        self._reactor = reactor
        self._host = host

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._reactor, name)
        if name not in ("listenTCP", "listenUDP", "connectTCP"):
            return found
        return lambda *args, **more: self._host.inside(lambda: found(*args, **more))


class HostThere:
    """Changes of a host's system (`apps.vpn.host.service.HostThread`), made at once."""

    def __init__(self, host: Host, folder: Path) -> None:
        self._host = host
        self._system = host.inside(
            lambda: System(RealDisk(), folder / "host.log", resolv=folder / "resolv.conf")
        )

    def call(self, work: Callable[[System], T]) -> Deferred[T]:
        """As that."""
        return maybeDeferred(self._host.inside, lambda: self._run(work))

    def _run(self, work: Callable[[System], T]) -> T:
        return work(self._system)

    def close(self) -> Deferred[None]:
        """As that."""
        return maybeDeferred(self._system.close)


def opener(host: Host) -> Callable[..., Device]:
    """Opens interfaces in a host."""

    def open_there(
        name: str,
        mtu: int,
        addresses: Sequence[IPv4Interface | IPv6Interface] = (),
        routes: Sequence[IPv4Network | IPv6Network] = (),
    ) -> Device:
        return host.inside(lambda: open_linux(name, mtu, addresses, routes))

    return open_there


def three_hosts(hosts: Hosts) -> tuple[Host, Host, Host]:
    """user, exit and net. The exit has a way to everything over net, which knows nobody but the exit."""
    user, exit_, net = hosts.add("user"), hosts.add("exit"), hosts.add("net")
    hosts.cable(exit_, net)
    there = exit_.towards(net)
    exit_.configure(f"route add default via {there.far4}", f"route add default via {there.far6}")
    net.configure(
        f"addr add {NET4}/32 dev lo", f"addr add {NET6}/128 dev lo nodad", f"addr add {PRIVATE4}/32 dev lo"
    )
    return user, exit_, net


class Customer:
    """A client of an exit: asks for a lease, and has an interface with it in `host`."""

    def __init__(self, node: Any, host: Host, name: str = "mesh-vpn") -> None:
        self.node = node
        self.tun: Tun | None = None
        self.lease: Lease | None = None
        self.leased: Deferred[Lease] = Deferred()
        self.over: Deferred[MeshError | None] = Deferred()
        self._host = host
        self._name = name
        self._talk = ClientConversation(Wish())
        self._stream: Any = None

    def start(self, exit_: Any, wish: Wish | None = None) -> Deferred[Lease]:
        """Calls the exit; fires with the lease when packets pass, or fails."""
        self._talk = ClientConversation(wish or Wish())
        self.node.connect(exit_.public_key, PACKETS_PORT, self, via=()).addCallbacks(
            self._opened, self._failed
        )
        return self.leased

    def stop(self) -> None:
        """Leaves, and takes the interface away."""
        if self._stream is not None:
            self._stream.finish()
        self._close()

    def data_received(self, data: memoryview) -> None:
        self._stream.consumed(len(data))
        for event in self._talk.receive(data):
            if isinstance(event, Granted):
                self._granted(event.lease)
            else:
                self._ended(event.why)

    def finished(self) -> None:
        self._stream.finish()
        self._ended(None)

    def lost(self, why: MeshError) -> None:
        self._ended(why)

    def drained(self) -> None:
        pass

    def _opened(self, stream: Any) -> None:
        self._stream = stream
        stream.write(self._talk.ask())

    def _failed(self, failure: Failure) -> None:
        self.leased.errback(failure)

    def _granted(self, lease: Lease) -> None:
        first, self.lease = self.lease is None, lease
        if first:
            addresses, routes = list[Any](), list[Any]()
            if lease.v4 is not None:
                addresses.append(IPv4Interface((lease.v4, 32)))
                routes.append(IPv4Network("0.0.0.0/0"))
            if lease.v6 is not None:
                addresses.append(IPv6Interface((lease.v6, 128)))
                routes.append(IPv6Network("::/0"))
            device = opener(self._host)(self._name, lease.mtu, addresses, routes)
            self.tun = Tun(device, self.node.reactor, self.node.clock.now)
            flow = self.tun.single()
            self._stream.carry(flow, flow)
            flow.carry(self._stream)
            self.tun.start()
            self.leased.callback(lease)

    def _ended(self, why: MeshError | None) -> None:
        self._close()
        if not self.leased.called:
            self.leased.errback(why or LeaseError(1, "ended"))  # type: ignore[arg-type]
        if not self.over.called:
            self.over.callback(why)

    def _close(self) -> None:
        if self.tun is not None:
            self.tun.stop()
            self.tun = None
