"""The disk thread: in order, one at a time, results and errors back."""

from __future__ import annotations

import threading

from twisted.internet import reactor  # noqa: TID251  (only its thread pool)
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase, TestCase

from meshnet.errors import LocalError, StorageError
from meshnet.storage.service import DiskThread


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
        self.work.append(lambda: done(True, function(*args)))  # type: ignore[operator]

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
