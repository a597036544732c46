"""Two real nodes in one process, joined by TCP on loopback: SOCKS through one, out of the other."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Generator
from typing import Any
from unittest import SkipTest

from twisted.internet import reactor as the_reactor  # noqa: TID251  (real sockets)
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks, succeed
from twisted.internet.endpoints import clientFromString
from twisted.internet.protocol import DatagramProtocol, Factory
from twisted.internet.threads import deferToThread
from twisted.internet.utils import getProcessOutput
from twisted.names.common import ResolverBase
from twisted.names.dns import IN, A, DNSDatagramProtocol, Record_A, RRHeader
from twisted.names.server import DNSServerFactory
from twisted.trial.unittest import TestCase

from apps.vpn.app import VpnApp
from meshnet.cipher.keys import SecretKey
from meshnet.errors import RefusedError
from meshnet.node.clock import NodeClock
from meshnet.node.config import from_table
from meshnet.node.identity import write_key
from meshnet.node.node import Node
from meshnet.node.wiring import make_router
from meshnet.storage.disk import RealDisk
from meshnet.transports.registry import Transports
from meshnet.transports.tcp import TcpTransport
from tests.support.loopback import Blob, Collect, UdpClient, fetch, talk
from tests.support.nodes import new_folder

reactor: Any = the_reactor


class Echo(DatagramProtocol):
    """Sends back what comes; notes from whom."""

    def __init__(self) -> None:
        self.callers: set[tuple[str, int]] = set()

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        self.callers.add(addr)
        self.transport.write(datagram, addr)


class Bridge(DatagramProtocol):
    """Gives one query of a program that knows no SOCKS to one that does."""

    def __init__(self, client: UdpClient, port: int) -> None:
        self.client, self.port = client, port

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        self.client.send(datagram, "127.0.0.1", self.port)
        answer = deferToThread(self.client.receive)
        answer.addCallback(lambda found: self.transport.write(found[0], addr))


class Names(ResolverBase):
    """Knows one address for everything."""

    def _lookup(self, name: bytes, cls: int, type: int, timeout: Any) -> Deferred[Any]:
        answer = RRHeader(name, A, IN, 60, Record_A("192.0.2.1"), auth=True)
        return succeed(([answer], [], []))


class TwoNodesTests(TestCase):
    """What the demonstration does, in one process and without relays."""

    def make(self, name: str, **table: Any) -> Node:
        """A node of a config table, not yet started."""
        folder = new_folder(self)
        apps, disk, secret = [VpnApp()], RealDisk(), SecretKey.generate()
        table = {"node": {"name": name}, **table}
        settings = from_table(table, folder / "node.toml", apps)
        write_key(disk, settings.node.key, secret)
        transports = Transports([TcpTransport(reactor)])
        return Node(
            settings,
            secret,
            reactor=reactor,
            clock=NodeClock(reactor),
            disk=disk,
            router=lambda node: make_router(node, secret, transports, os.urandom),
            apps=apps,
        )

    def run_node(self, node: Node) -> Deferred[None]:
        """Starts it, and stops it after the test."""
        node.startService()
        self.addCleanup(node.stopService)
        return node.ready()

    @inlineCallbacks
    def start(self, exit_settings: dict[str, Any]) -> Generator[Deferred[Any], Any, None]:
        """An exit and a user that are linked; `self.port` is a server that answers with 3 MB."""
        blob = type("Blob", (Blob,), {"callers": []})
        self.callers = blob.callers
        server = reactor.listenTCP(0, Factory.forProtocol(blob), interface="127.0.0.1")
        self.addCleanup(server.stopListening)
        self.port = server.getHost().port
        serve = {"port": 80, "target": f"127.0.0.1:{self.port}"}
        self.exit = self.make(
            "exit", link={"listen": ["tcp:127.0.0.1:0"], "accept": "any"}, exit=exit_settings, serve=[serve]
        )
        yield self.run_node(self.exit)
        key = self.exit.public_key.hex()
        self.user = self.make(
            "user",
            link={"peer": [{"key": key, "address": self.exit.listening[0]}]},
            socks={"listen": "127.0.0.1:0", "exit": key},
            forward=[{"listen": "127.0.0.1:0", "to": key, "port": 80}],
        )
        yield self.run_node(self.user)
        yield self.until(lambda: any(link["up"] for link in self.user.links()))

    def until(self, true: Callable[[], bool]) -> Deferred[None]:
        """Fires when it is true; the test's own time-out is the bound."""
        done: Deferred[None] = Deferred()

        def look() -> None:
            if true():
                done.callback(None)
            else:
                reactor.callLater(0.01, look)

        look()
        return done

    def vpn(self, node: Node) -> dict[str, Any]:
        """What the app says of itself."""
        status: dict[str, Any] = node.status()["apps"]["vpn"]
        return status

    @inlineCallbacks
    def test_socks(self) -> Generator[Deferred[Any], Any, None]:
        """3 MB come through the circuit, from the exit's source address."""
        yield self.start({"enabled": True, "allow": ["127.0.0.0/8"], "source": "127.0.0.9"})
        proxy = self.vpn(self.user)["socks"][0]["listen"]
        received = yield deferToThread(fetch, proxy, self.port, b"0123456789")
        self.assertEqual(received, b"0123456789" * 300_000)
        self.assertEqual(self.callers, ["127.0.0.9"])
        self.assertEqual(self.vpn(self.exit)["counts"]["exit"]["bytes_to_mesh"], 3_000_000)
        yield self.until(lambda: self.vpn(self.exit)["counts"]["exit"]["open"] == 0)

    @inlineCallbacks
    def test_refusals(self) -> Generator[Deferred[Any], Any, None]:
        """What the exit's policy refuses, and an exit that is off, is "not allowed" for the client."""
        yield self.start({"enabled": True})
        proxy = self.vpn(self.user)["socks"][0]["listen"]
        answer = yield deferToThread(fetch, proxy, self.port, b"x")
        self.assertEqual(answer[1], 2)
        self.assertEqual(self.vpn(self.exit)["counts"]["exit"]["refused"], {"private": 1})
        yield self.exit.stopService()
        answer = yield deferToThread(fetch, proxy, self.port, b"x")
        self.assertIn(answer[1], (1, 4))
        self.assertEqual(self.callers, [])

    @inlineCallbacks
    def test_forward(self) -> Generator[Deferred[Any], Any, None]:
        """A forward to a served port."""
        yield self.start({})
        host, _, port = self.vpn(self.user)["forward"][0]["listen"].rpartition(":")

        def use() -> bytes:
            with socket.create_connection((host, int(port)), timeout=10) as client:
                return talk(client, b"abc")

        received = yield deferToThread(use)
        self.assertEqual(received, b"abc" * 1_000_000)

    @inlineCallbacks
    def test_many(self) -> Generator[Deferred[Any], Any, None]:
        """Several clients at once each get their own bytes, and nothing stays open."""
        yield self.start({"enabled": True, "allow": ["127.0.0.0/8"]})
        proxy = self.vpn(self.user)["socks"][0]["listen"]
        bodies = [bytes([number]) * 10 for number in range(16)]
        found = yield gatherResults([deferToThread(fetch, proxy, self.port, body) for body in bodies])
        self.assertEqual(
            [(len(each), set(each)) for each in found], [(3_000_000, set(body)) for body in bodies]
        )
        yield self.until(
            lambda: not any(self.vpn(node)["counts"][role]["open"] for node, role in self.ends())
        )

    def ends(self) -> list[tuple[Node, str]]:
        """Both nodes and what they do."""
        return [(self.user, "socks"), (self.exit, "exit")]

    @inlineCallbacks
    def test_udp(self) -> Generator[Deferred[Any], Any, None]:
        """Datagrams of all sizes leave from the exit's source address and come back; names are its own."""
        yield self.start({"enabled": True, "allow": ["127.0.0.0/8"], "source": "127.0.0.9"})
        echo = Echo()
        server = reactor.listenUDP(0, echo, interface="127.0.0.1", maxPacketSize=65_535)
        self.addCleanup(server.stopListening)
        port = server.getHost().port
        payloads = [b"", b"x", bytes(1_200), bytes(30_000)]

        def use() -> list[tuple[bytes, str, int]]:
            client = UdpClient(self.vpn(self.user)["socks"][0]["listen"])
            try:
                answers = []
                for payload in payloads:
                    client.send(payload, "127.0.0.1", port)
                    answers.append(client.receive())
                return answers
            finally:
                client.close()

        answers = yield deferToThread(use)
        self.assertEqual(answers, [(payload, "127.0.0.1", port) for payload in payloads])
        self.assertEqual({host for host, _ in echo.callers}, {"127.0.0.9"})
        self.assertEqual(len(echo.callers), 1)
        yield self.until(
            lambda: not any(self.vpn(node)["counts"][role]["open"] for node, role in self.ends())
        )

    @inlineCallbacks
    def test_dig(self) -> Generator[Deferred[Any], Any, None]:
        """A look-up by dig through the mesh, to a name server that only the exit's machine reaches."""
        dig = shutil.which("dig")
        if dig is None:
            raise SkipTest("dig is not installed: sudo apt install dnsutils")
        yield self.start({"enabled": True, "allow": ["127.0.0.0/8"], "source": "127.0.0.9"})
        names = DNSDatagramProtocol(DNSServerFactory(clients=[Names()]))
        server = reactor.listenUDP(0, names, interface="127.0.0.1")
        self.addCleanup(server.stopListening)
        client = yield deferToThread(UdpClient, self.vpn(self.user)["socks"][0]["listen"])
        self.addCleanup(client.close)
        bridge = Bridge(client, server.getHost().port)
        local = reactor.listenUDP(0, bridge, interface="127.0.0.1")
        self.addCleanup(local.stopListening)
        words = ["@127.0.0.1", "-p", str(local.getHost().port), "+short", "+tries=1", "+time=10", "a.example"]
        printed = yield getProcessOutput(dig, words, reactor=reactor)
        self.assertEqual(printed, b"192.0.2.1\n")

    @inlineCallbacks
    def test_endpoint(self) -> Generator[Deferred[Any], Any, None]:
        """A Twisted program in the same process uses an endpoint string."""
        yield self.start({})
        place = f"mesh:{self.exit.public_key.hex()}:80:node=user"
        protocol: Any = yield clientFromString(reactor, place).connect(Factory.forProtocol(Collect))
        protocol.transport.write(b"x")
        received = yield protocol.done
        self.assertEqual(received, b"x" * 3_000_000)
        refused = clientFromString(reactor, place.replace(":80", ":81")).connect(Factory.forProtocol(Collect))
        error = yield self.assertFailure(refused, RefusedError)
        self.assertIn("port 81 is not open there", str(error))
