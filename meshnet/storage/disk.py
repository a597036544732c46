"""The disk seam: every byte a node keeps goes through a `Disk`.

`RealDisk` is thin: one system call per method, short writes continued, errors turned into one sentence. The
simulated disk of the lab implements the same two protocols and loses whatever a real one may lose at a power
cut. Neither decides when to sync: that is `files.py` and `journal.py`.

What may be relied on after a power cut: bytes and size of a file after its `fsync`; names in a directory
after the directory's `fsyncdir`. Nothing else, and no order between two things that are not synced. After a
failed `fsync` the same file must not be synced again in the hope that it works: the kernel may have dropped
the bytes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat as modes
from collections.abc import Callable
from typing import Final, Literal, Protocol

from attrs import define, field, frozen

from meshnet.errors import StorageError

StrPath = str | os.PathLike[str]
Bytes = bytes | bytearray | memoryview
Mode = Literal["read", "write", "create"]
"""`read`: must exist, read only. `write`: also written, made if missing. `create`: the same, must be new."""


def name_of(path: StrPath) -> str:
    """The path as text, without needless dots and slashes."""
    return os.path.normpath(os.fspath(path))


def directory_of(path: StrPath) -> str:
    """The directory that holds the name; `.` for a bare name."""
    return os.path.dirname(name_of(path)) or "."


def base_of(path: StrPath) -> str:
    """The last part of the path."""
    return os.path.basename(name_of(path))


def join(directory: StrPath, name: str) -> str:
    """The path of `name` in a directory."""
    return os.path.join(os.fspath(directory), name)


class MissingFileError(StorageError):
    """The file or directory is not there."""


class ExistingFileError(StorageError):
    """Something of that name is there already."""


class DiskFullError(StorageError):
    """No space left, or a quota is used up."""


class FailingDiskError(StorageError):
    """The disk reports an input/output error."""


class LockedError(StorageError):
    """Another process holds the lock."""


class CorruptFileError(StorageError):
    """The file is not what it should be."""


@frozen
class Stat:
    """Size in bytes, permission bits, owner's number, and whether it is a directory."""

    size: int
    permissions: int
    owner: int
    directory: bool


class File(Protocol):
    """An open file. Offsets and sizes in bytes; every method raises `StorageError`."""

    @property
    def path(self) -> str:
        """The path it was opened by."""

    def pread(self, size: int, offset: int) -> bytes:
        """`size` bytes from `offset`; fewer only at the end of the file."""

    def pwrite(self, data: Bytes, offset: int) -> None:
        """Write all of `data` at `offset`. After an error a part may be written."""

    def append(self, data: Bytes) -> int:
        """Write all of `data` at the end of the file; the offset at which it starts."""

    def truncate(self, size: int) -> None:
        """Cut the file, or extend it with zeros, to `size`."""

    def fsync(self) -> None:
        """Make the file's bytes and size durable (not its name). An error is final for this file."""

    def stat(self) -> Stat:
        """What is known of the open file."""

    def size(self) -> int:
        """Its size."""

    def close(self) -> None:
        """Close it; a second call does nothing. Closing makes nothing durable."""


class Lock(Protocol):
    """A lock that is held."""

    def release(self) -> None:
        """Give it back; a second call does nothing."""


class Disk(Protocol):
    """Names and files. Every method raises `StorageError` (or a subclass of it named here)."""

    def open(self, path: StrPath, mode: Mode = "read", permissions: int = 0o600) -> File:
        """Open a file; `permissions` are those of a new one. `MissingFileError`, `ExistingFileError`."""

    def fsyncdir(self, path: StrPath) -> None:
        """Make the names in a directory durable."""

    def rename(self, old: StrPath, new: StrPath) -> None:
        """Rename, replacing `new` atomically if it is there."""

    def link(self, old: StrPath, new: StrPath) -> None:
        """Give a file a second name; `ExistingFileError` if `new` is there."""

    def unlink(self, path: StrPath) -> None:
        """Remove a file's name."""

    def mkdir(self, path: StrPath, permissions: int = 0o700) -> None:
        """Make a directory; `ExistingFileError` if the name is taken."""

    def listdir(self, path: StrPath) -> list[str]:
        """The names in a directory, sorted."""

    def exists(self, path: StrPath) -> bool:
        """Whether something of that name is there."""

    def stat(self, path: StrPath) -> Stat:
        """What is known of a file or directory."""

    def lock(self, path: StrPath) -> Lock:
        """Take the advisory lock that the file `path` stands for, without waiting; `LockedError`."""

    def free_space(self, path: StrPath) -> int:
        """Bytes that we may still write to the disk that holds `path`."""

    def user(self) -> int:
        """The number of the user we run as, to compare with `Stat.owner`."""

    def token(self) -> str:
        """A new random text for a temporary name."""


