"""The chain's store: real blocks in, the same figures out."""

from __future__ import annotations

import json
from typing import Any

from attrs import asdict
from twisted.trial.unittest import SynchronousTestCase

from coin.chain.address import address_text, parse_address
from coin.chain.amounts import coins_text
from coin.chain.block import Block, decode_block
from coin.chain.rules import signers
from coin.chain.skycoin import SKYCOIN
from coin.chain.transaction import Output, decode_transaction
from coin.store.store import ChainStore, open_store
from meshnet.errors import LocalError
from meshnet.storage.disk import RealDisk
from tests.support.chains import Ledger, owner, small_chain
from tests.support.vectors import vectors


def real_blocks() -> list[Block]:
    """The first 181 blocks of the live chain."""
    rows = map(json.loads, vectors("skycoin/blocks-180.jsonl").read_text().splitlines())
    return [decode_block(bytes.fromhex(row["block"] + row["sig"])) for row in rows]


def golden(name: str) -> Any:
    """What a node of that chain answered."""
    return json.loads(vectors(f"skycoin/api-golden/{name}.golden").read_text())


class Stores(SynchronousTestCase):
    def open(self, chain: Any = SKYCOIN) -> ChainStore:
        """A new store, closed at the end of the test."""
        store = open_store(RealDisk(), self.mktemp() + "/chain.db", chain)
        self.addCleanup(store.close)
        return store

    def add(self, store: ChainStore, blocks: list[Block]) -> None:
        """Adds blocks and expects all to be taken."""
        added = store.add(blocks, [[signers(each) for each in block.transactions] for block in blocks])
        self.assertIsNone(added.refused)


