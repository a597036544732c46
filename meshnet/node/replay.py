"""Where a node keeps the onions it has seen, and how they become durable: in a thread, when the router asks.

A key that has never run cannot have seen any; `identity.write_key` marks it so. The mark goes when the
first log stands.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from meshnet.circuit.replay import Replays
from meshnet.circuit.replay_log import ReplayFiles, boot_id
from meshnet.errors import StorageError
from meshnet.node.identity import never_ran, ran
from meshnet.storage.disk import Disk, DiskFullError
from meshnet.storage.service import DiskThread

_log = Logger()


class ReplayMemory(Protocol):
    """Where the onions seen before are remembered. `fault` is why that fails now, empty while it does not."""

    fault: str

    def open(self, unix: float) -> Replays:
        """What is remembered. Raises StorageError."""

    def sync(self) -> None:
        """Makes durable what was added; called twice a second, returns at once."""

    def close(self) -> Deferred[None]:
        """Fires when all is durable and closed."""


class ReplayKeeper:
    """The replay log of a node in `data`/replay (a `ReplayMemory`)."""

    def __init__(
        self,
        disk: Disk,
        data: Path,
        key: Path,
        reactor: Any,
        on_full: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_full` is called when a tag or a sync found no room."""
        self._disk = disk
        self._data = data
        self._key = key
        self._thread = DiskThread(reactor)
        self._files: ReplayFiles | None = None
        self._replays: Replays | None = None
        self._busy = False
        self._failing = False
        self._on_full = on_full
        self.fault = ""
        """Why tags cannot be saved now, in a sentence; empty while they can."""

    def open(self, unix: float) -> Replays:
        """Reads what was seen before `unix`. Raises StorageError."""
        first, disk = never_ran(self._disk, self._key), self._disk
        self._files = ReplayFiles(disk, str(self._data / "replay"), boot=boot_id(disk), first_start=first)
        replays = self._replays = Replays(self._files, unix)
        try:
            ran(disk, self._key)
        except StorageError as error:
            _log.warn("{why}; the next start of this key counts as its first", why=str(error))
        return replays

    def sync(self) -> None:
        """Makes durable what was added, in the thread; nothing while an earlier sync still runs."""
        if self._files is None or self._busy:
            return
        self._busy = True
        if self._replays is not None and self._replays.fault is not None:
            self._complain(self._replays.fault)
        done: Deferred[None] = self._thread.call(self._files.sync)
        done.addCallbacks(self._synced, self._failed)
        done.addErrback(self._unexpected)
        done.addBoth(self._idle)

    async def _close(self) -> None:
        files, self._files = self._files, None
        if files is None:
            return
        last = self._thread.call(files.close)
        last.addErrback(self._failed)
        await self._thread.close()
        await last

    def close(self) -> Deferred[None]:
        """Syncs a last time and closes the files."""
        return Deferred.fromCoroutine(self._close())

    def _idle(self, _: object) -> None:
        self._busy = False

    def _synced(self, _: None) -> None:
        if self._failing and (self._replays is None or self._replays.fault is None):
            _log.info("the replay log is saved again")
            self._failing = False
            self.fault = ""

    def _failed(self, failure: Failure) -> None:
        failure.trap(StorageError)
        self._complain(failure.value)

    def _complain(self, why: object) -> None:
        """Said once, until it works again: a full disk would fill the log too."""
        if isinstance(why, DiskFullError):
            self._on_full()
        self.fault = f"the replay log cannot be saved, new circuits are refused: {why}"
        if not self._failing:
            _log.error("the replay log cannot be saved, new circuits are refused: {why}", why=str(why))
        self._failing = True

    def _unexpected(self, failure: Failure) -> None:
        _log.failure("syncing the replay log failed", failure)
