"""Stores of older versions open as if they had been written by this one."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from coin.store.store import open_store
from meshnet.storage.disk import RealDisk
from tests.support.chains import owner
from tests.support.old_stores import write_old_store
from tests.support.random_chains import RandomChain, shared_chain


class Versions(SynchronousTestCase):
    def test_the_first(self) -> None:
        """Version 1 is brought up to date behind a copy: every row is what the blocks make today, and it goes
        on from there."""
        model = RandomChain(3, shared_chain((1 << 41) + 7))
        for _ in range(6):
            model.block()
        path = self.mktemp() + "/chain.db"
        write_old_store(RealDisk(), path, model.chain, model.ledger.blocks)
        store = open_store(RealDisk(), path, model.chain)
        self.addCleanup(store.close)
        self.assertTrue(os.path.exists(path + ".v1"))
        self.assertEqual(store.check().faults, ())
        self.assertEqual(store.head, model.ledger.head)
        model.grow(store, 2)
        self.assertEqual(store.check().faults, ())
        owned = model.owned()
        found = store.balance([owner(1)])[owner(1)].confirmed
        self.assertEqual((found.coins, found.hours), owned.get(owner(1), (0, 0)))
