"""Storage for a program that runs on a reactor: in threads, one call after another, in the order asked.

Floor 2: the part of storage that knows Twisted. A sync takes milliseconds, during which the reactor must not
stand still, and costs the same for one record as for a thousand: so whatever comes while one runs goes
together with the next. `JournalService` and `DatabaseService` answer when what they were given is durable.

Nothing here writes by itself; what a caller may make wait has a named maximum.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from meshnet.errors import LocalError, StorageError
from meshnet.limits import DATABASE_BATCH, DATABASE_WAITING, JOURNAL_WAITING
from meshnet.storage.database import Database, Work
from meshnet.storage.disk import Bytes, StrPath
from meshnet.storage.journal import Journal

P = ParamSpec("P")
T = TypeVar("T")


class DiskThread:
    """Runs blocking calls in the reactor's thread pool, never two at a time.

    `reactor` is any with threads (`getThreadPool`, `callFromThread`). Whoever shares a `Journal` or a file
    between calls needs no lock as long as all of them go through one `DiskThread`.
    """

    def __init__(self, reactor: IReactorThreads | IReactorFromThreads) -> None:
        self._reactor: Any = reactor
        self._waiting: deque[tuple[Deferred[Any], Callable[[], Any]]] = deque()
        self._busy = False
        self._closing: list[Deferred[None]] = []
        self._closed = False

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Run `function` in the thread when those asked before are done; its result or its exception.

        A call that still waits can be cancelled; one that runs is finished, and its result forgotten.
        """
        result: Deferred[T] = Deferred()
        if self._closed:
            result.errback(LocalError("the disk thread is closed"))
            return result
        self._waiting.append((result, lambda: function(*args, **kwargs)))
        self._next()
        return result

    def close(self) -> Deferred[None]:
        """Take no more calls; fires when those that wait are done."""
        self._closed = True
        done: Deferred[None] = Deferred()
        self._closing.append(done)
        self._next()
        return done

    def _next(self) -> None:
        while self._waiting and not self._busy:
            result, function = self._waiting.popleft()
            if result.called:  # cancelled while it waited
                continue
            self._busy = True
            running = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), function)
            running.addBoth(self._finished, result)
        if not self._waiting and not self._busy:
            closing, self._closing = self._closing, []
            for done in closing:
                done.callback(None)

    def _finished(self, outcome: Any, result: Deferred[Any]) -> None:
        self._busy = False
        if not result.called:
            result.callback(outcome)
        self._next()


class ReadThread:
    """As `DiskThread`, for many short looks at a time: the thread goes from one call to the next, those that
    came meanwhile too, while the answers are on their way. That is less than half the work of a call."""

    def __init__(self, reactor: IReactorThreads | IReactorFromThreads) -> None:
        self._reactor: Any = reactor
        self._waiting: deque[tuple[Deferred[Any], Callable[[], Any]]] = deque()
        self._busy = False
        self._closing: list[Deferred[None]] = []
        self._closed = False

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """See `DiskThread`."""
        result: Deferred[T] = Deferred()
        if self._closed:
            result.errback(LocalError("the reading thread is closed"))
            return result
        self._waiting.append((result, lambda: function(*args, **kwargs)))
        self._begin()
        return result

    def close(self) -> Deferred[None]:
        """Take no more calls; fires when those that wait are done."""
        self._closed = True
        done: Deferred[None] = Deferred()
        self._closing.append(done)
        self._begin()
        return done

    def _begin(self) -> None:
        if self._busy:
            return
        if self._waiting:
            self._busy = True
            running = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), self._run)
            running.addBoth(self._over)
            return
        closing, self._closing = self._closing, []
        for done in closing:
            done.callback(None)

    def _run(self) -> None:
        """In the thread; the reactor's appends meanwhile."""
        while self._waiting:
            result, function = self._waiting.popleft()
            if result.called:  # cancelled while it waited
                continue
            try:
                outcome = function()
            except BaseException:
                outcome = Failure()
            self._reactor.callFromThread(self._answer, result, outcome)

    def _answer(self, result: Deferred[Any], outcome: Any) -> None:
        if not result.called:
            result.callback(outcome)

    def _over(self, outcome: object) -> None:
        self._busy = False
        self._begin()


