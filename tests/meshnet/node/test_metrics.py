"""Metrics of a node."""

from __future__ import annotations

import ast
import inspect
import shutil
import subprocess
from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.keys import PublicKey
from meshnet.circuit import admission
from meshnet.errors import Reason
from meshnet.node import answering
from meshnet.node.metrics import TOTALS, Neighbours
from tests.support.nodes import FakeRouter, link_snapshot, make_node, new_folder

PEERS = [PublicKey(b"\x02" + bytes([number]) * 32) for number in range(5)]


def series(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class MetricsTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = new_folder(self)
        table: dict[str, Any] = {"metrics": {"listen": "127.0.0.1:0", "neighbours": 2}}
        router = FakeRouter(dropped={"replayed": 3, "no_room": 1}, totals={"cells_relayed": 9})
        self.node, self.router = make_node(folder, Clock(), table, router)

    def scrape(self) -> str:
        return generate_latest(self.node.registry).decode()

    def test_parses_and_has_help(self) -> None:
        """Every family has a HELP text, and counters end in _total."""
        self.router.links = [link_snapshot(PEERS[0])]
        families = list(text_string_to_metric_families(self.scrape()))
        self.assertGreater(len(families), 15)
        for family in families:
            self.assertTrue(family.documentation.endswith("."), family.name)
            if family.type == "counter":
                self.assertTrue(all(sample.name.endswith("_total") for sample in family.samples))

    def test_values(self) -> None:
        """Numbers are the router's, in base units."""
        self.router.links = [link_snapshot(PEERS[0])]
        found = series(self.scrape())
        peer = ("peer", PEERS[0].hex())
        self.assertEqual(found["meshnet_links", ()], 1)
        self.assertEqual(found["meshnet_link_received_bytes_total", (peer,)], 1_000)
        self.assertEqual(found["meshnet_link_round_trip_seconds", (peer,)], 0.0025)
        self.assertEqual(found["meshnet_dropped_cells_total", (("reason", "replayed"),)], 3)
        self.assertEqual(found["meshnet_dropped_cells_total", (("reason", "queue_full"),)], 0)

    def test_only_refusals_that_happen(self) -> None:
        """Reasons that no CREATE is refused with here have no series, not even one of zeros."""
        found = {
            dict(labels)["reason"]
            for name, labels in series(self.scrape())
            if "refused_total" in name and labels
        }
        self.assertEqual(found, {reason.name.lower() for reason in admission.REFUSALS})
        self.assertNotIn("forged", found)
        named = set()
        for module in (admission, answering):  # what they refuse with, and no reason of an answer
            for node in ast.walk(ast.parse(inspect.getsource(module))):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                    named |= {node.attr} if node.value.id == "Reason" else set()
        named -= {Reason.FORGED.name}
        self.assertEqual(named, {reason.name for reason in admission.REFUSALS})

    def test_bytes_say_what_they_count(self) -> None:
        """A count of bytes says whether heads and encryption are in it."""
        self.router.totals = dict.fromkeys(TOTALS, 0)
        for family in text_string_to_metric_families(self.scrape()):
            traffic = family.name.startswith("meshnet_") and not family.name.startswith("meshnet_disk_")
            if traffic and family.name.endswith("_bytes"):
                self.assertRegex(family.documentation, "encryption included|heads", family.name)

    def test_bounded_labels(self) -> None:
        """Only so many neighbours have series of their own; nothing is lost of the others."""
        self.router.links = [
            link_snapshot(peer, bytes_in=1_000 * number) for number, peer in enumerate(PEERS, 1)
        ]
        self.scrape()
        self.router.links = [
            link_snapshot(peer, bytes_in=1_000 * number + 5) for number, peer in enumerate(PEERS, 1)
        ]
        found = series(self.scrape())
        labels = {dict(labels).get("peer") for name, labels in found if name.startswith("meshnet_link_")}
        self.assertEqual(labels, {PEERS[3].hex(), PEERS[4].hex(), "other"})

    def test_promtool(self) -> None:
        """promtool has nothing to say."""
        promtool = shutil.which("promtool")
        if promtool is None:
            pytest.skip("promtool is not installed (Debian: apt install prometheus)")
        self.router.links = [link_snapshot(peer) for peer in PEERS]
        done = subprocess.run(
            [promtool, "check", "metrics"], input=self.scrape(), capture_output=True, text=True, timeout=20
        )
        self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""))


class NeighboursTests(SynchronousTestCase):
    def test_other_never_runs_backwards(self) -> None:
        """A neighbour that gets series of its own, or goes, leaves its share of `other` as it was."""
        neighbours = Neighbours(1)
        neighbours.update([link_snapshot(PEERS[0], bytes_in=10), link_snapshot(PEERS[1], bytes_in=90)])
        first = dict(neighbours.other)
        neighbours.update([link_snapshot(PEERS[0], bytes_in=15)])
        neighbours.update([link_snapshot(PEERS[0], bytes_in=25)])
        self.assertEqual(first["bytes_in"], 10)
        self.assertEqual(neighbours.other, first)
        self.assertEqual(neighbours.own[PEERS[0].hex()]["bytes_in"], 15)
        self.assertEqual(neighbours.totals["bytes_in"], 10 + 90 + 5 + 10)
