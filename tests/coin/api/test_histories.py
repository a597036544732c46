"""Version 3's pages: followed to the end they are the whole list, and balances are those of that time."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from coin.api.settings import ApiSection
from coin.chain.address import address_text
from coin.store.store import open_store
from meshnet.storage.disk import RealDisk
from tests.support.chains import owner
from tests.support.coinapi import Served
from tests.support.random_chains import OWNERS, RandomChain, shared_chain

ROOT = "/api/v3"


class Pages(SynchronousTestCase):
    def setUp(self) -> None:
        self.model = RandomChain(4, shared_chain())
        store = open_store(RealDisk(), self.mktemp() + "/chain.db", self.model.chain)
        self.addCleanup(store.close)
        self.model.grow(store, 8)
        self.served = Served(store, ApiSection(keys="none", csrf=False))

    def ask(self, path: str, **query: Any) -> Any:
        """The answer, which must be one."""
        found = self.served.get(f"{ROOT}{path}", **query)
        self.assertEqual(found.status, 200, found.text)
        return found.json

    def follow(self, path: str, **query: Any) -> list[Any]:
        """All pages, one after the other."""
        entries: list[Any] = []
        while True:
            page = self.ask(path, **query)
            self.assertLessEqual(len(page["transactions"]), query["limit"])
            entries += page["transactions"]
            if page["next"] is None:
                self.assertEqual(page["total"], len(entries))
                return entries
            query["cursor"] = page["next"]

    def test_history(self) -> None:
        """Of every owner, both ways, with pages of any size; an address nobody knows has none."""
        for number in range(1, OWNERS + 2):
            text = address_text(owner(number))
            mine = [(block, it) for block, it, touched in self.model.made if owner(number) in touched]
            balance, after = 0, {}
            for _, it in mine:
                balance -= sum(
                    each.coins for each in self.model.spent[it.id] if each.address == owner(number)
                )
                balance += sum(out.coins for out in it.outputs if out.address == owner(number))
                after[it.id.hex()] = f"{balance // 10**6}.{balance % 10**6:06d}"
            for limit in (1, 3, 100):
                oldest = self.follow(f"/addresses/{text}/history", limit=limit, order="oldest")
                newest = self.follow(f"/addresses/{text}/history", limit=limit)
                self.assertEqual(newest, oldest[::-1])
                self.assertEqual(
                    [(each["block_seq"], each["txid"]) for each in oldest],
                    [(block, it.id.hex()) for block, it in mine],
                )
                self.assertEqual({each["txid"]: each["balance"] for each in oldest}, after)
                for each in oldest:
                    self.assertEqual(each["confirmations"], 8 - each["block_seq"] + 1)

    def test_a_page_stays(self) -> None:
        """A cursor leads to the same page after more blocks have come."""
        text = address_text(owner(1))
        first = self.ask(f"/addresses/{text}/history", limit=2)
        second = self.ask(f"/addresses/{text}/history", limit=2, cursor=first["next"])
        self.model.grow(self.served.store, 3)
        again = self.ask(f"/addresses/{text}/history", limit=2, cursor=first["next"])
        for page in (second, again):
            for each in page["transactions"]:
                del each["confirmations"]
        self.assertEqual(again["transactions"], second["transactions"])

    def test_transactions(self) -> None:
        """All of them, and each alone, in a block and waiting."""
        entries = self.follow("/transactions", limit=7, order="oldest")
        self.assertEqual([each["txid"] for each in entries], [it.id.hex() for _, it, _ in self.model.made])
        for each in entries:
            self.assertEqual(self.ask(f"/transactions/{each['txid']}"), {"confirmed": True, **each})
            amount = sum(int(out["coins"].replace(".", "")) for out in each["outputs"])
            self.assertEqual(
                sum(int(out["coins"].replace(".", "")) for out in each["inputs"]) or amount, amount
            )
        block = self.model.block()
        it = block.transactions[0]
        self.served.store.pool.add([it], 1.7e9)
        found = self.ask(f"/transactions/{it.id.hex()}")
        self.assertEqual((found["confirmed"], found["confirmations"]), (False, 0))

    def test_address(self) -> None:
        """What it owns, and how much it has done."""
        found = self.ask(f"/addresses/{address_text(owner(1))}")
        coins, hours = self.model.owned().get(owner(1), (0, 0))
        self.assertEqual(
            found["confirmed"], {"coins": f"{coins // 10**6}.{coins % 10**6:06d}", "hours": str(hours)}
        )
        self.assertEqual(found["transactions"], sum(owner(1) in touched for _, _, touched in self.model.made))

    def test_wrong_questions(self) -> None:
        """Each fault names its parameter; what is no parameter is refused."""
        text = address_text(owner(1))
        history = f"/addresses/{text}/history"
        cases: list[tuple[str, dict[str, str], int, str | None]] = [
            (history, {"limit": "0"}, 400, "limit"),
            (history, {"limit": "101"}, 400, "limit"),
            (history, {"limit": "x"}, 400, "limit"),
            (history, {"order": "sideways"}, 400, "order"),
            (history, {"cursor": "5"}, 400, "cursor"),
            (history, {"cursor": "-5.1"}, 400, "cursor"),
            (history, {"cursr": "5.1"}, 400, "cursr"),
            ("/transactions", {"cursor": "5.1"}, 400, "cursor"),
            (f"/addresses/{text[:-1]}", {}, 400, "address"),
            ("/addresses/%00", {}, 400, "address"),
            ("/transactions/zz", {}, 400, "txid"),
            (f"/transactions/{'00' * 32}", {}, 404, "txid"),
            ("/addresses/", {}, 404, None),
            ("/nothing", {}, 404, None),
        ]
        for path, query, status, field in cases:
            found = self.served.get(f"{ROOT}{path}", **query)
            error = found.json["error"]
            self.assertEqual((found.status, error["field"]), (status, field), (path, query, error))
            self.assertTrue(error["message"])
        self.assertEqual(self.served.post(f"{ROOT}{history}").status, 405)
        largest = {"cursor": "9" * 18 + "." + "9" * 19}
        self.assertEqual(self.served.get(f"{ROOT}{history}", **largest).status, 200)
