"""Withdrawals: one transaction for an id, whatever is retried, whoever goes away, whatever else is spent."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from coin.api.settings import ApiSection
from coin.chain.address import address_text
from coin.chain.rules import signers
from coin.chain.transaction import Output, Transaction
from coin.store.store import open_store
from coin.wallet.folder import Folder, NewWallet
from tests.support.chains import Ledger, key, owner, small_chain
from tests.support.coinapi import DISK, HOST, NOW, Connection, Response, Served
from tests.support.described import fits, pointer

COINS = 1_000_000_000
NAME = "paying.wlt"
CUSTOMER = address_text(owner(7))


class Case(SynchronousTestCase):
    publishes = True

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="meshnet-test-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.ledger = Ledger(small_chain(COINS))
        self.store = open_store(DISK, self.folder / "chain.db", self.ledger.chain)
        self.addCleanup(self.store.close)
        wallets = Folder(DISK, str(self.folder / "wallets"), lambda size: bytes(size), lambda: NOW)
        wallets.open()
        keys = [key(number).secret.hex() for number in (1, 2)]
        wallets.create(NewWallet("collection", "paying", keys=keys, filename=NAME))
        half = COINS // 2
        self.extend(self.ledger.pay(1, Output(owner(1), half, 500), Output(owner(2), half, 400)))
        self.start()

    def start(self, keys: Literal["none", "v3"] = "none") -> None:
        """The node starts, and again after it died."""
        section = ApiSection(
            csrf=False, keys=keys, sets=("READ", "TXN", "WALLET"), wallets=self.folder / "wallets"
        )
        self.served = Served(self.store, section, folder=self.folder, publishes=self.publishes)

    def die(self) -> None:
        """The node is gone without a word: its lock and its memory, nothing else."""
        flow = self.served.api.withdrawing
        assert flow is not None
        flow.close()

    def tearDown(self) -> None:
        self.die()

    def extend(self, *transactions: Transaction) -> None:
        """One more block."""
        block = self.ledger.block(*transactions)
        self.ledger.add(block)
        added = self.store.add([block], [[signers(each) for each in transactions]])
        assert added.refused is None, added.refused

    def body(self, id: str = "1", coins: str = "10", **more: Any) -> dict[str, Any]:
        """A withdrawal for the customer."""
        return {"id": id, "wallet": NAME, "to": [{"address": CUSTOMER, "coins": coins}], **more}

    def ask(self, body: Any) -> Response:
        return self.served.post("/api/v3/withdrawals", body)

    def pay(self, id: str = "1", coins: str = "10", **more: Any) -> Any:
        """The answer to one that is taken."""
        answer = self.ask(self.body(id, coins, **more))
        self.assertEqual(answer.status, 200, answer.body)
        return answer.json

    def refused(self, body: Any) -> tuple[int, str]:
        """Status and message of one that is not."""
        answer = self.ask(body)
        return answer.status, answer.json["error"]["message"]

    def look(self, id: str = "1") -> Any:
        return self.served.get(f"/api/v3/withdrawals/{id}").json

    def loose(self, txid: str) -> Transaction:
        """A transaction of the pool."""
        found = self.store.pool.get(bytes.fromhex(txid))
        assert found is not None
        return found.transaction


class Once(Case):
    def test_same_again(self) -> None:
        """The same id is the same transaction, before a block has it and after, also after a restart."""
        first = self.pay()
        self.assertEqual((first["state"], first["confirmations"]), ("sent", 0))
        self.assertEqual(first["to"][0]["address"], CUSTOMER)
        self.assertEqual(first["to"][0]["coins"], "10.000000")
        self.assertEqual(self.pay(), first)
        self.extend(self.loose(first["txid"]))
        for _ in range(2):
            again = self.pay()
            self.assertEqual((again["txid"], again["state"]), (first["txid"], "confirmed"))
            self.assertEqual((again["confirmations"], again["block_seq"]), (1, 2))
            self.die()
            self.start()
        self.assertEqual(len(self.store.pool), 0)
        self.assertEqual(self.store.balance([owner(7)])[owner(7)].confirmed.coins, 10_000_000)

    def test_another_content(self) -> None:
        """Another receiver, amount, wallet or hours under a known id is refused; the order of fields is none
        of the content, and neither is a password."""
        first = self.pay()
        rows = [{"address": CUSTOMER, "coins": "10", "hours": "1"}]
        for body in (self.body(coins="11"), {**self.body(), "to": rows}, {**self.body(), "wallet": "x.wlt"}):
            with self.subTest(body=body):
                self.assertEqual(self.refused(body)[0], 409)
        turned = dict(reversed(self.body().items()))
        self.assertEqual(self.ask(turned).json["txid"], first["txid"])
        self.assertEqual(self.look()["txid"], first["txid"])

    def test_inputs_are_kept(self) -> None:
        """Two withdrawals never spend the same; when nothing is free the third is told to wait, records
        nothing, and is paid after the next block."""
        found = [self.loose(self.pay(str(number))["txid"]) for number in range(2)]
        self.assertFalse(set(found[0].inputs) & set(found[1].inputs))
        answer = self.ask(self.body("2"))
        self.assertEqual((answer.status, answer.headers["retry-after"]), (503, "10"))
        self.assertEqual(self.served.get("/api/v3/withdrawals/2").status, 404)
        self.extend(*found)
        self.assertEqual(self.pay("2")["state"], "sent")

    def test_kept_where_the_pool_forgot(self) -> None:
        """What is promised stays so when the pool has lost it; a wallet's own payments keep away, too."""
        first = self.loose(self.pay()["txid"])
        with self.store._database.transaction() as connection:
            connection.execute("DELETE FROM loose")
        self.assertEqual(self.look()["state"], "sent")
        body = {
            "wallet_id": NAME,
            "hours_selection": {"type": "auto", "mode": "share", "share_factor": "0.5"},
            "to": [{"address": CUSTOMER, "coins": "490"}],
            "ignore_unconfirmed": True,
        }
        made = self.served.post("/api/v1/wallet/transaction", body).json["transaction"]
        self.assertNotIn(first.inputs[0].hex(), [each["uxid"] for each in made["inputs"]])
        self.served.reactor_clock.pump([1.0] * 6)
        self.assertEqual(self.loose(self.look()["txid"]), first)

    def test_spent_elsewhere(self) -> None:
        """If a block has another spending of the same, the withdrawal has failed for good and says why."""
        first = self.loose(self.pay()["txid"])
        spent = [self.ledger.unspent[each] for each in first.inputs]
        payer = 1 if spent[0].address == owner(1) else 2
        coins = sum(each.coins for each in spent)
        self.extend(self.ledger.pay(payer, Output(owner(payer), coins, 0), inputs=spent))
        for _ in range(2):
            told = self.look()
            self.assertEqual((told["state"], told["block_seq"]), ("failed", None))
            self.assertIn("was spent by", told["why"])
            self.served.reactor_clock.pump([1.0] * 6)
        self.assertEqual(self.pay()["state"], "failed")
        self.assertEqual(self.pay("2")["state"], "sent")

    def test_signed_anew(self) -> None:
        """The same spending with other signatures is the withdrawal, by what it pays."""
        first = self.loose(self.pay()["txid"])
        empty = Transaction(first.length, first.kind, first.inner, (bytes(65),), first.inputs, first.outputs)
        payer = 1 if self.ledger.unspent[first.inputs[0]].address == owner(1) else 2
        self.extend(empty.signed([key(payer)]))
        self.assertEqual(self.look()["state"], "confirmed")


