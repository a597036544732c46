"""An exit for packets between real kernels, in one process: a client, an exit and an internet in namespaces.

user ═ TUN ═ (two real nodes, TCP on loopback) ═ TUN ═ exit ─ cable ─ net
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Generator
from typing import Any, ClassVar

from twisted.internet import reactor as the_reactor  # noqa: TID251  (real sockets)
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.protocol import DatagramProtocol, Protocol
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from apps.vpn.app import VpnApp
from apps.vpn.gateway import Gateway, watch_host
from apps.vpn.host.counters import read_counters
from apps.vpn.settings import Exit
from lab.namespaces import CommandError
from meshnet.cipher.keys import SecretKey
from meshnet.node.clock import NodeClock, elapsed
from meshnet.node.config import from_table
from meshnet.node.identity import write_key
from meshnet.node.node import Node
from meshnet.node.wiring import make_router
from meshnet.storage.disk import RealDisk
from meshnet.transports.registry import Transports
from meshnet.transports.tcp import TcpTransport
from tests.support.hosts import hosts_for
from tests.support.nodes import new_folder
from tests.support.vpn import NET4, Customer, HostThere, ReactorThere, opener, three_hosts

reactor: Any = the_reactor


class ExitThere:
    """A node as the gateway sees it, its sockets in a host."""

    def __init__(self, node: Node, there: Any) -> None:
        self._node = node
        self.reactor = there

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)


class Echo(DatagramProtocol):
    """Sends back what comes; notes from whom."""

    def __init__(self, callers: set[str]) -> None:
        self.callers = callers

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.callers.add(addr[0])
        assert self.transport is not None
        self.transport.write(datagram, addr)


class EchoStream(Protocol):
    """Sends back what comes; `live` are those that stand."""

    live: ClassVar[set[EchoStream]] = set()

    def connectionMade(self) -> None:
        self.live.add(self)

    def connectionLost(self, reason: object = None) -> None:
        self.live.discard(self)

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)


class ExitCase(TestCase):
    """Skipped without root. Say `start`; nodes are `near` and `far`, hosts `user`, `exit` and `net`. `jumps`
    says of the nodes `user` and `exit` how far their clocks are off: the monotonic one, the wall's."""

    timeout = 20

    def setUp(self) -> None:
        self.jumps: dict[str, list[float]] = {}

    def make(self, name: str, **table: Any) -> Node:
        folder = new_folder(self)
        apps: Any = [VpnApp()]
        disk, secret = RealDisk(), SecretKey.generate()
        jumps = self.jumps[name] = [0.0, 0.0]
        clock = NodeClock(reactor, lambda: elapsed() + jumps[0], lambda: time.time() + jumps[1])
        settings = from_table({"node": {"name": name}, **table}, folder / "node.toml", apps)
        write_key(disk, settings.node.key, secret)
        transports = Transports([TcpTransport(reactor)])
        return Node(
            settings, secret, reactor=reactor, clock=clock, disk=disk,
            router=lambda node: make_router(node, secret, transports, os.urandom), apps=apps,
        )  # fmt: skip

    @inlineCallbacks
    def start(self, **settings: Any) -> Generator[Deferred[Any], Any, None]:
        hosts = hosts_for(self, "ip", "nft", "ping", "sysctl")
        self.user, self.exit, self.net = three_hosts(hosts)
        self.folder = new_folder(self)
        (self.folder / "resolv.conf").write_text(f"nameserver {NET4}\n")
        self.far = self.make("exit", link={"listen": ["tcp:127.0.0.1:0"], "accept": "any"})
        self.far.startService()
        self.addCleanup(self.far.stopService)
        yield self.far.ready()
        peer = {"key": self.far.public_key.hex(), "address": self.far.listening[0]}
        self.near = self.make("user", link={"peer": [peer]})
        self.near.startService()
        self.addCleanup(self.near.stopService)
        yield self.near.ready()
        yield self.until(lambda: any(link["up"] for link in self.near.links()))
        there: Any = ExitThere(self.far, ReactorThere(reactor, self.exit))
        self.host = HostThere(self.exit, self.folder)
        host: Any = self.host
        self.gateway = Gateway(
            there, host, opener(self.exit), self.folder / "resolv.conf", self.watch, self.counted
        )
        yield Deferred.fromCoroutine(self.gateway.apply(Exit(packets=True, **settings)))
        self.addCleanup(lambda: Deferred.fromCoroutine(self.gateway.stop()))

    def counted(self, table: str) -> dict[str, int]:
        return dict(self.exit.inside(lambda: read_counters(table)))

    def watch(self, made: Gateway, changed: Any) -> Any:
        return self.exit.inside(lambda: watch_host(made, changed))

    def until(self, true: Any) -> Deferred[None]:
        done: Deferred[None] = Deferred()

        def look() -> None:
            done.callback(None) if true() else reactor.callLater(0.01, look)

        look()
        return done

    @inlineCallbacks
    def customer(self, name: str = "mesh-vpn", host: Any = None) -> Generator[Deferred[Any], Any, Customer]:
        """A client with an interface in the user's host, or another."""
        made = Customer(self.near, host or self.user, name)
        self.addCleanup(made.stop)
        yield made.start(self.far)
        return made

    def run_there(self, host: Any, *words: str) -> Deferred[str]:
        """A command in a host; what it printed, whether it liked it or not."""

        def run() -> str:
            try:
                said: str = host.run(*words)
            except CommandError as why:
                return str(why)
            return said

        return deferToThread(run)

    def socket(self, host: Any, family: int, kind: int) -> socket.socket:
        """A socket in a host."""
        made: socket.socket = host.inside(lambda: socket.socket(family, kind))
        made.settimeout(10)
        self.addCleanup(made.close)
        return made
