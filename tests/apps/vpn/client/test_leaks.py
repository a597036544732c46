"""A tunnel between real nodes and kernels: what leaves the machine while all is well, and while it is not.

    user ── far ── web        nodes on user and far; web answers echo and nothing else

A capture stands on the user's only cable. What is allowed there is the link to `far`, port 7,001.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from twisted.trial.unittest import SynchronousTestCase

from lab.capture import Capture
from lab.hosted import PORT, Hosted
from lab.processes import Processes
from lab.shapes import Cable, Place, Shape
from lab.traffic import ping
from tests.support.hosts import hosts_for

WEB4, WEB6 = "198.51.100.10", "2001:db8:10::10"
OLD = "192.0.2.53"
PATIENCE = 90.0
ROUTE = "/apps/vpn/tunnel"


class LeakTests(SynchronousTestCase):
    """One stage for each test; the names of servers lie in the host's own resolv.conf."""

    def setUp(self) -> None:
        self.hosts = hosts_for(self, "ip", "nft", "ping")
        stack = contextlib.ExitStack()
        self.addCleanup(stack.close)
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="meshlab-")))
        self.processes = stack.enter_context(Processes())
        places = {"user": Place("user", relay=False), "far": Place("far")}
        shape = Shape(places, (Cable(("user", "far")),))
        self.lab = Hosted.build(shape, self.hosts, folder, self.sections)
        self.user, self.far, self.web = self.hosts["user"], self.hosts["far"], self.hosts.add("web")
        self.hosts.cable(self.far, self.web)
        self.cable = self.user.towards(self.far)
        way_out = self.far.towards(self.web)
        self.web.configure(f"addr add {WEB4}/32 dev lo", f"addr add {WEB6}/128 dev lo")
        self.far.configure(f"route add default via {way_out.far4}", f"route add default via {way_out.far6}")
        self.user.configure(
            f"route add default via {self.cable.far4}", f"route add default via {self.cable.far6}"
        )
        self.user.set(ipv4__conf__all__rp_filter=1)
        self.user.resolve_by(OLD)
        self.lab.start(self.processes)
        self.before = self.system()

    def sections(self, place: Place) -> dict[str, Any]:
        allow = ["public", f"{WEB4}/32", f"{WEB6}/128"]  # addresses of examples are not public
        packets = {"enabled": True, "packets": True, "allow": allow, "dns": [WEB4]}
        return {"exit": packets} if place.name == "far" else {}

    def call(self, method: str, body: Any = None) -> dict[str, Any]:
        return dict(self.lab["user"].call(method, ROUTE, body))

    def up(self, **more: Any) -> dict[str, Any]:
        tunnel = self.call("POST", {"exit": "far", **more})["tunnel"]
        self.assertEqual(tunnel["state"], "up")
        return dict(tunnel)

    def tunnel(self) -> dict[str, Any]:
        return dict(self.call("GET")["tunnel"])

    def until(self, condition: Callable[[], bool], what: str) -> None:
        self.lab["user"].process.wait_for(condition, PATIENCE, what)

    def kill(self, name: str) -> None:
        """With no time to say or undo anything."""
        process = self.lab[name].process.popen
        process.kill()
        process.wait()

    def system(self) -> str:
        """All that a VPN may change."""
        looks = "ip rule; ip -6 rule; ip route show table all; ip -6 route show table all; ip -o addr; \
            nft list ruleset; cat /etc/resolv.conf; cat /proc/sys/net/ipv4/conf/all/rp_filter"
        return self.user.run("sh", "-c", looks)

    def attempts(self) -> None:
        """What programs send: names, pages, both families, near and far, also bound to the cable."""

        def work() -> None:
            near = (str(self.cable.far4), str(self.cable.far6))
            for address in (WEB4, WEB6, OLD, *near):
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                for port in (53, 853, 443):
                    for bound in (b"", self.cable.name.encode()):
                        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                            with socket.socket(family, kind) as sock, contextlib.suppress(OSError):
                                sock.setblocking(False)
                                if bound:
                                    sock.setsockopt(socket.SOL_SOCKET, 25, bound)  # SO_BINDTODEVICE
                                sock.connect((address, port))
                                sock.send(b"leak")

        self.user.inside(work)

    def leaks(self, capture: Capture) -> list[Any]:
        """What left by the cable and is not the link."""
        found = [seen.ends for seen in capture.leaving(self.cable.name)]
        link = (str(self.cable.own4), str(self.cable.far4), socket.IPPROTO_TCP, PORT)
        return [
            each for each in found if each and (each.source, each.target, each.protocol, each.dport) != link
        ]

    def test_kill_switch(self) -> None:
        """Not one packet leaves beside the link: not while all is well, not when the exit is killed, not when
        the node is. After the doctor all is as before, to the byte."""
        with Capture(self.user, self.cable.name) as capture:
            tunnel = self.up(killswitch=True)
            self.assertEqual(tunnel["kill_switch"], "nftables")
            for address in (WEB4, WEB6):
                self.assertLessEqual(ping(self.user, address, 5).lost, 1)
            self.attempts()
            self.kill("far")
            self.assertNotEqual(self.tunnel()["state"], "up")
            self.attempts()
            self.kill("user")
            self.attempts()
            self.assertNotIn("mesh-vpn", self.user.run("ip", "link"))
        self.assertEqual(self.leaks(capture), [])
        self.assertGreater(len(capture.packets), 20)
        self.lab.meshnet("user", "vpn", "doctor")
        self.assertEqual(self.system(), self.before)
        with Capture(self.user, self.cable.name) as capture:
            self.attempts()
        self.assertGreater(len(self.leaks(capture)), 10)

    def test_names_and_repairs(self) -> None:
        """Without a kill switch: no question for a name leaves beside the tunnel; what others take away comes
        back; an address more changes nothing; `down` leaves all as before."""
        with Capture(self.user, self.cable.name) as capture:
            self.up()
            self.assertNotIn(OLD, self.user.run("cat", "/etc/resolv.conf"))
            stands = self.system()
            self.attempts()
            self.user.run(
                "sh", "-c", "nft flush ruleset; ip -6 rule flush; ip -6 rule add lookup main pref 32766"
            )
            self.user.run("sh", "-c", f"echo nameserver {OLD} > /etc/resolv.conf")
            self.until(lambda: self.system() == stands, "what was taken away")
            self.attempts()
            self.assertEqual(ping(self.user, WEB6, 5).lost, 0)
        self.assertEqual([each for each in self.leaks(capture) if each.dport in (53, 853)], [])
        self.assertGreater(self.tunnel()["repairs"], 3)
        self.call("DELETE")
        self.assertEqual(self.system(), self.before)

    @pytest.mark.long
    def test_behind_the_kill_switch(self) -> None:
        """The node is killed and starts again: its links live behind the kill switch, also where reverse
        paths are looked at strictly; nothing else does, until the doctor comes, here without a node."""
        self.up(killswitch=True)
        self.kill("user")
        self.lab.launch(self.processes, "user")
        self.lab["user"].wait_for_links(1)
        self.assertEqual(self.tunnel()["state"], "blocked")
        with Capture(self.user, self.cable.name) as capture:
            self.attempts()
            self.up(killswitch=True)
            self.attempts()
            self.kill("user")
            self.attempts()
        self.assertEqual(self.leaks(capture), [])
        self.lab.meshnet("user", "vpn", "doctor")
        self.assertEqual(self.system(), self.before)

    @pytest.mark.long
    def test_stands_still(self) -> None:
        """The node's process is stopped for longer than its sessions live without an answer, as a machine
        that sleeps, and goes on; then the exit's. Each time the tunnel is up again by itself, and nothing has
        left beside it."""
        self.up(killswitch=True)
        with Capture(self.user, self.cable.name) as capture:
            for name, seconds in (("user", 40), ("far", 8)):
                pid = self.lab[name].process.pid
                os.kill(pid, signal.SIGSTOP)
                try:
                    self.assertEqual(ping(self.user, WEB4, seconds, interval=1.0).times, ())
                    self.attempts()
                finally:
                    os.kill(pid, signal.SIGCONT)
                self.until(lambda: bool(ping(self.user, WEB4, 1).times), "the way after a pause")
                self.assertEqual(self.tunnel()["state"], "up")
        self.assertEqual(self.leaks(capture), [])

    @pytest.mark.long
    def test_interface_taken_away(self) -> None:
        """Somebody deletes the interface, sets it down, makes its MTU too small for IPv6, takes the default
        route and brings it back: behind the kill switch nothing leaves, and the tunnel is up again."""
        self.up(killswitch=True)
        device = f"dev {self.cable.name}"
        far4, far6 = self.cable.far4, self.cable.far6
        with Capture(self.user, self.cable.name) as capture:
            for words in (
                "link delete mesh-vpn",
                "link set mesh-vpn down",
                "link set mesh-vpn mtu 1000",
                f"route delete default via {far4} {device}",
                f"route add default via {far4} {device}",
                f"route delete default via {far6} {device}",
                f"route add default via {far6} {device}",
                f"link set {self.cable.name} mtu 1300",
            ):
                self.user.configure(words)
                self.attempts()
                for address in (WEB4, WEB6):
                    self.until(
                        lambda to=address: bool(ping(self.user, to, 1).times), f"packets after {words}"
                    )
        self.assertEqual(self.leaks(capture), [])

    @pytest.mark.long
    def test_comes_back(self) -> None:
        """The exit is gone for long, and comes back; the machine gets another address. It is up again by
        itself each time, and nothing has leaked. What others did to the host's addresses stays."""
        self.up(killswitch=True)
        cable, far4 = self.cable.name, self.cable.far4
        with Capture(self.user, cable) as capture:
            self.kill("far")
            self.until(lambda: self.tunnel()["state"] == "reconnecting", "the loss of the exit")
            self.attempts()
            self.lab.launch(self.processes, "far")
            self.until(lambda: bool(ping(self.user, WEB4, 1).times), "the exit")
            self.far.configure(f"route add 10.211.0.0/24 dev {self.far.towards(self.user).name}")
            self.user.configure(
                f"addr add 10.211.0.5/24 dev {cable}",
                f"addr delete {self.cable.own4}/30 dev {cable}",
                f"route replace {far4}/32 dev {cable}",
                f"route replace default via {far4}",
            )
            self.attempts()
            self.until(lambda: bool(ping(self.user, WEB4, 1).times), "the way over the new address")
        own = (str(self.cable.own4), "10.211.0.5")
        foreign = [each for each in self.leaks(capture) if each.source not in own or each.dport != PORT]
        self.assertEqual(foreign, [])
        self.call("DELETE")
        rules = self.user.run("sh", "-c", "ip rule; ip -6 rule; nft list ruleset; cat /etc/resolv.conf")
        self.assertIn(OLD, rules)
        self.assertNotIn("28005", rules)
        self.assertNotIn("table", rules)