class Lists(Case):
    def setUp(self) -> None:
        """Withdrawals 1 and 2 wait; 0 is in a block."""
        super().setUp()
        self.txids = {"0": self.pay("0")["txid"]}
        self.extend(self.loose(self.txids["0"]))
        self.txids |= {id: self.pay(id)["txid"] for id in "12"}

    def page(self, **query: Any) -> Any:
        """One."""
        return self.served.get("/api/v3/withdrawals", **query).json

    def test_pages(self) -> None:
        """Page by page in either order each is there once, as it is asked for alone; the end is told."""
        for order, ids in (("newest", "210"), ("oldest", "012")):
            for limit in (1, 2, 3, 100):
                cursor: dict[str, Any] = {}
                found: list[Any] = []
                while True:
                    page = self.page(limit=limit, order=order, **cursor)
                    self.assertEqual(page["total"], 3)
                    self.assertLessEqual(len(page["withdrawals"]), limit)
                    found += page["withdrawals"]
                    if page["next"] is None:
                        break
                    cursor = {"cursor": page["next"]}
                self.assertEqual([each["id"] for each in found], list(ids))
                self.assertEqual(found, [self.look(id) for id in ids])
        self.assertEqual(self.page(cursor=0), {"withdrawals": [], "total": 3, "next": None})

    def test_open(self) -> None:
        """Those in no block yet once the node has looked after the others; all of them after a start, too."""
        self.served.reactor_clock.pump([1.0] * 6)
        found = self.page(state="open")
        self.assertEqual(([each["id"] for each in found["withdrawals"]], found["total"]), (["2", "1"], 2))
        self.die()
        self.start()
        self.assertEqual(
            [each["state"] for each in self.page()["withdrawals"]], ["sent", "sent", "confirmed"]
        )

    def test_wrong_questions(self) -> None:
        """Each fault names its parameter."""
        for name, value in (
            ("limit", "0"),
            ("limit", "101"),
            ("cursor", "x"),
            ("cursor", "-1"),
            ("state", "sent"),
        ):
            answer = self.served.get(f"/api/v3/withdrawals?{name}={value}")
            self.assertEqual((answer.status, answer.json["error"]["field"]), (400, name))
        self.assertEqual(self.served.get("/api/v3/withdrawals", ids="1").status, 400)

    def test_events(self) -> None:
        """Who may pay hears how far each comes; of receivers that are named, of those alone."""
        self.die()
        self.start("v3")
        keys = self.served.api.admission.keys
        _, reads = keys.make("reads", ["read", "events"], 100, bytes(36), 0)
        _, sends = keys.make("sends", ["send", "events"], 100, bytes(range(36)), 0)
        stranger = f"&addresses={address_text(owner(9))}"
        ears = {}
        for query, text in (("", sends), (stranger, sends), ("", reads)):
            ears[query, text] = client = self.served.connect()
            head = f"GET /api/v3/events?kinds=withdrawal{query} HTTP/1.1\r\nHost: {HOST}\r\n"
            client.send(f"{head}Authorization: Bearer {text}\r\n\r\n".encode())
        self.assertIn(b" 403 ", ears["", reads].transport.value()[:20])
        self.extend(self.loose(self.txids["1"]))
        self.served.reactor_clock.pump([1.0] * 6)
        given = {"Authorization": f"Bearer {sends}"}
        self.assertEqual(self.served.post("/api/v3/withdrawals", self.body("3"), given).status, 200)
        told = self.told(ears["", sends])
        states = [(each["id"], each["state"]) for each in told]
        self.assertEqual(states[-2:], [("3", "recorded"), ("3", "sent")])
        self.assertIn(("1", "confirmed"), states)
        self.assertEqual(told[-1], self.served.get("/api/v3/withdrawals/3", given).json)
        self.assertEqual(self.told(ears[stranger, sends]), [])

    @staticmethod
    def told(client: Connection) -> list[Any]:
        """The withdrawals that a client heard of."""
        lines = client.transport.value().decode().splitlines()
        said = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
        for each in said:
            assert not fits(pointer("components", "schemas", "Event"), each)
        return [each["withdrawal"] for each in said if each["kind"] == "withdrawal"]


