"""The disk thread: in order, one at a time, results and errors back; group commit; databases in threads."""

from __future__ import annotations

import errno
import tempfile
import threading

from twisted.internet import reactor  # noqa: TID251  (only its thread pool)
from twisted.internet.defer import Deferred, gatherResults
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from lab.simulation.disk import SimulatedDisk
from meshnet.errors import LocalError, StorageError
from meshnet.limits import JOURNAL_RECORD
from meshnet.storage import service as service_module
from meshnet.storage.database import ConstraintError, Schema, Work, open_database
from meshnet.storage.disk import RealDisk
from meshnet.storage.journal import open_journal
from meshnet.storage.service import DatabaseService, DiskThread, JournalService, ReadThread


class DiskThreadTests(TestCase):
    async def test_order(self) -> None:
        """Calls run outside the reactor's thread, in the order asked, never two at a time."""
        thread = DiskThread(reactor)  # type: ignore[arg-type]
        seen: list[int] = []
        running = threading.Lock()

        def note(i: int) -> int:
            self.assertTrue(running.acquire(blocking=False))
            self.assertIsNot(threading.current_thread(), threading.main_thread())
            seen.append(i)
            running.release()
            return i

        results = await gatherResults([thread.call(note, i) for i in range(50)])
        self.assertEqual(results, list(range(50)))
        self.assertEqual(seen, list(range(50)))
        await thread.close()

    async def test_errors(self) -> None:
        """An error comes back to its caller; later calls go on."""
        thread = DiskThread(reactor)  # type: ignore[arg-type]

        def fail(text: str) -> None:
            raise StorageError(text)

        failing = thread.call(fail, text="broken")
        after = thread.call(int, "5")
        with self.assertRaises(StorageError):
            await failing
        self.assertEqual(await after, 5)
        await thread.close()


class FakePool:
    """Threads that run when the test says so."""

    def __init__(self) -> None:
        self.work: list[object] = []

    def getThreadPool(self) -> FakePool:
        return self

    def callFromThread(self, function: object, *args: object) -> None:
        function(*args)  # type: ignore[operator]

    def callInThreadWithCallback(self, done: object, function: object, *args: object) -> None:
        def run() -> None:
            try:
                result = function(*args)  # type: ignore[operator]
            except Exception:
                done(False, Failure())  # type: ignore[operator]
            else:
                done(True, result)  # type: ignore[operator]

        self.work.append(run)

    def run(self) -> None:
        self.work.pop(0)()  # type: ignore[operator]


class WaitingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.pool = FakePool()
        self.thread = DiskThread(self.pool)  # type: ignore[arg-type]

    def test_cancelled(self) -> None:
        """A call cancelled while it waits never runs; one that runs is finished and forgotten."""
        seen: list[int] = []
        calls = [self.thread.call(seen.append, i) for i in range(3)]
        for one in calls[:2]:
            one.cancel()
            self.failureResultOf(one)
        self.pool.run()
        self.pool.run()
        self.successResultOf(calls[2])
        self.assertEqual(seen, [0, 2])

    def test_close_waits(self) -> None:
        """Closing fires when all that waits is done; then calls are refused."""
        call: Deferred[int] = self.thread.call(int, "1")
        closed = self.thread.close()
        self.assertNoResult(closed)
        self.assertIsInstance(self.failureResultOf(self.thread.call(int, "2")).value, LocalError)
        self.pool.run()
        self.successResultOf(closed)
        self.assertEqual(self.successResultOf(call), 1)


class ReadThreadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.pool = FakePool()
        self.thread = ReadThread(self.pool)  # type: ignore[arg-type]

    def test_many_at_once(self) -> None:
        """The thread is begun once for all that waits; errors come back to their callers alone."""
        seen: list[int] = []
        calls = [self.thread.call(seen.append, i) for i in range(3)]
        wrong = self.thread.call(int, "x")
        calls[1].cancel()
        self.failureResultOf(calls[1])
        self.assertEqual(len(self.pool.work), 1)
        self.pool.run()
        self.assertEqual(seen, [0, 2])
        self.successResultOf(calls[2])
        self.assertIsInstance(self.failureResultOf(wrong).value, ValueError)
        self.assertEqual(self.pool.work, [])

    def test_asked_from_an_answer(self) -> None:
        """A call that an answer leads to is run too."""
        seen: list[str] = []
        first = self.thread.call(str, 1)
        first.addCallback(lambda text: self.thread.call(seen.append, text))
        self.pool.run()
        self.assertEqual(seen, ["1"])

    def test_close_waits(self) -> None:
        """Closing fires when all that waits is done; then calls are refused."""
        call = self.thread.call(str, 1)
        closed = self.thread.close()
        self.assertNoResult(closed)
        self.assertIsInstance(self.failureResultOf(self.thread.call(str, 2)).value, LocalError)
        self.pool.run()
        self.successResultOf(closed)
        self.assertEqual(self.successResultOf(call), "1")


class ReadThreadInThreads(TestCase):
    timeout = 30

    async def test_order(self) -> None:
        """As they were asked, never two at a time, out of the reactor's thread; none is lost between the end
        of one run and the next."""
        thread = ReadThread(reactor)  # type: ignore[arg-type]
        seen: list[int] = []

        def note(i: int) -> int:
            self.assertIsNot(threading.current_thread(), threading.main_thread())
            seen.append(i)
            return i

        for start in range(0, 300, 3):
            found = await gatherResults([thread.call(note, i) for i in range(start, start + 3)])
            self.assertEqual(found, list(range(start, start + 3)))
        self.assertEqual(seen, list(range(300)))
        await thread.close()


