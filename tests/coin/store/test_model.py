"""Random chains in the store and in dictionaries: the same at every step. Wrong blocks change nothing."""

from __future__ import annotations

import random
import tempfile
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from coin.chain.block import Block, Header
from coin.chain.rules import signers
from coin.chain.transaction import Output, Transaction
from coin.store.store import ChainStore, open_store
from meshnet.storage.disk import RealDisk
from tests.support.chains import Ledger, owner, small_chain

CHAIN = small_chain(1_000_000_000)
OWNERS = 4


class Model:
    """A chain in dictionaries, which makes random right blocks."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.ledger = Ledger(CHAIN)
        self.history: dict[bytes, list[bytes]] = defaultdict(list)
        self.note(CHAIN.genesis.transactions[0], set())

    def note(self, it: Transaction, payers: set[bytes]) -> None:
        """A transaction is in the chain."""
        for address in payers | {out.address for out in it.outputs}:
            self.history[address].append(it.id)

    def block(self) -> Block:
        """The next block: some owners pay some of their outputs to others."""
        made = []
        for payer in range(1, OWNERS + 1):
            mine = self.ledger.of(payer)
            if mine and (self.draw.random() < 0.5 or (not made and payer == OWNERS)):
                spent = self.draw.sample(mine, self.draw.randint(1, min(3, len(mine))))
                made.append(self.ledger.pay(payer, *self.outputs(sum(e.coins for e in spent)), inputs=spent))
        if not made:
            payer = next(number for number in range(1, OWNERS + 1) if self.ledger.of(number))
            spent = self.ledger.of(payer)[:1]
            made.append(self.ledger.pay(payer, *self.outputs(spent[0].coins), inputs=spent))
        block = self.ledger.block(*made, after=self.draw.choice([1, 60, 100_000]))
        for it in made:
            self.note(it, {self.ledger.unspent[each].address for each in it.inputs})
        self.ledger.add(block)
        return block

    def outputs(self, coins: int) -> list[Output]:
        """All coins, to one or more, all different."""
        parts = self.draw.randint(1, 3)
        cuts = sorted({0, coins, *(self.draw.randint(1, coins) for _ in range(parts - 1))})
        shares = [high - low for low, high in pairwise(cuts)]
        outs = {Output(owner(self.draw.randint(1, OWNERS)), share, 0) for share in shares}
        left = coins - sum(each.coins for each in outs)
        return [*outs] if not left else [Output(owner(1), coins, 0)]


def signed(blocks: list[Block]) -> list[list[tuple[bytes, ...]]]:
    return [[signers(each) for each in block.transactions] for block in blocks]


class Random(SynchronousTestCase):
    @settings(max_examples=15, deadline=None)
    @given(st.integers(0, 1 << 32), st.lists(st.integers(1, 6), min_size=1, max_size=5))
    def test_the_same(self, seed: int, runs: list[int]) -> None:
        """After each run of blocks, every answer is that of the dictionaries."""
        model = Model(random.Random(seed))
        with tempfile.TemporaryDirectory() as folder:
            store = open_store(RealDisk(), f"{folder}/chain.db", CHAIN)
            for count in runs:
                blocks = [model.block() for _ in range(count)]
                added = store.add(blocks, signed(blocks))  # type: ignore[arg-type]
                self.assertIsNone(added.refused)
                self.same(store, model)
            self.assertTrue(store.check().whole)
            store.close()

    def same(self, store: ChainStore, model: Model) -> None:
        """The store says what the model says."""
        ledger = model.ledger
        self.assertEqual(store.head, ledger.head)
        self.assertEqual({each.id: each for each in store.all_unspents()}, ledger.unspent)
        owned: dict[bytes, int] = defaultdict(int)
        for each in ledger.unspent.values():
            owned[each.address] += each.coins
        self.assertEqual(dict(store.richest(100)), dict(owned))
        self.assertEqual((store.address_count(), store.unspent_count()), (len(owned), len(ledger.unspent)))
        for number in range(1, OWNERS + 1):
            address = owner(number)
            found = [each.transaction.id for each in store.history(address, 1_000)]
            self.assertEqual(found[::-1], model.history[address])
            self.assertEqual(store.transaction_count(address), len(found))
            self.assertEqual(set(store.unspents(address)), set(ledger.of(number)))
            self.assertEqual(store.balance([address])[address].confirmed.coins, owned.get(address, 0))


class Wrong(SynchronousTestCase):
    def test_nothing_changes(self) -> None:
        """Each wrong block is refused by its rule, and the store is as before to the last row."""
        model = Model(random.Random(1))
        store = open_store(RealDisk(), self.mktemp() + "/chain.db", CHAIN)
        self.addCleanup(store.close)
        blocks = [model.block() for _ in range(4)]
        store.add(blocks, signed(blocks))  # type: ignore[arg-type]
        ledger = model.ledger
        payer = next(number for number in range(1, OWNERS + 1) if ledger.of(number))
        mine = ledger.of(payer)[:1]
        right = ledger.pay(payer, Output(owner(9), mine[0].coins, 0), inputs=mine)
        again = ledger.pay(payer, Output(owner(8), mine[0].coins, 0), inputs=mine)
        foreign = ledger.pay(7, Output(owner(9), mine[0].coins, 0), inputs=mine)
        more = ledger.pay(payer, Output(owner(9), mine[0].coins + 1, 0), inputs=mine)

        def spoil(**changes: object) -> Callable[[Header], Header]:
            return lambda header: evolve(header, **changes)

        wrong = {
            "sequence": ledger.block(right, change=spoil(sequence=99)),
            "time": ledger.block(right, after=0),
            "previous": ledger.block(right, change=spoil(previous=bytes(32))),
            "body": ledger.block(right, change=spoil(body=bytes(32))),
            "unspents": ledger.block(right, change=spoil(unspents=bytes(32))),
            "seal": ledger.block(right, publisher=5),
            "empty": ledger.block(),
            "double spend": ledger.block(right, again),
            "owner": ledger.block(foreign),
            "insufficient coins": ledger.block(more),
            "unspent": ledger.block(blocks[-1].transactions[0]),
        }
        before = self.rows(store)
        for rule, block in wrong.items():
            added = store.add([block], signed([block]))  # type: ignore[arg-type]
            assert added.refused is not None, rule
            self.assertEqual(added.refused.rule, rule)
            self.assertEqual(self.rows(store), before, rule)
            self.assertEqual(store.head, ledger.head)
        good = ledger.block(right)
        self.assertIsNone(store.add([good], signed([good])).refused)  # type: ignore[arg-type]

    def rows(self, store: ChainStore) -> list[object]:
        """Every row of every table."""
        tables = ("block", "tx", "address", "output", "history", "tally", "loose")
        return [
            store._database.read(lambda c, t=table: c.execute(f"SELECT * FROM {t}"))  # type: ignore[misc]
            for table in tables
        ]
