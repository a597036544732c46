"""Transactions from outside: every broken rule in the Go node's words, what is kept, what is told to whom."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from coin.api.settings import ApiSection
from coin.chain.address import NULL, address_text
from coin.chain.params import Limits
from coin.chain.rules import signers
from coin.chain.signatures import UNSIGNED
from coin.chain.transaction import Output, Transaction, new_transaction
from coin.store.store import open_store
from tests.support.chains import Ledger, key, owner, small_chain
from tests.support.coinapi import DISK, Served

COINS = 1_000_000_000
Change = Callable[[Transaction], Transaction]


def again(it: Transaction, *, right: bool = True, **changes: Any) -> Transaction:
    """The same with other parts; signed again by key 1 if `right`."""
    parts = {
        name: getattr(it, name) for name in ("length", "kind", "inner", "signatures", "inputs", "outputs")
    }
    made = Transaction(**{**parts, **changes})
    if not right:
        return made
    fresh = new_transaction(made.inputs, made.outputs)
    return fresh.signed([key(1)] * len(made.inputs))


class Case(SynchronousTestCase):
    publishes = True

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="meshnet-test-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.ledger = Ledger(small_chain(COINS))
        self.store = open_store(DISK, self.folder / "chain.db", self.ledger.chain)
        self.addCleanup(self.store.close)
        self.extend(
            self.ledger.pay(1, Output(owner(1), COINS - 2_000_000, 600), Output(owner(1), 2_000_000, 90))
        )
        self.served = Served(self.store, ApiSection(csrf=False), publishes=self.publishes)

    def extend(self, *transactions: Transaction) -> None:
        """One more block."""
        block = self.ledger.block(*transactions)
        self.ledger.add(block)
        added = self.store.add([block], [[signers(each) for each in transactions]])
        assert added.refused is None, added.refused

    def pay(self) -> Transaction:
        """A right transaction of all that key 1 owns."""
        return self.ledger.pay(1, Output(owner(2), COINS - 1_000_000, 100), Output(owner(1), 1_000_000, 5))

    def inject(self, it: Transaction, **more: Any) -> tuple[int, str]:
        """Status, and what is told."""
        answer = self.served.post("/api/v1/injectTransaction", {"rawtx": it.raw.hex(), **more})
        return answer.status, answer.json if answer.status == 200 else answer.text.partition(" - ")[2].strip()

    def verify(self, it: Transaction, unsigned: bool = False) -> tuple[int, str]:
        """Status and message."""
        body = {"encoded_transaction": it.raw.hex(), "unsigned": unsigned}
        answer = self.served.post("/api/v2/transaction/verify", body)
        return answer.status, answer.json.get("error", {}).get("message", "")


class Rules(Case):
    def wrong_form(self) -> dict[str, Transaction]:
        """What is wrong whatever it spends, and with whose keys."""
        it = self.pay()
        first, second = it.outputs
        high = it.signatures[0][:32] + b"\xff" + it.signatures[0][33:]
        other = [key(2)] * 2
        return {
            "user constraint: Transaction output is sent to the null address": again(
                it, outputs=(evolve(first, address=NULL), second)
            ),
            f"hard constraint: unspent output of {'ab' * 32} does not exist": again(
                it, inputs=(bytes.fromhex("ab" * 32), it.inputs[1])
            ),
            "hard constraint: No inputs": again(it, right=False, inputs=(), signatures=()),
            "hard constraint: No outputs": again(it, right=False, outputs=()),
            "hard constraint: Invalid number of signatures": again(it, right=False, signatures=()),
            "hard constraint: Duplicate spend": again(it, inputs=(it.inputs[0], it.inputs[0])),
            "hard constraint: transaction type invalid": again(it, right=False, kind=1),
            "hard constraint: Zero coin output": again(it, outputs=(evolve(first, coins=0), second)),
            "hard constraint: Output coins overflow": again(
                it, outputs=(evolve(first, coins=(1 << 64) - 1), second)
            ),
            "hard constraint: Incorrect transaction length": again(it, right=False, length=1),
            "hard constraint: Duplicate output in transaction": again(it, outputs=(second, second)),
            "hard constraint: InnerHash does not match computed hash": again(
                it, right=False, inner=bytes(32)
            ),
            "hard constraint: Unsigned input in transaction": again(
                it, right=False, signatures=(it.signatures[0], UNSIGNED)
            ),
            "hard constraint: Signature not valid for hash": again(
                it, right=False, signatures=(high, it.signatures[1])
            ),
            "hard constraint: Failed to recover pubkey from signature": again(
                it, right=False, signatures=(bytes(64) + b"\1", it.signatures[1])
            ),
            "hard constraint: Signature not valid for output being spent": it.signed(other),
        }

    def wrong_sums(self) -> dict[str, Transaction]:
        """What is wrong with its coins and hours."""
        it = self.pay()
        first, second = it.outputs
        return {
            "hard constraint: Transaction output hours overflow": again(
                it, outputs=(evolve(first, hours=(1 << 64) - 1), second)
            ),
            "hard constraint: Insufficient coins": again(it, outputs=(evolve(first, coins=COINS), second)),
            "hard constraint: Transactions may not destroy coins": again(
                it, outputs=(evolve(first, coins=1_000), second)
            ),
            "hard constraint: Insufficient coin hours": again(
                it, outputs=(evolve(first, hours=1_000_000), second)
            ),
            "soft constraint: Transaction has zero coinhour fee": again(
                it, outputs=(evolve(first, hours=685), second)
            ),
            "soft constraint: Transaction coinhour fee minimum not met": again(
                it, outputs=(evolve(first, hours=684), second)
            ),
            "soft constraint: invalid amount, too many decimal places": again(
                it, outputs=(evolve(first, coins=first.coins - 1), evolve(second, coins=second.coins + 1))
            ),
        }

    def test_broken(self) -> None:
        """Hard rules before soft ones when it is sent; nothing that breaks one is kept."""
        cases = {**self.wrong_form(), **self.wrong_sums()}
        for text, wrong in cases.items():
            with self.subTest(text=text):
                self.assertEqual(self.inject(wrong), (400, f"Transaction violates {text}"))
        self.assertEqual(len(self.store.pool), 0)

    def test_soft_first(self) -> None:
        """What is only looked at breaks soft rules first, as there."""
        it = self.pay()
        wrong = again(it, right=False, signatures=(UNSIGNED, UNSIGNED))
        greedy = again(wrong, right=False, outputs=(evolve(it.outputs[0], hours=685), it.outputs[1]))
        soft = "Transaction violates soft constraint: Transaction has zero coinhour fee"
        self.assertEqual(self.verify(greedy), (422, soft))
        hard = "Transaction violates hard constraint: Unsigned input in transaction"
        self.assertEqual(self.verify(wrong), (422, hard))
        lost = again(it, inputs=(bytes.fromhex("ab" * 32), it.inputs[1]))
        none = f"transaction input of {'ab' * 32} does not exist in either unspent pool or historydb"
        self.assertEqual(self.verify(lost), (422, f"Transaction violates hard constraint: {none}"))

    def test_limits(self) -> None:
        """A transaction that is too long; one from a locked address."""
        it = self.pay()
        self.store.chain = evolve(self.store.chain, user=Limits(size=1_024))
        many = tuple(Output(owner(each), 1_000_000, 0) for each in range(40))
        rest = Output(owner(1), COINS - 40_000_000, 0)
        long = again(it, outputs=(*many, rest))
        text = "Transaction violates soft constraint: Transaction size bigger than max block size"
        self.assertEqual(self.inject(long), (400, text))
        self.store.chain = evolve(self.store.chain, distribution=(owner(1),), unlocked=0)
        text = "Transaction violates soft constraint: Transaction has locked address inputs"
        self.assertEqual(self.verify(it), (422, text))

    def test_unsigned(self) -> None:
        """One still to be signed is right as such, and only as such."""
        it = self.pay()
        bare = again(it, right=False, signatures=(UNSIGNED, it.signatures[1]))
        self.assertEqual(self.verify(bare, unsigned=True), (200, ""))
        text = "Transaction violates hard constraint: Unsigned transaction must contain a null signature"
        self.assertEqual(self.verify(it, unsigned=True), (422, text))
        self.assertEqual(self.verify(it), (200, ""))

    def test_spent(self) -> None:
        """One in a block is told with its inputs and the fee it burned; one that spends what it spent is not
        right any more."""
        it = self.pay()
        before = self.ledger.head.header.time
        fee = 690 - 105
        self.extend(it)
        body = {"encoded_transaction": it.raw.hex()}
        answer = self.served.post("/api/v2/transaction/verify", body)
        told = answer.json
        self.assertEqual((answer.status, told["error"]["message"]), (422, "transaction has been spent"))
        self.assertTrue(told["data"]["confirmed"])
        self.assertGreater(self.ledger.head.header.time, before)
        self.assertEqual(told["data"]["transaction"]["fee"], str(fee))
        other = again(it, outputs=(it.outputs[0],))
        text = f"Transaction violates hard constraint: unspent output of {it.inputs[0].hex()} does not exist"
        self.assertEqual(self.verify(other), (422, text))


class Sending(Case):
    def test_taken(self) -> None:
        """It is in the pool when the answer is there; a second time it is the same."""
        it = self.pay()
        for _ in range(2):
            self.assertEqual(self.inject(it), (200, it.id.hex()))
        self.assertEqual(self.store.pool.valid(), [it.id])
        self.assertEqual(self.served.get("/api/v1/pendingTxs").json[0]["transaction"]["txid"], it.id.hex())
        self.assertEqual(self.served.post("/api/v1/resendUnconfirmedTxns").json, {"txids": [it.id.hex()]})
        announced = self.served.get("/api/v1/pendingTxs").json[0]["announced"]
        self.assertEqual(announced, "2020-09-13T12:26:40Z")

    def test_what_is_waiting(self) -> None:
        """Outputs and balances with it; pages with it at their end."""
        it = self.pay()
        self.inject(it)
        second = address_text(owner(2))
        outputs = self.served.get("/api/v1/outputs", addrs=second).json
        self.assertEqual([each["src_tx"] for each in outputs["incoming_outputs"]], [it.id.hex()])
        gone = self.served.get("/api/v1/outputs", addrs=address_text(owner(1))).json["outgoing_outputs"]
        self.assertEqual({each["hash"] for each in gone}, {each.hex() for each in it.inputs})
        balance = self.served.get("/api/v1/balance", addrs=second).json["addresses"][second]
        self.assertEqual(balance["confirmed"]["coins"], 0)
        self.assertEqual(balance["predicted"], {"coins": COINS - 1_000_000, "hours": 100})
        for addresses in (f"{second},{address_text(owner(1))}", address_text(owner(1))):
            pages = [
                self.served.get("/api/v2/transactions", addrs=addresses, limit=1, page=page, sort=sort).json
                for sort in ("asc", "desc")
                for page in (1, 2, 3, 4)
            ]
            ids = [[each["txn"]["txid"] for each in page["data"]["txns"]] for page in pages]
            self.assertEqual(ids[2], [it.id.hex()])
            self.assertEqual(ids[4:7], ids[2::-1])
            self.assertEqual((ids[3], ids[7]), ([], []))
            self.assertEqual(pages[0]["data"]["page_info"]["total_pages"], 3)


class WithoutPeers(Case):
    publishes = False

    def test_nobody_to_tell(self) -> None:
        """Without peers nothing is sent, and nothing kept; unless it is not to be passed on."""
        it = self.pay()
        self.assertEqual(self.inject(it), (503, "Connection pool is empty"))
        self.assertEqual(len(self.store.pool), 0)
        self.assertEqual(self.inject(it, no_broadcast=True), (200, it.id.hex()))
        answer = self.served.post("/api/v1/resendUnconfirmedTxns")
        self.assertEqual(answer.text, "503 Service Unavailable - Connection pool is empty\n")

    def test_somebody(self) -> None:
        """A peer that is ready is told."""
        sent: list[Any] = []
        peer: Any = SimpleNamespace(ready=True, number=1, send=sent.append, outgoing=True)
        self.served.network.peers[1] = peer
        it = self.pay()
        self.assertEqual(self.inject(it), (200, it.id.hex()))
        self.assertEqual([each.ids for each in sent], [(it.id,)])
