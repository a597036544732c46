"""The database of a route service in PostgreSQL, for graphs that are kept beside other things (`psycopg`).

    meshnet_records     name bytea (8) · issued · expires bigint (Unix seconds) · data bytea (the record)

The table is made where it is missing, in the schema that the URL leads to, and belongs to one service at a
time, as an advisory lock says. Calls are made in a thread. A server that cannot be used raises StorageError
and is asked anew at the next call: what is kept here can be fetched again, and the service has all of it in
memory. A password is never told again, neither in `place` nor in a sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from meshnet.errors import MissingDependencyError, StorageError, UsageError
from meshnet.storage.service import DiskThread
from meshnet.topology.record import Name, Record

try:
    import psycopg
    from psycopg import conninfo
except ImportError:  # an extra
    psycopg = None  # type: ignore[assignment]

CONNECT_SECONDS: Final = 5
CALL_SECONDS: Final = 30
"""After which the server gives up a statement, and a silent server is given up."""
LOCK: Final = 0x6D72_7465
"""The class of the advisory lock; the key is that of the schema."""
SETTINGS: Final[dict[str, Any]] = {
    "application_name": "meshnet",
    "connect_timeout": CONNECT_SECONDS,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 1_000 * CALL_SECONDS,
}
"""How we connect where the URL does not say otherwise."""
TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS meshnet_records (name bytea PRIMARY KEY CHECK (octet_length(name) = 8), "
    "issued bigint NOT NULL, expires bigint NOT NULL, data bytea NOT NULL)"
)
PUT: Final = (
    "INSERT INTO meshnet_records VALUES (%s, %s, %s, %s) ON CONFLICT (name) DO UPDATE "
    "SET issued = excluded.issued, expires = excluded.expires, data = excluded.data"
)
T = TypeVar("T")


class PostgresStore:
    """Under a URL (`meshnet.node.graph_store.GraphStore`). `reactor` is any with threads."""

    def __init__(self, reactor: Any, url: str) -> None:
        if psycopg is None:
            raise MissingDependencyError("A graph in PostgreSQL needs psycopg: install meshnet[postgres].")
        try:
            self._settings: dict[str, Any] = SETTINGS | conninfo.conninfo_to_dict(url)
        except psycopg.Error:  # whose text may have a part of the password
            raise UsageError(
                "The URL of a graph cannot be read; write postgresql://USER@HOST:PORT/DATABASE, with signs "
                "like % and @ in names and passwords as %25 and %40."
            ) from None
        self.place = _shown(self._settings)
        self.notes: list[str] = []
        self._thread = DiskThread(reactor)
        self._connection: Any = None

    async def load(self, unix: float) -> list[tuple[Name, int, bytes]]:
        """See `GraphStore`."""

        def work(connection: Any) -> list[tuple[Name, int, bytes]]:
            connection.execute("DELETE FROM meshnet_records WHERE expires <= %s", (int(unix),))
            rows = connection.execute("SELECT name, issued, data FROM meshnet_records ORDER BY issued")
            return [(Name(bytes(name)), issued, bytes(data)) for name, issued, data in rows]

        return await self._thread.call(self._do, work)

    async def save(self, changed: Sequence[Record], gone: Sequence[Name]) -> None:
        """See `GraphStore`."""
        rows = [(each.name, each.issued, each.expires, each.data) for each in changed]

        def work(connection: Any) -> None:
            with connection.cursor() as cursor:
                cursor.executemany(PUT, rows)
            connection.execute("DELETE FROM meshnet_records WHERE name = ANY(%s)", (list(gone),))

        await self._thread.call(self._do, work)

    async def close(self) -> None:
        """See `GraphStore`."""
        last = self._thread.call(self._leave)
        await self._thread.close()
        await last

    # in the thread

    def _do(self, work: Callable[[Any], T]) -> T:
        """`work` in a transaction. A connection that was lost since the last one is made anew, once."""
        kept = self._connection is not None
        try:
            return self._once(work)
        except psycopg.OperationalError as error:
            if not kept:
                raise self._fault(error) from None
        except psycopg.Error as error:
            raise self._fault(error) from None
        try:
            return self._once(work)
        except psycopg.Error as error:
            raise self._fault(error) from None

    def _once(self, work: Callable[[Any], T]) -> T:
        try:
            if self._connection is None:
                self._connection = psycopg.connect(**self._settings)
                self._begin(self._connection)
            with self._connection.transaction():
                return work(self._connection)
        except BaseException:
            self._leave()
            raise

    def _begin(self, connection: Any) -> None:
        connection.autocommit = True
        connection.execute(f"SET statement_timeout = {1_000 * CALL_SECONDS}")
        taken = connection.execute(f"SELECT pg_try_advisory_lock({LOCK}, hashtext(current_schema()))")
        if not taken.fetchone()[0]:
            raise StorageError(
                f"The database {self.place} is used by another route service; give each one its own."
            )
        connection.execute(TABLE)

    def _leave(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _fault(self, error: Exception) -> StorageError:
        lines = str(error).strip().removeprefix("connection failed: ").splitlines() or ["no reason is told"]
        return StorageError(f"The database {self.place} cannot be used now: {lines[0].strip().rstrip('.')}.")


def _shown(settings: dict[str, Any]) -> str:
    """Where the database is, without a secret."""
    user = f"{settings['user']}@" if settings.get("user") else ""
    host = settings.get("host") or settings.get("hostaddr") or ""
    port = f":{settings['port']}" if settings.get("port") else ""
    return f"postgresql://{user}{host}{port}/{settings.get('dbname') or ''}"