def storage_error(fault: OSError, doing: str, path: StrPath) -> StorageError:
    """The error to raise for `fault`, met while `doing` ("write") something to `path`."""
    name = os.fspath(path)
    code = fault.errno
    if code in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(f"no space left to {doing} {name}: free some on that disk")
    if code in (errno.ENOENT, errno.ENOTDIR):
        return MissingFileError(f"cannot {doing} {name}: it is not there")
    if code == errno.EEXIST:
        return ExistingFileError(f"cannot {doing} {name}: it is there already")
    if code in (errno.EACCES, errno.EPERM):
        return StorageError(f"cannot {doing} {name}: this user is not allowed to")
    if code == errno.EROFS:
        return StorageError(f"cannot {doing} {name}: the disk is read-only")
    if code == errno.EIO:
        return FailingDiskError(f"cannot {doing} {name}: the disk reports an input/output error, check it")
    return StorageError(f"cannot {doing} {name}: {fault.strerror or fault}")


def read_link(path: StrPath) -> str | None:
    """Where a symbolic link leads, of files of the operating system; None for what is none."""
    try:
        return os.readlink(os.fspath(path))
    except OSError:
        return None


def make_link(path: StrPath, target: str) -> None:
    """Make a symbolic link among files of the operating system; it may lead nowhere. StorageError."""
    try:
        os.symlink(target, path)
    except OSError as fault:
        raise storage_error(fault, "make", path) from fault


def write_whole(write: Callable[[memoryview, int], int], data: Bytes, offset: int) -> None:
    """Call `write(rest, offset)`, which says how many bytes it took, until all of `data` is written."""
    rest = memoryview(data).cast("B")
    while rest:
        taken = write(rest, offset)
        if taken <= 0:
            raise OSError(errno.EIO, "a write took nothing")
        rest, offset = rest[taken:], offset + taken


def read_whole(read: Callable[[int, int], bytes], size: int, offset: int) -> bytes:
    """Call `read(size, offset)` until `size` bytes or the end of the file have come."""
    first = read(size, offset)
    if len(first) == size or not first:
        return first
    parts = [first]
    have = len(first)
    while have < size:
        more = read(size - have, offset + have)
        if not more:
            break
        parts.append(more)
        have += len(more)
    return b"".join(parts)


_FLAGS: Final[dict[Mode, int]] = {
    "read": os.O_RDONLY,
    "write": os.O_RDWR | os.O_CREAT,
    "create": os.O_RDWR | os.O_CREAT | os.O_EXCL,
}
_NO_SYNC_HERE: Final = (errno.EINVAL, errno.ENOTSUP)  # a file system that cannot sync directories says so


_sync_file: Final = getattr(os, "fdatasync", os.fsync)  # not the times, which nobody here relies on


def _sync(descriptor: int, sync: Callable[[int], None] = os.fsync) -> None:
    """Flush to the medium: macOS' fsync stops at the drive's cache, F_FULLFSYNC does not."""
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:
        try:
            fcntl.fcntl(descriptor, full)
            return
        except OSError as fault:
            if fault.errno not in _NO_SYNC_HERE:
                raise
    sync(descriptor)


def _stat(found: os.stat_result) -> Stat:
    return Stat(found.st_size, modes.S_IMODE(found.st_mode), found.st_uid, modes.S_ISDIR(found.st_mode))


