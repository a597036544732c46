"""SQLite on a simulated disk: a file system for APSW, so that databases meet power cuts too.

`connect_on(disk)` is what `open_database(…, connect=…)` takes. The calls are those that SQLite's own file
system for unix makes of the system, in the same order: a new journal or log syncs its directory with its
first sync, a removal does when it is asked to; sectors are 4,096 bytes and a write harms nothing beside it.
There is no
shared memory, so a log (WAL) works with one connection that keeps its lock (`separate_reader=False`).

APSW is one of the test tools. Its own SQLite may be a newer one than Python's.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
from collections.abc import Iterable, Iterator
from typing import Any, Final

from lab.simulation.disk import SimulatedDisk, SimulatedFile
from meshnet.errors import MissingDependencyError, StorageError
from meshnet.storage.disk import DiskFullError, MissingFileError, directory_of, name_of
from meshnet.storage.sqlite import Connect, Parameters, Row, database_error

SECTOR: Final = 4096
NAME: Final = "simulated"

_CREATE, _DELETE_ON_CLOSE, _READ_ONLY = 0x4, 0x8, 0x1
_MAIN_JOURNAL, _SUPER_JOURNAL, _LOG = 0x800, 0x4000, 0x80000
_SYNCS_DIRECTORY: Final = _MAIN_JOURNAL | _SUPER_JOURNAL | _LOG
_POWERSAFE_OVERWRITE: Final = 0x1000
_LOCK_NONE: Final = 0


def available() -> bool:
    """Whether APSW is installed."""
    return importlib.util.find_spec("apsw") is not None


def connect_on(disk: SimulatedDisk) -> Connect:
    """Opens databases on this disk. Raises MissingDependencyError without APSW."""
    files = _files()
    return lambda path: SimulatedConnection(disk, path, files)


class SimulatedConnection:
    """A `meshnet.storage.sqlite.Connection` on a simulated disk."""

    def __init__(self, disk: SimulatedDisk, path: str, files: _Methods) -> None:
        self.disk = disk
        self._files = files
        self._path = name_of(path)
        self._apsw: Any = importlib.import_module("apsw")
        self._connection: Any = None
        self.dead = False
        """Its program is dead: it does nothing more to the disk."""
        with _Running(self):
            self._connection = self._apsw.Connection(self._path, vfs=NAME)

    def execute(self, statement: str, parameters: Parameters = ()) -> list[Row]:
        """See `Connection`."""
        with _Running(self):
            return list(self._connection.execute(statement, parameters))

    def execute_many(self, statement: str, parameters: Iterable[Parameters]) -> None:
        """See `Connection`."""
        with _Running(self):
            for _ in self._connection.executemany(statement, parameters):
                pass

    def rows(self, statement: str, parameters: Parameters = ()) -> Iterator[Row]:
        """See `Connection`."""
        yield from self.execute(statement, parameters)

    def changes(self) -> int:
        """See `Connection`."""
        return int(self._connection.changes())

    def last_row(self) -> int:
        """See `Connection`."""
        return int(self._connection.last_insert_rowid())

    def close(self) -> None:
        """See `Connection`."""
        with _Running(self):
            self._connection.close()

    def __del__(self) -> None:
        self.dead = True
        if self._connection is not None:
            with contextlib.suppress(Exception):
                self.close()


class _Running:
    """While a statement runs, the paths that SQLite names are those of its disk; faults become sentences."""

    def __init__(self, connection: SimulatedConnection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection._files.running.append(self._connection)

    def __exit__(self, _kind: object, fault: BaseException | None, _trace: object) -> None:
        connection = self._connection
        connection._files.running.pop()
        if isinstance(fault, connection._apsw.Error):
            code = getattr(fault, "extendedresult", 0) or getattr(fault, "result", 1) or 1
            raise database_error(code, str(fault), connection._path) from fault


class _Methods:
    """The methods of a file system as SQLite wants them; at the end of `running` is who uses it now."""

    def __init__(self) -> None:
        self.running: list[SimulatedConnection] = []
        self.apsw: Any = importlib.import_module("apsw")

    def fault(self, error: StorageError, code: str) -> Exception:
        """What to raise so that SQLite sees this error of the disk."""
        full = isinstance(error, DiskFullError)
        return self.apsw.exception_for(getattr(self.apsw, "SQLITE_FULL" if full else code))  # type: ignore[no-any-return]

    def xOpen(self, name: Any, flags: list[int]) -> _File:
        """Open a file; without a name, a temporary one that no crash has to do with."""
        connection = self.running[-1]
        disk = connection.disk
        if name is None:
            return _File(self, connection, SimulatedDisk(), "/temporary", flags[0] | _CREATE)
        path = name.filename() if hasattr(name, "filename") else name
        try:
            file = _File(self, connection, disk, path, flags[0])
        except StorageError as error:
            raise self.fault(error, "SQLITE_CANTOPEN") from error
        flags[1] = flags[0]
        return file

    def xDelete(self, path: str, sync: bool) -> None:
        """Remove a file, and make that durable if asked to."""
        if self.running[-1].dead:
            return
        disk = self.running[-1].disk
        try:
            disk.unlink(path)
            if sync:
                disk.fsyncdir(directory_of(path))
        except MissingFileError as error:
            raise self.fault(error, "SQLITE_IOERR_DELETE_NOENT") from error
        except StorageError as error:
            raise self.fault(error, "SQLITE_IOERR_DELETE") from error

    def xAccess(self, path: str, flags: int) -> bool:
        """Whether a file is there; as in SQLite's own, an empty one counts as none."""
        disk = self.running[-1].disk
        return disk.exists(path) and (flags != 0 or disk.stat(path).size > 0)

    def xFullPathname(self, path: str) -> str:
        """The path from the root."""
        return name_of(os.path.join("/", path))


