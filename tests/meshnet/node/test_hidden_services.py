"""The book of a node's hidden services: made, kept over a restart, renewed, removed; damaged files."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.address import parse_address
from meshnet.cipher.keys import PublicKey, SecretKey
from meshnet.circuit.tail import Place
from meshnet.errors import LocalError, UsageError
from meshnet.limits import ADDRESSES_PER_SERVICE, HIDDEN_SERVICES
from meshnet.node.hidden import DEFAULT_LIFE, HiddenServices
from meshnet.node.services import Service, Services
from meshnet.storage.disk import RealDisk

KEYS = [SecretKey(bytes([number] * 32)) for number in range(1, 7)]
OWN, A, B, C, D = (key.public for key in KEYS[:5])
NOW = 1_800_000_000.0


class Call:
    """What services look at of a circuit that ends here."""

    place = Place.BLINDED

    def __init__(self, path_id: bytes) -> None:
        self.path_id = path_id


class BookTests(SynchronousTestCase):
    """One node's services on a real disk."""

    def setUp(self) -> None:
        self.data = Path(mkdtemp(dir=self.mktemp_parent()))
        self.unix = NOW
        self.linked: set[PublicKey] = {B}
        self.left: list[Service] = []
        self.start()

    def mktemp_parent(self) -> str:
        """Where tests may write."""
        parent = self.mktemp()
        os.makedirs(parent)
        return parent

    def start(self, network: int = 9) -> list[str]:
        """The node starts, or starts again; what it says."""
        self.services = Services(KEYS[0])
        self.book = HiddenServices(
            RealDisk(),
            self.data,
            network,
            OWN,
            self.services,
            unix=lambda: self.unix,
            reaches=self.linked.__contains__,
            leave=self.left.append,
        )
        return self.book.load()

    def path_ids(self, name: str) -> list[bytes]:
        """What is on the disk."""
        book = json.loads((self.data / "services" / f"{name}.json").read_text())
        return [bytes.fromhex(entry["path_id"]) for entry in book["addresses"]]

    def called(self, path_id: bytes) -> Service | None:
        """Whom a circuit with this path id reaches."""
        return self.services.of(Call(path_id), self.unix)  # type: ignore[arg-type]

    def test_new(self) -> None:
        """An address of this network over these hops, and a key that only its owner reads."""
        made = self.book.new((A, B), "blog")
        address = parse_address(made["address"])
        self.assertEqual((address.network, address.expiry), (9, int(NOW) + DEFAULT_LIFE))
        self.assertEqual((address.introduction, len(address.tail)), (A, 3))
        self.assertEqual(address.service.hex(), made["key"])
        self.assertEqual((made["name"], made["state"], made["hidden"]), ("blog", "ready", True))
        self.assertNotIn(OWN, b"".join(hop.key + hop.data for hop in address.tail))
        for file in ("blog.key", "blog.json"):
            mode = (self.data / "services" / file).stat().st_mode
            self.assertEqual(stat.S_IMODE(mode), 0o600)
        (path_id,) = self.path_ids("blog")
        found = self.called(path_id)
        assert found is not None
        self.assertEqual(found.public, address.service)
        self.assertIsNone(self.called(bytes(16)))

    def test_restart(self) -> None:
        """Everything is there again after a restart, and an address that expired meanwhile is not."""
        short, long = self.book.new((A,), "short", 600), self.book.new((A, B), "long")
        self.unix += 601
        self.assertEqual(self.start(), [])
        (path_id,) = self.path_ids("long")
        found = self.called(path_id)
        assert found is not None
        self.assertEqual(found.public.hex(), long["key"])
        self.assertIsNone(self.called(self.path_ids("short")[0]))
        states = {each["name"]: each["addresses"][0]["state"] for each in self.book.shown()}
        self.assertEqual(states["long"], "ready")
        self.assertIn("expired", states["short"])
        self.assertEqual(self.book.find(short["key"]).public.hex(), short["key"])

    def test_renew(self) -> None:
        """The key stays, path key and path id do not; the one before stays good until it expires."""
        first = self.book.new((A, B), "blog", 3_600)
        second = self.book.renew("blog")
        one, other = parse_address(first["address"]), parse_address(second["address"])
        self.assertEqual((one.service, second["hops"]), (other.service, first["hops"]))
        self.assertNotEqual(one.path_key, other.path_key)
        new, old = self.path_ids("blog")
        self.assertIs(self.called(new), self.called(old))
        self.assertEqual(self.book.renew("blog", (C,))["hops"], [C.hex()])
        self.unix += 3_600
        self.assertIsNone(self.called(old))
        self.book.renew("blog")
        self.assertNotIn(old, self.path_ids("blog"))
        while len(self.path_ids("blog")) < ADDRESSES_PER_SERVICE:
            self.book.renew("blog")
        self.assertRaises(LocalError, self.book.renew, "blog")

    def test_find(self) -> None:
        """By name, key or address; else a sentence that says what there is."""
        made = self.book.new((A,), "blog")
        for text in ("blog", made["key"], made["address"]):
            self.assertEqual(self.book.find(text).public.hex(), made["key"])
        problem = self.assertRaises(UsageError, self.book.find, "other")
        self.assertIn("blog", str(problem))

    def test_remove(self) -> None:
        """Nothing of it stays, and its sessions end."""
        made = self.book.new((A,), "blog")
        path_ids, service = self.path_ids("blog"), self.book.find("blog")
        self.assertEqual(self.book.remove("blog"), {"removed": "blog", "key": made["key"]})
        self.assertEqual((self.left, os.listdir(self.data / "services")), ([service], []))
        self.assertIsNone(self.called(path_ids[0]))
        self.assertRaises(UsageError, self.book.remove, "blog")
        self.book.new((A,), "blog")

    def test_faults(self) -> None:
        """A service whose last relay is not linked cannot be reached, and says so."""
        self.book.new((A, B), "good")
        self.assertEqual(list(self.book.faults()), [])
        self.book.new((B, C), "bad")
        (fault,) = self.book.faults()
        self.assertIn(f"no link to {C.hex()[:8]}", fault)
        self.linked.add(C)
        self.assertEqual(list(self.book.faults()), [])
        self.book.new((), "open")
        self.assertEqual([each["name"] for each in self.book.shown()], ["bad", "good", "open"])

    def test_refused(self) -> None:
        """Hops that cannot be, spans, names, and too many."""
        new = self.book.new
        for hops in ((A, B, C, D), (A, A), (A, OWN)):
            self.assertRaises(UsageError, new, hops)
        for seconds in (599, 10**9):
            self.assertRaises(UsageError, new, (A,), "x", seconds)
        for name in ("", "Blog", "../x", "a b", "-a", "x" * 33):
            self.assertRaises(UsageError, new, (A,), name)
        self.assertEqual(self.book.shown(), [])
        for _ in range(HIDDEN_SERVICES):
            new((A,))
        self.assertRaises(LocalError, new, (A,))

    def test_damaged(self) -> None:
        """A damaged file costs its service, and a sentence; the others are there."""
        spoiled: dict[str, Any] = {
            "list": lambda: (self.data / "services/list.json").write_text("{"),
            "deep": lambda: (self.data / "services/deep.json").write_text("[" * 60_000),
            "entry": lambda: (self.data / "services/entry.json").write_text('{"addresses": [{}]}'),
            "key": lambda: (self.data / "services/key.key").write_text("nothing"),
            "others": lambda: (self.data / "services/others.key").chmod(0o644),
        }
        for name in (*spoiled, "good"):
            self.book.new((A,), name)
        for spoil in spoiled.values():
            spoil()
        faults = self.start()
        self.assertEqual(len(faults), len(spoiled))
        for name in spoiled:
            self.assertTrue(any(f"service {name} cannot be reached" in fault for fault in faults), name)
        self.assertEqual([each["name"] for each in self.book.shown()], ["good"])
        self.assertRaises(UsageError, self.book.new, (A,), "list")

    def test_other_network(self) -> None:
        """A data directory of another network's node gives no addresses."""
        self.book.new((A,), "blog")
        (fault,) = self.start(network=10)
        self.assertIn("network", fault)

    def test_without_addresses(self) -> None:
        """A power cut between key and list leaves a service that can be renewed."""
        self.book.new((A,), "blog")
        (self.data / "services/blog.json").unlink()
        self.assertEqual(self.start(), [])
        self.assertEqual(self.book.shown()[0]["addresses"], [])
        self.assertEqual(len(list(self.book.faults())), 1)
        self.book.renew("blog", (A, B))
        self.assertEqual(len(self.path_ids("blog")), 1)
