"""The exit for packets without a kernel: leases, who may send what, what it does to the system."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred

from apps.vpn import gateway as module
from apps.vpn.gateway import AGAIN_SECONDS, name_servers
from apps.vpn.host.changes import Firewall
from apps.vpn.lease import (
    PACKETS_PORT,
    RefusalCode,
    Wants,
    Wish,
)
from apps.vpn.packets.virtio import AHEAD, HEADER, PLAIN
from apps.vpn.policy import PUBLIC, rule
from apps.vpn.pools import REST_SECONDS
from apps.vpn.settings import Exit
from apps.vpn.tenant import ASK_SECONDS
from apps.vpn.tun import mtu
from meshnet.errors import LocalError, MissingDependencyError
from meshnet.storage.disk import RealDisk
from tests.support.gateways import INTERNET, Customer, GatewayCase
from tests.support.machine import TOOLS
from tests.support.packets import udp
from tests.support.streams import FakeStream


class GatewayTests(GatewayCase):
    # leases

    def test_lease(self) -> None:
        """A client gets addresses of both families, a server for names, and packets both ways."""
        self.start()
        customer, lease = self.leased()
        self.assertEqual((str(lease.v4), str(lease.v6)), ("10.181.0.2", "fd6d:6573:6873::2"))
        self.assertEqual([str(each) for each in lease.dns], ["10.181.0.1", "fd6d:6573:6873::1"])
        self.assertEqual(self.addresses, ["10.181.0.1/16", "fd6d:6573:6873::1/64"])
        out = udp(str(lease.v4), INTERNET, (7, 53), b"ask")
        customer.send(out)
        self.assertEqual(self.devices[0].written, [PLAIN + out])
        for address in (str(lease.v4), str(lease.v6)):
            back = udp(INTERNET if "." in address else "2606::1", address, (53, 7), b"answer")
            self.arrive(back)
            self.assertEqual(customer.got.pop(), back)
        told = self.gateway.describe()
        self.assertEqual((told["packets_in"], told["packets_out"], told["leases"]), (1, 2, 1))
        self.assertEqual(told["clients"][0]["caller"], "anonymous")

    def test_families(self) -> None:
        """Only what is wanted is given; an exit without a family says so."""
        self.start(pool6=None)
        self.assertEqual(self.leased(Wish(Wants.V4))[1].dns, ())
        self.assertIsNone(self.leased()[1].v6)
        customer = self.customer(Wish(Wants.V6))
        assert customer.why is not None
        self.assertIs(customer.why.code, RefusalCode.NO_SUCH_FAMILY)
        self.assertTrue(customer.ended)
        self.assertEqual(self.gateway.describe()["refused"], {"no_such_family": 1})

    def test_no_ipv6_here(self) -> None:
        """A machine without IPv6 serves IPv4."""
        (self.proc / "net/ipv6/conf/all/forwarding").unlink()
        self.start()
        self.assertIsNone(self.leased()[1].v6)

    def test_mtu(self) -> None:
        """The smallest of what the client, the interface and the path take."""
        self.start()
        self.assertEqual(self.leased(Wish(mtu=1_280))[1].mtu, 1_280)
        self.assertEqual(self.leased(Wish(mtu=9_000))[1].mtu, 1_500)

    def test_callers(self) -> None:
        """With a list, only those are served, and shown; others are refused as if there were no exit."""
        self.start(callers=(self.user.public_key,))
        self.assertTrue(self.customer().ended)
        customer = self.customer(identity="node")
        self.assertIsNotNone(customer.lease)
        told = self.gateway.describe()
        self.assertEqual(
            (told["refused"], told["clients"][0]["caller"]), ({"caller": 1}, self.user.public_key.hex())
        )

    def test_max_clients(self) -> None:
        """No more at a time; who leaves makes room; those that only connect are bounded, too."""
        self.start(max_clients=1)
        first, _ = self.leased()
        second = self.customer()
        assert second.why is not None
        self.assertEqual((second.why.code, second.why.exit_code), (RefusalCode.FULL, 4))
        first.stream.finish()
        self.mesh.flush()
        self.leased()
        silent = [Customer(self.user) for _ in range(2)]
        for each in silent:
            each.node.connect(self.node.public_key, PACKETS_PORT, each, via=()).addCallback(
                lambda stream, each=each: setattr(each, "stream", stream)
            )
        self.mesh.flush()
        self.assertEqual([each.ended for each in silent], [False, True])
        self.reactor.advance(ASK_SECONDS)
        self.mesh.flush()
        self.assertTrue(silent[0].ended)

    def test_malformed(self) -> None:
        """A client that speaks something else, or again, is told and goes, with its lease."""
        self.start()
        customer, _ = self.leased()
        customer.stream.write(b"\0\1\1")
        self.mesh.flush()
        assert customer.why is not None
        self.assertIs(customer.why.code, RefusalCode.MALFORMED)
        self.assertEqual(self.gateway.tenants, {})

    def test_same_addresses(self) -> None:
        """A client that comes back with its ticket gets its addresses, and takes them from its old stream."""
        self.start()
        old, lease = self.leased()
        new, again = self.leased(Wish(ticket=lease.ticket))
        self.assertEqual((again.v4, again.ticket), (lease.v4, lease.ticket))
        assert old.why is not None
        self.assertIs(old.why.code, RefusalCode.REPLACED)
        old.send(udp(str(lease.v4), INTERNET, (7, 53), b"late"))
        self.assertEqual(self.devices[0].written, [])
        new.stream.reset()
        self.mesh.flush()
        self.reactor.advance(REST_SECONDS - 1)
        _, third = self.leased(Wish(ticket=lease.ticket))
        self.assertEqual(third.v4, lease.v4)
        self.assertEqual(self.gateway.describe()["leases"], 3)

    def test_tickets_of_others(self) -> None:
        """A ticket is good for the caller that got it, and for so long; else the client gets another seat."""
        self.start()
        named = self.customer(identity="node")
        assert named.lease is not None
        _, other = self.leased(Wish(ticket=named.lease.ticket))
        self.assertNotEqual(other.v4, named.lease.v4)
        _, unknown = self.leased(Wish(ticket=b"x" * 16))
        self.assertNotIn(unknown.ticket, (b"x" * 16, other.ticket))

    def test_comings_and_goings(self) -> None:
        """Of clients that come, send and go in any way nothing stays but their resting addresses."""
        self.start(rate=1_000)
        for number in range(200):
            customer, lease = self.leased()
            for _ in range(number % 4):
                customer.send(udp(str(lease.v4), INTERNET, (7, 53), bytes(1_200)))
                self.arrive(udp(INTERNET, str(lease.v4), (53, 7), bytes(1_200)))
            if number % 3 == 0:
                customer.stream.reset()
            elif number % 3 == 1:
                customer.stream.finish()
            else:
                customer.stream.write(b"?????")
            self.mesh.flush()
        made = self.gateway
        self.assertEqual((made.tenants, made._asking, made._flows), ({}, set(), {}))
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        assert made._pools is not None
        self.assertEqual((made._pools.taken, made._pools.resting, len(made._pools._tickets)), (0, 200, 200))

    # packets

    def test_spoofed(self) -> None:
        """What is not from a client's own addresses never reaches the kernel, and is counted."""
        self.start()
        customer, _ = self.leased()
        other, theirs = self.leased()
        for source in (str(theirs.v4), "203.0.113.9", "10.181.0.1"):
            customer.send(udp(source, INTERNET, (7, 53), b""))
        for source in (str(theirs.v6), "2001:db8::1"):
            customer.send(udp(source, "2606::1", (7, 53), b""))
        customer.send(udp("fe80::1", "ff02::16", (7, 53), b""))
        self.assertEqual(self.devices[0].written, [])
        self.assertEqual(self.dropped(), {"source": 5, "target": 1})
        customer.stream.reset()
        other.stream.reset()
        self.mesh.flush()
        self.assertEqual(self.dropped(), {"source": 5, "target": 1})

    def test_not_ip(self) -> None:
        """Bytes that are no packet are dropped one by one, and end nothing."""
        self.start()
        customer, lease = self.leased()
        for packet in (b"", b"x" * 40, b"\x45" + bytes(10), b"\x60" + bytes(50)):
            customer.send(packet)
        good = udp(str(lease.v4), INTERNET, (7, 53), b"")
        customer.send(good)
        self.assertEqual(self.devices[0].written, [PLAIN + good])
        self.assertEqual(sum(self.dropped().values()), 4)

    def test_for_nobody(self) -> None:
        """A packet for an address that nobody has goes nowhere."""
        self.start()
        customer, lease = self.leased()
        self.arrive(udp(INTERNET, "10.181.0.77", (53, 7), b""))
        customer.stream.finish()
        self.mesh.flush()
        self.arrive(udp(INTERNET, str(lease.v4), (53, 7), b""))
        self.assertEqual(customer.got, [])

    def test_congestion(self) -> None:
        """A cell that a relay has marked marks the packets in it, if their ends understand that."""
        self.start()
        _, lease = self.leased()
        (tenant,) = self.gateway.tenants.values()
        assert tenant.flow is not None
        for tos, marked in ((0, 0), (2, 3)):
            frame = bytearray(PLAIN + udp(str(lease.v4), INTERNET, (7, 53), b"", tos=tos))
            body = bytearray(len(frame).to_bytes(2, "big")) + frame
            tenant.flow.packets_received(memoryview(body), True)
            written = self.devices[0].written[-1][HEADER:]
            self.assertEqual(written, udp(str(lease.v4), INTERNET, (7, 53), b"", tos=marked))

    def test_too_large(self) -> None:
        """A packet that no cell of the path takes: its sender is told what would fit; later ones pass."""
        self.start()
        customer, lease = self.leased()
        self.patch(FakeStream, "largest_packets", 1_400)
        self.arrive(udp(INTERNET, str(lease.v4), (53, 7), bytes(1_440)))
        (told,) = self.devices[0].written
        packet = told[HEADER:]
        self.assertEqual((packet[9], packet[20], packet[21]), (1, 3, 4))
        self.assertEqual(int.from_bytes(packet[26:28], "big"), 1_400 - AHEAD)
        self.assertEqual((packet[12:16], packet[16:20]), (lease.v4.packed, IPv4Address(INTERNET).packed))  # type: ignore[union-attr]
        self.assertEqual((customer.got, self.dropped("out")), ([], {"too_large": 1}))
        self.arrive(udp(INTERNET, str(lease.v4), (53, 7), bytes(1_300)))
        self.assertEqual(len(customer.got), 1)

    def test_rate(self) -> None:
        """Four virtual seconds of flood, both ways: what passes is the rate, and a burst."""
        self.start(rate=1_000_000)
        customer, lease = self.leased()
        self.assertEqual(lease.rate, 1_000_000)
        there = udp(str(lease.v4), INTERNET, (7, 53), bytes(1_200))
        back = udp(INTERNET, str(lease.v4), (53, 7), bytes(1_200))
        for _ in range(400):
            for _ in range(15):
                customer.waiting_.append((len(there) + HEADER).to_bytes(2, "big") + PLAIN + there)
                self.devices[0].frames.append(PLAIN + back)
            customer.stream.packets_ready()
            for reader in self.reactor.getReaders():
                reader.doRead()
            self.reactor.advance(0)
            self.reactor.advance(0.01)
        for packets in (self.devices[0].written, customer.got):
            passed = sum(map(len, packets))
            self.assertGreater(passed, 4_000_000 * 0.97)
            self.assertLess(passed, 4_000_000 * 1.03 + 131_072 + 60_000)
        for way in ("in", "out"):
            self.assertGreater(sum(self.dropped(way).values()), 1_000)
        customer.stream.reset()
        self.mesh.flush()
        self.assertEqual(len(self.reactor.getDelayedCalls()), 0)

    def test_other_rate(self) -> None:
        """A rate that changes holds for those that are there, who are told."""
        settings = self.start()
        customer, _ = self.leased()
        self.apply(evolve(settings, rate=5_000))
        self.mesh.flush()
        assert customer.lease is not None
        self.assertEqual(customer.lease.rate, 5_000)
        (tenant,) = self.gateway.tenants.values()
        assert tenant.flow is not None
        self.assertEqual((tenant.flow.from_client.rate, tenant.flow.to_client.rate), (5_000, 5_000))

    # the system

    def test_system(self) -> None:
        """Rules before forwarding, and all of it undone; a router stays one."""
        self.sysctl("net/ipv4/ip_forward", 1)
        settings = self.start(deny=(rule("8.8.4.4"),))
        self.assertIn("8.8.4.4", self.rules)
        self.assertNotIn("\n\t\tdrop\n", self.rules)
        self.assertEqual(self.sysctl("net/ipv6/conf/all/forwarding"), 1)
        customer, _ = self.leased()
        self.apply(evolve(settings, packets=False))
        self.mesh.flush()
        assert customer.why is not None
        self.assertIs(customer.why.code, RefusalCode.STOPPED)
        self.assertEqual(self.rules, "")
        self.assertEqual(self.sysctl("net/ipv6/conf/all/forwarding"), 0)
        self.assertEqual(self.sysctl("net/ipv4/ip_forward"), 1)
        self.assertTrue(self.devices[0].closed)
        self.assertEqual((self.node.ports, self.reactor.getReaders()), ({}, []))

    def test_alone(self) -> None:
        """A machine that was no router forwards nothing else."""
        self.start()
        self.assertIn("\n\t\tdrop\n", self.rules)

    def test_killed(self) -> None:
        """What a killed gateway has left is undone by the next one before it looks at the machine."""
        self.start()
        self.gateway = self.make()  # the old one does nothing any more
        self.node.ports.clear()
        self.start()
        self.assertIn("\n\t\tdrop\n", self.rules)
        self.successResultOf(Deferred.fromCoroutine(self.gateway.stop()))
        self.assertEqual((self.rules, self.sysctl("net/ipv4/ip_forward")), ("", 0))

    def test_left_behind(self) -> None:
        """A node that is no exit any more undoes what its last run has left, at its start."""
        self.start()
        self.gateway = self.make()
        self.node.disk, self.node.data = RealDisk(), self.folder
        self.successResultOf(Deferred.fromCoroutine(self.gateway.begin(Exit())))
        self.assertEqual((self.rules, self.sysctl("net/ipv4/ip_forward")), ("", 0))
        self.assertFalse(self.gateway.on)

    def test_book_lost(self) -> None:
        """The rules of an exit whose book is lost are taken away by the next one: it can start, and its own
        come. Those of others stay."""
        self.start()
        stands = {version: sorted(rules) for version, rules in self.machine.rules.items()}
        self.assertIn("preference 5181 iif mesh-exit blackhole", stands[6])
        (self.folder / "host.log").unlink()
        self.machine.rules[4].append("preference 5200 nop")
        self.gateway = self.make()
        self.node.ports.clear()
        self.start()
        self.successResultOf(Deferred.fromCoroutine(self.gateway.stop()))
        self.assertEqual(self.machine.rules, {4: ["preference 5200 nop"], 6: []})

    def test_set_down(self) -> None:
        """Somebody sets the interface down: clients are told, and it comes anew."""
        self.start()
        customer, lease = self.leased()
        self.devices[-1].closed = True
        self.changed()
        self.mesh.flush()
        self.assertIsNotNone(customer.why)
        self.assertEqual((self.gateway.on, "set down" in self.gateway.why), (False, True))
        self.reactor.advance(AGAIN_SECONDS)
        self.assertTrue(self.gateway.on)
        self.assertEqual(self.gateway.why, "")
        self.assertEqual(self.leased(Wish(ticket=lease.ticket))[1].v4, lease.v4)

    def test_mtu_changed(self) -> None:
        """Somebody sets the MTU of the interface: clients get it as new terms, and new clients, too;
        but never less than IPv6 needs."""
        self.start()
        customer, lease = self.leased()
        set_: list[int] = []
        self.patch(mtu, "set_mtu", lambda name, index, value: set_.append(value))
        assert self.gateway._mtu is not None
        for seen, told in ((1_400, 1_400), (1_000, 1_280), (9_000, 1_500)):
            self.gateway._mtu.seen([seen])
            self.mesh.flush()
            assert customer.lease is not None
            self.assertEqual(customer.lease.mtu, told)
        self.assertEqual((lease.mtu, set_), (1_500, [1_280, 1_500]))
        self.gateway._mtu.seen([1_500, 1_300])
        self.assertEqual(self.leased()[1].mtu, 1_300)
        self.assertEqual(self.gateway.describe()["mtu"], 1_300)

    def test_rules_taken_away(self) -> None:
        """Rules that somebody flushes are put back; clients stay."""
        self.start()
        self.leased()
        rules = self.machine.tables.pop("meshnet_exit")
        self.sysctl("net/ipv4/ip_forward", 0)
        self.changed()
        self.assertEqual((self.rules, self.sysctl("net/ipv4/ip_forward")), (rules, 1))
        self.assertEqual((len(self.gateway.tenants), self.gateway.describe()["repairs"]), (1, 2))

    def test_rules_gone(self) -> None:
        """Where they cannot be put back, nothing passes any more."""
        self.start()
        customer, _ = self.leased()
        self.machine.tables.clear()
        self.machine.refuse = "meshnet_exit"
        self.changed()
        self.mesh.flush()
        self.assertTrue(customer.ended)
        self.assertEqual((self.gateway.on, self.watched), (False, ["stopped"]))
        self.assertIn("cannot be put back", self.gateway.describe()["why"])
        self.changed()

    def test_other_servers(self) -> None:
        """Other name servers of the system are asked from then on; a file without any changes nothing."""
        self.start()
        for text, servers in (("nameserver 1.1.1.1\n", ["1.1.1.1"]), ("", ["1.1.1.1"])):
            self.resolv.write_text(text)
            self.changed()
            self.assertEqual(self.gateway.describe()["dns"], servers)

    def test_other_rules(self) -> None:
        """Changed lists become the table, in one step; clients stay."""
        settings = self.start()
        self.leased()
        self.apply(evolve(settings, allow=(PUBLIC, rule("10.9.0.0/16"))))
        self.assertIn("10.9.0.0/16", self.rules)
        self.assertEqual((len(self.gateway.tenants), len(self.devices)), (1, 1))
        self.assertEqual(sum(isinstance(each, Firewall) for each in self.standing()), 1)

    def standing(self) -> tuple[Any, ...]:
        host: Any = self.gateway.host
        return tuple(host.host.standing("exit"))

    def test_other_pools(self) -> None:
        """Other pools are another interface; clients are told to ask again."""
        settings = self.start()
        customer, _ = self.leased()
        self.apply(evolve(settings, pool4=IPv4Network("10.9.0.0/24")))
        self.mesh.flush()
        self.assertTrue(customer.ended)
        self.assertEqual(self.leased()[1].v4, IPv4Address("10.9.0.2"))

    def test_without_nft(self) -> None:
        """No nftables, no exit: a sentence and exit code 3, and nothing has changed."""
        self.tools = evolve(TOOLS, nft=None)
        failure = self.failureResultOf(Deferred.fromCoroutine(self.gateway.apply(Exit(packets=True))))
        error = failure.value
        assert isinstance(error, MissingDependencyError)
        self.assertEqual((error.exit_code, self.gateway.on, self.devices), (3, False, []))
        self.assertIn("nftables", str(error))
        self.assertEqual(self.gateway.describe()["why"], str(error))

    def test_refused_by_the_system(self) -> None:
        """Where the interface or a rule is refused, everything is as before."""
        self.broken = MissingDependencyError("No right.")
        self.failureResultOf(Deferred.fromCoroutine(self.gateway.apply(Exit(packets=True))), LocalError)
        self.broken = None
        self.machine.refuse = "meshnet_exit"
        self.failureResultOf(Deferred.fromCoroutine(self.gateway.apply(Exit(packets=True))), LocalError)
        self.machine.refuse = ""
        self.assertEqual((self.rules, self.sysctl("net/ipv4/ip_forward"), self.node.ports), ("", 0, {}))
        self.assertTrue(self.devices[0].closed)
        self.start()
        self.leased()

    def test_interface_gone(self) -> None:
        """When the interface is taken away, clients are told, the system is as before, and it comes again."""
        self.start()
        customer, _ = self.leased()
        self.devices[0].broken = OSError(77, "File descriptor in bad state")
        for reader in self.reactor.getReaders():
            reader.doRead()
        self.mesh.flush()
        assert customer.why is not None
        self.assertIs(customer.why.code, RefusalCode.STOPPED)
        self.assertIn("is gone", self.gateway.describe()["why"])
        self.assertEqual(self.sysctl("net/ipv4/ip_forward"), 0)
        self.reactor.advance(AGAIN_SECONDS)
        self.assertEqual((self.gateway.on, self.gateway.describe()["why"]), (True, ""))
        self.leased()

    def test_gone_for_good(self) -> None:
        """An interface that does not come back leaves it off, with the reason."""
        self.start()
        self.broken = MissingDependencyError("No right any more.")
        assert self.gateway._tun is not None
        self.gateway._tun._lost("it was removed")
        self.reactor.advance(AGAIN_SECONDS)
        self.assertEqual((self.gateway.on, self.gateway.describe()["why"]), (False, "No right any more."))

    # names

    def test_names(self) -> None:
        """Clients ask at the first addresses; a denied name is refused there."""
        self.start(deny=(rule("*.evil.example"),))
        self.assertEqual(
            [socket.host.host for socket in self.reactor.udp], ["10.181.0.1", "fd6d:6573:6873::1"]
        )
        self.assertEqual(self.gateway.describe()["dns"], ["9.9.9.9"])
        self.assertEqual(self.gateway._judge("www.evil.example"), 5)
        self.assertEqual(self.gateway._judge("evil.example"), 0)

    def test_no_name_servers(self) -> None:
        """Without servers to ask, no lease names one; the config may."""
        self.resolv.unlink()
        settings = self.start()
        self.assertEqual(self.leased()[1].dns, ())
        self.apply(evolve(settings, dns=("192.0.2.53",)))
        self.assertEqual(len(self.leased()[1].dns), 2)

    def test_name_servers(self) -> None:
        """Of a resolv.conf: addresses, the first three."""
        text = "nameserver 1.1.1.1\nnameserver ::1 # x\n#nameserver 2.2.2.2\nnameserver x\n"
        self.assertEqual(name_servers(text), ("1.1.1.1", "::1"))
        self.assertEqual(len(name_servers("nameserver 1.1.1.1\n" * 9)), module.SERVERS)
