"""The books of a node: the chain's service (store, pool, signatures in processes of their own) and what a
network asks of it.

The reactor's thread waits for none of them. What fails for a reason of our own (a full disk) is answered as
such, so that no peer is blamed for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from coin.chain.block import Block
from coin.chain.rules import Head
from coin.chain.transaction import Transaction
from coin.replication.books import Answer, Executed
from coin.replication.publisher import Publisher
from coin.store.pool import Taken
from coin.store.service import ChainService
from coin.store.store import Added
from meshnet.errors import MeshError, StorageError

P = ParamSpec("P")
T = TypeVar("T")
_log = Logger()


class StoreBooks:
    """See `Books`. `now` gives monotonic, `unix` wall seconds. `executed` blocks in `busy_seconds` (checked,
    applied and durable), `interval` seconds between the last two, `loose_count` and `loose_bytes` of the pool
    as of the last look are for people."""

    def __init__(self, service: ChainService, now: Callable[[], float], unix: Callable[[], float]) -> None:
        self.service = service
        self.store = service.store
        self.pool = service.store.pool
        self.busy_seconds = 0.0
        self.executed = 0
        self.interval = 0
        self.loose_count = 0
        self.loose_bytes = 0
        self._now = now
        self._unix = unix

    @property
    def height(self) -> int:
        """See `Books`."""
        return self.service.height

    def read(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Runs a look into the store or the pool in the reading thread."""
        return self.service.read(call, *args, **kwargs)

    def close(self) -> Deferred[None]:
        """Closes the store when all that waits is done."""
        return Deferred.fromCoroutine(self.service.close())

    # -- Books

    def execute(self, blocks: Sequence[Block], answer: Answer[Executed]) -> None:
        """See `Books`."""

        async def run() -> Executed:
            try:
                added = await self._add(blocks)
            except MeshError as error:
                return Executed(self.height, failed=error)
            except Exception:
                _log.failure("blocks could not be taken")
                return Executed(self.height, failed=StorageError("An internal error, see the log."))
            return Executed(self.height, added.refused)

        Deferred.fromCoroutine(run()).addCallback(answer)

    async def _add(self, blocks: Sequence[Block]) -> Added:
        begun, before = self._now(), self.store.head.header.time
        added = await self.service.add(blocks)
        self.busy_seconds += self._now() - begun
        self.executed += len(added.applied)
        for block in blocks[: len(added.applied)]:
            self.interval, before = block.header.time - before, block.header.time
        if self.loose_count:
            await self.read(self.count_pool)
        return added

    def restore(self, block: Block, answer: Answer[MeshError | None]) -> None:
        """See `Books`."""

        async def run() -> MeshError | None:
            try:
                await self.service.write(self.store.restore_block, block)
            except MeshError as error:
                return error
            except Exception:
                _log.failure("a block could not be restored")
                return StorageError("An internal error, see the log.")
            return None

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
                taken = await self.service.inject(transactions, self._unix())
            except MeshError as error:
                _log.error("loose transactions could not be kept: {why}", why=error)
                return []
            except Exception:
                _log.failure("loose transactions could not be kept")
                return []
            try:
                await self.read(self.count_pool)
            except MeshError as error:  # they are kept all the same
                _log.warn("the pool could not be counted: {why}", why=error)
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

        self.read(call, *args, **kwargs).addErrback(failed).addCallback(answer)

    # -- the pool

    def count_pool(self) -> None:
        """Looks how large the pool is. In the reading thread."""
        self.loose_count, self.loose_bytes = len(self.pool), self.pool.size

    async def refresh(self) -> list[bytes]:
        """Looks at the pool again; the ids of those that have become right."""
        righted = await self.service.write(self.pool.refresh, self._unix())
        await self.read(self.count_pool)
        return righted

    # -- making blocks

    async def publish(self, publisher: Publisher) -> Block | None:
        """Makes a block and stores it; None if there is nothing to put into one. Durable when it is done."""
        head = self.store.head
        block = publisher.owed(head)
        if block is None:
            candidates = await self.read(self.pool.candidates)
            if not candidates:
                return None
            block = await self.service.write(self._make, publisher, head, candidates)
        if block is None:
            return None
        added = await self._add([block])
        if added.refused is not None:
            raise added.refused
        return block

    def _make(self, publisher: Publisher, head: Head, candidates: Mapping[Transaction, int]) -> Block | None:
        if self.store.head.hash != head.hash:
            return None  # a block came in between; those candidates were for another head
        return publisher.make(head, candidates, self._unix())