@define(eq=False)
class RealFile:
    """A `File` of the operating system. Python itself repeats calls that a signal interrupts (PEP 475)."""

    path: str
    _descriptor: int = field(alias="descriptor")

    def pread(self, size: int, offset: int) -> bytes:
        """See `File`."""
        try:
            return read_whole(lambda most, at: os.pread(self._descriptor, most, at), size, offset)
        except OSError as fault:
            raise storage_error(fault, "read", self.path) from fault

    def pwrite(self, data: Bytes, offset: int) -> None:
        """See `File`; the usual case is one call."""
        try:
            taken = os.pwrite(self._descriptor, data, offset)
            if taken != len(data):
                rest = memoryview(data)[taken:]
                write_whole(lambda part, at: os.pwrite(self._descriptor, part, at), rest, offset + taken)
        except OSError as fault:
            raise storage_error(fault, "write", self.path) from fault

    def append(self, data: Bytes) -> int:
        """See `File`."""
        offset = self.size()
        self.pwrite(data, offset)
        return offset

    def truncate(self, size: int) -> None:
        """See `File`."""
        try:
            os.ftruncate(self._descriptor, size)
        except OSError as fault:
            raise storage_error(fault, "cut", self.path) from fault

    def fsync(self) -> None:
        """See `File`."""
        try:
            _sync(self._descriptor, _sync_file)
        except OSError as fault:
            raise storage_error(fault, "sync", self.path) from fault

    def stat(self) -> Stat:
        """See `File`."""
        try:
            return _stat(os.fstat(self._descriptor))
        except OSError as fault:
            raise storage_error(fault, "look at", self.path) from fault

    def size(self) -> int:
        """See `File`."""
        return self.stat().size

    def close(self) -> None:
        """See `File`."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        try:
            os.close(descriptor)
        except OSError as fault:
            raise storage_error(fault, "close", self.path) from fault


@define(eq=False)
class RealLock:
    """An flock; the system gives it back when the process ends, however it ends."""

    _descriptor: int = field(alias="descriptor")

    def release(self) -> None:
        """See `Lock`. The file stays: removing it would let two processes lock two files of one name."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class RealDisk:
    """The `Disk` of the operating system."""

    def open(self, path: StrPath, mode: Mode = "read", permissions: int = 0o600) -> RealFile:
        """See `Disk`."""
        try:
            descriptor = os.open(path, _FLAGS[mode] | os.O_CLOEXEC, permissions)
        except OSError as fault:
            raise storage_error(fault, "make" if mode == "create" else "open", path) from fault
        return RealFile(os.fspath(path), descriptor)

    def fsyncdir(self, path: StrPath) -> None:
        """See `Disk`. A file system that has no such call is taken at its word."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                _sync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as fault:
            if fault.errno not in _NO_SYNC_HERE:
                raise storage_error(fault, "sync", path) from fault

    def rename(self, old: StrPath, new: StrPath) -> None:
        """See `Disk`."""
        with failing("rename", old):
            os.replace(old, new)

    def link(self, old: StrPath, new: StrPath) -> None:
        """See `Disk`."""
        with failing("make", new):
            os.link(old, new)

    def unlink(self, path: StrPath) -> None:
        """See `Disk`."""
        with failing("remove", path):
            os.unlink(path)

    def mkdir(self, path: StrPath, permissions: int = 0o700) -> None:
        """See `Disk`."""
        with failing("make", path):
            os.mkdir(path, permissions)

    def listdir(self, path: StrPath) -> list[str]:
        """See `Disk`."""
        with failing("list", path):
            return sorted(os.listdir(path))

    def exists(self, path: StrPath) -> bool:
        """See `Disk`."""
        return os.path.lexists(path)

    def stat(self, path: StrPath) -> Stat:
        """See `Disk`."""
        with failing("look at", path):
            return _stat(os.stat(path))

    def lock(self, path: StrPath) -> RealLock:
        """See `Disk`; the file is made if it is missing."""
        with failing("lock", path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                raise LockedError(
                    f"{os.fspath(path)} is locked: another process uses it, stop that one"
                ) from None
            except OSError:
                os.close(descriptor)
                raise
            return RealLock(descriptor)

    def free_space(self, path: StrPath) -> int:
        """See `Disk`."""
        with failing("look at", path):
            found = os.statvfs(path)
            return found.f_bavail * found.f_frsize

    def user(self) -> int:
        """See `Disk`."""
        return os.geteuid()

    def token(self) -> str:
        """See `Disk`."""
        return secrets.token_hex(8)


class failing(contextlib.AbstractContextManager[None]):  # noqa: N801  (read like a statement)
    """Turns an OSError of its block into the StorageError that names what was tried."""

    def __init__(self, doing: str, path: StrPath) -> None:
        self._doing = doing
        self._path = path

    def __exit__(self, _kind: object, fault: BaseException | None, _trace: object) -> None:
        if isinstance(fault, OSError):
            raise storage_error(fault, self._doing, self._path) from fault
