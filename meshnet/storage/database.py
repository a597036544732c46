"""SQLite databases that a power cut does not harm: written, read, copied, closed.

One process has a database open, one thread writes it. What a `transaction` of the DURABLE profile wrote is on
the medium when its block is left; CACHE may lose the last transactions at a power cut, never its shape.

    NAME                    the database; NAME-wal, NAME-shm beside it are SQLite's
    NAME.lock               locked while it is open
    NAME.state              closed in order: size u64 ‖ SHA-256 of NAME; else nothing; framed as in `kept.py`
    NAME.damaged            being rebuilt, see `opening.py`
    NAME.v3                 copy of NAME before it was migrated from version 3; the newest few are kept

It never guesses: a database that is damaged, newer than this program or another program's is refused with a
sentence and left as it is, unless the caller can rebuild it. Which thread calls is `service.py`'s affair.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from meshnet.errors import StorageError
from meshnet.storage.disk import (
    CorruptFileError,
    Disk,
    DiskFullError,
    FailingDiskError,
    Lock,
    StrPath,
    directory_of,
    name_of,
)
from meshnet.storage.files import make_directory
from meshnet.storage.opening import (
    CACHE,
    DURABLE,
    Damage,
    Found,
    Migration,
    Opening,
    Profile,
    Rebuild,
    Schema,
    copy_database,
    note_closed,
    note_failed,
)
from meshnet.storage.quarantine import Quarantine
from meshnet.storage.sqlite import Connect, Connection, ConstraintError, connect_sqlite

__all__ = [
    "CACHE",
    "DURABLE",
    "Connection",
    "ConstraintError",
    "Damage",
    "Database",
    "Found",
    "Migration",
    "Profile",
    "Reader",
    "Rebuild",
    "Schema",
    "Work",
    "open_database",
]

T = TypeVar("T")
Work = Callable[[Connection], T]
"""What is done inside a transaction. It runs in another thread and touches nothing but the connection."""


class Database:
    """An open database. `found` says what was there, `notes` what the operator should know, in sentences.

    `write` and `transaction` are for one thread at a time, `read` for one at a time, which may be another.
    """

    def __init__(
        self, disk: Disk, path: str, lock: Lock, writer: Connection, reader: Connection | None, found: Found
    ) -> None:
        self._disk = disk
        self._lock: Lock | None = lock
        self._writer = writer
        self._reader = reader
        self._connect_reader: Callable[[], Connection] | None = None
        self._broken: StorageError | None = None
        self.path = path
        self.found = found
        self.notes: list[str] = []

    @property
    def separate_reader(self) -> bool:
        """Whether `read` may run while `write` does."""
        return self._reader is not None

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction that writes: committed when the block ends, taken back when it raises.

        StorageError if it cannot be committed; then nothing of it is there. After an input/output error or
        damage the database takes no more writes until it is opened anew, which checks it.
        """
        self._check()
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(StorageError):  # SQLite may have taken it back itself
                    self._writer.execute("ROLLBACK")
                raise
        except (CorruptFileError, FailingDiskError) as fault:
            self._broken = fault
            if isinstance(fault, FailingDiskError):
                note_failed(self._disk, self.path)
            raise

    def write(self, work: Work[T]) -> T:
        """The result of `work` in a transaction that writes."""
        with self.transaction() as connection:
            return work(connection)

    def write_many(self, works: Sequence[Work[T]]) -> list[T | Exception]:
        """Several works in one transaction: one sync for all. Each work's result, or its exception, which
        takes back that work alone. Raises StorageError if nothing could be committed."""
        results: list[T | Exception] = []
        with self.transaction() as connection:
            for work in works:
                connection.execute("SAVEPOINT work")
                try:
                    results.append(work(connection))
                except (CorruptFileError, FailingDiskError, DiskFullError):
                    raise  # SQLite has taken back the whole transaction
                except Exception as fault:
                    connection.execute("ROLLBACK TO work")
                    results.append(fault)
                connection.execute("RELEASE work")
        return results

    def read(self, work: Work[T]) -> T:
        """The result of `work`, which sees one state of the database throughout and writes nothing."""
        connection = self._reader or self._writer
        try:
            connection.execute("BEGIN")
            try:
                return work(connection)
            finally:
                with contextlib.suppress(StorageError):
                    connection.execute("ROLLBACK")
        except CorruptFileError as fault:
            self._broken = self._broken or fault
            raise

    def read_aside(self, work: Work[T]) -> T:
        """Like `read`, for work that takes long: on a connection of its own, so that any thread may run it
        and nobody waits for it; meanwhile the log of writes grows. Without a reading connection: `read`."""
        if self._connect_reader is None:
            return self.read(work)
        connection = self._connect_reader()
        try:
            connection.execute("BEGIN")
            return work(connection)
        finally:
            connection.close()

    def reader(self) -> Reader:
        """A reader for another thread. Without a reading connection: over the only one there is, for the
        thread that writes."""
        if self._connect_reader is None:
            return Reader(self._writer, own=False)
        return Reader(self._connect_reader(), own=True)

    def backup_to(self, path: StrPath) -> None:
        """A copy of the present state at `path`, in place of any file there; durable on return. The database
        can be used meanwhile, where it has a reading connection of its own."""
        copy_database(self._disk, self._reader or self._writer, name_of(path))

    def close(self) -> None:
        """Close it in order: all in one file, and its hash noted; a second call does nothing."""
        lock, self._lock = self._lock, None
        if lock is None:
            return
        with contextlib.ExitStack() as last:
            last.callback(lock.release)  # whatever fails
            try:
                if self._broken is None:
                    self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            except StorageError as fault:
                self._broken = fault
                note_failed(self._disk, self.path)
                raise
            finally:
                orderly = self._broken is None
                self._broken = self._broken or StorageError(f"{self.path} is closed")
                if self._reader is not None:
                    self._reader.close()
                self._writer.close()
            if orderly:
                note_closed(self._disk, self.path)

    def _check(self) -> None:
        if self._broken is not None:
            raise StorageError(f"{self.path} takes no more writes: {self._broken}") from self._broken


