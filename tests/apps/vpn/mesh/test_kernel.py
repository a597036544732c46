"""Two real nodes in one process, linked over loopback, with mesh interfaces in namespaces of their own."""

from __future__ import annotations

import os
import socket
import unittest
from collections.abc import Callable, Generator
from ipaddress import IPv6Interface
from typing import Any

from attrs import evolve
from twisted.internet import reactor as the_reactor  # noqa: TID251  (real sockets and devices)
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from apps.vpn.app import VpnApp
from apps.vpn.mesh.addresses import NETWORK
from apps.vpn.mesh.control import MeshInterface
from apps.vpn.settings import Tun
from apps.vpn.tun.linux import LinuxDevice, open_linux
from apps.vpn.tun.rtnetlink import delete_link
from meshnet.cipher.keys import SecretKey
from meshnet.node.clock import NodeClock
from meshnet.node.config import from_table
from meshnet.node.identity import write_key
from meshnet.node.node import Node
from meshnet.node.wiring import make_router
from meshnet.storage.disk import RealDisk
from meshnet.transports.registry import Transports
from meshnet.transports.tcp import TcpTransport
from tests.support.netns import Namespace, why_not
from tests.support.nodes import eventually, new_folder

reactor: Any = the_reactor
WHY_NOT = why_not()
MEGABYTE = 1_000_000


class Host:
    """A node, and the namespace of its interface."""

    def __init__(self, case: TestCase, name: str, **table: Any) -> None:
        folder, disk, secret, apps = new_folder(case), RealDisk(), SecretKey.generate(), [VpnApp()]
        settings = from_table({"node": {"name": name}, **table}, folder / "node.toml", apps)
        write_key(disk, settings.node.key, secret)
        transports = Transports([TcpTransport(reactor)])
        self.node = Node(
            settings,
            secret,
            reactor=reactor,
            clock=NodeClock(reactor),
            disk=disk,
            router=lambda node: make_router(node, secret, transports, os.urandom),
            apps=apps,
        )
        self.space = Namespace()
        self.device: LinuxDevice
        case.addCleanup(self.space.close)

    @property
    def tun(self) -> MeshInterface:
        """The app's part that has the interface."""
        found: MeshInterface = self.node._apps.running["vpn"]._tun  # type: ignore[attr-defined]
        return found

    def up(self) -> None:
        """Brings the interface up, in its namespace."""

        def open_device(settings: Tun, address: IPv6Interface) -> LinuxDevice:
            self.device = self.space.run(open_linux, settings.name, settings.mtu, [address], [NETWORK])
            return self.device

        self.tun._open = open_device
        self.tun.up(evolve(self.tun.settings, dns=False))

    @property
    def address(self) -> str:
        return str(self.tun.status()["address"])


