"""The pool of loose transactions: what comes in, what leaves, in what order."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import coin.store.pool as pool_module
from coin.chain.hours import hours_at
from coin.chain.params import Limits
from coin.chain.rules import HardRuleError, SoftRuleError, signers
from coin.chain.transaction import Output, Transaction
from coin.store.figures import Amount, Balance
from coin.store.pool import CONFLICTS, NEVER
from coin.store.store import ChainStore, open_store
from meshnet.limits import COIN_POOL_SECONDS
from meshnet.storage.disk import RealDisk
from tests.support.chains import HOUR, Ledger, owner, small_chain

COIN = 1_000_000
VOLUME = 1_000 * COIN


class Pools(SynchronousTestCase):
    """Key 1 has ten outputs of a hundred coins, new and with few hours."""

    def setUp(self) -> None:
        self.chain = small_chain(VOLUME)
        self.ledger = Ledger(self.chain)
        self.path = self.mktemp() + "/chain.db"
        self.store = self.open()
        shares = [Output(owner(1), 100 * COIN, number) for number in range(10)]
        self.block(self.ledger.pay(1, *shares))
        self.unix = float(self.store.head.header.time + 10)

    def open(self) -> ChainStore:
        """The store, closed at the end of the test."""
        store = open_store(RealDisk(), self.path, self.chain)
        self.addCleanup(store.close)
        return store

    def block(self, *transactions: Transaction, **more: Any) -> None:
        """One more block, in the ledger and in the store."""
        block = self.ledger.block(*transactions, **more)
        self.ledger.add(block)
        added = self.store.add([block], [[signers(each) for each in transactions]])
        self.assertIsNone(added.refused)

    def pay(self, number: int, hours: int = 0, to: int = 2) -> Transaction:
        """Output `number` of key 1, to another."""
        spent = self.ledger.of(1)[number]
        return self.ledger.pay(1, Output(owner(to), spent.coins, hours), inputs=[spent])

    def ripen(self, hours: int = 100) -> None:
        """Time goes by: key 1's outputs earn hours."""
        spent = self.ledger.of(1)[-1]
        self.block(self.ledger.pay(1, Output(owner(1), spent.coins, 0), inputs=[spent]), after=hours * HOUR)

    def hours(self, number: int) -> int:
        """The hours of an output of key 1 now."""
        it = self.ledger.of(1)[number]
        return hours_at(it.coins, it.hours, it.time, self.store.head.header.time)

    def add(self, *transactions: Transaction) -> list[Any]:
        """What became of each."""
        return self.store.pool.add(transactions, self.unix)


class ComingIn(Pools):
    def test_a_right_one(self) -> None:
        """It is there, again after the store was opened anew, until a block has it."""
        self.ripen()
        it = self.pay(0)
        (taken,) = self.add(it)
        self.assertEqual((taken.id, taken.new, taken.refused), (it.id, True, None))
        self.store.close()
        self.store = self.open()
        loose = self.store.pool.get(it.id)
        assert loose is not None
        self.assertEqual(loose.transaction, it)
        self.assertEqual((loose.received, loose.announced), (int(self.unix * 1e9), NEVER))
        self.assertEqual(self.store.pool.valid(), [it.id])
        self.assertEqual(self.store.pool.unknown([it.id, b"?" * 32]), [b"?" * 32])
        self.block(it)
        self.assertEqual(len(self.store.pool), 0)
        self.assertEqual(self.store.pool.unknown([it.id]), [])

    def test_twice(self) -> None:
        """The second time it is not new, and its age counts from the first."""
        self.ripen()
        it = self.pay(0)
        self.add(it)
        self.unix += 100
        (taken,) = self.add(it)
        self.assertFalse(taken.new)
        loose = self.store.pool.get(it.id)
        assert loose is not None
        self.assertEqual(loose.checked - loose.received, 100 * 10**9)

    def test_a_hard_rule(self) -> None:
        """It stays out; the others of the same call come in."""
        self.ripen()
        good = self.pay(0)
        spoilt = self.pay(1)
        bad = Transaction(
            spoilt.length, 0, spoilt.inner, (bytes(64) + b"\x09",), spoilt.inputs, spoilt.outputs
        )
        found = self.add(bad, good)
        self.assertIsInstance(found[0].refused, HardRuleError)
        self.assertEqual((found[0].new, found[1].new), (False, True))
        self.assertIsNone(self.store.pool.get(bad.id))
        found = self.store.pool.add([self.pay(2)], self.unix, [None])
        self.assertIsNone(found[0].refused, "None asks for the signers again")

    def test_a_soft_rule(self) -> None:
        """It comes in marked, goes into no block, and is right when its inputs have earned the fee."""
        (taken,) = self.add(self.pay(0, hours=self.hours(0) + 1))
        self.assertIsInstance(taken.refused, HardRuleError, "more hours than there are")
        self.ripen()
        tight = self.pay(0, hours=self.hours(0) - 1)
        (taken,) = self.add(tight)
        self.assertIsInstance(taken.refused, SoftRuleError)
        self.assertEqual(taken.refused.rule, "fee")
        self.assertTrue(taken.new)
        self.assertEqual(self.store.pool.valid(), [])
        self.assertEqual(self.store.pool.candidates(), {})
        self.assertEqual(self.store.pool.refresh(self.unix), [])
        self.ripen(200)
        self.assertEqual(self.store.pool.refresh(self.unix), [tight.id])
        self.assertEqual(list(self.store.pool.candidates()), [tight])
        self.assertEqual(self.store.pool.candidates()[tight], self.hours(0) - tight.outputs[0].hours)