class Faults(Case):
    def test_scope(self) -> None:
        """Nobody without a key pays or looks, nor who has one for other things."""
        self.die()
        self.start("v3")
        keys = self.served.api.admission.keys
        _, reads = keys.make("reads", ["read", "events"], 100, bytes(36), 0)
        _, sends = keys.make("sends", ["send"], 100, bytes(range(36)), 0)
        path = "/api/v3/withdrawals"
        for text, status in (("", 401), (reads, 403), (sends, 200)):
            given = {"Authorization": f"Bearer {text}"} if text else None
            with self.subTest(status=status):
                self.assertEqual(self.served.post(path, self.body(), given).status, status)
                self.assertEqual(self.served.get(f"{path}/1", given).status, status)
                self.assertEqual(self.served.get(path, given).status, status)

    def test_client_goes_away(self) -> None:
        """One that hangs up in the middle changes nothing: what was begun is done."""
        api = self.served.api
        flow = api.withdrawing
        assert flow is not None
        held: list[tuple[Deferred[Any], Any]] = []

        def slow(call: Any, *args: Any) -> Deferred[Any]:
            if "record" not in call.__name__:
                return succeed(call(*args))
            waiting: Deferred[Any] = Deferred()
            held.append((waiting, lambda: call(*args)))
            return waiting

        flow._write = slow
        client = self.served.connect()
        data = json.dumps(self.body()).encode()
        head = b"POST /api/v3/withdrawals HTTP/1.1\r\nHost: 127.0.0.1:6420\r\nContent-Length: %d\r\n\r\n"
        client.send(head % len(data) + data)
        self.assertEqual(len(held), 1)
        client.leave()
        waiting, record = held.pop()
        waiting.callback(record())
        self.assertEqual(self.look()["state"], "sent")
        self.assertEqual(len(flow.kept), 1)

    def test_dies_before_sending(self) -> None:
        """What was recorded is sent after the next start, the same; asking again does not pay again."""
        api = self.served.api
        flow = api.withdrawing
        assert flow is not None
        recorded: list[Any] = []

        class Died(Exception):
            pass

        async def send(transactions: Any) -> Any:
            recorded.extend(transactions)
            raise Died

        flow._chain.send = send  # type: ignore[method-assign]
        self.assertEqual(self.ask(self.body()).status, 500)
        self.flushLoggedErrors(Died)
        self.assertEqual(len(self.store.pool), 0)
        self.die()
        self.start()
        self.assertEqual(self.look()["state"], "recorded")
        self.served.reactor_clock.pump([1.0] * 6)
        self.assertEqual(self.look()["state"], "sent")
        self.assertEqual(self.loose(self.pay()["txid"]), recorded[0])
        self.assertEqual(len(self.store.pool), 1)

    def test_refused(self) -> None:
        """What cannot be paid is refused with a sentence and records nothing."""
        wanted: dict[int, list[Any]] = {
            400: [
                {"wallet": NAME, "to": []},
                self.body("a b"),
                self.body("x" * 129),
                self.body(coins="0"),
                self.body(coins="0.0001"),
                self.body(coins="-1"),
                {**self.body(), "more": 1},
                {**self.body(), "to": [{"address": CUSTOMER, "coins": 1}]},
                {**self.body(), "to": CUSTOMER},
                {**self.body(), "from": [CUSTOMER]},
                {**self.body(), "password": "x"},
                [],
            ],
            404: [{**self.body(), "wallet": "other.wlt"}],
            422: [self.body(coins="2000")],
        }
        for status, bodies in wanted.items():
            for body in bodies:
                with self.subTest(body=body):
                    self.assertEqual(self.refused(body)[0], status)
        self.assertEqual(self.served.get("/api/v3/withdrawals/1").status, 404)
        self.assertEqual(len(self.store.pool), 0)


