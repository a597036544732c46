"""Bad input and faults, each by name: a real client of the VPN, a real exit, real kernels.

    user ═ TUN ═ (two real nodes, TCP on loopback) ═ TUN ═ exit ─ cable ─ net

Spoofed sources, oversize and flushed tables are in `test_gateway_kernel.py`; what leaves the machine, an exit
that dies and an address that changes in `client/test_leaks.py`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import threading
from collections.abc import Generator
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.names.common import ResolverBase
from twisted.names.dns import IN, A, DNSDatagramProtocol, Record_A, RRHeader
from twisted.names.server import DNSServerFactory
from twisted.web.resource import Resource
from twisted.web.server import Site

from apps.vpn.client import service
from apps.vpn.client.service import TunnelClient
from apps.vpn.host.watch import HostWatch
from apps.vpn.packets.faults import Fault
from apps.vpn.packets.virtio import PLAIN
from apps.vpn.settings import Exit, Tunnel
from apps.vpn.tun import mtu as mtu_module
from apps.vpn.tun.rtnetlink import set_mtu, set_up
from lab.namespaces import Host
from meshnet.transports.changes import kernel_socket
from tests.support.exits import Echo, EchoStream, ExitCase, reactor
from tests.support.nodes import new_folder
from tests.support.packets import ip, udp
from tests.support.vpn import NET4, NET6, HostThere, ReactorThere, opener

DAY = 86_400.0


class Names(ResolverBase):
    """Every name is out there."""

    def _lookup(self, name: bytes, cls: int, type: int, timeout: Any) -> Deferred[Any]:
        found = [RRHeader(name, A, IN, 60, Record_A(NET4), auth=True)] if type == A else []
        return succeed((found, [], []))


class Page(Resource):
    """Seven thousand bytes."""

    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        return b"a page\n" * 1_000


class FaultTests(ExitCase):
    """Each begins with a tunnel that is up."""

    @inlineCallbacks
    def up(self, settings: dict[str, Any] | None = None, **more: Any) -> Generator[Deferred[Any], Any, None]:
        """The exit with these settings, and a tunnel through it."""
        yield self.start(**(settings or {}))
        yield self.client(self.user, **more)

    @inlineCallbacks
    def client(self, host: Host, **more: Any) -> Generator[Deferred[Any], Any, None]:
        """A tunnel of the near node, in a host."""
        folder = new_folder(self)
        (folder / "resolv.conf").write_text("nameserver 192.0.2.53\n")
        self.there = HostThere(host, folder)
        self.addCleanup(self.there.close)

        def watch(*words: Any) -> HostWatch:
            return host.inside(lambda: HostWatch(*words))

        def notices(*words: Any) -> Any:
            return host.inside(lambda: kernel_socket(*words))

        self.patch(service, "HostWatch", watch)

        self.patch(mtu_module, "kernel_socket", notices)
        # The numbers of interfaces mean others here than there.
        self.patch(mtu_module, "set_mtu", lambda *words: host.inside(lambda: set_mtu(*words)))
        self.patch(service, "set_up", lambda *words: host.inside(lambda: set_up(*words)))
        self.tunnel = TunnelClient(
            cast("Any", self.near),
            cast("Any", self.there),
            open_device=opener(host),
            resolv=folder / "resolv.conf",
            may=lambda: None,
        )
        self.addCleanup(self.tunnel.stop)
        shown = yield self.tunnel.up(Tunnel(self.far.public_key, via=(), **more))
        self.assertEqual(shown["state"], "up")

    @inlineCallbacks
    def passes(self, *addresses: str) -> Generator[Deferred[Any], Any, None]:
        """Echo of these addresses, or of both families, comes back, if not at once then soon."""
        for address in addresses or (NET4, NET6):
            for _ in range(20):
                said = yield self.run_there(self.user, "ping", "-n", "-c1", "-W1", address)
                if "1 received" in said:
                    break
            self.assertIn("1 received", said)

    def echo(self) -> set[str]:
        """Everybody out there sends back what comes to port 7; from whom it came."""
        net, callers = ReactorThere(reactor, self.net), set[str]()
        self.addCleanup(lambda: self.until(lambda: not EchoStream.live))
        for address in (NET4, NET6):
            datagrams = net.listenUDP(7, Echo(callers), interface=address, maxPacketSize=65_535)
            streams = net.listenTCP(7, Factory.forProtocol(EchoStream), interface=address)
            self.addCleanup(datagrams.stopListening)
            self.addCleanup(streams.stopListening)
        return callers

    def talk(self, size: int, family: int = socket.AF_INET) -> bytes:
        """So many bytes there and back over TCP."""
        data, received = os.urandom(size), bytearray()
        with self.socket(self.user, family, socket.SOCK_STREAM) as stream:
            stream.connect((NET4 if family == socket.AF_INET else NET6, 7))
            sender = threading.Thread(target=stream.sendall, args=(data,))
            sender.start()
            while len(received) < size and (piece := stream.recv(1 << 20)):
                received += piece
            sender.join()
        self.assertEqual(received, data)
        return bytes(received)

    def offer(self, flow: Any, *frames: bytes) -> None:
        """Frames into a tunnel as if a kernel had made them."""
        for frame in frames:
            flow.offer(memoryview(frame), self.near.clock.now())
            flow.ready()

    @inlineCallbacks
    def test_not_ip(self) -> Generator[Deferred[Any], Any, None]:
        """What is no IP packet, is cut short, lies about its length, or has a header in front that cannot be:
        dropped and counted at the other end, whoever sends it. The tunnel goes on."""
        yield self.up()
        lease = self.tunnel._lease
        assert lease is not None
        (tenant,) = self.gateway.tenants.values()
        whole = udp(str(lease.v4), NET4, (5, 7), b"x" * 100)
        bad = {
            Fault.NOT_IP: PLAIN + bytes(40),
            Fault.SHORT: PLAIN + b"\x45",
            Fault.LENGTH: PLAIN + whole[:-1],
            Fault.HEADER: PLAIN + b"\x41" + whole[1:],
            Fault.OFFLOAD: b"\x00\x01" + PLAIN[2:] + whole,
        }
        for flow, counts in ((self.tunnel._flow, "dropped_in"), (tenant.flow, "dropped_out")):
            self.offer(flow, *bad.values())
            there = tenant.flow if flow is self.tunnel._flow else self.tunnel._flow
            yield self.until(lambda there=there: sum(there.dropped_in) >= len(bad))
            self.assertEqual([there.dropped_in[fault] for fault in bad], [1] * len(bad), counts)
        yield self.passes()
        self.assertEqual(self.tunnel.redials, 0)

    @inlineCallbacks
    def test_checksums(self) -> Generator[Deferred[Any], Any, None]:
        """Packets with wrong checksums travel, and a kernel drops them: of the header the exit's, of what is
        inside the destination's. No program sees them, and the next one arrives."""
        yield self.up()
        lease, heard = self.tunnel._lease, list[bytes]()
        assert lease is not None
        with self.socket(self.net, socket.AF_INET, socket.SOCK_DGRAM) as there:
            there.bind((NET4, 7))
            good = udp(str(lease.v4), NET4, (5, 7), b"good")
            inside = bytearray(udp(str(lease.v4), NET4, (5, 7), b"inside"))
            inside[26] ^= 1
            head = bytearray(udp(str(lease.v4), NET4, (5, 7), b"head"))
            head[10] ^= 1
            self.offer(self.tunnel._flow, *(PLAIN + bytes(each) for each in (inside, head, good)))
            heard.append((yield deferToThread(there.recv, 100)))
            there.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                heard.append(there.recv(100))
        self.assertEqual(heard, [b"good"])

    @pytest.mark.long
    @inlineCallbacks
    def test_fragments(self) -> Generator[Deferred[Any], Any, None]:
        """Datagrams of many fragments pass both ways, in both families; fragments that never become whole
        harm nobody."""
        yield self.up()
        self.echo()
        lease = self.tunnel._lease
        assert lease is not None
        halves = (ip(str(lease.v4), NET4, 17, bytes(64), number=n, flags=0x2000) for n in range(200))
        self.offer(self.tunnel._flow, *(PLAIN + half for half in halves))
        for family, address in ((socket.AF_INET, NET4), (socket.AF_INET6, NET6)):
            with self.socket(self.user, family, socket.SOCK_DGRAM) as datagrams:
                datagrams.connect((address, 7))
                datagrams.settimeout(1)
                data = os.urandom(20_000)
                yield deferToThread(self.answered, datagrams, data)

    def answered(self, datagrams: socket.socket, data: bytes) -> None:
        """Sent until it came back."""
        for _ in range(10):
            with contextlib.suppress(TimeoutError):
                datagrams.send(data)
                self.assertEqual(datagrams.recv(65_535), data)
                return
        self.fail("no answer")

    @inlineCallbacks
    def test_mtu_shrinks(self) -> Generator[Deferred[Any], Any, None]:
        """Somebody sets the interface's MTU: it is followed and told; too small for IPv6, it is raised, and
        the address comes back; larger than the lease, it is lowered. That of the way is followed, too."""
        yield self.up()
        self.echo()
        for seen, mtu in ((1_300, 1_300), (1_000, 1_280), (9_000, 1_500)):
            self.user.configure(f"link set mesh-vpn mtu {seen}")
            yield self.until(lambda mtu=mtu: self.tunnel.describe()["mtu"] == mtu)
            self.assertIn(f" mtu {mtu} ", self.user.run("ip", "link", "show", "mesh-vpn"))
            yield self.put_back()
            yield self.passes()
            yield deferToThread(self.talk, 200_000)
        self.assertEqual(self.user.run("ip", "-6", "-o", "addr", "show", "dev", "mesh-vpn").count("fd6d:"), 1)
        self.tunnel._narrow(1_400 + 12)
        self.assertEqual(self.tunnel.describe()["mtu"], 1_400)
        yield deferToThread(self.talk, 200_000, socket.AF_INET6)

    @inlineCallbacks
    def test_interface_gone(self) -> Generator[Deferred[Any], Any, None]:
        """The interface is deleted, or set down: it comes again, with the same addresses, and a connection
        goes on over it."""
        yield self.up()
        self.echo()
        lease = self.tunnel._lease
        with self.socket(self.user, socket.AF_INET, socket.SOCK_STREAM) as stream:
            yield deferToThread(stream.connect, (NET4, 7))
            for words in ("link set mesh-vpn down", "link delete mesh-vpn"):
                before = len(self.tunnel.describe()["events"])
                self.user.configure(words)
                yield self.until(lambda before=before: len(self.tunnel.describe()["events"]) > before)
                yield self.until(lambda: self.tunnel.describe()["state"] == "up")
                yield self.put_back()
                stream.send(b"still")
                self.assertEqual((yield deferToThread(stream.recv, 5)), b"still")
        assert lease is not None and self.tunnel._lease is not None
        self.assertEqual((self.tunnel._lease.v4, self.tunnel._lease.v6), (lease.v4, lease.v6))

    @inlineCallbacks
    def test_routes_changed(self) -> Generator[Deferred[Any], Any, None]:
        """Somebody else changes routes: a default route comes and goes, ours are flushed, and the rules. What
        was ours is put back, what was not stays."""
        yield self.up()
        self.user.configure(
            *("link add near0 type veth peer name near1", "addr add 192.0.2.9/24 dev near0"),
            *("link set near0 up", "link set near1 up"),
        )
        for words in (
            "ip route add default via 192.0.2.1",
            "ip route flush table 28005; ip -6 route flush table 28005",
            "ip route delete default",
            "ip rule flush; ip rule add lookup main pref 32766",
            "ip -6 rule delete pref 5220; ip route add default via 192.0.2.1",
        ):
            self.user.run("sh", "-c", words)
            yield self.put_back()
            yield self.passes()
        self.assertIn("default via 192.0.2.1", self.user.run("ip", "route"))
        self.assertGreater(self.tunnel.repairs, 3)
        self.assertEqual(self.tunnel.redials, 0)

    @inlineCallbacks
    def put_back(self) -> Generator[Deferred[Any], Any, None]:
        """Waits until all that is to stand in the user's host does."""
        while (yield self.there.call(lambda host: host.missing("client"))):
            yield deferLater(reactor, 0.01)

    @inlineCallbacks
    def test_clock_jumps(self) -> Generator[Deferred[Any], Any, None]:
        """The wall clock of the client, of the exit, of both jumps by a day, forward and back: packets go on,
        and so does a connection; a tunnel made afterwards works, too."""
        yield self.up()
        self.echo()
        with self.socket(self.user, socket.AF_INET, socket.SOCK_STREAM) as stream:
            yield deferToThread(stream.connect, (NET4, 7))
            for near, far in ((DAY, 0.0), (-DAY, 0.0), (0.0, DAY), (0.0, -DAY), (DAY, DAY), (0.0, 0.0)):
                self.jumps["user"][1], self.jumps["exit"][1] = near, far
                stream.send(b"still")
                self.assertEqual((yield deferToThread(stream.recv, 5)), b"still")
                yield self.passes()
        shown = yield self.tunnel.look()
        self.assertEqual((shown["state"], self.tunnel.redials), ("up", 0))

    @inlineCallbacks
    def test_resumed(self) -> Generator[Deferred[Any], Any, None]:
        """The machine sleeps for a minute, for an hour, for a day, and wakes: the tunnel is up again by
        itself."""
        yield self.up()
        for seconds in (60.0, 3_600.0, DAY):
            for jumps in self.jumps.values():  # time passes for everybody
                jumps[:] = [each + seconds for each in jumps]
            yield self.passes()
            shown = yield self.tunnel.look()
            self.assertEqual(shown["state"], "up")

    @pytest.mark.long
    @inlineCallbacks
    def test_exit_restarted(self) -> Generator[Deferred[Any], Any, None]:
        """The exit is turned off and on while the client is connected: up again by itself."""
        yield self.up()
        for _ in range(2):
            yield Deferred.fromCoroutine(self.gateway.stop())
            yield self.until(lambda: self.tunnel.describe()["state"] == "reconnecting")
            yield Deferred.fromCoroutine(self.gateway.apply(Exit(packets=True)))
            yield self.until(lambda: self.tunnel.describe()["state"] == "up")
            yield self.passes()

    @pytest.mark.long
    @inlineCallbacks
    def test_two_clients(self) -> Generator[Deferred[Any], Any, None]:
        """Two machines at once behind one exit: each has its own addresses; one leaves, the other does not
        notice."""
        yield self.up()
        other = yield self.customer("mesh-vpn2", host=self.net)
        mine = self.tunnel._lease
        assert mine is not None
        self.assertNotEqual((mine.v4, mine.v6), (other.lease.v4, other.lease.v6))
        yield self.passes()
        self.assertEqual(len(self.gateway.describe()["clients"]), 2)
        other.stop()
        yield self.until(lambda: len(self.gateway.tenants) == 1)
        yield self.passes()

    @pytest.mark.long
    @inlineCallbacks
    def test_one_family_at_the_exit(self) -> Generator[Deferred[Any], Any, None]:
        """An exit of IPv4 alone, and one of IPv6 alone: that family passes, the other goes nowhere."""
        yield self.up({"pool6": None})
        yield self.passes(NET4)
        yield self.goes_nowhere(NET6)
        yield self.tunnel.down()
        yield Deferred.fromCoroutine(self.gateway.apply(Exit(packets=True, pool4=None)))
        yield self.tunnel.up(Tunnel(self.far.public_key, via=()))
        yield self.passes(NET6)
        yield self.goes_nowhere(NET4)

    @inlineCallbacks
    def goes_nowhere(self, address: str) -> Generator[Deferred[Any], Any, None]:
        """Not even out of the machine."""
        said = yield self.run_there(self.user, "ping", "-n", "-c1", "-W1", address)
        self.assertRegex(said, "unreachable|Invalid argument")

    @inlineCallbacks
    def test_machine_without_ipv6(self) -> Generator[Deferred[Any], Any, None]:
        """A machine whose IPv6 is turned off has a tunnel of IPv4."""
        yield self.start()
        self.user.set(ipv6__conf__all__disable_ipv6=1, ipv6__conf__default__disable_ipv6=1)
        yield self.client(self.user, killswitch=True)
        yield self.passes(NET4)
        self.assertIn("IPv6 is turned off", self.tunnel.describe()["notes"][0])
        self.assertEqual((yield self.tunnel.down()), [])

    @pytest.mark.long
    @inlineCallbacks
    def test_page(self) -> Generator[Deferred[Any], Any, None]:
        """A page by its name, as curl gets it: the name over UDP and over TCP at the exit, then the page."""
        if shutil.which("curl") is None:
            return
        yield self.up()
        net = ReactorThere(reactor, self.net)
        site = Resource()
        site.putChild(b"page", Page())
        names = DNSServerFactory(clients=[Names()])
        for port in (
            net.listenTCP(80, Site(site), interface=NET4),
            net.listenTCP(53, names, interface=NET4),
            net.listenUDP(53, DNSDatagramProtocol(names), interface=NET4),
        ):
            self.addCleanup(port.stopListening)
        lease = self.tunnel.describe()["lease"]
        self.user.resolve_by(*lease["dns"])
        words = ("curl", "-sS", "--max-time", "10", "http://page.example/page")
        self.assertEqual((yield self.run_there(self.user, *words)), "a page\n" * 1_000)
        file = self.user.files / "resolv.conf"
        file.write_text(file.read_text() + "options use-vc\n")
        self.assertEqual((yield self.run_there(self.user, *words)), "a page\n" * 1_000)
