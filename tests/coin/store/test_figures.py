"""Sums that indexes give are those of all outputs, one by one: on random chains, with hours of any size."""

from __future__ import annotations

import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from coin.chain.address import Address
from coin.chain.amounts import DROPLETS
from coin.chain.params import Chain
from coin.chain.rules import signers
from coin.chain.transaction import Output, Transaction
from coin.store import figures
from coin.store.figures import Amount, Balance, Supply, hours_of
from coin.store.store import ChainStore, open_store
from meshnet.storage.disk import RealDisk
from tests.support.chains import Ledger, owner
from tests.support.random_chains import OWNERS, RandomChain, shared_chain

VOLUMES = (1_000_000_000, 10**14, (1 << 41) + 7, (1 << 62) + 1)
"""The last two begin with an output that is wide, and in one all sums leave 63 bits after a while."""


def supply_by_hand(model: RandomChain) -> Supply:
    """The supply from every output."""
    chain, owned = model.chain, model.owned()
    free = frozenset(chain.distribution) - chain.locked
    total = len(free) * chain.share * DROPLETS
    hours = {address: each[1] for address, each in owned.items() if address not in chain.locked}
    return Supply(
        head=model.ledger.head,
        current=total - sum(owned.get(each, (0, 0))[0] for each in free),
        total=total,
        most=chain.supply * DROPLETS,
        current_hours=sum(each for address, each in hours.items() if address not in free),
        total_hours=sum(hours.values()),
        unspents=len(model.ledger.unspent),
        owners=len(owned),
    )


def richest_by_hand(model: RandomChain, without: frozenset[Address]) -> list[tuple[Address, int]]:
    """All owners, the richest first."""
    owned = [(address, coins) for address, (coins, _) in model.owned().items() if address not in without]
    return sorted(owned, key=lambda each: (-each[1], each[0] not in model.chain.locked, each[0]))


class Sums(SynchronousTestCase):
    @settings(max_examples=24, deadline=None)
    @given(st.integers(0, 1 << 32), st.sampled_from(VOLUMES), st.lists(st.integers(1, 5), max_size=4))
    def test_the_same(self, seed: int, volume: int, runs: list[int]) -> None:
        """Supply, balances and the rich list after each run of blocks."""
        model = RandomChain(seed, shared_chain(volume))
        addresses = [owner(number) for number in range(OWNERS + 2)]
        with tempfile.TemporaryDirectory() as folder:
            store = open_store(RealDisk(), f"{folder}/chain.db", model.chain)
            for count in (*runs, 0):
                model.grow(store, count)
                self.assertEqual(store.supply(), supply_by_hand(model))
                found = store.balance(addresses)
                self.assertEqual(list(found), addresses)
                for address in addresses:
                    amount = Amount(*model.owned().get(address, (0, 0)))
                    self.assertEqual(found[address], Balance(amount, amount))
                for without in (frozenset[Address](), frozenset(model.chain.distribution)):
                    whole = richest_by_hand(model, without)
                    for most in (1, 2, 100):
                        self.assertEqual(store.richest(most, without=without), whole[:most])
            store.close()

    def test_an_index_has_all_that_sums_need(self) -> None:
        """SQLite must not look into the table for each output: sums would take three times as long."""
        store = open_store(RealDisk(), self.mktemp() + "/chain.db", shared_chain())
        self.addCleanup(store.close)
        asked: list[str] = []

        def look(connection: object) -> None:
            class Seen:
                """Passes statements on and keeps their plans."""

                def execute(self, statement: str, parameters: object = ()) -> object:
                    rows = connection.execute("EXPLAIN QUERY PLAN " + statement, parameters)  # type: ignore[attr-defined]
                    asked.extend(f"{row[3]}: {statement}" for row in rows if "sum(" in statement)
                    return connection.execute(statement, parameters)  # type: ignore[attr-defined]

                def rows(self, statement: str, parameters: object = ()) -> object:
                    return iter(self.execute(statement, parameters))  # type: ignore[call-overload]

            figures.supply(Seen(), store.chain)  # type: ignore[arg-type]
            figures.balances(Seen(), store.chain, [owner(1)])  # type: ignore[arg-type]

        store._database.read(look)
        self.assertTrue(asked)
        for plan in asked:
            self.assertIn("USING COVERING INDEX output_unspent", plan)

    def test_hours_that_do_not_fit(self) -> None:
        """An output whose hours leave 64 bits, in any step of the formula, counts none."""
        self.assertEqual(hours_of(1 << 62, (1 << 64) - 1, 0, 10_000), 0)
        self.assertEqual(hours_of(1 << 63, 0, 0, 1 << 60), 0)
        self.assertEqual(hours_of(1, 5, 10, 0), 5)


