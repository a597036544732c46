"""Making blocks: never two of one height, whatever was lost in between."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from coin.chain.block import Block
from coin.chain.transaction import Output, Transaction
from coin.replication.publisher import AHEAD, Promise, Publisher
from lab.simulation.disk import SimulatedDisk
from meshnet.errors import ConfigError, LocalError
from meshnet.storage.files import make_directory
from tests.support.chains import START, Ledger, key, owner, small_chain

PATH = "data/published"


class PublisherTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.chain = small_chain()
        self.ledger = Ledger(self.chain)
        self.disk = SimulatedDisk()
        make_directory(self.disk, "data")

    def publisher(self) -> Publisher:
        """As after a start."""
        return Publisher(self.chain, key(0), Promise(self.disk, PATH))

    def payment(self, coins: int = 1_000_000) -> Transaction:
        """One that is right."""
        (mine,) = self.ledger.of(1)
        return self.ledger.pay(
            1, Output(owner(2), coins, 1), Output(owner(1), mine.coins - coins, mine.hours // 2)
        )

    def make(self, publisher: Publisher, coins: int = 1_000_000, unix: float = START + 100) -> Block | None:
        """A block with a payment."""
        return publisher.make(self.ledger.head, {self.payment(coins): 5}, unix)

    def test_block(self) -> None:
        """It keeps all rules, says the fee, and its time grows even if the clock stands still."""
        publisher = self.publisher()
        for _ in range(3):
            (mine,) = self.ledger.of(1)
            payment = self.ledger.pay(1, Output(owner(1), mine.coins, 1))
            block = publisher.make(self.ledger.head, {payment: 9}, START)
            assert block is not None
            self.assertEqual(block.header.fee, 9)
            self.ledger.add(block)
        self.assertEqual([each.header.time - START for each in self.ledger.blocks], [0, 1, 2, 3])
        self.assertIsNone(publisher.make(self.ledger.head, {}, START + 9))

    def test_crash_before_the_store(self) -> None:
        """A signed block that was not stored is stored after the start, before any other of its height."""
        block = self.make(self.publisher())
        self.disk = self.disk.synced()
        again = self.publisher()
        self.assertEqual(again.owed(self.ledger.head), block)
        assert block is not None
        self.ledger.add(block)
        self.assertIsNone(again.owed(self.ledger.head))
        self.assertEqual(again.refusal(self.ledger.head, START + 100), "")

    def test_old_store(self) -> None:
        """With a store from a backup no block is made until it has caught up."""
        publisher = self.publisher()
        for coins in (1_000_000, 2_000_000, 3_000_000):
            block = self.make(publisher, coins)
            assert block is not None
            self.ledger.add(block)
        blocks, self.ledger = self.ledger.blocks, Ledger(self.chain)
        again = self.publisher()
        self.assertIn("Block 3 was signed here", again.refusal(self.ledger.head, START + 100))
        self.assertIsNone(self.make(again))
        for block in blocks[1:]:
            self.ledger.add(block)
        self.assertEqual(again.refusal(self.ledger.head, START + 100), "")

    def test_damaged_promise(self) -> None:
        """If the newest promise is damaged, the block after the one before counts as signed; if all are, no
        publisher starts."""
        publisher = self.publisher()
        for coins in (1_000_000, 2_000_000):
            block = self.make(publisher, coins)
            assert block is not None
            self.ledger.add(block)
        for slot, works in ((0, True), (1, False)):
            file = self.disk.open(f"{PATH}.{slot}", "write")
            file.pwrite(b"rot", 100)
            file.close()
            if works:
                self.assertEqual(Promise(self.disk, PATH).least, 2)
            else:
                self.assertRaises(LocalError, Promise, self.disk, PATH)

    def test_wrong_key_and_clock(self) -> None:
        """Another key is refused at once; with a clock far behind the chain no block is made."""
        self.assertRaises(ConfigError, Publisher, self.chain, key(5), Promise(self.disk, PATH))
        publisher, head = self.publisher(), self.ledger.head
        self.assertIn("clock", publisher.refusal(head, START - AHEAD - 1))
        for unix in (float(1 << 63), float("inf"), float("nan")):
            self.assertIn("clock", publisher.refusal(head, unix))
            self.assertIsNone(self.make(publisher, unix=unix))
