"""Nodes of one local network find each other: real nodes on a cable between two network namespaces."""

from __future__ import annotations

import socket
import tempfile
import unittest
from collections.abc import Sequence
from pathlib import Path

from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from lab.namespaces import Hosts, refusal
from lab.nodes import Node, Plan, command
from lab.processes import Processes
from meshnet.cipher.keys import PublicKey, SecretKey
from meshnet.node.clock import virtual_clock
from meshnet.node.config import LanSettings, LinkSettings, PeerSettings
from meshnet.node.lan import Lan, interfaces, lan_facts, port_of, wanted
from meshnet.topology.beacon import Beacons, make_beacon
from tests.support.topology import key


class Router:
    """Dials nobody."""

    def add_peer(self, key: PublicKey, *addresses: str) -> None:
        """Not here."""

    def remove_peer(self, key: PublicKey) -> None:
        """Not here."""


class Settings(SynchronousTestCase):
    """What is announced, and who is dialled."""

    def test_port(self) -> None:
        """The first TCP listener that others can reach, and its family."""
        self.assertEqual(port_of(["unix:/x", "tcp:127.0.0.1:1", "tcp:0.0.0.0:2"]), (2, socket.AF_INET))
        self.assertEqual(port_of(["tcp:[::1]:1", "tcp:[::]:3"]), (3, socket.AF_INET6))
        self.assertIsNone(port_of(["tcp:127.0.0.1:1"]))

    def test_the_key_is_told(self) -> None:
        """A beacon shows whose it is to everybody; nobody sends one unless his operator says so."""
        self.assertFalse(LanSettings().enabled)
        self.assertIn(key(1).public, make_beacon(key(1), 1, 1, 1))

    def test_interfaces(self) -> None:
        """Those named, if any are; never one that does not broadcast."""
        every = interfaces()
        self.assertNotIn("lo", [name for _, name in every])
        self.assertEqual(interfaces(["lo", "nowhere"]), [])
        for one in every:
            self.assertEqual(interfaces([one[1], "nowhere"]), [one])

    def test_named(self) -> None:
        """Beacons keep to the interfaces of the config; one that is missing is told in a sentence, and what
        was sent is counted."""
        asked: list[Sequence[str]] = []

        def where(names: Sequence[str]) -> list[tuple[int, str]]:
            asked.append(names)
            return []

        clock = virtual_clock(Clock())
        core = Beacons(key(1), 1, 7_001, lambda other: True, list, bytes)
        reactor = MemoryReactorClock()
        lan = Lan(reactor, clock, core, Router(), socket.AF_INET, ("eth9",), where)
        self.addCleanup(lan.stop)
        self.assertEqual(
            lan.start(), ["[lan] interfaces: eth9 is missing, or is down, or does not broadcast."]
        )
        self.assertEqual(set(asked), {("eth9",)})
        core.receive(b"no beacon", "192.0.2.1", 0.0, 0.0)
        core.receive(make_beacon(key(2), 1, 0, 1), "192.0.2.1", 0.0, 0.0)
        counts = {
            sample.labels.get("outcome", ""): sample.value
            for each in lan_facts(lan)
            for sample in each.samples
        }
        self.assertEqual((counts["sent"], counts["received"], counts["refused"]), (0, 1, 1))
        self.assertTrue(all(not sample.value for each in lan_facts(None) for sample in each.samples))

    def test_wanted(self) -> None:
        """Only those who might dial us, and whom the config does not dial."""
        self.assertTrue(wanted(LinkSettings(), key(1).public))
        self.assertFalse(wanted(LinkSettings(accept=(key(2).public,)), key(1).public))
        peer = PeerSettings(key(1).public, "tcp:h:1")
        self.assertFalse(wanted(LinkSettings(peer=(peer,)), key(1).public))


@unittest.skipIf(refusal(), refusal())
class Cable(SynchronousTestCase):
    """Two machines, a cable, and no address in any config."""

    def linked(self, host: str) -> str:
        """Where one of two nodes that listen there has found the other."""
        with (
            tempfile.TemporaryDirectory(prefix="meshnet-") as name,
            Hosts() as hosts,
            Processes() as processes,
        ):
            folder = Path(name)
            hosts.cable(hosts.add("one"), hosts.add("two"))
            nodes = []
            for each in ("one", "two"):
                home = folder / each
                plan = Plan(
                    each, "user", SecretKey.generate(), home, home / "control.sock", f"tcp:{host}:7001",
                    "127.0.0.1:0", more={"lan": {"enabled": True}},
                )  # fmt: skip
                plan.write()
                nodes.append(Node(plan, hosts[each].start(processes, each, command(plan), home / "log")))
            for node in nodes:
                node.wait_for_links(1)
            found: dict[str, str] = {}
            for node in nodes:
                found.update(node.call("GET", "/status")["lan"]["dialled"])
            return next(iter(found.values()))

    def test_ipv4(self) -> None:
        """Over IPv4."""
        self.assertRegex(self.linked("0.0.0.0"), r"\Atcp:(\d+\.){3}\d+:7001\Z")

    def test_ipv6(self) -> None:
        """Over link-local IPv6, with the interface in the address."""
        self.assertRegex(self.linked("[::]"), r"\Atcp:\[fe80::[0-9a-f:]+%.+\]:7001\Z")
