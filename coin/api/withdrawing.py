"""Withdrawals: each id is paid by one transaction, whatever is retried, and whenever the node dies.

    asked ── chosen and signed ── recorded (durable) ── into the pool, told to peers ── in a block

Before `recorded` nothing has happened: nobody but this process has seen the transaction. From then on it is
the only one that this id will ever have; it is sent again and again, which never pays twice, until a block
has it or one that spends the same. Blocks are final, so either is for good. What it spends is kept from other
withdrawals meanwhile.

One is made after the other, and a client that goes away does not stop what was begun for it.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final, Protocol

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger
from twisted.python.failure import Failure

from coin.api.refusals import ApiError
from coin.api.view import View
from coin.api.withdrawal_book import NEVER, Row, Withdrawal, WithdrawalBook
from coin.chain.transaction import Transaction
from meshnet.errors import MeshError
from meshnet.limits import COIN_WITHDRAWALS_OPEN

_log = Logger()
OTHER: Final = (
    "Something else was asked under this id before: a withdrawal with another content has another id."
)


@frozen
class Asked:
    """A withdrawal as it is asked for: its id, the wallet that pays, and all else as JSON values."""

    id: str
    wallet: str
    rest: Mapping[str, Any]

    @property
    def text(self) -> str:
        """All of it in one form: the same for the same, whatever the order of names."""
        told = {"wallet": self.wallet, **self.rest}
        return json.dumps(told, sort_keys=True, separators=(",", ":"))


@frozen
class Fate:
    """What the chain says of a withdrawal: the block that has it (0: none yet, `NEVER`: `why`), whether it
    waits in this node's pool."""

    block: int = 0
    why: str = ""
    loose: bool = False


class Chain(Protocol):
    """What the flow asks of the node."""

    async def send(self, transactions: Sequence[Transaction]) -> Collection[bytes]:
        """Into the pool and to all peers; the ids of those that somebody who makes blocks may have now."""

    async def fates(self, withdrawals: Sequence[Withdrawal]) -> Sequence[Fate]:
        """What became of each."""


Write = Callable[..., Awaitable[Any]]
"""Runs a call in the thread that writes."""
Make = Callable[[Collection[bytes]], Awaitable[Transaction]]
"""Chooses and signs, without spending some outputs; raises ApiError."""


def fate_of(view: View, it: Transaction) -> Fate:
    """What became of a transaction, by what it spends: signing it again would change its id, not that."""
    for number in it.inputs:
        kept = view.store.output(number)
        if kept is None or kept.spent_by is None:
            continue
        by = view.store.transaction(kept.spent_by)
        if by is not None and by.transaction.inner == it.inner:
            return Fate(by.block)
        text = (
            f"{number.hex()}, which it spends, was spent by {kept.spent_by.hex()} in block {kept.spent_in}."
        )
        return Fate(NEVER, f"The output {text}")
    return Fate(loose=view.pool.get(it.id) is not None)