class _File:
    """An open file as SQLite wants it."""

    def __init__(
        self, files: _Methods, connection: SimulatedConnection, disk: SimulatedDisk, path: str, flags: int
    ) -> None:
        self._files = files
        self._connection = connection
        self._disk = disk
        self._path = path
        self._remove = bool(flags & _DELETE_ON_CLOSE)
        new = bool(flags & _CREATE) and not disk.exists(path)
        self._sync_directory = bool(flags & _CREATE) and bool(flags & _SYNCS_DIRECTORY)
        self._file: SimulatedFile = disk.open(
            path, "create" if new else "read" if flags & _READ_ONLY else "write"
        )
        self._level = _LOCK_NONE

    def xRead(self, amount: int, offset: int) -> bytes:
        """Bytes; fewer at the end of the file."""
        try:
            return self._file.pread(amount, offset)
        except StorageError as error:
            raise self._files.fault(error, "SQLITE_IOERR_READ") from error

    def xWrite(self, data: bytes, offset: int) -> None:
        """Write all of it."""
        if self._connection.dead:
            return
        try:
            self._file.pwrite(data, offset)
        except StorageError as error:
            raise self._files.fault(error, "SQLITE_IOERR_WRITE") from error

    def xTruncate(self, size: int) -> None:
        """Cut the file."""
        if self._connection.dead:
            return
        try:
            self._file.truncate(size)
        except StorageError as error:
            raise self._files.fault(error, "SQLITE_IOERR_TRUNCATE") from error

    def xSync(self, _flags: int) -> None:
        """Make the bytes durable; the first time those of a new journal or log, its name too."""
        if self._connection.dead:
            return
        try:
            self._file.fsync()
            if self._sync_directory:
                self._disk.fsyncdir(directory_of(self._path))
                self._sync_directory = False
        except StorageError as error:
            raise self._files.fault(error, "SQLITE_IOERR_FSYNC") from error

    def xFileSize(self) -> int:
        """Its size."""
        return self._file.size()

    def xLock(self, level: int) -> None:
        """There is one connection, so each lock is free."""
        self._level = max(self._level, level)

    def xUnlock(self, level: int) -> None:
        """See `xLock`."""
        self._level = level

    def xCheckReservedLock(self) -> bool:
        """Nobody else has one."""
        return False

    def xFileControl(self, _operation: int, _pointer: int) -> bool:
        """Nothing special is known."""
        return False

    def xSectorSize(self) -> int:
        """Bytes that a device writes whole, as SQLite assumes."""
        return SECTOR

    def xDeviceCharacteristics(self) -> int:
        """A write harms nothing beside it (SQLite's default for unix)."""
        return _POWERSAFE_OVERWRITE

    def xClose(self) -> None:
        """Close it, and remove it if it was temporary."""
        self._file.close()
        if self._remove and not self._connection.dead and self._disk.exists(self._path):
            self._disk.unlink(self._path)


_made: list[Any] = []


def _files() -> _Methods:
    """The file system, registered with SQLite at the first call."""
    if not available():
        raise MissingDependencyError("APSW is missing: run ./mesh test once, which installs the test tools.")
    if not _made:
        vfs: Any = importlib.import_module("apsw").VFS

        class SimulatedFiles(_Methods, vfs):  # type: ignore[misc]
            def __init__(self) -> None:
                _Methods.__init__(self)
                vfs.__init__(self, NAME, base="", maxpathname=512)

        _made.append(SimulatedFiles())
    return _made[0]  # type: ignore[no-any-return]
