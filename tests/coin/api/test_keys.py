"""Keys: kept as digests, good for their scopes at their rate, gone when they are revoked."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from coin.api.admission import scope_of
from coin.api.key_routes import KeyRoutes
from coin.api.keys import SCOPES, Allowance, Keys
from coin.api.settings import ApiSection
from coin.api.table import TABLE
from coin.store.store import open_store
from lab.crash.search import Search, Workload
from lab.crash.witness import Witness
from lab.simulation.disk import SimulatedDisk
from lab.simulation.models import STRICT
from meshnet.errors import LocalError, MeshError, RefusedError, StorageError, UsageError
from meshnet.limits import COIN_KEYS
from meshnet.storage.disk import RealDisk
from tests.support.chains import small_chain
from tests.support.coinapi import Served

RANDOM = bytes(range(36))


class Kept(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = self.mktemp()
        self.keys = Keys(RealDisk(), self.path)

    def test_made_and_found_again(self) -> None:
        """Also after a restart; the file is its owner's alone and does not have the key."""
        key, text = self.keys.make("shop", ["read", "events"], 5, RANDOM, 1_700_000_000)
        self.assertEqual(self.keys.find(text), key)
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        with open(self.path) as file:
            data = file.read()
        self.assertNotIn(text.rpartition("_")[2], data)
        again = Keys(RealDisk(), self.path)
        self.assertEqual(again.find(text), key)
        self.assertEqual(list(again), [key])
        self.assertTrue(key.may("events"))
        self.assertFalse(key.may("send"))
        self.assertNotIn("digest", key.as_json())

    def test_others_are_not_found(self) -> None:
        """Any text that is not wholly that of a key."""
        _, text = self.keys.make("shop", ["read"], 5, RANDOM, 0)
        for wrong in (
            "",
            text[:-1],
            text + "A",
            text[:-1] + "_",
            text.upper(),
            "mk_00000000_" + "A" * 43,
            "é",
        ):
            self.assertIsNone(self.keys.find(wrong), wrong)

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        """None is a key, none raises."""
        self.assertIsNone(self.keys.find(text))

    def test_revoked(self) -> None:
        """It is gone at once and for good."""
        key, text = self.keys.make("shop", ["admin"], 5, RANDOM, 0)
        self.assertTrue(all(key.may(scope) for scope in SCOPES))
        self.assertEqual(self.keys.revoke(key.id), key)
        self.assertIsNone(self.keys.find(text))
        self.assertIsNone(Keys(RealDisk(), self.path).find(text))
        self.assertRaises(UsageError, self.keys.revoke, key.id)

    def test_wrong_ones(self) -> None:
        """Names, scopes and rates that cannot be are refused with a sentence."""
        for name, scopes, rate in (
            ("", ["read"], 5),
            ("a\n", ["read"], 5),
            ("x" * 65, ["read"], 5),
            ("a", ["write"], 5),
            ("a", [], 5),
            ("a", ["read"], 0),
        ):
            self.assertRaises(UsageError, self.keys.make, name, scopes, rate, RANDOM, 0)
        self.assertEqual(len(self.keys), 0)

    def test_not_too_many(self) -> None:
        """One more than there may be."""
        self.patch(Keys, "_store", lambda keys, found: setattr(keys, "_keys", found))
        for number in range(COIN_KEYS):
            self.keys.make("a", ["read"], 1, number.to_bytes(4, "big") + bytes(32), 0)
        self.assertRaises(RefusedError, self.keys.make, "a", ["read"], 1, RANDOM, 0)

    def test_damaged(self) -> None:
        """A file that is none is named, and no key is good."""
        self.keys.make("a", ["read"], 1, RANDOM, 0)
        with open(self.path, "rb") as file:
            good = file.read()
        row = json.loads(good)["keys"][0]
        wrong: list[Any] = [
            {},
            [],
            {"keys": 5},
            {"keys": [{**row, "scopes": ["all"]}]},
            {"keys": [{**row, "rate": 0}]},
        ]
        for data in (b"", b"{", b"[" * 100_000, *(json.dumps(each).encode() for each in wrong)):
            with open(self.path, "wb") as file:
                file.write(data)
            self.assertRaises(LocalError, Keys, RealDisk(), self.path)
        os.chmod(self.path, 0o644)
        self.assertRaises(StorageError, Keys, RealDisk(), self.path)

    def test_power_cuts(self) -> None:
        """A key that was given out is there, and one that was revoked is gone, whenever the power fails."""
        other = bytes(36)

        def ids(disk: SimulatedDisk) -> frozenset[str]:
            return frozenset(key.id for key in Keys(disk, "/d/keys"))

        def program(disk: SimulatedDisk, witness: Witness) -> None:
            keys = Keys(disk, "/d/keys")
            witness.begins(frozenset(["00010203"]))
            first, _ = keys.make("a", ["read"], 1, RANDOM, 0)
            witness.holds()
            witness.begins(frozenset(["00010203", "00000000"]))
            keys.make("b", ["read"], 1, other, 0)
            witness.holds()
            witness.begins(frozenset(["00000000"]))
            keys.revoke(first.id)
            witness.holds()

        made = Workload("api keys", program, ids, lambda disk: disk.mkdir("/d"), frozenset(), relied_on=False)
        report = Search(made, STRICT, most=64, deeper=4).run()
        self.assertFalse(report.lost, report.losses)


