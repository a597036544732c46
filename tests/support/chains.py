"""A small chain of our own for tests: keys, a first block, transactions right until a test breaks them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import evolve

from coin.chain.address import Address, address_of
from coin.chain.block import Block, Header, new_block
from coin.chain.hashing import sha256
from coin.chain.params import Chain
from coin.chain.rules import Applied, Head, apply_block, check_header, genesis_head, signers
from coin.chain.signatures import sign
from coin.chain.transaction import Output, Transaction, Unspent, new_transaction
from meshnet.cipher.keys import SecretKey

HOUR = 3600
START = 1_700_000_000


def key(number: int) -> SecretKey:
    """The key pair number `number`, always the same."""
    return SecretKey(sha256(b"test key %d" % number))


def owner(number: int) -> Address:
    """Its address."""
    return address_of(key(number).public)


def small_chain(volume: int = 1_000_000_000, **changes: Any) -> Chain:
    """A chain whose publisher is key 0, whose first coins belong to key 1."""
    unsigned = Chain("test", owner(1), START, volume, key(0).public, bytes(65))
    chain = evolve(unsigned, signature=sign(key(0), unsigned.genesis.hash), **changes)
    chain.check()
    return chain


class Ledger:
    """A chain in memory: the head, what is unspent, and all blocks."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.head, made = genesis_head(chain.genesis)
        self.unspent: dict[bytes, Unspent] = {each.id: each for each in made}
        self.blocks = [chain.genesis]

    def of(self, number: int) -> list[Unspent]:
        """What key `number` owns."""
        return [each for each in self.unspent.values() if each.address == owner(number)]

    def pay(
        self, payer: int, *outputs: Output, inputs: Sequence[Unspent] | None = None, signed: bool = True
    ) -> Transaction:
        """A transaction of all that `payer` owns (or of `inputs`) to `outputs`."""
        spent = self.of(payer) if inputs is None else inputs
        made = new_transaction([each.id for each in spent], outputs)
        return made.signed([key(payer)] * len(spent)) if signed else made

    def block(
        self,
        *transactions: Transaction,
        after: float = HOUR,
        change: Callable[[Header], Header] = lambda header: header,
        publisher: int = 0,
    ) -> Block:
        """The next block, sealed by `publisher`; `change` may spoil its header before."""
        made = new_block(
            self.head.header,
            transactions,
            time=self.head.header.time + int(after),
            fee=0,
            unspents=self.head.unspents,
        )
        made = Block(change(made.header), made.transactions)
        return made.with_signature(sign(key(publisher), made.hash))

    def check(self, block: Block) -> Applied:
        """All rules for a block; raises RuleError."""
        check_header(block, self.head, self.chain.seal)
        return apply_block(block, self.head, self.unspent.get, [signers(each) for each in block.transactions])

    def add(self, block: Block) -> Head:
        """Checks it and goes on from it."""
        applied = self.check(block)
        for each in applied.spent:
            del self.unspent[each.id]
        self.unspent.update((each.id, each) for each in applied.made)
        self.head = applied.head
        self.blocks.append(block)
        return self.head