class JournalServiceTests(SynchronousTestCase):
    """Group commit over the simulated disk, with threads that run when the test says so."""

    def setUp(self) -> None:
        self.pool = FakePool()
        self.disk = SimulatedDisk()
        self.state: list[bytes] = []

    def service(self, **more: object) -> JournalService:
        return JournalService(self.pool, open_journal(self.disk, "/log"), **more)  # type: ignore[arg-type]

    def run_all(self) -> int:
        count = 0
        while self.pool.work:
            self.pool.run()
            count += 1
        return count

    def found(self) -> list[bytes]:
        seen: list[bytes] = []
        open_journal(self.disk.synced(), "/log", lambda sequence, data: seen.append(data))
        return seen

    def test_group(self) -> None:
        """What comes while a batch is written goes together with the next: two syncs for a thousand."""
        service = self.service()
        answers = [service.commit(b"%d" % i) for i in range(1000)]
        self.assertEqual(service.waiting, 999)
        self.pool.run()
        self.assertEqual(self.successResultOf(answers[0]), 0)
        self.assertNoResult(answers[1])
        syncs = self.disk.operations
        self.assertEqual(self.run_all(), 1)
        self.assertEqual(self.disk.operations - syncs, 2)  # a write and a sync
        self.assertEqual([self.successResultOf(each) for each in answers[1:]], list(range(1, 1000)))
        self.assertEqual(self.found(), [b"%d" % i for i in range(1000)])

    def test_committed_from_an_answer(self) -> None:
        """Who commits again when answered waits with the others, not alone."""
        service = self.service()
        again: list[Deferred[int]] = []
        for i in range(10):
            service.commit(b"%d" % i).addCallback(lambda _: again.append(service.commit(b"again")))
        self.assertEqual(self.run_all(), 3)
        self.assertEqual(len([self.successResultOf(each) for each in again]), 10)

    def test_refusals(self) -> None:
        """Too long a record, too much that waits, a closed journal: refused at once, the others go on."""
        service = self.service()
        self.patch(service_module, "JOURNAL_WAITING", 100)
        first = service.commit(bytes(60))
        self.pool.run()
        self.successResultOf(first)
        service.commit(b"in the thread")
        fits, not_so = service.commit(bytes(60)), service.commit(bytes(60))
        self.failureResultOf(not_so, StorageError)
        self.failureResultOf(service.commit(bytes(JOURNAL_RECORD + 1)), StorageError)
        closed = Deferred.fromCoroutine(service.close())
        self.failureResultOf(service.commit(b""), StorageError)
        self.assertNoResult(closed)
        self.run_all()
        self.successResultOf(fits)
        self.successResultOf(closed)

    def test_full_disk(self) -> None:
        """A batch for which there is no room fails whole; a later one that fits is taken."""
        self.disk.capacity = 300
        service = self.service()
        first = service.commit(b"a")
        answers = [service.commit(bytes(90)) for _ in range(3)]
        self.run_all()
        self.successResultOf(first)
        for each in answers:
            self.failureResultOf(each, StorageError)
        last = service.commit(b"b")
        self.run_all()
        self.assertEqual(self.successResultOf(last), 1)
        self.assertEqual(self.found(), [b"a", b"b"])

    def test_failed_sync_without_a_snapshot(self) -> None:
        """The journal stops: nothing is acknowledged after a failed sync."""
        service = self.service()
        self.disk.fail("sync")
        answers = [service.commit(b"x"), service.commit(b"y")]
        self.run_all()
        for each in answers:
            self.failureResultOf(each, StorageError)

    def test_failed_sync_with_a_snapshot(self) -> None:
        """It goes on in a new file from memory; the file whose sync failed is not synced again."""
        service = self.service(snapshot=lambda: [b"state of %d" % len(self.state)])
        service.commit(b"x").addCallback(lambda _: self.state.append(b"x"))
        self.run_all()
        self.disk.fail("sync")
        answers = [service.commit(b"y"), service.commit(b"z")]
        self.run_all()
        self.assertEqual([self.successResultOf(each) for each in answers], [3, 4])
        self.assertEqual(self.found(), [b"state of 1", b"y", b"z"])
        self.assertEqual(service.journal.generation, 1)
        for state in self.disk.crash_states():
            seen: list[bytes] = []
            open_journal(state, "/log", lambda sequence, data, seen=seen: seen.append(data))  # type: ignore[misc]
            self.assertEqual(seen[:3], [b"state of 1", b"y", b"z"])

    def test_compaction(self) -> None:
        """A journal that has grown is compacted between two batches, and not again before it has doubled."""
        service = self.service(snapshot=lambda: [b"all"], compact_at=1000)
        for _ in range(30):
            service.commit(bytes(100))
            self.run_all()
        self.assertGreater(service.journal.generation, 1)
        self.assertEqual(self.found()[0], b"all")
        asked = service.compact()
        self.run_all()
        self.successResultOf(asked)
        self.assertEqual(self.found(), [b"all"])

    def test_failed_compaction(self) -> None:
        """One that fails costs nothing but a sentence; it is not tried again at once."""
        service = self.service(snapshot=lambda: [b"all"], compact_at=100)
        self.disk.fail("make", errno.ENOSPC)
        self.disk.fail("make", errno.ENOSPC)
        answers = []
        for _ in range(4):
            answers.append(service.commit(bytes(60)))
            self.run_all()
        self.assertIn("no space", service.fault)
        for each in answers:
            self.successResultOf(each)
        self.assertEqual(len(self.found()), 4)


class DatabaseServiceTests(TestCase):
    """A real database and real threads."""

    async def test_writes_and_reads(self) -> None:
        """Writes that wait share a transaction; each fails alone; reads see what is committed."""
        base = self.enterContext(tempfile.TemporaryDirectory())
        schema = Schema(9, ("CREATE TABLE n (i INTEGER PRIMARY KEY) STRICT;",))
        database = open_database(RealDisk(), f"{base}/a.db", schema)
        service = DatabaseService(reactor, database)  # type: ignore[arg-type]

        def put(i: int) -> Work[int]:
            return lambda connection: len(connection.execute("INSERT INTO n VALUES (?)", (i,))) + i

        answers = [service.write(put(i)) for i in (1, 2, 3, 2, 4)]
        results = [await each for each in answers[:3]]
        with self.assertRaises(ConstraintError):
            await answers[3]
        self.assertEqual([*results, await answers[4]], [1, 2, 3, 4])
        count: Work[int] = lambda connection: connection.execute("SELECT count(*) FROM n")[0][0]  # noqa: E731
        self.assertEqual(await service.read(count), 4)
        await service.backup_to(f"{base}/b.db")
        last = service.write(put(5))
        await service.close()
        self.assertEqual(await last, 5)
        with self.assertRaises(StorageError):
            await service.write(put(6))
