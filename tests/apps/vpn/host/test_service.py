"""The host in a thread: opened once, asked in order, closed behind the last call."""

from __future__ import annotations

from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from apps.vpn.host.changes import Sysctl
from apps.vpn.host.host import Host
from apps.vpn.host.service import HostThread
from meshnet.errors import LocalError
from meshnet.storage.disk import RealDisk
from tests.support.machine import TOOLS, Machine
from tests.support.nodes import new_folder


class Pool:
    """A thread pool whose threads are turns of the test."""

    def __init__(self) -> None:
        self.work: list[Any] = []

    def callInThreadWithCallback(self, told: Any, call: Any, *args: Any, **more: Any) -> None:
        self.work.append((told, call, args, more))

    def run(self) -> None:
        while self.work:
            told, call, args, more = self.work.pop(0)
            try:
                told(True, call(*args, **more))
            except Exception:
                told(False, Failure())


class Reactor(MemoryReactorClock):
    """A reactor with such a pool."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool()

    def getThreadPool(self) -> Pool:
        return self.pool

    def callFromThread(self, call: Any, *args: Any, **more: Any) -> None:
        call(*args, **more)


class HostThreadTests(SynchronousTestCase):
    def test_one_host(self) -> None:
        """The book is opened by the first call, in the thread; calls see each other's changes; it ends."""
        folder, reactor, machine = new_folder(self), Reactor(), Machine()
        opened: list[Host] = []

        def open_host() -> Host:
            opened.append(Host(RealDisk(), folder / "host.log", tools=TOOLS, run=machine.run, proc=folder))
            return opened[-1]

        thread = HostThread(reactor, open_host)
        self.assertEqual(opened, [])
        (folder / "net").mkdir()
        (folder / "net" / "x").write_text("0\n")
        first = thread.call(lambda host: host.apply("exit", [Sysctl("net/x", 1)]))
        second = thread.call(lambda host: host.standing("exit"))
        third = thread.call(lambda host: host.undo("exit"))
        closed = thread.close()
        reactor.pool.run()
        self.successResultOf(first)
        self.assertEqual(self.successResultOf(second), (Sysctl("net/x", 1),))
        self.assertEqual(self.successResultOf(third), [])
        self.successResultOf(closed)
        self.assertEqual(len(opened), 1)
        self.failureResultOf(thread.call(lambda host: None), LocalError)
