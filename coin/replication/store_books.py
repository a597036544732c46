"""The books of a node: the chain's store and the pool, in threads of their own.

One thread writes (signatures, rules, commit, the pool), another reads (what peers and people ask). The
reactor's thread never waits for either. Signatures are nearly all of the work; libsecp256k1 leaves Python
free meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from coin.chain.block import Block
from coin.chain.rules import Head, RuleError, Signers, signers
from coin.chain.transaction import Transaction
from coin.replication.books import Answer, Executed
from coin.replication.publisher import Publisher
from coin.store.pool import Taken
from coin.store.store import ChainStore
from meshnet.errors import MeshError, StorageError
from meshnet.storage.service import DiskThread

P = ParamSpec("P")
T = TypeVar("T")
_log = Logger()


class StoreBooks:
    """See `Books`. `unix` gives wall seconds; `verify_seconds` and `executed` count, for metrics."""

    def __init__(self, reactor: Any, store: ChainStore, unix: Callable[[], float]) -> None:
        self.store = store
        self.pool = store.pool
        self.loose_count = 0
        self.loose_bytes = 0
        """The pool's size, as of the last look."""
        self.verify_seconds = 0.0
        self.executed = 0
        self.interval = 0
        """Seconds between the last two blocks."""
        self._unix = unix
        self._writer = DiskThread(reactor)
        self._reader = DiskThread(reactor)

    @property
    def height(self) -> int:
        """See `Books`."""
        return self.store.head.header.sequence

    def read(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Runs a look into the store or the pool in the reading thread."""
        return self._reader.call(call, *args, **kwargs)

    def close(self) -> Deferred[None]:
        """Closes the store when all that waits is done."""

        async def close() -> None:
            await self._writer.close()
            last = self._reader.call(self.store.close)
            await self._reader.close()
            await last

        return Deferred.fromCoroutine(close())

    # -- Books

    def execute(self, blocks: Sequence[Block], answer: Answer[Executed]) -> None:
        """See `Books`."""

        async def run() -> Executed:
            try:
                refused = await self._writer.call(self._add, blocks)
                await self._reader.call(self.count_pool)
            except MeshError as error:
                return Executed(self.height, failed=error)
            except Exception:
                _log.failure("blocks could not be taken")
                return Executed(self.height, failed=StorageError("An internal error, see the log."))
            return Executed(self.height, refused)

        Deferred.fromCoroutine(run()).addCallback(answer)

    def raw_blocks(self, after: int, count: int, most_bytes: int, answer: Answer[list[bytes]]) -> None:
        """See `Books`."""
        # Beyond the head nothing is there, and SQLite's integers end.
        start = min(after, self.height) + 1
        self._ask(answer, [], self.store.raw_blocks, start, count, most_bytes)

    def unknown(self, ids: Sequence[bytes], answer: Answer[list[bytes]]) -> None:
        """See `Books`."""

        self._ask(answer, [], self.pool.unknown, ids)

    def inject(self, transactions: Sequence[Transaction], answer: Answer[list[Taken]]) -> None:
        """See `Books`."""

        async def run() -> list[Taken]:
            try:
                taken = await self._writer.call(self.pool.add, transactions, self._unix())
                await self._reader.call(self.count_pool)
            except Exception:
                _log.failure("loose transactions could not be kept")
                return []
            return taken

        Deferred.fromCoroutine(run()).addCallback(answer)

    def loose(self, ids: Sequence[bytes], answer: Answer[list[bytes]]) -> None:
        """See `Books`."""

        def look() -> list[bytes]:
            return [loose.transaction.raw for each in ids if (loose := self.pool.get(each)) is not None]

        self._ask(answer, [], look)

    def pool_ids(self, answer: Answer[list[bytes]]) -> None:
        """See `Books`."""
        self._ask(answer, [], self.pool.valid)

    def _ask(
        self, answer: Answer[T], otherwise: T, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        def failed(failure: Failure) -> T:
            _log.failure("a question to the coin's store failed", failure)
            return otherwise

        self._reader.call(call, *args, **kwargs).addErrback(failed).addCallback(answer)

    # -- in the writing thread

    def _add(self, blocks: Sequence[Block]) -> RuleError | None:
        begun = time.perf_counter()
        signed: list[list[Signers]] = []
        refused: RuleError | None = None
        try:
            for block in blocks:
                signed.append([signers(each) for each in block.transactions])
        except RuleError as error:
            refused = error
        self.verify_seconds += time.perf_counter() - begun
        before = self.store.head.header.time
        added = self.store.add(blocks[: len(signed)], signed)
        taken = blocks[: len(added.applied)]
        self.executed += len(taken)
        for block in taken[-2:]:
            self.interval, before = block.header.time - before, block.header.time
        return added.refused or refused

    # -- the pool

    def count_pool(self) -> None:
        """Looks how large the pool is. In the reading thread."""
        self.loose_count, self.loose_bytes = len(self.pool), self.pool.size

    async def refresh(self) -> list[bytes]:
        """Looks at the pool again; the ids of those that have become right."""
        righted = await self._writer.call(self.pool.refresh, self._unix())
        await self._reader.call(self.count_pool)
        return righted

    # -- making blocks

    async def publish(self, publisher: Publisher) -> Block | None:
        """Makes a block and stores it; None if there is nothing to put into one. Durable when it is done."""
        head = self.store.head
        owed = publisher.owed(head)
        if owed is None:
            candidates = await self._reader.call(self.pool.candidates)
            if not candidates:
                return None
            owed = await self._writer.call(self._make, publisher, head, candidates)
        if owed is None:
            return None
        refused = await self._writer.call(self._add, [owed])
        if refused is not None:
            raise refused
        await self._reader.call(self.count_pool)
        return owed

    def _make(self, publisher: Publisher, head: Head, candidates: Any) -> Block | None:
        if self.store.head.hash != head.hash:
            return None  # a block came in between; those candidates were for another head
        return publisher.make(head, candidates, self._unix())
