"""Every fault of every operation: each k-th call of each kind fails once, with all kinds of files.

Whatever fails, a store says so with a StorageError, nothing that was acknowledged is lost, even if the power
is cut at the end, and everything can be opened again.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from itertools import count

from twisted.trial.unittest import SynchronousTestCase

from lab.crash.sqlite import connect_on
from lab.simulation.disk import SimulatedDisk
from meshnet.errors import StorageError
from meshnet.storage.database import Schema, open_database
from meshnet.storage.files import make_directory, read_file, write_file
from meshnet.storage.journal import open_journal
from meshnet.storage.kept import KeptFile

OPERATIONS = (
    "make",
    "open",
    "write",
    "cut",
    "sync",
    "syncdir",
    "rename",
    "remove",
    "read",
    "list",
    "look at",
)
SCHEMA = Schema(1, ("CREATE TABLE n (text TEXT) STRICT;",))


class Scenario:
    """What a node does to its files; `acknowledged` is what it was told to be durable, by store."""

    def __init__(self, disk: SimulatedDisk) -> None:
        self.disk = disk
        self.acknowledged: dict[str, list[bytes]] = {}
        self.tried: dict[str, list[bytes]] = {}
        self.faults = 0

    def attempt(self, store: str, content: bytes, act: Callable[[], object]) -> None:
        self.tried.setdefault(store, []).append(content)
        try:
            act()
        except StorageError:
            self.faults += 1
        else:
            self.acknowledged.setdefault(store, []).append(content)

    def run(self) -> None:
        disk = self.disk
        for content in (b"1", b"2"):
            self.attempt("file", content, lambda content=content: write_file(disk, "/d/file", content))  # type: ignore[misc]
            self.attempt(
                "kept", content, lambda content=content: KeptFile(disk, "/d/kept", 99).save(content)  # type: ignore[misc]
            )  # fmt: skip
        for batch in ((b"a", b"b"), (b"c",)):
            self.journal(batch)
        for text in ("x", "y"):
            self.database(text)

    def journal(self, batch: tuple[bytes, ...]) -> None:
        """Opened, written, compacted if its sync failed, closed."""
        found: list[bytes] = []
        try:
            journal = open_journal(self.disk, "/d/log", lambda _, data: found.append(data))
        except StorageError:
            self.faults += 1
            return
        for content in batch:
            self.attempt("log", content, lambda content=content: journal.commit([content]))  # type: ignore[misc]
            if journal.broken is not None:
                self.attempt("log", b"", lambda: journal.compact(self.acknowledged.get("log", [])))
        journal.close()

    def database(self, text: str) -> None:
        connect = connect_on(self.disk)

        def put() -> None:
            database = open_database(self.disk, "/d/db", SCHEMA, connect=connect, separate_reader=False)
            try:
                database.write(lambda it: it.execute("INSERT INTO n VALUES (?)", (text,)))
            finally:
                database.close()

        self.attempt("db", text.encode(), put)

    def check(self, disk: SimulatedDisk) -> None:
        """All that was acknowledged is on this disk; the rest was tried at least."""
        for store, found in (("file", self.read(disk)), ("kept", self.load(disk))):
            said = self.acknowledged.get(store, [])
            tried = self.tried[store]
            allowed = tried[tried.index(said[-1]) :] if said else [*tried, None]
            assert found in allowed, (store, found, said)
        for store, several in (("log", self.records(disk)), ("db", self.rows(disk))):
            said = [one for one in self.acknowledged.get(store, []) if one]
            assert [one for one in several if one in said] == said, (store, several, said)
            assert set(several) <= set(self.tried.get(store, [])), (store, several)

    def read(self, disk: SimulatedDisk) -> bytes | None:
        return read_file(disk, "/d/file", 99) if disk.exists("/d/file") else None

    def load(self, disk: SimulatedDisk) -> bytes | None:
        found = KeptFile(disk, "/d/kept", 99).load()
        return found.frame.data if found.frame else None

    def records(self, disk: SimulatedDisk) -> list[bytes]:
        found: list[bytes] = []
        open_journal(disk, "/d/log", lambda _, data: found.append(data)).close()
        return found

    def rows(self, disk: SimulatedDisk) -> list[bytes]:
        connect = connect_on(disk)
        database = open_database(disk, "/d/db", SCHEMA, connect=connect, separate_reader=False)
        try:
            return [text.encode() for (text,) in database.read(lambda it: it.execute("SELECT text FROM n"))]
        finally:
            database.close()


class FaultTests(SynchronousTestCase):
    def sweep(self, operation: str, code: int) -> int:
        """Every k; how many faults came through as StorageErrors."""
        told = 0
        for k in count():
            disk = SimulatedDisk(sector=4096)
            make_directory(disk, "/d")
            disk = disk.synced()
            disk.fail(operation, code, after=k)
            scenario = Scenario(disk)
            scenario.run()
            if disk._faults:
                return told
            told += scenario.faults
            scenario.check(disk.fork())
            for state in disk.crash_states(4, seed=k):
                scenario.check(state)
        return told

    def test_input_output_errors(self) -> None:
        """EIO at each place."""
        for operation in OPERATIONS:
            with self.subTest(operation):
                self.sweep(operation, errno.EIO)

    def test_no_space(self) -> None:
        """ENOSPC wherever room is needed."""
        for operation in ("make", "write", "rename"):
            with self.subTest(operation):
                self.assertGreater(self.sweep(operation, errno.ENOSPC), 3)

    def test_interrupted_and_short(self) -> None:
        """Signals and writes that take a few bytes at a time change nothing."""
        disk = SimulatedDisk(sector=4096)
        make_directory(disk, "/d")
        disk.short_writes = 7
        for operation in OPERATIONS:
            disk.fail(operation, errno.EINTR, after=1)
        scenario = Scenario(disk)
        scenario.run()
        self.assertEqual(scenario.faults, 0)
        scenario.check(disk.synced())
