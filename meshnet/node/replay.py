"""Where a node keeps the onions it has seen, and how they become durable: once a second, in a thread.

A key that has never run cannot have seen any; `identity.write_key` marks it so. The mark goes when the
first log stands.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from meshnet.circuit.replay_log import ReplayFiles, boot_id
from meshnet.errors import StorageError
from meshnet.node.app import Clock
from meshnet.node.identity import never_ran, ran
from meshnet.storage.disk import Disk
from meshnet.storage.service import DiskThread

SYNC_SECONDS: Final = 1.0
_log = Logger()


class ReplayKeeper:
    """The replay log of a node in `data`/replay; `log` is what the circuits write to."""

    def __init__(self, disk: Disk, data: Path, key: Path, reactor: Any, clock: Clock) -> None:
        first = never_ran(disk, key)
        self.log = ReplayFiles(disk, str(data / "replay"), boot=boot_id(disk), first_start=first)
        self._disk = disk
        self._key = key
        self._clock = clock
        self._thread = DiskThread(reactor)
        self._cancel: Callable[[], None] | None = None
        self._failing = False

    def start(self) -> None:
        """Begins to sync; the log has been loaded by now."""
        try:
            ran(self._disk, self._key)
        except StorageError as error:
            _log.warn("{why}; the next start of this key counts as its first", why=str(error))
        self._cancel = self._clock.call_later(SYNC_SECONDS, self._sync)

    async def stop(self) -> None:
        """Syncs a last time and closes the files."""
        if self._cancel is None:
            return
        self._cancel()
        self._cancel = None
        last = self._thread.call(self.log.close)
        await self._thread.close()
        try:
            await last
        except StorageError as error:
            _log.error("the replay log was not saved: {why}", why=str(error))

    def _sync(self) -> None:
        done: Deferred[None] = self._thread.call(self.log.sync)
        done.addCallbacks(self._synced, self._failed)
        done.addErrback(self._unexpected)
        done.addBoth(self._again)

    def _again(self, _: object) -> None:
        if self._cancel is not None:
            self._cancel = self._clock.call_later(SYNC_SECONDS, self._sync)

    def _synced(self, _: None) -> None:
        self._failing = False

    def _failed(self, failure: Failure) -> None:
        failure.trap(StorageError)
        if not self._failing:
            _log.error("the replay log cannot be saved: {why}", why=str(failure.value))
        self._failing = True

    def _unexpected(self, failure: Failure) -> None:
        _log.failure("syncing the replay log failed", failure)