class Edges(SynchronousTestCase):
    """Chains made for one case each."""

    def grown(self, ledger: Ledger, *blocks: tuple[list[Transaction], int]) -> ChainStore:
        """A store of blocks of these transactions, each so many seconds after the one before."""
        store = open_store(RealDisk(), self.mktemp() + "/chain.db", ledger.chain)
        self.addCleanup(store.close)
        for paid, after in blocks:
            block = ledger.block(*paid, after=after)
            ledger.add(block)
            added = store.add([block], [[signers(each) for each in block.transactions]])
            self.assertIsNone(added.refused)
        return store

    def test_more_than_63_bits(self) -> None:
        """Coins times seconds that fit into 64 bits only, and those that do not even fit there, which count
        no hours: exact, in sums too."""
        for seconds, some in ((3_000_000, True), (10_000_000, False)):
            ledger = Ledger(shared_chain((1 << 62) + 1))
            most = Output(owner(2), 1 << 62, 5)
            first = ledger.pay(1, most, Output(owner(1), 1, 0))
            small = first.unspents(0, 1)[1]
            second = ledger.pay(1, Output(owner(1), 1, 0), inputs=[small])
            store = self.grown(ledger, ([first], 1), ([second], seconds))
            found = store.balance([owner(2)])[owner(2)].confirmed
            self.assertEqual(found.hours > 0, some)
            self.assertEqual(found.hours, hours_of(1 << 62, 5, 0, seconds))
            self.assertEqual(store.supply().total_hours, found.hours)

    def test_when_all_is_taken_one_by_one(self) -> None:
        """With more outputs than could be summed safely."""
        ledger = Ledger(shared_chain())
        store = self.grown(ledger, ([ledger.pay(1, Output(owner(2), 1_000_000_000, 5))], 1))
        counts: list[int] = []

        class Counted:
            """A store of as many outputs."""

            def execute(self, statement: str) -> list[tuple[int]]:
                return [(counts[-1],)]

        for count, fits in ((1_000, True), (8_000_000, True), (9_000_000, False)):
            counts.append(count)
            found = figures._fits(Counted(), store.chain, store.head.header.time)  # type: ignore[arg-type]
            self.assertEqual(found, fits)

    def test_as_rich_as_others(self) -> None:
        """Of those that own the same, locked ones come first, then the smaller address; however many are
        asked for."""
        ledger = Ledger(shared_chain())
        paid = ledger.pay(1, *(Output(owner(number), 200_000_000, 0) for number in range(2, 7)))
        store = self.grown(ledger, ([paid], 1))
        locked, others = [owner(4), owner(5)], [owner(2), owner(3), owner(6)]
        order = [*sorted(locked), *sorted(others)]
        for most in range(6):
            self.assertEqual([each for each, _ in store.richest(most)], order[:most])
        left = [each for each in order if each not in store.chain.distribution]
        without = frozenset(store.chain.distribution)
        self.assertEqual([each for each, _ in store.richest(10, without=without)], left)


class Pool(SynchronousTestCase):
    def test_predicted(self) -> None:
        """What a loose transaction spends is gone from a balance, and what it gives is there."""
        chain: Chain = shared_chain()
        ledger = Ledger(chain)
        store: ChainStore = open_store(RealDisk(), self.mktemp() + "/chain.db", chain)
        self.addCleanup(store.close)
        paid = ledger.pay(1, Output(owner(2), 400_000_000, 7), Output(owner(1), 600_000_000, 3))
        self.assertTrue(store.pool.add([paid], 1.7e9)[0].new)
        found = store.balance([owner(1), owner(2), owner(3)])
        self.assertEqual(found[owner(1)].confirmed, Amount(1_000_000_000, 1_000_000_000))
        self.assertEqual(found[owner(1)].predicted, Amount(600_000_000, 3))
        self.assertEqual(found[owner(2)], Balance(Amount(), Amount(400_000_000, 7)))
        self.assertEqual(found[owner(3)], Balance())