class RealChain(Stores):
    def setUp(self) -> None:
        self.store = self.open()
        self.blocks = real_blocks()
        for start in range(1, 181, 45):
            self.add(self.store, self.blocks[start : start + 45])

    def test_unspent_outputs(self) -> None:
        """The outputs that a node of the chain lists, newest first, each with its figures."""
        ours = sorted(self.store.all_unspents(), key=lambda each: (-each.time, each.id))
        listed = golden("no-unconfirmed-outputs-noargs")["head_outputs"]
        self.assertEqual(len(ours), 218)
        for unspent, row in zip(ours, listed, strict=True):
            self.assertEqual(unspent.id.hex(), row["hash"])
            self.assertEqual(address_text(unspent.address), row["address"])
            self.assertEqual(unspent.hours, row["hours"])
            self.assertEqual(unspent.block, row["block_seq"])
            self.assertEqual(unspent.source.hex(), row["src_tx"])

    def test_richest(self) -> None:
        """Who owns how much."""
        rows = golden("richlist-all-include-distribution")["richlist"]
        ours = {address_text(address): coins for address, coins in self.store.richest(1_000)}
        self.assertEqual(ours, {row["address"]: int(row["coins"].replace(".", "")) for row in rows})
        self.assertEqual(self.store.address_count(), 155)

        outside = self.store.richest(1_000, without=frozenset(SKYCOIN.distribution))
        listed = [(row["address"], row["coins"]) for row in golden("richlist-all")["richlist"]]
        self.assertEqual([(address_text(each), coins_text(coins)) for each, coins in outside], listed)
        self.assertEqual(self.store.richest(150), self.store.richest(1_000)[:150])
        rows = golden("richlist-150-include-distribution")["richlist"]
        ordered = [(address_text(each), coins_text(coins)) for each, coins in self.store.richest(150)]
        self.assertEqual(ordered, [(row["address"], row["coins"]) for row in rows])

    def test_supply(self) -> None:
        """Coins and hours, with and without the distribution's."""
        supply, rows = self.store.supply(), golden("coinsupply")
        shown = [coins_text(each) for each in (supply.current, supply.total, supply.most)]
        self.assertEqual(shown, [rows[each + "_supply"] for each in ("current", "total", "max")])
        hours = [str(supply.current_hours), str(supply.total_hours)]
        self.assertEqual(hours, [rows[each + "_coinhour_supply"] for each in ("current", "total")])
        self.assertEqual((supply.unspents, supply.owners), (218, 155))

    def test_balance_with_the_pool(self) -> None:
        """What a node answered that had one loose transaction."""
        record = json.loads(vectors("skycoin/unconfirmed-txn-1.json").read_text())["record"]
        loose = decode_transaction(bytes.fromhex(record)[:-25])
        (taken,) = self.store.pool.add([loose], 1_535_637_620.0)
        self.assertTrue(taken.new)
        rows = golden("balance-affected-by-unconfirmed-txns")["addresses"]
        found = self.store.balance(map(parse_address, rows))
        shown = {address_text(address): asdict(balance) for address, balance in found.items()}
        self.assertEqual(shown, rows)

    def test_blocks_come_back(self) -> None:
        """By number, by hash, and as the bytes they came as."""
        for block in self.blocks:
            self.assertEqual(self.store.block(block.header.sequence), block)
        self.assertEqual(self.store.block(self.blocks[7].hash), self.blocks[7])
        self.assertIsNone(self.store.block(181))
        raw = self.store.raw_blocks(10, 20, 1 << 20)
        self.assertEqual(raw, [each.encode() for each in self.blocks[10:30]])
        self.assertEqual(len(self.store.raw_blocks(10, 20, len(raw[0]) + len(raw[1]))), 2)

    def test_histories(self) -> None:
        """Every transaction of an address, by pages, both ways."""
        address = parse_address("R6aHqKWSQfvpdo2fGSrq4F1RYXkBWR9HHJ")
        expected = [
            transaction.id
            for block in self.blocks
            for transaction in block.transactions
            if any(out.address == address for out in transaction.outputs)
            or any(
                kept is not None and kept.unspent.address == address
                for kept in map(self.store.output, transaction.inputs)
            )
        ]
        whole = self.store.history(address, 1_000)
        self.assertEqual([each.transaction.id for each in reversed(whole)], expected)
        first = self.store.history(address, 2)
        self.assertEqual(first, whole[:2])
        self.assertEqual(self.store.history(address, 2, before=first[-1].number), whole[2:4])
        self.assertEqual(self.store.history(address, 2, after=0), whole[::-1][:2])

    def test_outputs_know_who_spent_them(self) -> None:
        """The distribution spent the first output."""
        genesis = SKYCOIN.genesis.transactions[0].unspents(SKYCOIN.time, 0)[0]
        kept = self.store.output(genesis.id)
        assert kept is not None
        self.assertEqual(kept.unspent, genesis)
        self.assertEqual(kept.spent_in, 1)
        self.assertEqual(kept.spent_by, self.blocks[1].transactions[0].id)
        self.assertIsNone(self.store.find(genesis.id))
        found = self.store.transaction(self.blocks[1].transactions[0].id)
        assert found is not None
        self.assertEqual((found.block, found.time), (1, self.blocks[1].header.time))


class Rules(Stores):
    def test_a_bad_block_ends_the_run(self) -> None:
        """Those before it are kept, it and those after are not, and the store goes on."""
        chain = small_chain()
        ledger = Ledger(chain)
        store = self.open(chain)
        good = []
        for number in range(2, 5):
            block = ledger.block(ledger.pay(number - 1, Output(owner(number), 1_000_000_000, 0)))
            ledger.add(block)
            good.append(block)
        spoilt = good[1].with_signature(bytes(65))
        added = store.add([good[0], spoilt, good[2]], [[signers(t) for t in b.transactions] for b in good])
        assert added.refused is not None
        self.assertEqual((len(added.applied), added.refused.rule), (1, "seal"))
        self.assertEqual(store.head.header.sequence, 1)
        self.add(store, good[1:])
        self.assertEqual(store.head, ledger.head)
        self.assertEqual(store.coins(owner(4)), 1_000_000_000)
        self.assertEqual(store.coins(owner(2)), 0)

    def test_another_chain(self) -> None:
        """A store is not opened as that of another chain."""
        path = self.mktemp() + "/chain.db"
        open_store(RealDisk(), path, SKYCOIN).close()
        self.assertRaises(LocalError, open_store, RealDisk(), path, small_chain())
        store = open_store(RealDisk(), path, SKYCOIN)
        self.addCleanup(store.close)
        self.assertEqual(store.head.header.sequence, 0)
