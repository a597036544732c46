"""Pages of transactions are cuts of the whole list, wherever they are cut and whichever end they begin at."""

from __future__ import annotations

import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from coin.chain.address import Address
from coin.store.pages import first_number, touching
from coin.store.store import open_store
from meshnet.storage.disk import RealDisk
from tests.support.chains import owner
from tests.support.random_chains import OWNERS, RandomChain, shared_chain


class Cuts(SynchronousTestCase):
    @settings(max_examples=12, deadline=None)
    @given(st.integers(0, 1 << 32), st.integers(1, 8), st.integers(1, 9))
    def test_the_same(self, seed: int, blocks: int, limit: int) -> None:
        """Of all, of nobody, of one and of several addresses; and what each transaction spends."""
        model = RandomChain(seed, shared_chain())
        several = [owner(1), owner(3), owner(3), owner(99)]
        questions: list[list[Address] | None] = [None, [], several, *([owner(n)] for n in range(OWNERS + 2))]
        with tempfile.TemporaryDirectory() as folder:
            store = open_store(RealDisk(), f"{folder}/chain.db", model.chain)
            model.grow(store, blocks)
            for addresses in questions:
                whole = sorted(
                    (block, it.id)
                    for block, it, touched in model.made
                    if addresses is None or not touched.isdisjoint(addresses)
                )
                for newest in (False, True):
                    order = whole[::-1] if newest else whole
                    for offset in range(0, len(whole) + limit, limit):
                        found = store.page(addresses, offset, limit, newest=newest)
                        self.assertEqual(found.total, len(whole))
                        cut = [(each.block, each.transaction.id) for each in found.transactions]
                        self.assertEqual(cut, order[offset : offset + limit])
                if addresses is not None and len(addresses) == 1:
                    self.assertEqual(store.transaction_count(addresses[0]), len(whole))
            every = [it for _, it, _ in model.made]
            self.assertEqual(store.spent_by(every), [model.spent[it.id] for it in every])
            self.assertTrue(store.check().whole)
            store.close()

    def test_numbers(self) -> None:
        """Where a block's transactions begin, and which of a range touch somebody."""
        model = RandomChain(5, shared_chain())
        store = open_store(RealDisk(), self.mktemp() + "/chain.db", model.chain)
        self.addCleanup(store.close)
        model.grow(store, 6)
        blocks = [block for block, _, _ in model.made]
        for sequence in range(7):
            first = store._database.read(lambda c, s=sequence: first_number(c, s))  # type: ignore[misc]
            self.assertEqual(first, blocks.index(sequence) + 1)
        end = store._database.read(lambda c: first_number(c, 7))
        self.assertEqual(end, len(blocks) + 1)
        wanted = [n for n, (_, _, touched) in enumerate(model.made, 1) if owner(2) in touched and 2 < n < end]
        found = store._database.read(lambda c: touching(c, [owner(2), owner(77)], 3, end, 1_000))
        self.assertEqual(found, wanted)
        found = store._database.read(lambda c: touching(c, None, 3, end, 2))
        self.assertEqual(found, [3, 4])