@unittest.skipIf(WHY_NOT, WHY_NOT)
class KernelTests(TestCase):
    """Programs reach each other at mesh addresses."""

    timeout = 60

    @inlineCallbacks
    def start(self) -> Generator[Deferred[Any], Any, None]:
        """Two hosts whose interfaces are up; the second one's config does not know the first."""
        self.b = Host(self, "bob", link={"listen": ["tcp:127.0.0.1:0"]})
        yield self.run_node(self.b.node)
        key = self.b.node.public_key.hex()
        peer = {"key": key, "address": self.b.node.listening[0]}
        self.a = Host(self, "ann", link={"peer": [peer]}, known=[{"name": "bob", "key": key}])
        yield self.run_node(self.a.node)
        yield self.a.node.linked()
        for host in (self.a, self.b):
            host.up()

    def run_node(self, node: Node) -> Deferred[None]:
        node.startService()
        self.addCleanup(node.stopService)
        return node.ready()

    def in_thread(self, call: Callable[[], Any]) -> Deferred[Any]:
        return deferToThread(call)

    def serve(self, answer: Callable[[socket.socket], object]) -> int:
        """A program at the second host that takes one connection; its port."""
        server = self.b.space.run(socket.socket, socket.AF_INET6, socket.SOCK_STREAM)
        server.settimeout(20)
        server.bind((self.b.address, 0))
        server.listen()
        port: int = server.getsockname()[1]

        def work() -> None:
            with server:
                stream, where = server.accept()
                with stream:
                    self.caller = where[0]
                    answer(stream)

        self.addCleanup(lambda: done)
        done = deferToThread(work)
        return port

    def fetch(self, port: int, size: int) -> bytes:
        """What the first host reads there."""
        with self.a.space.run(socket.socket, socket.AF_INET6, socket.SOCK_STREAM) as client:
            client.settimeout(20)
            client.connect((self.b.address, port))
            found = bytearray()
            while len(found) < size and (piece := client.recv(1 << 18)):
                found += piece
            return bytes(found)

    @inlineCallbacks
    def test_tcp(self) -> Generator[Deferred[Any], Any, None]:
        """3 MB over TCP, from the caller's own mesh address, in superpackets; both sides count them."""
        yield self.start()
        data = os.urandom(3 * MEGABYTE)
        port = self.serve(lambda stream: stream.sendall(data))
        found = yield self.in_thread(lambda: self.fetch(port, len(data)))
        self.assertEqual((found == data, self.caller), (True, self.a.address))
        far, near = self.b.tun.status()["peers"][0], self.a.tun.status()["peers"][0]
        self.assertGreater(near["bytes_in"], 3 * MEGABYTE)
        self.assertLess(near["frames_in"], 1_000, "superpackets were expected")
        self.assertEqual((near["dropped_in"], far["dropped_in"], far["dropped_out"]), ({}, {}, {}))

    @inlineCallbacks
    def test_datagrams(self) -> Generator[Deferred[Any], Any, None]:
        """UDP both ways, large ones in fragments. On a machine that stands still for a moment a queue drops
        some (CoDel), so each is sent until it was answered."""
        yield self.start()
        ends = [
            host.space.run(socket.socket, socket.AF_INET6, socket.SOCK_DGRAM) for host in (self.a, self.b)
        ]
        for end, host in zip(ends, (self.a, self.b), strict=True):
            self.addCleanup(end.close)
            end.settimeout(0.5)
            end.bind((host.address, 0))
        far = ends[1].getsockname()[:2]
        sent = [bytes((number,)) * size for number, size in enumerate((1, 1_200, 1_200, 5_000, 8_900))]

        def answered(data: bytes) -> bool:
            try:
                ends[0].sendto(data, far)
                got, where = ends[1].recvfrom(9_000)
                ends[1].sendto(got, where)
                return ends[0].recv(9_000) == data
            except TimeoutError:
                return False

        def talk() -> list[bool]:
            return [any(answered(data) for _ in range(40)) for data in sent]

        found = yield self.in_thread(talk)
        self.assertEqual(found, [True] * len(sent))

    @inlineCallbacks
    def test_nobody(self) -> Generator[Deferred[Any], Any, None]:
        """An address that nobody has is refused at once, by the kernel's own word for it."""
        yield self.start()

        def connect() -> str:
            with self.a.space.run(socket.socket, socket.AF_INET6, socket.SOCK_STREAM) as client:
                client.settimeout(20)
                try:
                    client.connect(("fc12::34", 80))
                except OSError as problem:
                    return problem.strerror or ""
            return "connected"

        answer = yield self.in_thread(connect)
        self.assertEqual(answer, "No route to host")

    @inlineCallbacks
    def test_deleted(self) -> Generator[Deferred[Any], Any, None]:
        """An interface deleted under us: flows close, the status says why, and it can be brought up anew."""
        yield self.start()
        port = self.serve(lambda stream: stream.sendall(b"x"))
        yield self.in_thread(lambda: self.fetch(port, 1))
        self.a.space.run(delete_link, self.a.device.name, self.a.device.index)
        yield Deferred.fromCoroutine(eventually(lambda: self.a.tun.status()["gone"] is not None))
        self.assertIn("The interface mesh0 is gone", self.a.tun.status()["gone"])
        yield Deferred.fromCoroutine(
            eventually(lambda: all(p["state"] != "joined" for p in self.b.tun.status()["peers"]))
        )
        self.a.up()
        port = self.serve(lambda stream: stream.sendall(b"y"))
        found = yield self.in_thread(lambda: self.fetch(port, 1))
        self.assertEqual(found, b"y")