class Withdrawing:
    """See the module. `start` comes first."""

    def __init__(self, book: WithdrawalBook, chain: Chain, write: Write, unix: Callable[[], float]) -> None:
        self._book = book
        self._chain = chain
        self._write = write
        self._unix = unix
        self._lock = DeferredLock()
        self._open: dict[str, Withdrawal] = {}
        self._looking = False
        self.told: Callable[[Withdrawal, Fate], None] = lambda it, fate: None
        """Is told of each one that has come further."""

    @property
    def kept(self) -> frozenset[bytes]:
        """The outputs that are promised to withdrawals which are not settled."""
        return frozenset(number for each in self._open.values() for number in each.transaction.inputs)

    @property
    def count(self) -> int:
        """How many are not settled."""
        return len(self._open)

    async def start(self) -> None:
        """Takes up what was begun; raises StorageError. What was recorded is sent again later."""
        self._open = {each.id: each for each in await self._write(self._book.open)}

    def withdraw(self, asked: Asked, make: Make) -> Deferred[Withdrawal]:
        """The withdrawal of an id, made by `make` unless it was before; recorded and sent when it is there.
        Fails with ApiError, StorageError; then nothing was recorded, unless the disk failed."""
        waiting: Deferred[Withdrawal] = Deferred()
        work = Deferred.fromCoroutine(self._withdraw(asked, make))

        def done(result: Withdrawal | Failure) -> None:
            if not waiting.called:
                waiting.callback(result)
            elif isinstance(result, Failure) and not result.check(MeshError):
                _log.failure("a withdrawal failed that nobody waits for", result)

        work.addBoth(done)
        return waiting

    async def _withdraw(self, asked: Asked, make: Make) -> Withdrawal:
        await self._lock.acquire()
        try:
            known = await self.find(asked.id)
            if known is not None and known.asked != asked.text:
                raise ApiError(409, OTHER, field="id")
            if known is None:
                known = await self._record(asked, make)
        finally:
            self._lock.release()
        return known if known.settled or known.sent else await self._send(known)

    async def _record(self, asked: Asked, make: Make) -> Withdrawal:
        if len(self._open) >= COIN_WITHDRAWALS_OPEN:
            text = f"{COIN_WITHDRAWALS_OPEN} withdrawals are in no block yet; wait for the next ones."
            raise ApiError(503, text)
        made = await make(self.kept)
        new = Withdrawal(asked.id, asked.text, asked.wallet, int(self._unix()), made)
        await self._write(self._book.record, new)
        self._open[new.id] = new
        self.told(new, Fate())
        return new

    async def find(self, id: str) -> Withdrawal | None:
        """The one of an id, as it was last written."""
        found: Withdrawal | None = self._open.get(id) or await self._write(self._book.find, id)
        return found

    async def look_up(self, id: str) -> tuple[Withdrawal, Fate] | None:
        """One and what became of it by now."""
        found = await self.find(id)
        if found is None:
            return None
        if found.settled:
            return found, Fate(found.block, found.why)
        return found, (await self._chain.fates([found]))[0]

    async def page(
        self, after: int | None, limit: int, *, newest: bool, open_only: bool
    ) -> tuple[list[tuple[int, Withdrawal, Fate]], int]:
        """Some of them, each with the number of its row and its fate, and how many there are; see
        `WithdrawalBook.page`."""
        rows: list[Row] = await self._write(self._book.page, after, limit, newest=newest, open_only=open_only)
        total = self.count if open_only else await self._write(lambda: self._book.count)
        found = [self._open.get(each.withdrawal.id, each.withdrawal) for each in rows]
        lying = [each for each in found if not each.settled]
        fates = dict(zip((each.id for each in lying), await self._chain.fates(lying), strict=True))
        return [
            (row.number, it, fates.get(it.id) or Fate(it.block, it.why))
            for row, it in zip(rows, found, strict=True)
        ], total

    async def _send(self, it: Withdrawal) -> Withdrawal:
        await self._send_all([it])
        return self._open.get(it.id, it)

    async def _send_all(self, lying: Sequence[Withdrawal]) -> None:
        told = await self._chain.send([each.transaction for each in lying])
        fresh = [each.id for each in lying if each.transaction.id in told and not each.sent]
        if fresh:
            unix = int(self._unix())
            await self._write(self._book.sent, fresh, unix)
            for id in fresh:
                if id in self._open:
                    self._open[id] = evolve(self._open[id], sent=unix)
                    self.told(self._open[id], Fate(loose=True))

    async def tick(self) -> None:
        """Every now and then: what is in a block is settled, what lies about is sent again."""
        if self._looking or not self._open:
            return
        self._looking = True
        try:
            every = list(self._open.values())
            fates = await self._chain.fates(every)
            pairs = list(zip(every, fates, strict=True))
            settled = [evolve(it, block=fate.block, why=fate.why) for it, fate in pairs if fate.block]
            if settled:
                await self._write(self._book.settle, settled)
                for each in settled:
                    del self._open[each.id]
                    self.told(each, Fate(each.block, each.why))
            lying = [it for it, fate in pairs if not fate.block and not (fate.loose and it.sent)]
            if lying:
                await self._send_all(lying)
        finally:
            self._looking = False

    def close(self) -> None:
        """Closes the book; in the thread that writes."""
        self._book.close()