class Reader:
    """Reads a database over a connection of its own, for one thread at a time, which may be any."""

    def __init__(self, connection: Connection, *, own: bool) -> None:
        self._connection = connection
        self._own = own
        self._steady = False

    def read(self, work: Work[T]) -> T:
        """The result of `work`, which sees one state of the database throughout and writes nothing."""
        if self._steady:
            return work(self._connection)
        with self.steadily():
            return work(self._connection)

    @contextlib.contextmanager
    def steadily(self) -> Iterator[None]:
        """All that is read inside is of the state at the first look; not one inside another."""
        self._connection.execute("BEGIN")
        self._steady = True
        try:
            yield
        finally:
            self._steady = False
            with contextlib.suppress(StorageError):
                self._connection.execute("ROLLBACK")

    def close(self) -> None:
        """Ends the connection, before the database is closed."""
        if self._own:
            self._connection.close()


def open_database(
    disk: Disk,
    path: StrPath,
    schema: Schema,
    *,
    profile: Profile = DURABLE,
    connect: Connect = connect_sqlite,
    separate_reader: bool = True,
    quarantine: Quarantine | None = None,
    rebuild: Rebuild | None = None,
) -> Database:
    """Open the database at `path`, or make it, with its directory.

    `LockedError` if another process has it open; `CorruptFileError` if it is damaged and `quarantine` and
    `rebuild` are not both given; `StorageError` if it is newer than `schema` or another program's. Without
    `separate_reader` there is one connection, which keeps SQLite's lock: no memory is shared with others.
    """
    name = name_of(path)
    make_directory(disk, directory_of(name))
    lock = disk.lock(f"{name}.lock")
    try:
        opening = Opening(disk, name, schema, profile, connect, separate_reader)
        try:
            found, writer = opening.begin()
        except CorruptFileError as fault:
            if quarantine is None or rebuild is None:
                raise
            found, writer = opening.replace(str(fault), quarantine, rebuild)
        reader = opening.connect_reader() if separate_reader else None
    except BaseException as fault:
        if isinstance(fault, FailingDiskError):
            note_failed(disk, name)
        lock.release()
        raise
    database = Database(disk, name, lock, writer, reader, found)
    database._connect_reader = opening.connect_reader if separate_reader else None
    database.notes += opening.notes
    return database
