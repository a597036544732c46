"""What happens before a database may be used: is it there, whole, ours, of this version?

    NAME.damaged            JSON {"stage": "move" or "fill", "why": text, "quarantined": path}

A damaged database that its owner can rebuild goes so: mark "move" → quarantine → mark "fill" → new database,
filled in one transaction → mark removed. A power cut anywhere leaves what the next opening goes on from.
Every other doubt is a sentence, and the files stay as they are.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterable
from enum import Enum
from hashlib import sha256
from struct import Struct
from typing import Final, Literal

from attrs import field, frozen

from meshnet.errors import StorageError
from meshnet.limits import DATABASE_BACKUPS, DATABASE_BUSY_SECONDS, DATABASE_HASHED, DATABASE_WAL
from meshnet.storage.disk import (
    CorruptFileError,
    Disk,
    FailingDiskError,
    MissingFileError,
    base_of,
    directory_of,
    join,
)
from meshnet.storage.files import create_file, discard, read_file, renew_file, replacing, write_file
from meshnet.storage.kept import OVERHEAD, pack, unpack
from meshnet.storage.quarantine import Quarantine
from meshnet.storage.sqlite import Connect, Connection

Migration = str | Callable[[Connection], None]
"""SQL statements, each ended by a line that ends in `;`, or a function, that bring a schema a version on."""
_STATE: Final = Struct(">Q32s")
_FAILED: Final = 1  # the frame's format; else 0
_MARK_MOST: Final = 4_096
_CHUNK: Final = 1 << 20
_LOGS: Final = ("-wal", "-journal")
_SIDECARS: Final = (*_LOGS, "-shm", ".state")


@frozen
class Profile:
    """How much a database promises. `synchronous` is SQLite's pragma, `check` the pragma that looks at the
    whole of it after an unclean stop."""

    synchronous: Literal["NORMAL", "FULL"]
    check: Literal["integrity_check", "quick_check"]


DURABLE: Final = Profile("FULL", "integrity_check")
"""What is committed survives a power cut: money, ratchets, wallets, whatever was acknowledged."""
CACHE: Final = Profile("NORMAL", "quick_check")
"""What is committed may be gone after a power cut, back to an earlier commit: what can be fetched again."""


def _in_order(migrations: Iterable[Migration]) -> tuple[Migration, ...]:
    return tuple(migrations)


@frozen
class Schema:
    """What is in a database: `application` (SQLite's application_id, 1 to 2^31 - 1) tells it from those of
    others, `migrations[v]` brings version v to v + 1; a new database runs them all. Tables are STRICT."""

    application: int
    migrations: tuple[Migration, ...] = field(converter=_in_order)


class Found(Enum):
    """What was there when a database was opened."""

    NEW = "new"
    CLEAN = "clean"
    """Closed in order the last time, and unchanged since."""
    UNCLEAN = "unclean"
    """Not closed in order: checked, and whole."""
    REBUILT = "rebuilt"
    """Damaged; moved to the quarantine and filled again by the caller's `rebuild`."""


@frozen
class Damage:
    """Why a database is rebuilt, and where the old one lies now (empty if nothing was left of it)."""

    why: str
    quarantined: str


Rebuild = Callable[[Connection, Damage], None]
"""Fills a new, empty database (its schema is up to date) inside a transaction: only for what can be fetched
or computed again, or when an older copy is better than none. May raise StorageError to refuse."""


class Opening:
    """One attempt to open the database at `path`, whose lock the caller holds."""

    def __init__(
        self,
        disk: Disk,
        path: str,
        schema: Schema,
        profile: Profile,
        connect: Connect,
        separate_reader: bool,
    ) -> None:
        self._disk = disk
        self._path = path
        self._schema = schema
        self._profile = profile
        self._connect = connect
        self._shared = separate_reader
        self._failed = False
        self.notes: list[str] = []

    def begin(self) -> tuple[Found, Connection]:
        """What was found, and the writing connection, its schema up to date."""
        if self._disk.exists(self._mark):
            raise CorruptFileError(f"{self._path} is damaged: {self._read_mark()['why']}")
        found = self._look()
        if not self._failed:
            self._disown()
        connection = self._connect_writer()
        try:
            if found is Found.UNCLEAN:
                self._check(connection)
            if self._failed:
                connection = self._renew(connection)
            self._identify(connection)
            self._migrate(connection, None)
        except BaseException:
            connection.close()
            raise
        return found, connection

    def replace(self, why: str, quarantine: Quarantine, rebuild: Rebuild) -> tuple[Found, Connection]:
        """Move the database to the quarantine and fill a new one; goes on where an earlier attempt ended."""
        mark = self._read_mark() if self._disk.exists(self._mark) else self._write_mark("move", why, "")
        if mark["stage"] == "move":
            # The main file first: a log without it is seen at the next opening, the reverse is not.
            files = (self._path, *(self._path + sidecar for sidecar in _SIDECARS))
            mark = self._write_mark("fill", mark["why"], quarantine.take(mark["why"], *files))
        self._disown()
        self._make()
        connection = self._connect_writer()
        try:
            damage = Damage(mark["why"], mark["quarantined"])
            if connection.execute("PRAGMA user_version")[0][0] < len(self._schema.migrations):
                self._migrate(connection, lambda: rebuild(connection, damage))
            else:  # filled by a process that may have died before its sync
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except BaseException:
            connection.close()
            raise
        self._disk.unlink(self._mark)
        self._disk.fsyncdir(directory_of(self._path))
        self.notes.append(f"{damage.why}; it was moved to {damage.quarantined} and filled again.")
        return Found.REBUILT, connection

    def connect_reader(self) -> Connection:
        """A connection that only reads."""
        connection = self._connect(self._path)
        self._set_rules(connection)
        connection.execute("PRAGMA query_only = 1")
        return connection

    @property
    def _mark(self) -> str:
        return f"{self._path}.damaged"

    def _read_mark(self) -> dict[str, str]:
        try:
            mark = json.loads(read_file(self._disk, self._mark, _MARK_MOST))
            return {key: str(mark[key]) for key in ("stage", "why", "quarantined")}
        except (ValueError, TypeError, LookupError, RecursionError):
            # Not ours; nothing is lost by taking the files again.
            return {"stage": "move", "why": f"{self._path} was being rebuilt", "quarantined": ""}

    def _write_mark(self, stage: str, why: str, quarantined: str) -> dict[str, str]:
        mark = {"stage": stage, "why": why[:1000], "quarantined": quarantined}
        write_file(self._disk, self._mark, json.dumps(mark).encode())
        return mark

    def _look(self) -> Found:
        """What is there, by its files alone. `CorruptFileError` if they do not fit together."""
        disk, path = self._disk, self._path
        log = f"{path}-wal"
        logged = disk.exists(log) and disk.stat(log).size > 0
        if not disk.exists(path):
            if logged:
                raise CorruptFileError(f"{path} is gone, but the log that belongs to it, {log}, is there")
            if _read_closed(disk, path) is not None:
                raise CorruptFileError(
                    f"{path} is gone, but was closed in order: if you removed it, remove {path}.state, too; "
                    "if not, it is lost"
                )
            self._make()
            return Found.NEW
        noted = _read_closed(disk, path)
        if disk.stat(path).size == 0 and not logged and noted is None:
            self._failed = _read_failed(disk, path)
            return Found.NEW  # a power cut came before anything was written
        if noted is None:
            self._failed = _read_failed(disk, path)
            return Found.UNCLEAN
        if logged or noted != _measure(disk, path):
            raise CorruptFileError(
                f"{path} has changed since it was closed: if that was you, remove {path}.state; if not, it "
                "is damaged"
            )
        return Found.CLEAN

    def _make(self) -> None:
        """An empty file of ours, so that its permissions are right and its name durable before any log's."""
        if not self._disk.exists(self._path):
            create_file(self._disk, self._path, b"")

    def _disown(self) -> None:
        """From here on it is not closed in order: that must be durable before anything is written.

        Written, not removed: were syncing a removal to fail, the old note might come back after all.
        """
        write_file(self._disk, f"{self._path}.state", pack(b""))

    def _renew(self, connection: Connection) -> Connection:
        """After an input/output error: the same bytes in a new file, and a connection to that."""
        connection.close()  # with all of its log in it, which is gone then
        if self._disk.exists(f"{self._path}-wal"):
            raise FailingDiskError(f"cannot renew {self._path}, which could not be written: check the disk")
        renew_file(self._disk, self._path)
        for sidecar in _LOGS:  # SQLite has removed them, but that removal may have failed to be durable
            write_file(self._disk, self._path + sidecar, b"")
            discard(self._disk, self._path + sidecar)
        self._disown()
        self.notes.append(f"{self._path} was copied to a new file: the disk had reported an error.")
        return self._connect_writer()

    def _connect_writer(self) -> Connection:
        connection = self._connect(self._path)
        try:
            if not self._shared:  # before WAL: then the log's index is in our memory, not in a shared file
                connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._set_rules(connection)
            mode = connection.execute("PRAGMA journal_mode = WAL")[0][0]
            if str(mode).lower() != "wal":
                raise StorageError(f"cannot keep a log for {self._path}: its disk does not allow it")
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_rules(self, connection: Connection) -> None:
        for name, value in (
            ("busy_timeout", int(DATABASE_BUSY_SECONDS * 1000)),
            ("synchronous", self._profile.synchronous),
            ("fullfsync", 1),  # macOS: through the drive's cache
            ("checkpoint_fullfsync", 1),
            ("foreign_keys", 1),
            ("cell_size_check", 1),
            ("trusted_schema", 0),
            ("journal_size_limit", DATABASE_WAL),
        ):
            connection.execute(f"PRAGMA {name} = {value}")

    def _check(self, connection: Connection) -> None:
        """After an unclean stop: every page, and then all of the log durable in the database itself, since
        what is read now may never have been synced."""
        (answer, *_), *_ = connection.execute(f"PRAGMA {self._profile.check}(1)")
        if answer != "ok":
            raise CorruptFileError(f"{self._path} is damaged: {answer}")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _identify(self, connection: Connection) -> None:
        application = connection.execute("PRAGMA application_id")[0][0]
        version = connection.execute("PRAGMA user_version")[0][0]
        tables = connection.execute("SELECT count(*) FROM sqlite_schema")[0][0]
        if application != self._schema.application and (application or version or tables):
            raise StorageError(f"{self._path} is a database of another program: move it away")
        known = len(self._schema.migrations)
        if version > known:
            raise StorageError(
                f"{self._path} was written by a newer version of this program (schema {version}, this one "
                f"knows {known}): run that version again, or restore an older copy"
            )

    def _migrate(self, connection: Connection, fill: Callable[[], None] | None) -> None:
        """All that is missing, in one transaction, behind a copy of what was before."""
        version = int(connection.execute("PRAGMA user_version")[0][0])
        missing = self._schema.migrations[version:]
        if not missing:
            return
        if version:
            copy_database(self._disk, connection, f"{self._path}.v{version}")
            self._prune_copies()
        connection.execute("PRAGMA foreign_keys = 0")  # tables may be made anew; all is checked at the end
        connection.execute("BEGIN IMMEDIATE")
        try:
            for migration in missing:
                _apply(connection, migration)
            if fill is not None:
                fill()
            if connection.execute("PRAGMA foreign_key_check"):
                raise StorageError(f"{self._path} cannot be brought up to date: references would break")
            connection.execute(f"PRAGMA application_id = {self._schema.application:d}")
            connection.execute(f"PRAGMA user_version = {len(self._schema.migrations):d}")
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(StorageError):
                connection.execute("ROLLBACK")
            raise
        connection.execute("PRAGMA foreign_keys = 1")
        # A CACHE does not sync its commits; the schema should stay all the same.
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _prune_copies(self) -> None:
        """Keep the newest few copies."""
        directory, prefix = directory_of(self._path), f"{base_of(self._path)}.v"
        versions = [
            int(name[len(prefix) :])
            for name in self._disk.listdir(directory)
            if name.startswith(prefix) and name[len(prefix) :].isdecimal()
        ]
        for version in sorted(versions)[:-DATABASE_BACKUPS]:
            self._disk.unlink(join(directory, f"{prefix}{version}"))


def copy_database(disk: Disk, connection: Connection, path: str) -> None:
    """Copy the state that `connection` sees to `path`, in place of any file there. Durable on return."""
    with replacing(disk, path) as temporary:
        (reads_only,) = connection.execute("PRAGMA query_only")[0]
        connection.execute("PRAGMA query_only = 0")
        try:
            connection.execute("VACUUM INTO ?", (temporary,))
        finally:
            connection.execute(f"PRAGMA query_only = {reads_only:d}")


def note_closed(disk: Disk, path: str) -> None:
    """Note the database, which is closed and whole, as closed in order."""
    with contextlib.suppress(StorageError):  # not noted, it is checked at the next opening
        disk.fsyncdir(directory_of(path))  # SQLite has removed its log: the note must not come before that
        size, digest = _measure(disk, path)
        write_file(disk, f"{path}.state", pack(_STATE.pack(size, digest)))


def note_failed(disk: Disk, path: str) -> None:
    """Note that the disk failed: the file is not to be trusted with more. As well as it can be done."""
    with contextlib.suppress(StorageError):
        write_file(disk, f"{path}.state", pack(b"", _FAILED))


def _read_failed(disk: Disk, path: str) -> bool:
    """Whether that was noted."""
    try:
        return unpack(read_file(disk, f"{path}.state", OVERHEAD)).format == _FAILED
    except (MissingFileError, CorruptFileError):
        return False


def _read_closed(disk: Disk, path: str) -> tuple[int, bytes] | None:
    """What was noted when the database was closed; None if it was not closed in order."""
    try:
        frame = unpack(read_file(disk, f"{path}.state", OVERHEAD + _STATE.size))
    except (MissingFileError, CorruptFileError):
        return None
    if len(frame.data) != _STATE.size:
        return None
    size, digest = _STATE.unpack(frame.data)
    return size, digest


def _measure(disk: Disk, path: str) -> tuple[int, bytes]:
    """Size and SHA-256 of a database; of a large one the size alone, with zeros."""
    with contextlib.closing(disk.open(path)) as file:
        size = file.size()
        if size > DATABASE_HASHED:
            return size, bytes(32)
        digest = sha256()
        for offset in range(0, size, _CHUNK):
            digest.update(file.pread(_CHUNK, offset))
        return size, digest.digest()


def _apply(connection: Connection, migration: Migration) -> None:
    if not isinstance(migration, str):
        migration(connection)
        return
    statement = ""
    for line in migration.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            connection.execute(statement)
            statement = ""
    if statement.strip():
        raise StorageError(f"a migration ends inside a statement: {statement.strip()[:40]}")
