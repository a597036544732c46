"""Databases as workloads for the search: transactions, the log's checkpoint, a migration behind a copy.

They run in APSW's SQLite on the simulated disk (`sqlite.py`), through `meshnet.storage.database` as a node
opens them, with one connection.
"""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator

from lab.crash.search import Workload
from lab.crash.sqlite import connect_on
from lab.crash.witness import Witness
from lab.simulation.disk import SimulatedDisk
from meshnet.storage.database import DURABLE, Connection, Database, Profile, Schema, open_database
from meshnet.storage.quarantine import Quarantine

PATH = "/d/data.db"
_FIRST = "CREATE TABLE entry (id INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT;\n"
_SECOND = "ALTER TABLE entry ADD COLUMN more TEXT NOT NULL DEFAULT 'none';\n"
ONE, TWO = Schema(0x4D455348, (_FIRST,)), Schema(0x4D455348, (_FIRST, _SECOND))


@contextlib.contextmanager
def opened(disk: SimulatedDisk, schema: Schema = ONE, profile: Profile = DURABLE) -> Iterator[Database]:
    """The database, open; after an exception its files are left as they are."""
    connect = connect_on(disk)
    database = open_database(disk, PATH, schema, profile=profile, connect=connect, separate_reader=False)
    yield database
    database.close()


def texts(database: Database) -> tuple[str, ...]:
    """All that is in the database."""
    return tuple(
        text for (text,) in database.read(lambda it: it.execute("SELECT text FROM entry ORDER BY id"))
    )


def _add(connection: Connection, text: str) -> None:
    connection.execute("INSERT INTO entry (text) VALUES (?)", (text,))


def _found(disk: SimulatedDisk, schema: Schema = ONE, profile: Profile = DURABLE) -> Hashable:
    with opened(disk, schema, profile) as database:
        return texts(database)


def _go_on(disk: SimulatedDisk, found: Hashable, schema: Schema = ONE) -> None:
    with opened(disk, schema) as database:
        assert texts(database) == found
        with database.transaction() as connection:
            _add(connection, "after")
    with opened(disk.synced(), schema) as database:
        assert texts(database)[-1] == "after"


def _made(disk: SimulatedDisk) -> None:
    disk.mkdir("/d")
    with opened(disk):
        pass


def transactions(profile: Profile = DURABLE, name: str = "database") -> Workload:
    """One transaction, two in one, one that is taken back, a checkpoint, one more; closed in order."""

    def program(disk: SimulatedDisk, witness: Witness) -> None:
        with opened(disk, profile=profile) as database:
            witness.begins(("one",))
            database.write(lambda it: _add(it, "one"))
            witness.holds()
            witness.begins(("one", "two", "three"))
            database.write_many([lambda it: _add(it, "two"), lambda it: _add(it, "three")])
            witness.holds()
            with contextlib.suppress(ZeroDivisionError), database.transaction() as connection:
                _add(connection, "never")
                raise ZeroDivisionError
            database._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            witness.begins(("one", "two", "three", "four" * 300))
            database.write(lambda it: _add(it, "four" * 300))
            witness.holds()

    return Workload(name, program, lambda disk: _found(disk, profile=profile), _made, (), _go_on)


def new_database() -> Workload:
    """The first opening, and a first transaction."""

    def program(disk: SimulatedDisk, witness: Witness) -> None:
        with opened(disk) as database:
            witness.begins(("one",))
            database.write(lambda it: _add(it, "one"))
            witness.holds()

    return Workload("new database", program, _found, lambda disk: disk.mkdir("/d"), (), _go_on)


def migration() -> Workload:
    """A database of the first version, opened by a program that knows the second."""

    def prepare(disk: SimulatedDisk) -> None:
        disk.mkdir("/d")
        with opened(disk) as database:
            database.write(lambda it: _add(it, "kept"))

    def program(disk: SimulatedDisk, witness: Witness) -> None:
        with opened(disk, TWO) as database:
            witness.begins(("kept", "new"))
            database.write(lambda it: _add(it, "new"))
            witness.holds()

    return Workload(
        "migration",
        program,
        lambda disk: _found(disk, TWO),
        prepare,
        ("kept",),
        lambda disk, found: _go_on(disk, found, TWO),
    )


def rebuilding() -> Workload:
    """A damaged database that can be fetched again: moved aside, filled, used, through any cut."""

    def prepare(disk: SimulatedDisk) -> None:
        _made(disk)
        with contextlib.closing(disk.open(PATH, "write")) as file:
            file.pwrite(bytes(200), 0)
            file.fsync()

    @contextlib.contextmanager
    def mended(disk: SimulatedDisk) -> Iterator[Database]:
        database = open_database(
            disk,
            PATH,
            ONE,
            connect=connect_on(disk),
            separate_reader=False,
            quarantine=Quarantine(disk, "/d/quarantine", lambda: 1.79e9),
            rebuild=lambda connection, _: _add(connection, "fetched"),
        )
        yield database
        database.close()

    def program(disk: SimulatedDisk, witness: Witness) -> None:
        with mended(disk) as database:
            witness.begins(("fetched", "new"))
            database.write(lambda it: _add(it, "new"))
            witness.holds()

    def recover(disk: SimulatedDisk) -> Hashable:
        with mended(disk) as database:
            return texts(database)

    return Workload("rebuilding", program, recover, prepare, ("fetched",), _go_on)


def all_databases() -> list[Workload]:
    """Every way in which a node uses a database."""
    return [new_database(), transactions(), migration(), rebuilding()]