class Alone(Case):
    publishes = False

    def test_nobody_to_tell(self) -> None:
        """Without peers it stays recorded, and is sent when there are some."""
        self.assertEqual(self.pay()["state"], "recorded")
        self.served.reactor_clock.pump([1.0] * 6)
        self.assertEqual(self.look()["state"], "recorded")
        sent: list[Any] = []
        peer: Any = type("Peer", (), {"ready": True, "number": 1, "outgoing": True, "send": sent.append})()
        self.served.network.peers[1] = peer
        self.served.reactor_clock.pump([1.0] * 6)
        self.assertEqual(self.look()["state"], "sent")
        self.assertTrue(sent)


class NoWallets(SynchronousTestCase):
    def test_nothing_served(self) -> None:
        """A node without a folder of wallets says what to do."""
        folder = Path(tempfile.mkdtemp(prefix="meshnet-test-"))
        self.addCleanup(shutil.rmtree, folder)
        store = open_store(DISK, folder / "chain.db", small_chain(COINS))
        self.addCleanup(store.close)
        served = Served(store, ApiSection(csrf=False, keys="none"))
        body = {"id": "1", "wallet": NAME, "to": [{"address": CUSTOMER, "coins": "1"}]}
        answer = served.post("/api/v3/withdrawals", body)
        self.assertEqual(answer.status, 403)
        self.assertIn("wallets", answer.json["error"]["message"])
