"""Room on the disk: watched, so that new things are refused before it is full, with some held back.

    DIRECTORY/reserve       RESERVE bytes that no file system can compress, there only to be given back

A full disk must not keep a program from its last words: syncing a log, closing a database. So a file holds
some room; when the disk is full it is removed, and when there is room again it is made anew. Well before
that, `require` refuses whatever would have to be acknowledged. Nothing here looks by itself: call `look`
every few seconds, and `release` when a write failed for lack of room.
"""

from __future__ import annotations

import contextlib
from hashlib import shake_256
from typing import Final

from meshnet.errors import StorageError
from meshnet.limits import RESERVE, SPACE_ENOUGH, SPACE_FULL, SPACE_LOW
from meshnet.storage.disk import Disk, DiskFullError, StrPath, join, name_of
from meshnet.storage.files import discard, write_file

NAME: Final = "reserve"


class Space:
    """The room on the disk that holds `directory`.

    `free` is what `look` saw, in bytes; `low` says that new things are refused, from below SPACE_LOW until
    there are SPACE_ENOUGH again; `held` that the reserve is there.
    """

    def __init__(self, disk: Disk, directory: StrPath) -> None:
        self._disk = disk
        self._directory = name_of(directory)
        self._path = join(self._directory, NAME)
        self.free = 0
        self.low = False
        self.held = False

    def look(self) -> None:
        """See how much is free; a call that takes microseconds. StorageError if the disk does not say."""
        self.free = self._disk.free_space(self._directory)
        if self.free < SPACE_LOW:
            self.low = True
        elif self.free >= SPACE_ENOUGH:
            self.low = False
        if self.free < SPACE_FULL:
            self.release()

    @property
    def wanting(self) -> bool:
        """Whether the reserve is to be made: it is not there, and there is room."""
        return not self.held and not self.low

    def fill(self) -> None:
        """Make the reserve, unless it is there or room is low. Writes and syncs; StorageError."""
        if not self.wanting:
            return
        if not self._disk.exists(self._path) or self._disk.stat(self._path).size != RESERVE:
            write_file(self._disk, self._path, shake_256(self._disk.token().encode()).digest(RESERVE))
        self.held = True

    def release(self) -> None:
        """Give the reserve back, for last words; whatever is new is refused from now on."""
        self.low = True
        self.held = False
        with contextlib.suppress(StorageError):
            discard(self._disk, self._path)

    def require(self) -> None:
        """`DiskFullError` when room is low: call it before taking what would have to be acknowledged."""
        if self.low:
            raise DiskFullError(self.sentence)

    @property
    def sentence(self) -> str:
        """What the operator should know; empty while there is room."""
        if not self.low:
            return ""
        return (
            f"the disk of {self._directory} has {self.free >> 20} MiB left, nothing new is kept until it has "
            f"{SPACE_ENOUGH >> 20} MiB: free some"
        )
