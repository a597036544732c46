"""A connection to an SQLite database: the small face that `database.py` needs, over the standard library.

It runs statements and turns SQLite's faults into `StorageError` sentences. It begins no transaction, sets no
pragma and touches no file but through SQLite: the rules are `database.py`'s. Whoever has an SQLite with a
file system of its own (the lab, for power cuts) gives `open_database` another `connect`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from meshnet.errors import MissingDependencyError, StorageError
from meshnet.storage.disk import (
    CorruptFileError,
    DiskFullError,
    FailingDiskError,
    LockedError,
    StrPath,
    name_of,
)

Value = int | float | str | bytes | None
"""What a column holds."""
Row = tuple[Any, ...]
"""A row; `Any` because its types are those of the statement."""
Parameters = Sequence[Value] | Mapping[str, Value]

OLDEST: Final = (3, 37, 0)
"""The first SQLite with STRICT tables."""

BUSY, LOCKED, NO_MEMORY, READ_ONLY, IO_ERROR, CORRUPT, FULL, CANNOT_OPEN, CONSTRAINT, NOT_A_DATABASE = (
    *(5, 6, 7, 8, 10, 11, 13, 14, 19, 26),
)
"""Primary result codes of SQLite (sqlite.org/rescode.html) that have a sentence of their own."""


class ConstraintError(StorageError):
    """A row that the schema does not allow: not unique, a reference to nothing, a wrong type."""


class Connection(Protocol):
    """An open connection in autocommit mode. Used by one thread at a time; every method raises
    `StorageError` for what the disk did and for what SQLite says of a statement."""

    def execute(self, statement: str, parameters: Parameters = ()) -> list[Row]:
        """Run one statement to its end; all rows it gives."""

    def execute_many(self, statement: str, parameters: Iterable[Parameters]) -> None:
        """Run one statement that gives no rows once for each of `parameters`."""

    def rows(self, statement: str, parameters: Parameters = ()) -> Iterator[Row]:
        """Run one statement; its rows as they are asked for. End it before the transaction ends."""

    def changes(self) -> int:
        """How many rows the last INSERT, UPDATE or DELETE changed."""

    def last_row(self) -> int:
        """The rowid of the last INSERT."""

    def close(self) -> None:
        """Close it; a second call does nothing."""


Connect = Callable[[str], Connection]
"""Opens the database file at a path, and makes it if it is missing."""


def database_error(code: int, text: str, path: StrPath) -> StorageError:
    """The error to raise for SQLite's (extended or primary) result `code` with its message `text`."""
    name, primary = name_of(path), code & 0xFF
    if primary == FULL:
        return DiskFullError(f"no space left to write {name}: free some on that disk")
    if primary in (BUSY, LOCKED):
        return LockedError(f"{name} is locked: another process uses it, stop that one")
    if primary in (CORRUPT, NOT_A_DATABASE):
        return CorruptFileError(f"{name} is damaged: {text}")
    if primary == IO_ERROR:
        return FailingDiskError(f"cannot use {name}: the disk reports an input/output error, check it")
    if primary == CONSTRAINT:
        return ConstraintError(f"{name}: {text}")
    if primary == CANNOT_OPEN:
        return StorageError(f"cannot open {name}: see that its directory is there and may be written")
    if primary == READ_ONLY:
        return StorageError(f"cannot write {name}: it, its directory or its disk is read-only")
    return StorageError(f"{name}: {text}")


class SqliteConnection:
    """A `Connection` of the standard library's `sqlite3`."""

    def __init__(self, path: StrPath) -> None:
        if sqlite3.sqlite_version_info < OLDEST:
            raise MissingDependencyError(
                f"SQLite {sqlite3.sqlite_version} is too old, {'.'.join(map(str, OLDEST))} is needed: "
                "use a newer Python or system."
            )
        self._path = name_of(path)
        try:
            # Used by one thread at a time, but not always the same one: a thread pool serves it.
            self._connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as fault:
            raise self._error(fault) from fault
        self._cursor = self._connection.cursor()

    def execute(self, statement: str, parameters: Parameters = ()) -> list[Row]:
        """See `Connection`."""
        try:
            return self._cursor.execute(statement, parameters).fetchall()
        except sqlite3.Error as fault:
            raise self._error(fault) from fault
        except UnicodeDecodeError as fault:
            raise self._no_text(fault) from fault

    def execute_many(self, statement: str, parameters: Iterable[Parameters]) -> None:
        """See `Connection`."""
        try:
            self._cursor.executemany(statement, parameters)
        except sqlite3.Error as fault:
            raise self._error(fault) from fault

    def rows(self, statement: str, parameters: Parameters = ()) -> Iterator[Row]:
        """See `Connection`."""
        try:
            yield from self._connection.execute(statement, parameters)
        except sqlite3.Error as fault:
            raise self._error(fault) from fault
        except UnicodeDecodeError as fault:
            raise self._no_text(fault) from fault

    def changes(self) -> int:
        """See `Connection`."""
        return int(self.execute("SELECT changes()")[0][0])

    def last_row(self) -> int:
        """See `Connection`."""
        return int(self.execute("SELECT last_insert_rowid()")[0][0])

    def close(self) -> None:
        """See `Connection`."""
        try:
            self._connection.close()
        except sqlite3.Error as fault:
            raise self._error(fault) from fault

    def _no_text(self, fault: UnicodeDecodeError) -> StorageError:
        """Bytes where text was written, in a message about a damaged schema too."""
        return database_error(CORRUPT, str(fault), self._path)

    def _error(self, fault: sqlite3.Error) -> StorageError:
        code = getattr(fault, "sqlite_errorcode", 1)  # misuse that sqlite3 itself finds has none
        return database_error(code, str(fault), self._path)


def connect_sqlite(path: str) -> Connection:
    """A connection of the standard library (a `Connect`)."""
    return SqliteConnection(path)
