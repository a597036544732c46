"""The changes as the kernel sees them, in a namespace: nothing leaves but what may, and all is as before."""

from __future__ import annotations

import socket
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from tempfile import TemporaryDirectory

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from apps.vpn.host import plan
from apps.vpn.host.changes import AnyChange, Firewall
from apps.vpn.host.host import BOOK, Host
from lab.capture import Capture, Seen
from meshnet.storage.disk import RealDisk
from tests.support.hosts import hosts_for

MARK = 0x6D657368
SO_MARK, SO_BINDTODEVICE = 36, 25
FAR4, FAR6 = "198.51.100.9", "2001:db8:9::9"
LEASE = plan.Wanted(
    tunnel="t0",
    mark=MARK,
    addresses=("100.64.0.7", "fd64::7"),
    servers=("100.64.0.1",),
    names=True,
    kill_switch=True,
)


class KernelTests(SynchronousTestCase):
    """A host whose only way out is the router; an interface that stands in for the tunnel."""

    def setUp(self) -> None:
        hosts = hosts_for(self, "ip", "nft")
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.resolv = Path(folder.name) / "resolv.conf"
        self.resolv.write_text("nameserver 192.0.2.53\n")
        self.user, self.router = hosts.add("user"), hosts.add("router")
        hosts.cable(self.user, self.router)
        self.cable = self.user.towards(self.router)
        self.user.configure(
            f"route add default via {self.cable.far4}",
            f"route add default via {self.cable.far6}",
            "tuntap add dev t0 mode tun",
            "link set t0 up",
        )
        self.host = self.user.inside(lambda: Host(RealDisk(), Path(folder.name) / BOOK, resolv=self.resolv))
        self.addCleanup(self.host.close)
        self.before = self.state()

    def state(self) -> str:
        """All routes, rules, addresses and tables of the host."""
        shown = [
            self.user.run("ip", *words.split())
            for words in ("-4 rule", "-6 rule", "-4 route show table all", "-6 route show table all", "addr")
        ]
        # The kernel's own route, made with the first IPv6 address; it goes with the interface.
        routes = [
            each for each in "\n".join(shown).split("\n") if not each.startswith("multicast ff00::/8 dev t0")
        ]
        tables = self.user.run("nft", "list", "ruleset")
        return "\n".join([*routes, tables, self.resolv.read_text(), oct(self.resolv.stat().st_mode)])

    def apply(self, wanted: plan.Wanted) -> None:
        """Brings it up; without an address only what holds back."""
        changes = (*plan.block(wanted), *(plan.tunnel(wanted) if wanted.addresses else ()))
        self.user.inside(lambda: self.host.apply("client", changes))

    def undo(self, which: Callable[[AnyChange], bool] = lambda change: True) -> None:
        """Brings it down, or a part of it."""
        self.assertEqual(self.user.inside(lambda: self.host.undo("client", which)), [])

    def send(self, address: str, port: int, mark: int = 0, source: int = 0, bound: bool = False) -> bool:
        """One datagram; whether the kernel took it."""

        def work() -> bool:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
                if bound:
                    sock.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, self.cable.name.encode())
                try:
                    if source:
                        sock.bind(("", source))
                    sock.sendto(b"x", (address, port))
                except OSError:
                    return False
                return True

        return self.user.inside(work)

    def attempts(self, bound: bool = True) -> None:
        """Everything that a program might try: both families, names, near and far; with `bound` also from
        sockets that are bound to the interface."""
        for address in (FAR4, FAR6, str(self.cable.far4), str(self.cable.far6), "224.0.0.251"):
            for port in (53, 853, 443):
                self.send(address, port)
                if bound:
                    self.send(address, port, bound=True)
        if bound:
            self.send("255.255.255.255", 5353, bound=True)

    def leaks(self, capture: Capture) -> list[Seen]:
        """What left by the cable."""
        return capture.leaving(self.cable.name)

    def test_nothing_leaves(self) -> None:
        """With the kill switch: with both guards, with each of them alone, with the tunnel and without it."""
        self.apply(LEASE)
        with Capture(self.user, self.cable.name) as capture:
            self.attempts()
            self.user.run("nft", "flush", "ruleset")
            self.attempts(bound=False)
            self.assertEqual(len(self.user.inside(lambda: self.host.repair("client"))), 1)
            self.user.configure("link delete t0")
            self.attempts()
            self.undo(lambda change: not isinstance(change, Firewall))
            self.attempts()
        self.assertEqual(self.leaks(capture), [])

    def test_links_leave(self) -> None:
        """What is marked, and DHCP, go as before; to port 53 only what is marked."""
        self.apply(LEASE)
        with Capture(self.user, self.cable.name) as capture:
            for address in (FAR4, FAR6):
                self.assertTrue(self.send(address, 7001, mark=MARK))
                self.assertTrue(self.send(address, 53, mark=MARK))
            self.assertTrue(self.send(str(self.cable.far4), 67, source=68))
        left = [(seen.ends.target, seen.ends.dport) for seen in self.leaks(capture) if seen.ends]
        self.assertCountEqual(
            left, [(FAR4, 7001), (FAR4, 53), (FAR6, 7001), (FAR6, 53), (str(self.cable.far4), 67)]
        )

    def test_through_the_tunnel(self) -> None:
        """Everything else takes the tunnel, with its addresses; a program that binds to another interface
        gets nowhere."""
        self.apply(LEASE)
        for address, source in ((FAR4, "100.64.0.7"), (FAR6, "fd64::7"), ("192.168.3.4", "100.64.0.7")):
            route = self.user.run("ip", "route", "get", address)
            self.assertIn(" dev t0 ", route)
            self.assertIn(f" src {source} ", route)
        self.assertFalse(self.send(FAR4, 443, bound=True))
        self.assertFalse(self.send(FAR6, 443, bound=True))

    def test_names_do_not_leak(self) -> None:
        """Without the kill switch: no packet for a server of names leaves beside the tunnel, also not in a
        private network that is outside; other packets to that do."""
        self.apply(evolve(LEASE, kill_switch=False, outside=("lan",)))
        router = str(self.cable.far4)
        self.assertTrue(IPv4Address(router).is_private)
        with Capture(self.user, self.cable.name) as capture:
            for bound in (False, True):
                for address in (router, FAR4, FAR6):
                    self.send(address, 53, bound=bound)
                    self.send(address, 853, bound=bound)
            self.assertTrue(self.send(router, 631))
        self.assertEqual([seen.ends.dport for seen in self.leaks(capture) if seen.ends], [631])

    def test_without_nftables(self) -> None:
        """Rules alone hold back all but what a program sends that bound itself to the interface: to that the
        kernel gives, where no route leads, what is on its own network (IPv4; a router is not asked)."""
        self.apply(evolve(LEASE, firewall=False))
        with Capture(self.user, self.cable.name) as capture:
            self.attempts(bound=False)
            self.user.configure("link delete t0")
            self.attempts(bound=False)
        self.assertEqual(self.leaks(capture), [])
        with Capture(self.user, self.cable.name) as capture:
            for address in (FAR4, FAR6, str(self.cable.far4), str(self.cable.far6)):
                self.send(address, 443, bound=True)
        left = {seen.ends.target for seen in self.leaks(capture) if seen.ends}
        self.assertEqual(left, {str(self.cable.far4)})

    def test_as_before(self) -> None:
        """After undoing everything is as it was, to the byte; for each way of being up."""
        for wanted in (
            LEASE,
            evolve(LEASE, kill_switch=False, names=False),
            evolve(LEASE, addresses=("100.64.0.7",), outside=("lan", "198.51.100.0/24")),
            evolve(LEASE, inside=("198.51.100.0/24", "2001:db8::/32"), filters=("all",), arriving="socket"),
            evolve(LEASE, filters=("all", "default"), arriving="ct"),
            evolve(LEASE, filters=("all", "default")),
            evolve(LEASE, kill_switch=False, inside=("198.51.100.0/24",), own=("mesh0",), strong=False),
        ):
            self.apply(wanted)
            self.assertNotEqual(self.state(), self.before)
            self.assertEqual(self.user.inside(lambda: self.host.missing("client")), ())
            self.undo()
            self.assertEqual(self.state(), self.before)

    def test_what_the_kernel_knows(self) -> None:
        """It is found out without a trace."""
        for rule, known in (("ip daddr 192.0.2.1 drop", True), ("no such rule", False)):
            self.assertIs(self.user.inside(lambda rule=rule: self.host.knows(rule)), known)
        self.assertEqual(self.state(), self.before)

    def answers(self, wanted: plan.Wanted) -> bool:
        """Whether a link's connection to the router stands while nothing but links may."""
        self.user.set(ipv4__conf__all__rp_filter=1)
        self.apply(wanted)
        with self.router.inside(lambda: socket.create_server((str(self.cable.far4), 7_001))):

            def work() -> bool:
                with socket.socket() as sock:
                    sock.setsockopt(socket.SOL_SOCKET, SO_MARK, MARK)
                    sock.settimeout(0.5)
                    try:
                        sock.connect((str(self.cable.far4), 7_001))
                    except OSError:
                        return False
                    return True

            stands = self.user.inside(work)
        self.undo()
        return stands

    def test_links_behind_the_block(self) -> None:
        """Where reverse paths are filtered strictly and there is no tunnel yet: answers to links come in by
        each of the ways to let them, and not without."""
        block = plan.Wanted("t0", MARK, kill_switch=True)
        filters = evolve(block, filters=("all",))
        self.user.configure("link delete t0")
        self.assertFalse(self.answers(block))
        self.assertTrue(self.answers(evolve(filters, arriving="socket")))
        self.assertTrue(self.answers(evolve(filters, arriving="ct")))
        self.assertTrue(self.answers(filters))
        self.assertTrue(self.answers(evolve(filters, firewall=False)))
