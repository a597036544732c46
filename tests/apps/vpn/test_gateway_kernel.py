"""An exit for packets between real kernels: a client, an exit and an internet in network namespaces."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Generator
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.names.common import ResolverBase
from twisted.names.dns import IN, A, DNSDatagramProtocol, Record_A, RRHeader
from twisted.names.server import DNSServerFactory

from apps.vpn import gateway, ruleset
from apps.vpn.gateway import survey
from apps.vpn.packets.virtio import AHEAD, PLAIN
from apps.vpn.policy import rule
from apps.vpn.settings import Exit
from lab.capture import Capture, ends
from tests.support.exits import Echo, EchoStream, ExitCase, reactor
from tests.support.packets import udp
from tests.support.vpn import NET4, NET6, PRIVATE4, Customer, HostThere, ReactorThere


class Names(ResolverBase):
    """Knows one address for everything."""

    def _lookup(self, name: bytes, cls: int, type: int, timeout: Any) -> Deferred[Any]:
        answer = RRHeader(name, A, IN, 60, Record_A("192.0.2.1"), auth=True)
        return succeed(([answer], [], []))


def is_too_big(packet: bytes) -> bool:
    """Whether an ICMP error says so."""
    if packet[0] >> 4 == 4:
        return packet[9] == 1 and packet[20:22] == b"\3\4"
    return packet[6] == 58 and packet[40] == 2


def is_question(packet: bytes) -> bool:
    """Whether it is UDP to port 7."""
    found = ends(packet)
    return found is not None and found.dport == 7


def seen(capture: Capture, which: Callable[[bytes], bool]) -> list[bytes]:
    """The IP packets of a capture that are such."""
    return [each.data for each in capture.whole() if each.ends is not None and which(each.data)]


class GatewayTests(ExitCase):
    """Skipped without root."""

    @inlineCallbacks
    def test_traffic(self) -> Generator[Deferred[Any], Any, None]:
        """Echo, TCP, UDP and names of both families, to an internet that knows the exit alone."""
        yield self.start(deny=(rule("*.evil.example"),))
        customer = yield self.customer()
        for address in (NET4, NET6, *map(str, customer.lease.dns)):
            said = yield self.run_there(self.user, "ping", "-n", "-c1", "-W5", address)
            self.assertIn("1 received", said)
        net = ReactorThere(reactor, self.net)
        callers: set[str] = set()
        for family, address in ((socket.AF_INET, NET4), (socket.AF_INET6, NET6)):
            udp = net.listenUDP(7, Echo(callers), interface=address, maxPacketSize=65_535)
            tcp = net.listenTCP(7, Factory.forProtocol(EchoStream), interface=address)
            self.addCleanup(udp.stopListening)
            self.addCleanup(tcp.stopListening)
            yield deferToThread(self.talk, family, address)
        exit_addresses = {str(self.exit.towards(self.net).own4), str(self.exit.towards(self.net).own6)}
        self.assertEqual(callers, exit_addresses)
        yield self.look_up(net, customer)
        clients = self.gateway.describe()["clients"]
        self.assertEqual((len(clients), clients[0]["dropped_in"].get("source", 0)), (1, 0))
        self.assertEqual((yield self.host.call(lambda host: host.missing("exit"))), ())

    def talk(self, family: int, address: str) -> None:
        """2 MB there and back over TCP; datagrams of all sizes, also some that are fragmented."""
        data = os.urandom(1 << 20) * 2
        with self.socket(self.user, family, socket.SOCK_STREAM) as stream:
            stream.connect((address, 7))
            sender = threading.Thread(target=stream.sendall, args=(data,))
            sender.start()
            received = bytearray()
            while len(received) < len(data):
                received += stream.recv(1 << 20)
            sender.join()
        self.assertEqual(received, data)
        with self.socket(self.user, family, socket.SOCK_DGRAM) as datagrams:
            datagrams.connect((address, 7))
            for size in (0, 1_200, 8_000):
                datagrams.send(data[:size])
                self.assertEqual(datagrams.recv(65_535), data[:size])

    @inlineCallbacks
    def look_up(self, net: Any, customer: Customer) -> Generator[Deferred[Any], Any, None]:
        """Names by dig, over UDP and TCP, at the exit."""
        if shutil.which("dig") is None:
            return
        factory = DNSServerFactory(clients=[Names()])
        udp = net.listenUDP(53, DNSDatagramProtocol(factory), interface=NET4)
        tcp = net.listenTCP(53, factory, interface=NET4)
        self.addCleanup(udp.stopListening)
        self.addCleanup(tcp.stopListening)
        assert customer.lease is not None
        for server in map(str, customer.lease.dns):
            for more in ("+notcp", "+tcp"):
                words = ("dig", f"@{server}", "+short", "+tries=1", "+time=5", more, "a.example")
                self.assertEqual((yield self.run_there(self.user, *words)), "192.0.2.1\n")
        said = yield self.run_there(self.user, "dig", f"@{server}", "+tries=1", "x.evil.example")
        self.assertIn("REFUSED", said)

    @inlineCallbacks
    def test_refused(self) -> Generator[Deferred[Any], Any, None]:
        """Private ranges, denied ports, the exit itself and other clients: each answered, none reached."""
        yield self.start(deny=(rule("public:25"),))
        yield self.customer()
        other = yield self.customer(host=self.net)
        mine = self.exit.towards(self.net).own4
        places = [(PRIVATE4, 80), (NET4, 25), (str(mine), 53), (str(other.lease.v4), 80), ("10.181.0.1", 80)]
        places.append(("fc00::1", 80))
        with Capture(self.net) as capture:
            for place in places:
                failed = yield deferToThread(self.connect, *place)
                self.assertIn(failed, (errno.EHOSTUNREACH, errno.EACCES), place)  # prohibited, and told so
            failed = yield deferToThread(self.connect, NET4, 26)
            self.assertEqual(failed, errno.ECONNREFUSED)  # allowed, and nobody there
        found = [each.ends for each in capture.whole() if each.ends is not None]
        reached = {(each.target, each.dport) for each in found if each.source == str(mine)}
        self.assertEqual(reached & {*places, (NET4, 26)}, {(NET4, 26)})
        self.assertEqual(self.gateway.describe()["rejected"], {"refused": len(places)})

    @inlineCallbacks
    def test_uninvited(self) -> Generator[Deferred[Any], Any, None]:
        """Nobody out there can begin anything with a client, also one who knows its address and the way."""
        yield self.start()
        customer = yield self.customer()
        self.net.configure(f"route add 10.181.0.0/16 via {self.exit.towards(self.net).own4}")
        with Capture(self.user) as capture:
            with self.socket(self.net, socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
                datagrams.bind((NET4, 7))
                datagrams.sendto(b"x", (str(customer.lease.v4), 9))
            said = yield self.run_there(self.user, "ping", "-n", "-c1", "-W5", NET4)
        self.assertIn("1 received", said)
        heard = [each.ends for each in capture.whole() if each.ends is not None and not each.outgoing]
        self.assertEqual({(each.source, each.dport) for each in heard}, {(NET4, 0)})
        self.assertEqual(self.gateway.describe()["rejected"], {"uninvited": 1})

    def connect(self, host: str, port: int) -> int | None:
        """Why a program of the user cannot connect."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with self.socket(self.user, family, socket.SOCK_STREAM) as stream:
            try:
                stream.connect((host, port))
            except OSError as why:
                return why.errno
        return 0

    @inlineCallbacks
    def test_spoofed(self) -> Generator[Deferred[Any], Any, None]:
        """A client that uses addresses which are not its own: nothing of it comes out, seen by a capture."""
        yield self.start()
        customer = yield self.customer()
        false4, false6 = "203.0.113.9", "2001:db8::9"
        neighbour = str(customer.lease.v4 + 1)
        self.user.configure(
            *(
                f"addr add {each} dev mesh-vpn"
                for each in (f"{false4}/32", f"{neighbour}/32", f"{false6}/128")
            )
        )
        with Capture(self.net) as capture:
            for source, to in (
                (false4, NET4),
                (neighbour, NET4),
                (false6, NET6),
                (str(customer.lease.v4), NET4),
            ):
                family = socket.AF_INET6 if ":" in source else socket.AF_INET
                with self.socket(self.user, family, socket.SOCK_DGRAM) as datagrams:
                    datagrams.bind((source, 7_777))
                    datagrams.sendto(b"x", (to, 7))
            yield self.until(lambda: seen(capture, is_question))
        sent = [ends(each) for each in seen(capture, is_question)]
        self.assertEqual([each.source for each in sent], [str(self.exit.towards(self.net).own4)])
        self.assertEqual(self.gateway.describe()["dropped_in"]["source"], 3)

    @inlineCallbacks
    def test_crowded(self) -> Generator[Deferred[Any], Any, None]:
        """A client has so many connections at a time; one more is refused, another client's is not."""
        self.patch(ruleset, "CONNECTIONS", 3)
        yield self.start()
        yield self.customer()
        with Capture(self.net) as capture:
            sockets = [self.socket(self.user, socket.AF_INET, socket.SOCK_DGRAM) for _ in range(5)]
            for datagrams in sockets:
                datagrams.sendto(b"x", (NET4, 7))
            yield self.until(lambda: len(seen(capture, is_question)) >= 3)
            for datagrams in sockets:
                datagrams.close()
            yield self.run_there(self.user, "ping", "-n", "-c1", "-W1", NET4)
        self.assertEqual(len({ends(each) for each in seen(capture, is_question)}), 3)
        self.assertEqual(self.gateway.describe()["rejected"], {"refused": 3})
        self.assertEqual((yield self.host.call(lambda host: host.missing("exit"))), ())

    @inlineCallbacks
    def test_too_large(self) -> Generator[Deferred[Any], Any, None]:
        """What no cell takes is told to its sender on the internet, about the packet as that one sent it."""
        yield self.start()
        customer = yield self.customer()
        for family, here, there in (
            (socket.AF_INET, str(customer.lease.v4), NET4),
            (socket.AF_INET6, str(customer.lease.v6), NET6),
        ):
            with Capture(self.net, snap=1_500) as capture:
                with self.socket(self.user, family, socket.SOCK_DGRAM) as datagrams:
                    datagrams.bind((here, 7_777))
                    datagrams.sendto(b"x", (there, 7))
                    yield self.until(
                        lambda: any(each.ends.dport == 7 for each in capture.packets if each.ends)
                    )
                frame = PLAIN + udp(there, here, (7, 7_777), bytes(1_400))
                self.gateway._too_large(memoryview(bytearray(frame)), 1_300 + AHEAD)
                yield self.until(lambda: seen(capture, is_too_big))
            (told,) = seen(capture, is_too_big)
            exit_ = self.exit.towards(self.net)
            masked = (exit_.own4 if family == socket.AF_INET else exit_.own6).packed
            self.assertIn(masked, told[28:])
            self.assertNotIn(ip_address(here).packed, told)

    def state(self) -> dict[str, str]:
        """What an exit may change in its machine."""
        return {
            "rules": self.exit.run("nft", "list", "ruleset"),
            "links": self.exit.run("ip", "-o", "link"),
            "addresses": self.exit.run("ip", "-o", "addr"),
            "routes": self.exit.run("ip", "route", "show", "table", "all"),
            "policy": self.exit.run("sh", "-c", "ip rule; ip -6 rule"),
            "sysctls": self.exit.run("sysctl", "-a", "--pattern", "forwarding|ip_forward|accept_ra$"),
        }

    @inlineCallbacks
    def test_restored(self) -> Generator[Deferred[Any], Any, None]:
        """Off, the machine is as it was; after a kill, the next start makes it so."""
        yield self.start()
        during = self.state()
        yield Deferred.fromCoroutine(self.gateway.stop())
        before = self.state()
        self.assertNotIn("meshnet", "".join(before.values()))
        self.assertNotIn("mesh-exit", "".join(before.values()))
        self.assertIn("net.ipv4.ip_forward = 0", before["sysctls"])
        self.assertIn("meshnet_exit", during["rules"])
        yield Deferred.fromCoroutine(self.gateway.apply(Exit(packets=True)))
        tun = self.gateway._tun
        assert tun is not None
        tun.stop()  # as when the process dies: the interface goes, the rest stays
        self.assertIn("meshnet_exit", self.state()["rules"])
        self.host.close()
        self.host = HostThere(self.exit, self.folder)
        yield self.host.call(survey)
        self.assertEqual(self.state(), before)
        self.gateway.host = self.host

    @inlineCallbacks
    def test_flushed(self) -> Generator[Deferred[Any], Any, None]:
        """A firewall that is loaded anew takes all tables away, or somebody the rules of routing: they come
        back. In between nothing of a client comes out with its own address, or gets where it may not; and
        its connections are as they were. What was counted stays."""
        yield self.start()
        customer = yield self.customer()
        before = self.exit.run("sh", "-c", "ip rule; ip -6 rule")
        self.assertEqual((yield deferToThread(self.connect, PRIVATE4, 80)), errno.EHOSTUNREACH)
        self.over = False
        self.addCleanup(setattr, self, "over", True)
        said = deferToThread(self.flood)
        with Capture(self.net) as capture:
            for words in ("nft flush ruleset", "ip rule flush", "nft flush ruleset"):
                self.exit.run("sh", "-c", f"{words}; ip rule add lookup main pref 32766 2>&1 || true")
                while (yield self.host.call(lambda host: host.missing("exit"))):
                    yield deferLater(reactor, 0.01)
            self.over = True
            yield said
        found = [each.ends for each in capture.packets if each.ends is not None and not each.outgoing]
        self.assertGreater(len([each for each in found if each.dport == 7]), 10)
        mine = {str(self.exit.towards(self.net).own4), str(self.exit.towards(self.net).own6)}
        self.assertEqual({each.source for each in found if each.dport in (7, 80)}, mine)
        self.assertEqual({each.target for each in found if each.dport in (7, 80)}, {NET4, NET6})
        after = self.exit.run("sh", "-c", "ip rule; ip -6 rule")
        self.assertEqual(after, before.replace("32767:	from all lookup default\n", ""))
        self.assertEqual(self.gateway.describe()["rejected"]["refused"] > 0, True)
        self.assertEqual(customer.lease.v4, self.gateway.tenants[0].lease.v4)

    def flood(self) -> None:
        """Datagrams of the client without end: where they may go, and where not."""
        sockets = [self.socket(self.user, family, socket.SOCK_DGRAM) for family in (2, 10)]
        while not self.over:
            for sock, address in zip(sockets, (NET4, NET6), strict=True):
                with contextlib.suppress(OSError):
                    sock.sendto(b"x", (address, 7))
            with contextlib.suppress(OSError):
                sockets[0].sendto(b"x", (PRIVATE4, 80))
            time.sleep(0.001)

    @inlineCallbacks
    def test_interface_gone(self) -> Generator[Deferred[Any], Any, None]:
        """Somebody deletes the interface: clients are told, and it comes again."""
        self.patch(gateway, "AGAIN_SECONDS", 0.05)
        yield self.start()
        customer = yield self.customer()
        self.exit.configure("link delete mesh-exit")
        yield customer.over
        yield self.until(lambda: self.gateway.on and not self.gateway.why)
        second = yield self.customer("mesh-vpn2")
        said = yield self.run_there(self.user, "ping", "-n", "-c1", "-W5", NET4)
        self.assertIn("1 received", said)
        self.assertEqual(second.lease.v4, customer.lease.v4)
