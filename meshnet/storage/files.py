"""Whole files: replaced atomically, read with a limit, and secrets that nobody else may read.

A file is replaced so: temporary file in the same directory → write → fsync → close → rename → fsync of the
directory. Whoever reads it after a power cut finds the old content or the new one, whole. When `write_file`
has returned, it is the new one.

Temporary names are `.<name>.<random>.tmp`; what a crash leaves of them, `sweep` removes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from meshnet.errors import StorageError
from meshnet.limits import SECRET_FILE
from meshnet.storage.disk import (
    Bytes,
    CorruptFileError,
    Disk,
    ExistingFileError,
    MissingFileError,
    StrPath,
    base_of,
    directory_of,
    join,
    name_of,
)

_TEMPORARY: Final = ".tmp"
_CHUNK: Final = 1 << 20


def write_file(disk: Disk, path: StrPath, data: Bytes, mode: int = 0o600) -> None:
    """Put a file with content `data` and permissions `mode` at `path`, in place of any that is there.

    Durable on return. On `StorageError` the old content stands, except after a failing sync of the directory,
    when it is the old or the new one.
    """
    name = name_of(path)
    temporary = _write_temporary(disk, name, data, mode)
    try:
        disk.rename(temporary, name)
    except StorageError:
        _remove(disk, temporary)
        raise
    disk.fsyncdir(directory_of(name))


@contextlib.contextmanager
def replacing(disk: Disk, path: StrPath, mode: int = 0o600) -> Iterator[str]:
    """The path of an empty temporary file, for others (SQLite) to fill; when the block ends it is
    synced and takes the place of any file at `path`. When the block raises, the old file stays."""
    name = name_of(path)
    temporary = _write_temporary(disk, name, b"", mode)
    try:
        yield temporary
        with contextlib.closing(disk.open(temporary, "write")) as file:
            file.fsync()
        disk.rename(temporary, name)
    except BaseException:
        _remove(disk, temporary)
        raise
    disk.fsyncdir(directory_of(name))


def renew_file(disk: Disk, path: StrPath) -> None:
    """Put a copy of a file in its place, durably. After a failed sync the kernel may take for clean what is
    not on the medium, bytes and names alike: all of the copy is written, and synced, anew."""
    with (
        replacing(disk, path) as temporary,
        contextlib.closing(disk.open(path)) as old,
        contextlib.closing(disk.open(temporary, "write")) as new,
    ):
        for offset in range(0, old.size(), _CHUNK):
            new.pwrite(old.pread(_CHUNK, offset), offset)


def create_file(disk: Disk, path: StrPath, data: Bytes, mode: int = 0o600) -> None:
    """As `write_file`, but `ExistingFileError` if there is a file at `path` already, which stays as it is."""
    name = name_of(path)
    temporary = _write_temporary(disk, name, data, mode)
    try:
        disk.link(temporary, name)
    finally:
        _remove(disk, temporary)
    disk.fsyncdir(directory_of(name))


def read_file(disk: Disk, path: StrPath, maximum: int) -> bytes:
    """The content of a file; `CorruptFileError` if it is longer than `maximum` bytes."""
    with contextlib.closing(disk.open(path)) as file:
        data = file.pread(min(file.size(), maximum) + 1, 0)
    if len(data) > maximum:
        raise CorruptFileError(f"{name_of(path)} is longer than {maximum} bytes, the most it may be")
    return data


def write_secret(disk: Disk, path: StrPath, data: Bytes, *, replace: bool = False) -> None:
    """Write a file that only its owner can read; unless `replace`, `ExistingFileError` if one is there."""
    if replace:
        write_file(disk, path, data, 0o600)
        return
    try:
        create_file(disk, path, data, 0o600)
    except ExistingFileError:
        raise ExistingFileError(f"{name_of(path)} is there already and is not overwritten") from None


def read_secret(disk: Disk, path: StrPath, maximum: int = SECRET_FILE) -> bytes:
    """The content of a secret file; `StorageError` if others may read it or own it."""
    name = name_of(path)
    with contextlib.closing(disk.open(name)) as file:
        found = file.stat()
        if found.permissions & 0o077:
            raise StorageError(f"other users can read {name}, a secret: run chmod 600 {name}")
        if found.owner not in (0, disk.user()):
            raise StorageError(f"{name}, a secret, belongs to another user: run chown {disk.user()} {name}")
        data = file.pread(min(found.size, maximum) + 1, 0)
    if len(data) > maximum:
        raise StorageError(f"{name} is longer than {maximum} bytes, the most a secret may be")
    return data


def discard(disk: Disk, path: StrPath) -> None:
    """Remove a file's name, if it is there; nothing is synced."""
    with contextlib.suppress(MissingFileError):
        disk.unlink(path)


def wipe(disk: Disk, path: StrPath) -> None:
    """Remove a secret for good: overwritten with zeros, synced, its name removed; it may be missing.

    As far as a file can: file systems that copy on write (btrfs, ZFS), snapshots, backups and a flash drive's
    spare blocks may still hold what was there.
    """
    name = name_of(path)
    if not disk.exists(name):
        return
    with contextlib.closing(disk.open(name, "write")) as file:
        file.pwrite(bytes(file.size()), 0)
        file.fsync()
    disk.unlink(name)
    disk.fsyncdir(directory_of(name))


def make_directory(disk: Disk, path: StrPath, mode: int = 0o700) -> None:
    """Make a directory, and those above it, that is there after a power cut; it may exist."""
    name = name_of(path)
    parent = directory_of(name)
    if disk.exists(name):
        if not disk.stat(name).directory:
            raise StorageError(f"{name} is no directory")
        with contextlib.suppress(StorageError):  # it may lie in a directory that we may not open
            disk.fsyncdir(parent)  # who made it may have died before this
        return
    make_directory(disk, parent, mode)
    with contextlib.suppress(ExistingFileError):
        disk.mkdir(name, mode)
    disk.fsyncdir(parent)


def sweep(disk: Disk, directory: StrPath) -> int:
    """Remove temporary files that a crash left in `directory`; how many. Only its lock's holder may."""
    base = name_of(directory)
    left = [one for one in disk.listdir(base) if one.startswith(".") and one.endswith(_TEMPORARY)]
    for one in left:
        disk.unlink(join(base, one))
    return len(left)


def temporary_name(disk: Disk, path: StrPath) -> str:
    """A new name for a file that is to become `path`, in the same directory; `sweep` knows it."""
    name = name_of(path)
    return join(directory_of(name), f".{base_of(name)}.{disk.token()}{_TEMPORARY}")


def _write_temporary(disk: Disk, name: str, data: Bytes, mode: int) -> str:
    """A synced and closed temporary file beside `name`; its path."""
    temporary = temporary_name(disk, name)
    file = disk.open(temporary, "create", mode)
    try:
        try:
            file.pwrite(data, 0)
            file.fsync()
        finally:
            file.close()
    except StorageError:
        _remove(disk, temporary)
        raise
    return temporary


def _remove(disk: Disk, temporary: str) -> None:
    with contextlib.suppress(StorageError):
        disk.unlink(temporary)
