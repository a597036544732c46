"""A store with wrong bytes anywhere: found, told, mended."""

from __future__ import annotations

import random
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from coin.chain.rules import signers
from coin.chain.transaction import Output
from coin.store.store import ChainStore, open_store
from meshnet.errors import LocalError
from meshnet.storage.database import Connection
from meshnet.storage.disk import CorruptFileError, RealDisk
from meshnet.storage.quarantine import Quarantine
from tests.support.chains import Ledger, owner, small_chain

CHAIN = small_chain(1_000_000_000)


def ledger_of(count: int) -> Ledger:
    """A chain of so many blocks, each with two transactions after the first."""
    ledger = Ledger(CHAIN)
    half = Output(owner(1), 500_000_000, 0)
    ledger.add(ledger.block(ledger.pay(1, half, Output(owner(2), 500_000_000, 0))))
    for _ in range(count - 1):
        made = [
            ledger.pay(who, *(Output(owner(who), each.coins, 0) for each in ledger.of(who))) for who in (1, 2)
        ]
        ledger.add(ledger.block(*made))
    return ledger


class Stores(SynchronousTestCase):
    ledger = ledger_of(12)

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.path = self.folder / "chain.db"
        self.store = self.open()
        blocks = self.ledger.blocks[1:]
        added = self.store.add(blocks, [[signers(each) for each in block.transactions] for block in blocks])
        self.assertIsNone(added.refused)

    def open(self) -> ChainStore:
        """The store, with a quarantine; closed with the test."""
        quarantine = Quarantine(RealDisk(), self.folder / "quarantine", lambda: 1.79e9)
        store = open_store(RealDisk(), self.path, CHAIN, quarantine=quarantine)
        self.addCleanup(store.close)
        return store

    def spoil(self, statement: str) -> None:
        """Changes a row behind the store's back."""

        def work(connection: Connection) -> None:
            connection.execute("PRAGMA defer_foreign_keys = 1")
            connection.execute(statement)
            self.assertGreater(connection.changes(), 0)

        self.store._database.write(work)


class Checking(Stores):
    def test_whole(self) -> None:
        """Nothing is wrong, and all blocks were looked at."""
        told: list[int] = []
        report = self.store.check(told.append)
        self.assertEqual((report.whole, report.blocks, told), (True, 13, [0]))

    def test_indexes(self) -> None:
        """Each wrong row of an index is found, and mended from the blocks, which all stay."""
        head = self.store.head
        for statement in (
            "UPDATE address SET coins = coins + 1 WHERE number = 2",
            "DELETE FROM history WHERE tx = 3",
            "INSERT INTO history VALUES (1, 999)",
            "UPDATE output SET spent = NULL WHERE number = 1",
            "UPDATE output SET hours = 7 WHERE number = 5",
            "UPDATE tx SET start = start + 1 WHERE number = 4",
            "UPDATE tally SET owners = 0",
            "UPDATE block SET total = zeroblob(32) WHERE sequence = 5",
            "UPDATE block SET time = 7 WHERE sequence = 5",
        ):
            self.spoil(statement)
            report = self.store.check()
            self.assertTrue(report.faults, statement)
            self.assertEqual(report.damaged, ())
            self.assertEqual(self.store.repair(), 0, statement)
            self.assertTrue(self.store.check().whole, statement)
            self.assertEqual(self.store.head, head)

    def test_a_block(self) -> None:
        """A damaged block is named, and put right with the same block of somebody else, nothing else."""
        raw = self.ledger.blocks[4].encode()
        for at in (5, 60, 130, len(raw) - 3):
            bad = raw[:at] + bytes([raw[at] ^ 4]) + raw[at + 1 :]
            self.spoil(f"UPDATE block SET data = x'{bad.hex()}' WHERE sequence = 4")
            self.assertEqual(self.store.check().damaged, (4,))
            self.assertRaises(
                LocalError, self.store.restore_block, self.ledger.blocks[5].with_signature(bytes(65))
            )
            self.assertRaises(
                LocalError, self.store.restore_block, self.ledger.blocks[4].with_signature(bytes(65))
            )
            self.store.restore_block(self.ledger.blocks[4])
            self.assertTrue(self.store.check().whole)
        self.spoil("UPDATE block SET hash = zeroblob(32) WHERE sequence = 6")
        self.assertIn(6, self.store.check().damaged)
        self.store.restore_block(self.ledger.blocks[6])
        self.assertTrue(self.store.check().whole)

    def test_without_the_block(self) -> None:
        """Repaired without it, the store ends before it, and takes it and the others again."""
        self.spoil("UPDATE block SET data = x'00' WHERE sequence = 7")
        self.assertRaises(CorruptFileError, self.store.transaction, self.ledger.blocks[7].transactions[0].id)
        self.assertEqual(self.store.repair(), 6)
        self.assertEqual(self.store.head.header.sequence, 6)
        self.assertTrue(self.store.check().whole)
        blocks = self.ledger.blocks[7:]
        self.store.add(blocks, [[signers(each) for each in block.transactions] for block in blocks])
        self.assertEqual(self.store.head, self.ledger.head)


class Files(Stores):
    def test_any_byte(self) -> None:
        """A byte of the closed file is changed: the store opens, whole, with the blocks it could read."""
        it = self.ledger.pay(1, Output(owner(9), sum(each.coins for each in self.ledger.of(1)), 0))
        self.assertTrue(self.store.pool.add([it], 1.0)[0].new)
        self.store.close()
        right = self.path.read_bytes()
        state = Path(f"{self.path}.state").read_bytes()
        seed = random.randrange(1 << 32)
        print(f"seed {seed}")
        draw = random.Random(seed)
        kept = 0
        for _ in range(12):
            at = draw.randrange(len(right))
            spoilt = right[:at] + bytes([right[at] ^ (1 << draw.randrange(8))]) + right[at + 1 :]
            self.path.write_bytes(spoilt)
            Path(f"{self.path}.state").write_bytes(state)
            store = self.open()
            self.assertTrue(store.notes, f"byte {at}")
            self.assertTrue(store.check().whole, f"byte {at}")
            height = store.head.header.sequence
            self.assertEqual(store.head.hash, self.ledger.blocks[height].hash)
            kept += height
            store.close()
        self.assertGreater(kept, 0)

    def test_nothing_left(self) -> None:
        """Of a file of zeros the first block is made again."""
        self.store.close()
        self.path.write_bytes(bytes(8192))
        store = self.open()
        self.assertEqual(store.head.header.sequence, 0)
        self.assertTrue(store.check().whole)
