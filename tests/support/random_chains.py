"""Random right blocks from a seed: several transactions in each, with hours; and a slow look at them."""

from __future__ import annotations

import random
from collections import defaultdict
from itertools import pairwise

from attrs import evolve

from coin.chain.address import Address
from coin.chain.block import Block
from coin.chain.hours import forgiving_hours_at
from coin.chain.params import Chain
from coin.chain.rules import signers
from coin.chain.transaction import Output, Transaction, Unspent
from coin.store.store import ChainStore
from tests.support.chains import Ledger, owner, small_chain

OWNERS = 5


def shared_chain(volume: int = 1_000_000_000) -> Chain:
    """A chain whose distribution is owners 3 to 5, the first of them unlocked."""
    owners = tuple(owner(number) for number in range(3, OWNERS + 1))
    return small_chain(volume, distribution=owners, unlocked=1)


class RandomChain:
    """Makes blocks of payments among a few owners, and knows all that was in them."""

    def __init__(self, seed: int, chain: Chain) -> None:
        self.draw = random.Random(seed)
        self.chain = chain
        self.ledger = Ledger(chain)
        # All coins together earn what fits, or a right block could not spend them.
        self._long = 10_000_000 if chain.volume < 1 << 60 else 100_000
        self.made: list[tuple[int, Transaction, set[Address]]] = []
        """Block, transaction, whom it touches."""
        self.spent: dict[bytes, tuple[Unspent, ...]] = {}
        self._note(0, chain.genesis.transactions[0], ())

    def _note(self, block: int, it: Transaction, spent: tuple[Unspent, ...]) -> None:
        touched = {each.address for each in spent} | {each.address for each in it.outputs}
        self.made.append((block, it, touched))
        self.spent[it.id] = spent

    def block(self) -> Block:
        """The next block."""
        paid: list[Transaction] = []
        for payer in range(1, OWNERS + 1):
            mine = self.ledger.of(payer)
            while mine and (self.draw.random() < 0.6 or not (paid or payer < OWNERS)):
                spent = self.draw.sample(mine, self.draw.randint(1, min(3, len(mine))))
                mine = [each for each in mine if each not in spent]
                paid.append(self._pay(payer, spent))
        if not paid:
            payer = next(number for number in range(1, OWNERS + 1) if self.ledger.of(number))
            paid.append(self._pay(payer, self.ledger.of(payer)[:1]))
        block = self.ledger.block(*paid, after=self.draw.choice([1, 60, 3_600, self._long]))
        for it in paid:
            self._note(block.header.sequence, it, tuple(self.ledger.unspent[each] for each in it.inputs))
        self.ledger.add(block)
        return block

    def _pay(self, payer: int, spent: list[Unspent]) -> Transaction:
        draw, coins = self.draw, sum(each.coins for each in spent)
        hours = sum(self.hours(each) for each in spent)
        cuts = sorted({0, coins, *(draw.randint(1, coins) for _ in range(draw.randint(0, 2)))})
        outputs = []
        for low, high in pairwise(cuts):
            share = draw.randint(0, hours)
            hours -= share
            outputs.append(Output(owner(draw.randint(1, OWNERS)), high - low, share))
        if len(set(outputs)) < len(outputs):
            outputs = [evolve(outputs[0], coins=coins, hours=0)]
        return self.ledger.pay(payer, *outputs, inputs=spent)

    def hours(self, unspent: Unspent) -> int:
        """The hours of an output now."""
        now = self.ledger.head.header.time
        return forgiving_hours_at(unspent.coins, unspent.hours, unspent.time, now)

    def grow(self, store: ChainStore, count: int) -> None:
        """So many blocks more, in the store too."""
        blocks = [self.block() for _ in range(count)]
        added = store.add(blocks, [[signers(each) for each in block.transactions] for block in blocks])
        assert added.refused is None

    def owned(self) -> dict[Address, tuple[int, int]]:
        """Coins and hours of whoever owns any."""
        found: dict[Address, tuple[int, int]] = defaultdict(lambda: (0, 0))
        for each in self.ledger.unspent.values():
            coins, hours = found[each.address]
            found[each.address] = coins + each.coins, hours + self.hours(each)
        return dict(found)
