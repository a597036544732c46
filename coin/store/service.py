"""The chain's store for a node: off the reactor's thread, signatures in other processes.

One thread writes (rules, commits), one reads (what peers and people ask), a few wait for the processes that
check signatures. Blocks are checked as soon as they are given, while those before them are still written,
and added in the order they were given.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorThreads
from twisted.internet.threads import deferToThreadPool

from coin.chain.block import Block
from coin.chain.rules import Applied, Signers
from coin.chain.transaction import Transaction
from coin.store.integrity import Progress, Report
from coin.store.pool import Taken
from coin.store.reading import SteadyReader, StoreReader
from coin.store.signing import Signing
from coin.store.store import Added, ChainStore
from coin.store.verdicts import Verdict
from meshnet.errors import StorageError
from meshnet.limits import COIN_RUNS
from meshnet.storage.service import DiskThread, ReadThread

P = ParamSpec("P")
T = TypeVar("T")
PAUSE: Final = 0.05
"""Seconds that a look at the store waits between two pieces of it: it leaves the core to others."""


def _nobody(*_: object) -> None:
    """Nobody wants to know."""


class ChainService:
    """A store under a reactor; the store and `signing` belong to it from now on.

    `added` is told of blocks that are in the store and what each changed; `came` of a loose transaction that
    is in the pool, who signed its inputs, and what soft rule it breaks, empty if none. Both in the reactor's
    thread, before whoever gave them gets an answer."""

    def __init__(
        self, reactor: IReactorThreads | IReactorFromThreads, store: ChainStore, signing: Signing
    ) -> None:
        self.store = store
        self.signing = signing
        self.added: Callable[[Sequence[Block], Sequence[Applied]], None] = _nobody
        self.came: Callable[[Transaction, Signers, str], None] = _nobody
        self._reactor: Any = reactor
        self._writer = DiskThread(reactor)
        self._reader = DiskThread(reactor) if store.separate_reader else self._writer
        self._checker = DiskThread(reactor) if store.separate_reader else self._writer
        self._asker = ReadThread(reactor) if store.separate_reader else self._writer
        self._steady: SteadyReader | None = None
        self._ending = threading.Event()
        self._runs = 0
        self._last: Deferred[None] = Deferred()
        self._last.callback(None)

    @property
    def height(self) -> int:
        """The sequence of the last block."""
        return self.store.head.header.sequence

    def read(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """The result of a method of the store or the pool that only reads."""
        return self._reader.call(call, *args, **kwargs)

    def ask(self, call: Callable[[StoreReader], T]) -> Deferred[T]:
        """What `call` finds in one state of the store. It has a thread and a connection of its own: questions
        of the network (`read`) do not wait for it, however long it takes."""
        return self._asker.call(self._ask, call)

    def _ask(self, call: Callable[[StoreReader], T]) -> T:
        if self._steady is None:
            self._steady = self.store.beside()
        with self._steady.steadily() as reader:
            return call(reader)

    def write(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """The result of one that writes; durable when it is there."""
        return self._writer.call(call, *args, **kwargs)

    def add(self, blocks: Sequence[Block]) -> Deferred[Added]:
        """Checks blocks and adds them, behind those given before; durable when the answer is there.

        Fails with StorageError, also when more than `COIN_RUNS` runs wait.
        """
        if self._runs >= COIN_RUNS:
            refused: Deferred[Added] = Deferred()
            refused.errback(
                StorageError("The coin's store takes no more blocks now: a slow disk or machine.")
            )
            return refused
        self._runs += 1
        checking = self._off(self.signing.blocks, blocks)
        before, self._last = self._last, Deferred()
        return Deferred.fromCoroutine(self._add(blocks, checking, before, self._last))

    async def _add(
        self,
        blocks: Sequence[Block],
        checking: Deferred[list[Verdict]],
        before: Deferred[None],
        done: Deferred[None],
    ) -> Added:
        try:
            try:
                verdicts = await checking
            finally:
                await before
            signed = [each.signed for each in verdicts]
            refusals = [each.refusal for each in verdicts]
            added = await self._writer.call(self.store.add, blocks, signed, refusals)
            self.added(blocks[: len(added.applied)], added.applied)
            return added
        finally:
            self._runs -= 1
            done.callback(None)

    def check(self, progress: Progress) -> Deferred[Report]:
        """Looks at all of the store (see `ChainStore.check`), slowly, beside everything else; `progress` is
        called in the reactor's thread. StorageError when the store closes meanwhile."""

        def pace(sequence: int) -> None:
            self._reactor.callFromThread(progress, sequence)
            if self._ending.wait(PAUSE if sequence else 0.0):
                raise StorageError("The look at the store was ended with the node.")

        return self._checker.call(self.store.check, pace)

    async def inject(self, transactions: Sequence[Transaction], unix: float) -> list[Taken]:
        """Takes loose transactions into the pool, as many as it may; durable when the answer is there."""
        signed = await self._off(self.signing.transactions, transactions)
        taken = await self._writer.call(self.store.pool.add, transactions, unix, signed)
        for it, who, each in zip(transactions, signed, taken, strict=True):
            if each.new and not each.full and who is not None:
                self.came(it, who, str(each.refused or ""))
        return taken

    async def close(self) -> None:
        """Takes no more; done when all that waits is committed, the store closed and the processes ended."""
        self._ending.set()
        if self._checker is not self._writer:
            await self._checker.close()
        await self._last
        if self._reader is not self._writer:
            await self._reader.close()
            await self._asker.close()
        if self._steady is not None:
            self._steady.close()
        last = self._writer.call(self.store.close)
        await self._writer.close()
        await self._off(self.signing.close)
        await last

    def _off(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), call, *args, **kwargs)
