"""How much room a node's disk has: looked at now and then, told in status and metrics.

It never refuses anything itself: stores ask `require` before they take what they would have to keep.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from prometheus_client.core import Metric
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from meshnet.errors import StorageError
from meshnet.node.metrics import gauge
from meshnet.storage.disk import Disk, StrPath
from meshnet.storage.reserve import Space
from meshnet.storage.service import DiskThread

LOOK_SECONDS: Final = 10.0
_log = Logger()


class SpaceWatch(Space):
    """The room of a node's data directory. `begin` when the directory is ours, then `tick` every second."""

    def __init__(self, disk: Disk, directory: StrPath, reactor: Any) -> None:
        super().__init__(disk, directory)
        self._reactor = reactor
        self._next = 0.0
        self._filling = False
        self.fault = ""
        """Why the disk cannot be looked at, or the reserve not be made; empty while both work."""

    def begin(self) -> None:
        """Looks, and makes the reserve; what does not work costs a sentence."""
        try:
            self.look()
            self.fill()
            self.fault = ""
        except StorageError as error:
            self.fault = f"room on the disk is not watched: {error}"

    def tick(self, now: float) -> None:
        """Looks every LOOK_SECONDS; makes the reserve again, in a thread, when there is room."""
        if now < self._next:
            return
        self._next = now + LOOK_SECONDS
        was = self.low
        try:
            self.look()
        except StorageError as error:
            self.fault = f"room on the disk is not watched: {error}"
            return
        if self.low != was:
            _log.warn("{what}", what=self.sentence or "the disk has room again")
        if self.wanting and not self._filling:
            self._filling = True
            thread = DiskThread(self._reactor)
            done: Deferred[None] = thread.call(self.fill)
            done.addCallbacks(self._filled, self._failed)

    @property
    def notes(self) -> list[str]:
        """What the operator should know, in sentences."""
        return [text for text in (self.sentence, self.fault) if text]

    def facts(self) -> Iterable[Metric]:
        """The series of `/metrics`."""
        yield gauge("meshnet_disk_free_bytes", "Room left on the disk of the data directory.", self.free)
        yield gauge("meshnet_disk_low", "1 while nothing new is kept for lack of room, else 0.", self.low)

    def _filled(self, _: None) -> None:
        self._filling, self.fault = False, ""

    def _failed(self, failure: Failure) -> None:
        self._filling = False
        failure.trap(StorageError)
        self.fault = f"no room can be held back: {failure.value}"
