"""The database of a route service: the records of its graph, in SQLite unless a URL says PostgreSQL.

    records     name BLOB (8) · issued · expires (Unix seconds) · data BLOB (the record)

It may lose the last half minute at a power cut: all of it can be fetched again. Damaged, it goes to the
quarantine and begins anew. What is read back is checked like a record of a stranger. The tables of PostgreSQL
are those of `meshnet.node.graph_postgres`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from meshnet.errors import UsageError
from meshnet.storage.database import CACHE, Connection, Damage, Schema, open_database
from meshnet.storage.disk import Disk
from meshnet.storage.quarantine import Quarantine
from meshnet.storage.service import DatabaseService
from meshnet.topology.record import Name, Record

FILE: Final = "routes.sqlite"
SCHEMES: Final = ("postgresql", "postgres")
"""Of URLs of PostgreSQL."""
APPLICATION: Final = 0x6D72_7465


def _first(connection: Connection) -> None:
    connection.execute(
        "CREATE TABLE records (name BLOB PRIMARY KEY, issued INTEGER NOT NULL, expires INTEGER NOT NULL, "
        "data BLOB NOT NULL) STRICT, WITHOUT ROWID"
    )


SCHEMA: Final = Schema(APPLICATION, (_first,))


class Place(Protocol):
    """What is needed of a node."""

    @property
    def disk(self) -> Disk:
        """Its disk."""

    @property
    def data(self) -> Path:
        """Its directory."""

    @property
    def quarantine(self) -> Quarantine:
        """Where damaged files go."""

    @property
    def reactor(self) -> Any:
        """With threads."""


class GraphStore(Protocol):
    """Records kept outside the process. `place` says where, without a secret; `notes` are what the operator
    should know when it was opened. All of it raises StorageError when the database cannot be used now."""

    place: str
    notes: list[str]

    async def load(self, unix: float) -> list[tuple[Name, int, bytes]]:
        """Name, when it was issued and bytes of each record that has not expired; those that have are
        forgotten."""

    async def save(self, changed: Sequence[Record], gone: Sequence[Name]) -> None:
        """Puts records, forgets names."""

    async def close(self) -> None:
        """When all is written."""


def open_store(node: Place, database: str) -> GraphStore:
    """The store at `database`: a file, counted from the node's directory on, the usual one where it is empty,
    or a postgresql:// URL. Raises UsageError for another URL, MissingDependencyError without the extra for
    PostgreSQL, StorageError for a file that cannot be opened."""
    scheme = database.partition("://")[0] if "://" in database else ""
    if scheme in SCHEMES:
        from meshnet.node.graph_postgres import PostgresStore  # its driver takes 9 MB: not in every node

        return PostgresStore(node.reactor, database)
    if scheme:
        raise UsageError(
            f"A graph is kept in a file (SQLite) or under a postgresql:// URL; {scheme}:// is neither."
        )
    return FileStore(node, database or FILE)


class FileStore:
    """In SQLite (`GraphStore`)."""

    def __init__(self, node: Place, file: str) -> None:
        self.place = str(node.data / file)
        opened = open_database(
            node.disk, self.place, SCHEMA, profile=CACHE, quarantine=node.quarantine, rebuild=_empty
        )
        self.notes = list(opened.notes)
        self._service = DatabaseService(node.reactor, opened)

    async def load(self, unix: float) -> list[tuple[Name, int, bytes]]:
        """See `GraphStore`."""

        def work(connection: Connection) -> list[tuple[Name, int, bytes]]:
            connection.execute("DELETE FROM records WHERE expires <= ?", (int(unix),))
            rows = connection.execute("SELECT name, issued, data FROM records ORDER BY issued")
            return [(Name(bytes(name)), int(issued), bytes(data)) for name, issued, data in rows]

        return await self._service.write(work)

    async def save(self, changed: Sequence[Record], gone: Sequence[Name]) -> None:
        """See `GraphStore`."""
        rows = [(each.name, each.issued, each.expires, each.data) for each in changed]

        def work(connection: Connection) -> None:
            for row in rows:
                connection.execute("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?)", row)
            for name in gone:
                connection.execute("DELETE FROM records WHERE name = ?", (name,))

        await self._service.write(work)

    async def close(self) -> None:
        """See `GraphStore`."""
        await self._service.close()


def _empty(connection: Connection, damage: Damage) -> None:
    """It fills again by itself."""