class Leaving(Pools):
    def test_conflicts(self) -> None:
        """A few may spend the same output; all leave when a block spends it."""
        self.ripen()
        rivals = [self.pay(0, hours=number) for number in range(CONFLICTS + 1)]
        found = self.add(*rivals)
        self.assertEqual([each.new for each in found], [True] * CONFLICTS + [False])
        self.assertTrue(found[-1].full)
        self.assertEqual(len(self.store.pool.spenders(rivals[0].inputs[0])), CONFLICTS)
        self.block(rivals[2])
        self.assertEqual(self.store.pool.all(), [])

    def test_the_poorest_makes_room(self) -> None:
        """Full, the pool drops who burns least, and takes none that burns less."""
        self.ripen()
        self.patch(pool_module, "COIN_POOL", 3)
        rich, middle, poor = (self.pay(number, hours=10 * number) for number in range(3))
        self.add(poor, rich, middle)
        poorer, better = self.pay(3, hours=40), self.pay(4, hours=5)
        found = self.add(poorer, better)
        self.assertEqual([each.full for each in found], [True, False])
        self.assertEqual(set(self.store.pool.valid()), {rich.id, middle.id, better.id})
        self.assertEqual(self.store.pool.valid()[0], rich.id)

    def test_bytes(self) -> None:
        """Bytes are counted too."""
        self.ripen()
        self.patch(pool_module, "COIN_POOL_BYTES", 400)
        found = self.add(*(self.pay(number) for number in (3, 2, 1, 0)))
        self.assertLessEqual(self.store.pool.size, 400)
        self.assertTrue(any(each.full for each in found))

    def test_age(self) -> None:
        """Days later it is forgotten."""
        self.ripen()
        it = self.pay(0)
        self.add(it)
        self.store.pool.refresh(self.unix + COIN_POOL_SECONDS - 1)
        self.assertEqual(len(self.store.pool), 1)
        self.store.pool.refresh(self.unix + COIN_POOL_SECONDS + 1)
        self.assertEqual(len(self.store.pool), 0)


class Asked(Pools):
    def test_balance_with_the_pool(self) -> None:
        """What leaves and what comes is in the prediction; of rivals only the one that burns more."""
        self.ripen()
        it, rival = self.pay(0, hours=3), self.pay(0, hours=5, to=3)
        self.add(rival, it)
        found = self.store.balance([owner(1), owner(2), owner(3)])
        self.assertEqual(found[owner(2)], Balance(Amount(), Amount(100 * COIN, 3)))
        self.assertEqual(found[owner(3)], Balance(Amount(), Amount(100 * COIN, 5)))
        one = found[owner(1)]
        self.assertEqual(one.confirmed.coins - one.predicted.coins, 100 * COIN)
        self.assertEqual([each.transaction for each in self.store.pool.touching(owner(2))], [it])

    def test_limits_of_blocks(self) -> None:
        """What the pool takes and a block does not is no candidate."""
        self.ripen()
        it, tight = self.pay(0), self.pay(1, hours=7_000)
        self.add(it, tight)
        self.assertEqual(list(self.store.pool.candidates()), [it, tight])
        object.__setattr__(self.chain, "block", Limits(burn=2))
        self.assertEqual(list(self.store.pool.candidates()), [it])