Snapshot = Callable[[], Iterable[Bytes]]
"""The records that stand for all that was committed so far. Called in the reactor's thread, when the answers
to all earlier commits have been given and none of the later ones is written; iterated in the disk thread."""


class JournalService:
    """Group commit: `await service.commit(data)` by however many at a time, one write and one sync for all.

    With a `snapshot`, a journal larger than `compact_at` bytes is compacted, and one whose sync failed goes
    on in a new file, with the records of the failed batch behind the snapshot. Without, it stops: every
    commit then fails. The journal belongs to this service from now on.
    """

    def __init__(
        self,
        reactor: IReactorThreads | IReactorFromThreads,
        journal: Journal,
        snapshot: Snapshot | None = None,
        compact_at: int | None = None,
    ) -> None:
        self.journal = journal
        self._thread = DiskThread(reactor)
        self._snapshot = snapshot
        self._compact_at = compact_at
        self._records: list[Bytes] = []
        self._answers: list[Deferred[int]] = []
        self._size = 0
        self._compactions: list[Deferred[None]] = []
        self._running: Deferred[None] | None = None
        self._closed = False
        self.fault = ""
        """Why the journal could not be compacted the last time, in a sentence; empty if it could."""

    @property
    def waiting(self) -> int:
        """Records not yet given to the disk."""
        return len(self._records)

    def commit(self, data: Bytes) -> Deferred[int]:
        """The sequence of the record, when it is durable. `data` must not change until then.

        Fails with StorageError: then it is not in the journal, or, if syncing failed, perhaps. Cancelling
        forgets the answer.
        """
        answer: Deferred[int] = Deferred()
        refusal = self._refusal(len(data))
        if refusal:
            answer.errback(StorageError(f"{self.journal.path} {refusal}"))
            return answer
        self._records.append(data)
        self._answers.append(answer)
        self._size += len(data)
        self._wake()
        return answer

    def compact(self) -> Deferred[None]:
        """Replace the journal by its snapshot; fires when the old file is gone."""
        done: Deferred[None] = Deferred()
        if self._snapshot is None or self._closed:
            done.errback(LocalError(f"{self.journal.path} is closed, or has no snapshot"))
            return done
        self._compactions.append(done)
        self._wake()
        return done

    async def close(self) -> None:
        """Take no more; done when all that waits is durable and the journal is closed."""
        self._closed = True
        if self._running is not None:
            await self._running
        last = self._thread.call(self.journal.close)
        await self._thread.close()
        await last

    def _refusal(self, size: int) -> str:
        """Why a record of this size cannot be taken; empty if it can."""
        if self._closed:
            return "is closed"
        if size > self.journal.record_maximum:
            return f"takes records of at most {self.journal.record_maximum} bytes, not {size}"
        if self._size + size > JOURNAL_WAITING:
            return f"takes no more now: {self._size} bytes wait for a slow disk"
        return ""

    def _wake(self) -> None:
        if self._running is None:
            self._running = Deferred()
            Deferred.fromCoroutine(self._run())

    async def _run(self) -> None:
        """Batch after batch until nothing waits; what comes while one is written makes the next."""
        while self._records or self._compactions:
            if self._compactions or self._large():
                await self._compact()
            if self._records:
                await self._commit()
        running, self._running = self._running, None
        if running is not None:
            running.callback(None)

    async def _commit(self) -> None:
        records, answers = self._records, self._answers
        self._records, self._answers, self._size = [], [], 0
        try:
            first = await self._write(records)
        except Exception as fault:
            for answer in answers:
                if not answer.called:
                    answer.errback(Failure(fault))
            return
        for sequence, answer in enumerate(answers, first):
            if not answer.called:  # cancelled meanwhile
                answer.callback(sequence)

    async def _write(self, records: list[Bytes]) -> int:
        """Make these records durable, if need be in a new file; the sequence of the first."""
        try:
            return await self._thread.call(self.journal.commit, records)
        except StorageError:
            if self.journal.broken is None or self._snapshot is None:
                raise
        every = [*self._snapshot(), *records]
        first = await self._thread.call(self.journal.compact, every)
        return first + len(every) - len(records)

    def _large(self) -> bool:
        """Whether the journal has outgrown what it may, and is not all snapshot again."""
        if self._snapshot is None or self._compact_at is None:
            return False
        return self.journal.size > max(self._compact_at, 2 * self.journal.least)

    async def _compact(self) -> None:
        waiting, self._compactions = self._compactions, []
        fault: Exception | None = None
        try:
            if self._snapshot is not None:
                await self._thread.call(self.journal.compact, list(self._snapshot()))
        except Exception as error:
            fault = error
            self.journal.least = self.journal.size  # by itself again only when it has doubled
        self.fault = str(fault or "")
        for done in waiting:
            if not done.called:
                if fault is None:
                    done.callback(None)
                else:
                    done.errback(Failure(fault))


