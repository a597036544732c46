"""An exit for packets between real kernels: a client, an exit and an internet in network namespaces."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

from twisted.internet import reactor as the_reactor  # noqa: TID251  (real sockets)
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from apps.vpn.app import VpnApp
from apps.vpn.gateway import Gateway
from apps.vpn.settings import Exit
from meshnet.cipher.keys import SecretKey
from meshnet.node.clock import NodeClock
from meshnet.node.config import from_table
from meshnet.node.identity import write_key
from meshnet.node.node import Node
from meshnet.node.wiring import make_router
from meshnet.storage.disk import RealDisk
from meshnet.transports.registry import Transports
from meshnet.transports.tcp import TcpTransport
from tests.support.hosts import hosts_for
from tests.support.nodes import new_folder
from tests.support.vpn import NET4, NET6, Customer, HostThere, ReactorThere, opener, three_hosts

reactor: Any = the_reactor


class ExitThere:
    """A node as the gateway sees it, its sockets in a host."""

    def __init__(self, node: Node, there: Any) -> None:
        self._node = node
        self.reactor = there

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)


class GatewayTests(TestCase):
    timeout = 30

    def make(self, name: str, **table: Any) -> Node:
        folder = new_folder(self)
        apps: Any = [VpnApp()]
        disk, secret = RealDisk(), SecretKey.generate()
        settings = from_table({"node": {"name": name}, **table}, folder / "node.toml", apps)
        write_key(disk, settings.node.key, secret)
        transports = Transports([TcpTransport(reactor)])
        return Node(
            settings, secret, reactor=reactor, clock=NodeClock(reactor), disk=disk,
            router=lambda node: make_router(node, secret, transports, os.urandom), apps=apps,
        )  # fmt: skip

    @inlineCallbacks
    def start(self, **settings: Any) -> Generator[Deferred[Any], Any, None]:
        hosts = hosts_for(self, "ip", "nft", "ping")
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
        self.host: Any = HostThere(self.exit, self.folder)
        self.gateway = Gateway(there, self.host, opener(self.exit), self.folder / "resolv.conf")
        yield Deferred.fromCoroutine(self.gateway.apply(Exit(packets=True, **settings)))
        self.addCleanup(lambda: Deferred.fromCoroutine(self.gateway.stop()))

    def until(self, true: Any) -> Deferred[None]:
        done: Deferred[None] = Deferred()

        def look() -> None:
            done.callback(None) if true() else reactor.callLater(0.01, look)

        look()
        return done

    @inlineCallbacks
    def test_ping(self) -> Generator[Deferred[Any], Any, None]:
        """Echo of both families: from an internet that knows the exit alone, and from the exit itself."""
        yield self.start()
        customer = Customer(self.near, self.user)
        self.addCleanup(customer.stop)
        lease = yield customer.start(self.far)
        for address in (NET4, NET6, *map(str, lease.dns)):
            said = yield deferToThread(self.user.run, "ping", "-n", "-c1", "-W5", address)
            self.assertIn("1 received", said)
