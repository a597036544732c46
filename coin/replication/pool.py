"""Loose transactions: those that are right and in no block yet.

What breaks a hard rule never comes in; what breaks a soft one stays, marked, and goes into no block made
here. Of two that spend the same output both may stay until a block has one of them. With the pool full, the
one that burns the fewest hours for its bytes makes room. What no block takes is forgotten after days. The
pool knows the chain only by `find` and the time of the last block.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from attrs import define

from coin.chain.block import Block
from coin.chain.params import Chain, Limits
from coin.chain.rules import (
    Find,
    HardRuleError,
    RuleError,
    SoftRuleError,
    check_form,
    check_soft,
    check_spending,
    find_inputs,
    signers,
)  # fmt: skip
from coin.chain.transaction import Transaction
from coin.replication.books import Injected
from meshnet.limits import COIN_POOL, COIN_POOL_BYTES, COIN_POOL_SECONDS

CONFLICTS: Final = 4
"""Loose transactions that spend the same output."""


@define
class Loose:
    """A transaction of the pool: `received` in unix seconds, `fee` in hours, and the soft rule it breaks."""

    transaction: Transaction
    received: float
    fee: int
    refused: RuleError | None

    @property
    def rate(self) -> int:
        """What it burns for its bytes; one that breaks a rule is worth nothing."""
        return -1 if self.refused is not None else self.fee * 1024 // len(self.transaction.raw)


class Pool:
    """The pool of a chain. Not for two threads at a time."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._loose: dict[bytes, Loose] = {}
        self._spenders: dict[bytes, set[bytes]] = {}
        self.size = 0

    def __len__(self) -> int:
        return len(self._loose)

    def __contains__(self, number: object) -> bool:
        return number in self._loose

    def get(self, number: bytes) -> Loose | None:
        """The one of an id."""
        return self._loose.get(number)

    def all(self) -> Sequence[Loose]:
        """All, the oldest first."""
        return sorted(self._loose.values(), key=lambda each: each.received)

    def valid(self) -> list[bytes]:
        """Ids of those that break no rule."""
        return [number for number, loose in self._loose.items() if loose.refused is None]

    def spenders(self, output: bytes) -> frozenset[bytes]:
        """Ids of those that spend an output."""
        return frozenset(self._spenders.get(output, ()))

    def add(self, transaction: Transaction, find: Find, time: int, unix: float) -> Injected:
        """Takes one in; `time` is that of the last block."""
        number = transaction.id
        known = self._loose.get(number)
        if known is not None:
            return Injected(number, False, known.refused)
        try:
            check_form(transaction)
            inputs = find_inputs(transaction, find)
            fee = check_spending(transaction, inputs, signers(transaction), time, block=False)
        except HardRuleError as error:
            return Injected(number, False, error)
        loose = Loose(transaction, unix, fee, self._soft(transaction, find, time, self._chain.pool))
        if not self._make_room(loose):
            return Injected(number, False, loose.refused, full=True)
        self._loose[number] = loose
        self.size += len(transaction.raw)
        for each in transaction.inputs:
            self._spenders.setdefault(each, set()).add(number)
        return Injected(number, True, loose.refused)

    def _soft(self, transaction: Transaction, find: Find, time: int, limits: Limits) -> SoftRuleError | None:
        try:
            check_soft(transaction, find_inputs(transaction, find), time, limits, self._chain.locked)
        except SoftRuleError as error:
            return error
        return None

    def _make_room(self, loose: Loose) -> bool:
        size = len(loose.transaction.raw)
        rate = loose.rate
        if any(len(self._spenders.get(each, ())) >= CONFLICTS for each in loose.transaction.inputs):
            return False
        while len(self._loose) >= COIN_POOL or self.size + size > COIN_POOL_BYTES:
            least = min(self._loose.values(), key=lambda each: (each.rate, -each.received))
            if least.rate >= rate:
                return False
            self._remove(least.transaction.id)
        return True

    def _remove(self, number: bytes) -> None:
        loose = self._loose.pop(number, None)
        if loose is None:
            return
        self.size -= len(loose.transaction.raw)
        for each in loose.transaction.inputs:
            spenders = self._spenders[each]
            spenders.discard(number)
            if not spenders:
                del self._spenders[each]

    def confirm(self, blocks: Iterable[Block]) -> None:
        """There are new blocks: their transactions leave, and whatever else spends the same outputs."""
        for block in blocks:
            for transaction in block.transactions:
                self._remove(transaction.id)
                for each in transaction.inputs:
                    for number in self.spenders(each):
                        self._remove(number)

    def refresh(self, find: Find, time: int, unix: float) -> None:
        """Looks at all again, for a new head: hard rules, soft rules, age."""
        for number, loose in list(self._loose.items()):
            if loose.received + COIN_POOL_SECONDS < unix:
                self._remove(number)
                continue
            try:
                loose.refused = self._soft(loose.transaction, find, time, self._chain.pool)
            except HardRuleError:
                self._remove(number)

    def candidates(self, find: Find, time: int) -> Mapping[Transaction, int]:
        """Those that a block may take now, and their fees."""
        found = {}
        for loose in self._loose.values():
            try:
                refused = self._soft(loose.transaction, find, time, self._chain.block)
            except HardRuleError:
                continue
            if refused is None:
                found[loose.transaction] = loose.fee
        return found