class DatabaseService:
    """A database under a reactor: one thread writes, another reads, where it has a connection of its own.

    Writes that wait while one is committed share the next transaction and its sync; each is taken back alone
    if it raises. The database belongs to this service from now on.
    """

    def __init__(self, reactor: IReactorThreads | IReactorFromThreads, database: Database) -> None:
        self.database = database
        self._writer = DiskThread(reactor)
        self._reader = DiskThread(reactor) if database.separate_reader else self._writer
        self._works: list[tuple[Work[Any], Deferred[Any]]] = []
        self._busy = False
        self._closed = False

    def write(self, work: Work[T]) -> Deferred[T]:
        """The result of `work(connection)` in a transaction, when that is committed; else its exception.

        Cancelled while it waits it does not run; later, the answer is forgotten.
        """
        answer: Deferred[T] = Deferred()
        if self._closed or len(self._works) >= DATABASE_WAITING:
            why = "is closed" if self._closed else "takes no more now: too much waits for a slow disk"
            answer.errback(StorageError(f"{self.database.path} {why}"))
            return answer
        self._works.append((work, answer))
        if not self._busy:
            self._next()
        return answer

    def read(self, work: Work[T]) -> Deferred[T]:
        """The result of `work(connection)`, which sees one committed state and writes nothing."""
        return self._reader.call(self.database.read, work)

    def backup_to(self, path: StrPath) -> Deferred[None]:
        """Copy the present state to `path`; fires when the copy is durable."""
        return self._reader.call(self.database.backup_to, path)

    async def close(self) -> None:
        """Take no more; done when all that waits is committed and the database is closed."""
        self._closed = True
        while self._busy:
            await self._writer.call(lambda: None)
        if self._reader is not self._writer:
            await self._reader.close()
        last = self._writer.call(self.database.close)
        await self._writer.close()
        await last

    def _next(self) -> None:
        batch = [each for each in self._works[:DATABASE_BATCH] if not each[1].called]
        del self._works[:DATABASE_BATCH]
        self._busy = bool(batch)
        if batch:
            running = self._writer.call(self.database.write_many, [work for work, _ in batch])
            running.addBoth(self._done, [answer for _, answer in batch])

    def _done(self, outcome: list[Any] | Failure, answers: list[Deferred[Any]]) -> None:
        for i, answer in enumerate(answers):
            result = outcome if isinstance(outcome, Failure) else outcome[i]
            if not answer.called:
                answer.callback(Failure(result) if isinstance(result, Exception) else result)
        self._next()