class Rates(SynchronousTestCase):
    def test_allowance(self) -> None:
        """Two seconds' worth at once, then as many as come; the wait that is told is right."""
        allowance = Allowance(5, 100.0)
        self.assertEqual([allowance.take(100.0) for _ in range(10)], [0.0] * 10)
        wait = allowance.take(100.0)
        self.assertAlmostEqual(wait, 0.2)
        self.assertGreater(allowance.take(100.0 + wait / 2), 0)
        self.assertEqual(allowance.take(100.0 + wait + 0.001), 0.0)
        self.assertEqual([allowance.take(1_000.0) for _ in range(10)], [0.0] * 10)
        self.assertGreater(allowance.take(1_000.0), 0)


class Asked(SynchronousTestCase):
    """Over the API."""

    def served(self, **section: Any) -> tuple[Served, dict[str, dict[str, str]]]:
        """An API, and headers with a key of each scope."""
        store = open_store(RealDisk(), self.mktemp() + "/chain.db", small_chain())
        self.addCleanup(store.close)
        folder = Path(self.mktemp())
        folder.mkdir()
        served = Served(store, ApiSection(**section), folder=folder)
        keys = served.api.admission.keys
        texts = {
            scope: keys.make(scope, [scope], 3, number.to_bytes(4, "big") + bytes(32), 0)[1]
            for number, scope in enumerate(SCOPES)
        }
        return served, {scope: {"Authorization": f"Bearer {text}"} for scope, text in texts.items()}

    def test_version_3(self) -> None:
        """A key is needed, one of this node, good for what is asked."""
        served, keys = self.served()
        refused = served.get("/api/v3/transactions")
        self.assertEqual(refused.status, 401)
        self.assertEqual(refused.json["error"]["code"], "denied")
        self.assertTrue(refused.headers["www-authenticate"].startswith("Bearer"))
        wrong = served.get("/api/v3/transactions", {"Authorization": "Bearer mk_00000000_" + "B" * 43})
        self.assertEqual((wrong.status, "revoked" in wrong.json["error"]["message"]), (401, True))
        self.assertEqual(served.get("/api/v3/transactions", keys["events"]).status, 403)
        self.assertEqual(served.get("/api/v3/transactions", keys["read"]).status, 200)
        self.assertEqual(served.get("/api/v3/transactions", keys["admin"]).status, 200)
        own = {"X-API-Key": keys["read"]["Authorization"].removeprefix("Bearer ")}
        self.assertEqual(served.get("/api/v3/transactions", own).status, 200)

    def test_the_go_nodes_versions(self) -> None:
        """They ask for none, unless the operator says so."""
        served, keys = self.served()
        self.assertEqual(served.get("/api/v1/coinSupply").status, 200)
        served, keys = self.served(keys="all")
        self.assertEqual(served.get("/api/v1/coinSupply").status, 401)
        self.assertEqual(served.get("/api/v1/coinSupply", keys["read"]).status, 200)
        self.assertEqual(served.get("/api/v1/coinSupply", keys["events"]).status, 403)
        self.assertEqual(served.get("/api/v1/csrf").status, 200)
        served, keys = self.served(keys="none")
        self.assertEqual(served.get("/api/v3/transactions").status, 200)

    def test_rate(self) -> None:
        """Beyond its rate a key is told when to come again; another is not held up."""
        served, keys = self.served()
        found = [served.get("/api/v3/transactions", keys["read"]).status for _ in range(7)]
        self.assertEqual(found, [200] * 6 + [429])
        late = served.get("/api/v3/transactions", keys["read"])
        self.assertEqual((late.headers["retry-after"], late.json["error"]["code"]), ("1", "too_many"))
        self.assertEqual(served.get("/api/v3/transactions", keys["admin"]).status, 200)
        served.reactor_clock.advance(1.0)
        self.assertEqual(served.get("/api/v3/transactions", keys["read"]).status, 200)

    def test_no_csrf_token_with_a_key(self) -> None:
        """A page of another server cannot send one; the password is not asked for either."""
        served, keys = self.served(csrf=True, username="bob")
        self.assertEqual(served.get("/api/v1/coinSupply").status, 401)
        self.assertEqual(served.get("/api/v1/coinSupply", keys["read"]).status, 200)
        self.assertEqual(served.post("/api/v1/balance", addrs="x").status, 401)
        self.assertEqual(served.post("/api/v1/balance", headers=keys["read"], addrs="x").status, 400)

    def test_every_endpoint_of_version_3_has_a_scope(self) -> None:
        """But for what describes the API itself; and those of the sets have one if all ask for keys."""
        for endpoint in TABLE:
            if endpoint.version == 3 and "openapi" not in endpoint.path:
                self.assertIn(endpoint.scope, SCOPES, endpoint.path)
            if endpoint.sets:
                self.assertIn(scope_of(endpoint), SCOPES, endpoint.path)


class Routes(SynchronousTestCase):
    def test_a_keys_life(self) -> None:
        """Made, listed and revoked over the control API; who listens with it is told."""
        keys, gone = Keys(RealDisk(), self.mktemp()), []

        def write(call: Any, *args: Any) -> Deferred[Any]:
            return succeed(call(*args))

        routes = KeyRoutes(keys, write, gone.append, lambda: 1.7e9)
        made = self.successResultOf(routes.make({"name": "shop", "scopes": ["read"], "rate": 9}))
        self.assertIsNotNone(keys.find(made["key"]))
        listed = routes.list({})["keys"]
        self.assertEqual(listed, [{name: value for name, value in made.items() if name != "key"}])
        self.successResultOf(routes.revoke({"id": made["id"]}))
        self.assertEqual((gone, routes.list({})["keys"]), ([made["id"]], []))
        for wrong in ({"name": "a", "scopes": ["all"]}, {"name": "a", "what": 1}, {}):
            self.assertRaises(MeshError, routes.make, wrong)
