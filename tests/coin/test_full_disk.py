"""A disk that is full: whoever gives a transaction is told at every door that it was not kept; none waits for
ever."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from coin.api.settings import ApiSection
from coin.api.withdrawals import NodeChain
from coin.chain.rules import signers
from coin.chain.transaction import Output, Transaction
from coin.questions import Questions
from coin.store.pool import Taken
from coin.store.store import open_store
from lab.crash.sqlite import available, connect_on
from lab.simulation.disk import SimulatedDisk
from meshnet.errors import LocalError, StorageError
from tests.support.chains import Ledger, owner, small_chain
from tests.support.coinapi import Served

COINS = 1_000_000_000
NOT_KEPT = "The transaction could not be kept; the node's log says why."


@pytest.mark.skipif(not available(), reason="APSW is not installed; ./mesh test installs it")
class FullDisk(SynchronousTestCase):
    def setUp(self) -> None:
        """A chain whose disk takes no more bytes than it has."""
        disk = SimulatedDisk()
        disk.mkdir("/d")
        self.disk, self.ledger = disk, Ledger(small_chain(COINS))
        self.store = open_store(
            disk, "/d/chain.db", self.ledger.chain, connect=connect_on(disk), separate_reader=False
        )
        self.addCleanup(self.store.close)
        block = self.ledger.block(self.ledger.pay(1, Output(owner(1), COINS, 600)))
        self.ledger.add(block)
        self.store.add([block], [[signers(each) for each in block.transactions]])
        self.served = Served(self.store, ApiSection(csrf=False), publishes=True)
        disk.capacity = 0

    def pay(self) -> Transaction:
        """A right transaction."""
        return self.ledger.pay(1, Output(owner(2), COINS, 100))

    def test_the_api(self) -> None:
        """503, whether peers are to be told or not; afterwards there is room, and the same is taken."""
        it = self.pay()
        for more in ({}, {"no_broadcast": True}):
            with self.subTest(more=more):
                with capturedLogs() as logged:
                    answer = self.served.post("/api/v1/injectTransaction", {"rawtx": it.raw.hex(), **more})
                self.assertEqual(answer.text, f"503 Service Unavailable - {NOT_KEPT[:-1]}\n")
                self.assertIn("no space left", "".join(formatEvent(each) for each in logged))
        self.disk.capacity = None
        answer = self.served.post("/api/v1/injectTransaction", {"rawtx": it.raw.hex()})
        self.assertEqual(answer.json, it.id.hex())

    def test_the_control_route(self) -> None:
        """A sentence that blames this machine."""
        questions = Questions(self.ledger.chain, self.served.books, self.served.network)
        answer = questions.inject({"raw": self.pay().raw.hex()})
        self.assertEqual(str(self.failureResultOf(answer, LocalError).value), NOT_KEPT)

    def test_a_withdrawal(self) -> None:
        """What is recorded and finds no room in the pool is not sent yet, and will be; it is no failure."""
        chain = NodeChain(self.served.api.parts, self.served.api.look, lambda: 1.0)
        told = self.successResultOf(Deferred.fromCoroutine(chain.send([self.pay()])))
        self.assertEqual(told, frozenset())

    def test_what_cannot_be_counted(self) -> None:
        """A pool that took a transaction and then cannot be read has it nevertheless."""
        self.disk.capacity = None
        told: list[list[Taken]] = []
        self.patch(self.served.books, "count_pool", self.unreadable)
        self.served.books.inject([self.pay()], told.append)
        self.assertTrue(told[0][0].new)

    @staticmethod
    def unreadable() -> None:
        raise StorageError("The disk cannot be read.")
