"""Chains made for measuring: of any length, always the same, quick to make, kept for the next time.

`generated` gives a chain of equal blocks; `wide_chain` one with as many unspent outputs as are wanted. Keys
are made from numbers, so a chain needs no file but its blocks. Whatever is made keeps all rules.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final

from attrs import evolve, frozen

from coin.chain.address import Address, address_of
from coin.chain.block import Block, new_block
from coin.chain.hashing import xor
from coin.chain.params import Chain
from coin.chain.rules import Head, genesis_head
from coin.chain.signatures import sign
from coin.chain.transaction import Output, Transaction, Unspent, new_transaction
from coin.store.blockfile import read_blocks, write_blocks
from meshnet.cipher.keys import SecretKey
from meshnet.errors import MeshError
from meshnet.storage.disk import RealDisk

VOLUME: Final = 100_000_000_000_000
START: Final = 1_700_000_000
OWNERS: Final = 64
"""Keys that own the outputs."""
SPREAD: Final = 800
"""Outputs of a transaction that is as large as a pool takes."""
_SPACING: Final = 10  # seconds between blocks


def key(number: int) -> SecretKey:
    """The key pair of a number; 0 seals the blocks."""
    return SecretKey(sha256(b"generated %d" % number).digest())


def measured_chain() -> Chain:
    """The chain that is made here."""
    unsigned = Chain("measured", address_of(key(1).public), START, VOLUME, key(0).public, bytes(65))
    return evolve(unsigned, signature=sign(key(0), unsigned.genesis.hash))


@frozen
class _Owned:
    """An unspent output and the number of the key that owns it."""

    unspent: Unspent
    owner: int


class Maker:
    """Makes the blocks of `chain` one after the other; `owned` are the outputs to spend, the oldest first."""

    def __init__(self, chain: Chain) -> None:
        self.head, (first,) = genesis_head(chain.genesis)
        self.owned = deque([_Owned(first, 1)])
        self._keys = {number: key(number) for number in range(OWNERS + 2)}
        self._addresses = {number: address_of(each.public) for number, each in self._keys.items()}
        self._next = 2

    def pay(self, inputs: int, outputs: int) -> tuple[Transaction, list[int]]:
        """A transaction of the oldest outputs to new ones of about equal coins, and who owns those."""
        spent = [self.owned.popleft() for _ in range(inputs)]
        coins = sum(each.unspent.coins for each in spent)
        owners = [2 + (self._next + i) % OWNERS for i in range(outputs)]
        self._next += outputs
        # All different: two outputs of a transaction must not be equal.
        least, rest = divmod(coins - outputs * (outputs - 1) // 2, outputs)
        shares = [least + i for i in range(outputs)]
        shares[-1] += rest
        given = [Output(self._addresses[who], share, 0) for who, share in zip(owners, shares, strict=True)]
        return self._signed(spent, given), owners

    def spread(
        self, count: int, first: int | None = None, among: int = 1 << 62
    ) -> tuple[Transaction, list[int]]:
        """A transaction of the newest output to `count` addresses of nobody and one of ours, which gets the
        rest. They are new ones, or those from number `first` on, counted modulo `among`."""
        spent = self.owned.pop()
        base = self._next if first is None else first
        self._next += count
        given = [Output(nobody((base + i) % among), 1_000_000, 0) for i in range(count)]
        rest = spent.unspent.coins - count * 1_000_000
        return self._signed([spent], [*given, Output(self._addresses[2], rest, 0)]), [0] * count + [2]

    def fill(self, address: Address, count: int, each: int) -> tuple[Transaction, list[int]]:
        """A transaction of the newest output to `count` of one address, of `each` droplets and a little more,
        and one of ours, which gets the rest."""
        spent = self.owned.pop()
        given = [Output(address, each + 1_000 * i, 0) for i in range(count)]
        rest = spent.unspent.coins - sum(out.coins for out in given)
        return self._signed([spent], [*given, Output(self._addresses[2], rest, 0)]), [0] * count + [2]

    def tip(self, number: int) -> tuple[Transaction, list[int]]:
        """A transaction of the oldest output that gives one coin to a nobody and the rest back to us."""
        spent = self.owned.popleft()
        rest = Output(self._addresses[spent.owner], spent.unspent.coins - 1_000_000, 0)
        return self._signed([spent], [Output(nobody(number), 1_000_000, 0), rest]), [0, spent.owner]

    def _signed(self, spent: list[_Owned], given: list[Output]) -> Transaction:
        made = new_transaction([each.unspent.id for each in spent], given)
        self._spent = [*getattr(self, "_spent", []), *(each.unspent for each in spent)]
        return made.signed([self._keys[each.owner] for each in spent])

    def block(self, *made: tuple[Transaction, list[int]]) -> Block:
        """The next block, of transactions that were just made."""
        head = self.head
        time = head.header.time + _SPACING
        block = new_block(head.header, [it for it, _ in made], time=time, fee=0, unspents=head.unspents)
        block = block.with_signature(sign(self._keys[0], block.hash))
        total = head.unspents
        for unspent in self._spent:
            total = xor(total, unspent.snapshot)
        self._spent = []
        for it, owners in made:
            for unspent, owner in zip(it.unspents(time, block.header.sequence), owners, strict=True):
                total = xor(total, unspent.snapshot)
                if owner:
                    self.owned.append(_Owned(unspent, owner))
        self.head = Head(block.header, block.hash, total)
        return block


def generated(count: int, transactions: int = 3, inputs: int = 2) -> Iterator[Block]:
    """Blocks 1 to `count` of the measured chain: the first makes outputs to spend, the others have
    `transactions` of `inputs` inputs and as many outputs."""
    maker = Maker(measured_chain())
    yield maker.block(maker.pay(1, 2 * transactions * inputs))
    for _ in range(count - 1):
        yield maker.block(*(maker.pay(inputs, inputs) for _ in range(transactions)))


def wide_chain(outputs: int, spendable: int = 400) -> tuple[list[Block], Maker]:
    """Blocks that leave about so many outputs unspent, and who can make more of them."""
    maker = Maker(measured_chain())
    blocks = []
    for left in range(outputs, 0, -10_000):
        blocks.append(maker.block(maker.spread(min(10_000, left))))
    blocks.append(maker.block(maker.pay(1, spendable)))
    return blocks, maker


def busy_chain(outputs: int, addresses: int, busy: int) -> tuple[list[Block], Maker]:
    """Blocks that leave about `outputs` unspent, of `addresses` nobodies; `busy` transactions, a hundred in a
    block, touch the one of number 0. And who can make more."""
    maker = Maker(measured_chain())
    blocks = [maker.block(maker.pay(1, 100))]
    for _ in range(busy // 100):
        blocks.append(maker.block(*(maker.tip(0) for _ in range(100))))
    size = min(SPREAD, addresses)
    for at in range(0, outputs - busy, size):
        blocks.append(maker.block(maker.spread(size, at % addresses, addresses)))
    return blocks, maker


def kept_chain(count: int, transactions: int = 3, inputs: int = 2) -> Path:
    """A block file of `generated`, in the directory for temporary files, made if it is not there."""
    folder = Path(tempfile.gettempdir()) / "meshnet-chains"
    path = folder / f"generated-{count}-{transactions}-{inputs}.blocks"
    disk, chain = RealDisk(), measured_chain()
    try:
        if sum(1 for _ in read_blocks(disk, path)) == count + 1:
            return path
    except MeshError:
        pass
    write_blocks(disk, path, (chain.genesis, *generated(count, transactions, inputs)))
    return path


def nobody(number: int) -> Address:
    """An address whose key nobody has."""
    return Address(b"\0" + sha256(b"nobody %d" % number).digest()[:20])
