"""Where damaged files go: moved aside whole, named so that a person sees what and when, never just deleted.

    DIRECTORY/20261122T160305Z-00-coin.db        a file that was moved here, by its own name
    DIRECTORY/20261122T160305Z-00-coin.db-wal    what belongs to it
    DIRECTORY/20261122T160305Z-00.why            the sentence that says why

The directory lies on the same disk as what it takes, so that moving is renaming. It is bounded: when it holds
more than `QUARANTINE_ITEMS` or `QUARANTINE_BYTES`, the oldest items go; the newest one always stays.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from meshnet.errors import StorageError
from meshnet.limits import QUARANTINE_BYTES, QUARANTINE_ITEMS
from meshnet.storage.disk import (
    Disk,
    ExistingFileError,
    File,
    MissingFileError,
    StrPath,
    base_of,
    directory_of,
    join,
    name_of,
)
from meshnet.storage.files import make_directory, write_file

NAME: Final = "quarantine"
_CHUNK: Final = 1 << 20
_STAMP: Final = "%Y%m%dT%H%M%SZ"


class Quarantine:
    """Takes damaged files into `directory`, which is made when the first one comes. `unix` is the wall
    clock, in seconds since 1970."""

    def __init__(self, disk: Disk, directory: StrPath, unix: Callable[[], float]) -> None:
        self._disk = disk
        self._directory = name_of(directory)
        self._unix = unix

    def take(self, why: str, *paths: StrPath) -> str:
        """Move these files in, in this order, as one item; the path of the first one there.

        Each is durable here before it goes from where it was, and gone from there before the next one goes.
        Files that are not there are passed over. Raises StorageError.
        """
        disk = self._disk
        make_directory(disk, self._directory)
        prefix = self._prefix()
        write_file(disk, join(self._directory, f"{prefix}.why"), f"{why}\n".encode())
        first = ""
        for path in paths:
            target = join(self._directory, f"{prefix}-{base_of(path)}")
            with contextlib.suppress(MissingFileError):
                self._move(name_of(path), target)
                first = first or target
        with contextlib.suppress(StorageError):  # what is too much now can go the next time
            self._prune()
        return first

    def copy(self, why: str, file: File, offset: int) -> str:
        """Copy a file from `offset` to its end into an item of its own, durably; the path of the copy."""
        disk = self._disk
        make_directory(disk, self._directory)
        prefix = self._prefix()
        write_file(disk, join(self._directory, f"{prefix}.why"), f"{why}\n".encode())
        target = join(self._directory, f"{prefix}-{base_of(file.path)}")
        with contextlib.closing(disk.open(target, "create")) as copy:
            for at in range(offset, file.size(), _CHUNK):
                copy.pwrite(file.pread(_CHUNK, at), at - offset)
            copy.fsync()
        disk.fsyncdir(self._directory)
        with contextlib.suppress(StorageError):
            self._prune()
        return target

    def items(self) -> dict[str, list[str]]:
        """The names in the directory by item, oldest first."""
        found: dict[str, list[str]] = {}
        if self._disk.exists(self._directory):
            for name in self._disk.listdir(self._directory):
                stamp, _, rest = name.partition("-")
                if rest[2:3] in (".", "-"):
                    found.setdefault(f"{stamp}-{rest[:2]}", []).append(name)
        return dict(sorted(found.items()))

    def _prefix(self) -> str:
        """When, and a number that makes it this item's own."""
        stamp = datetime.fromtimestamp(self._unix(), UTC).strftime(_STAMP)
        taken = self.items()
        return next(name for number in range(100) if (name := f"{stamp}-{number:02d}") not in taken)

    def _move(self, path: str, target: str) -> None:
        disk = self._disk
        try:
            disk.link(path, target)
        except (MissingFileError, ExistingFileError):
            raise
        except StorageError:  # a file system without second names
            disk.rename(path, target)
            disk.fsyncdir(self._directory)
        else:
            disk.fsyncdir(self._directory)
            disk.unlink(path)
        disk.fsyncdir(directory_of(path))

    def _prune(self) -> None:
        disk, sizes = self._disk, dict[str, int]()
        items = self.items()
        for item, names in items.items():
            sizes[item] = sum(disk.stat(join(self._directory, name)).size for name in names)
        for item in list(items)[:-1]:
            if len(sizes) <= QUARANTINE_ITEMS and sum(sizes.values()) <= QUARANTINE_BYTES:
                return
            for name in items[item]:
                disk.unlink(join(self._directory, name))
            del sizes[item]
