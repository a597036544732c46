"""A reader beside the store: one state for all that is asked inside, the present one the next time."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from coin.chain.rules import signers
from coin.chain.transaction import Output
from coin.store.store import open_store
from meshnet.errors import StorageError
from meshnet.storage.disk import RealDisk
from tests.support.chains import Ledger, owner, small_chain

COINS = 1_000_000_000


class Steady(SynchronousTestCase):
    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        self.ledger = Ledger(small_chain(COINS))
        self.store = open_store(RealDisk(), folder / "chain.db", self.ledger.chain)
        self.addCleanup(self.store.close)
        self.reader = self.store.beside()
        self.addCleanup(self.reader.close)

    def extend(self) -> None:
        """Everything of key 1 goes to key 1 and 2."""
        half = COINS // 2
        it = self.ledger.pay(1, Output(owner(1), half, 1), Output(owner(2), half, 1))
        block = self.ledger.block(it)
        self.ledger.add(block)
        assert self.store.add([block], [[signers(it)]]).refused is None

    def test_one_state(self) -> None:
        """A block that comes between two questions is in neither answer."""
        with self.reader.steadily() as look:
            before = look.balance([owner(1)])[owner(1)]
            self.extend()
            self.assertEqual(look.balance([owner(1)])[owner(1)], before)
            self.assertEqual((look.head.header.sequence, look.transaction_count()), (0, 1))
            self.assertEqual((look.pool.valid(), look.supply().unspents), ([], 1))
        with self.reader.steadily() as look:
            self.assertEqual((look.head, look.transaction_count()), (self.store.head, 2))
            self.assertEqual(look.supply(), self.store.supply())

    def test_pool_and_blocks(self) -> None:
        """A transaction is in the pool or in a block, never in both nor in none."""
        half = COINS // 2
        it = self.ledger.pay(1, Output(owner(2), half, 1), Output(owner(1), half, 2))
        self.store.pool.add([it], 1_700_000_100.0)
        block = self.ledger.block(it)
        with self.reader.steadily() as look:
            self.assertIsNone(look.transaction(it.id))
            self.assertIsNone(self.store.add([block], [[signers(it)]]).refused)
            self.assertEqual((look.transaction(it.id), look.pool.valid()), (None, [it.id]))
        self.assertEqual(self.reader.pool.valid(), [])
        self.assertIsNotNone(self.reader.transaction(it.id))

    def test_writes_nothing(self) -> None:
        """The connection only reads; an error leaves it as it was."""
        with self.assertRaises(StorageError), self.reader.steadily() as look:
            look.look(lambda connection: connection.execute("DELETE FROM block"))
        self.assertEqual(self.reader.transaction_count(), 1)
