"""A database under any sequence of use, kills, power cuts and failing disks: what was committed is there."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from lab.crash.sqlite import available, connect_on
from lab.simulation.disk import PowerCut, SimulatedDisk
from lab.simulation.models import MODELS
from meshnet.errors import StorageError
from meshnet.storage.database import Connection, Database, Found, Schema, open_database

pytestmark = pytest.mark.skipif(not available(), reason="APSW is not installed; ./mesh test installs it")

PATH = "/d/data.db"
FIRST = "CREATE TABLE entry (key INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT;"
SECOND = "ALTER TABLE entry ADD COLUMN more TEXT NOT NULL DEFAULT '';"
THIRD = "CREATE INDEX by_text ON entry (text);"
STEPS = (FIRST, SECOND, THIRD)
KEYS = st.integers(0, 5)
SIZES = st.sampled_from([0, 1, 2, 8_000])
FAULTS = st.sampled_from(
    [("write", errno.EIO), ("write", errno.ENOSPC), ("sync", errno.EIO), ("syncdir", errno.EIO)]
)

Held = dict[int, str]


def text(size: int) -> str:
    """Of so many letters."""
    return "abc"[size % 3] * size


def put(connection: Connection, key: int, text: str) -> None:
    """One row."""
    connection.execute("INSERT OR REPLACE INTO entry (key, text) VALUES (?, ?)", (key, text))


def held(connection: Connection) -> Held:
    """All rows."""
    return {int(str(key)): str(text) for key, text in connection.execute("SELECT key, text FROM entry")}


class DatabaseMachine(RuleBasedStateMachine):
    """`may` are the states that the database may be in: one, or two after a commit that nobody knows of."""

    @initialize(model=st.sampled_from(MODELS))
    def made(self, model: Any) -> None:
        """A new database on an empty disk."""
        self.disk = SimulatedDisk(model=model.with_sector(4096))
        self.disk.mkdir("/d")
        self.version = 1
        self.may: list[Held] = [{}]
        self.database: Database | None = None
        self.open()

    def open(self) -> None:
        """Opens it, by the newest program that has been; what is there must be allowed."""
        self.database = open_database(
            self.disk,
            PATH,
            Schema(0x4D455348, STEPS[: self.version]),
            connect=connect_on(self.disk),
            separate_reader=False,
        )
        found = self.database.read(held)
        assert found in self.may, (found, self.may)
        self.may = [found]

    def attempt(self, after: Held, work: Any) -> None:
        """Something that leads to `after`, or to nothing; after an error it is open which."""
        assert self.database is not None
        try:
            work(self.database)
        except StorageError:
            assert self.disk.met, "it failed, and the disk did not"
            self.may.append(after)
        else:
            self.may = [after]

    @property
    def now(self) -> Held:
        """What is in it."""
        return self.may[0]

    usable = precondition(lambda self: self.database is not None and len(self.may) == 1)

    @usable
    @rule(key=KEYS, size=SIZES)
    def write(self, key: int, size: int) -> None:
        """One row, acknowledged."""
        self.attempt({**self.now, key: text(size)}, lambda it: it.write(lambda on: put(on, key, text(size))))

    @usable
    @rule(keys=st.lists(KEYS, max_size=4), size=SIZES, fails=st.integers(0, 4))
    def write_many(self, keys: list[int], size: int, fails: int) -> None:
        """Several works in one transaction, of which one may raise: it alone is taken back."""

        def work(place: int, key: int) -> Any:
            def do(connection: Connection) -> None:
                put(connection, key, text(size))
                if place == fails:
                    raise ZeroDivisionError

            return do

        after = {**self.now, **{key: text(size) for place, key in enumerate(keys) if place != fails}}
        self.attempt(after, lambda it: it.write_many([work(*each) for each in enumerate(keys)]))

    @usable
    @rule(key=KEYS)
    def taken_back(self, key: int) -> None:
        """What raises leaves nothing."""
        assert self.database is not None
        with pytest.raises((ZeroDivisionError, StorageError)) as raised, self.database.transaction() as it:
            put(it, key, "never")
            raise ZeroDivisionError
        assert raised.type is ZeroDivisionError or self.disk.met

    @usable
    @rule()
    def read(self) -> None:
        """What was committed is read."""
        assert self.database is not None
        assert self.database.read(held) == self.now

    @rule(newer=st.booleans())
    def reopen(self, newer: bool) -> None:
        """Closed in order and opened again, maybe by a newer program."""
        if self.database is not None:
            try:
                self.database.close()
            except StorageError:
                assert self.disk.met, "it failed, and the disk did not"
            self.database = None
        self.version = min(self.version + newer, len(STEPS))
        self.begin()

    def begin(self) -> None:
        """Opens it on a disk that may fail; when all faults have come it must open."""
        for _ in range(2 * len(self.disk._faults)):
            try:
                self.open()
                return
            except StorageError:
                assert self.disk.met, "it failed, and the disk did not"
        self.open()

    @rule()
    def kill(self) -> None:
        """The program dies; the machine runs on."""
        self.disk, self.database = self.disk.fork(), None
        self.begin()

    @rule(keep=st.randoms(use_true_random=False))
    def power_cut(self, keep: Any) -> None:
        """The machine dies; of what was not synced anything may be there."""
        self.disk, self.database = self.disk.crash(lambda effect: bool(keep.getrandbits(1))), None
        self.begin()
        if self.database is not None:
            assert self.database.found is not Found.REBUILT

    @rule(keep=st.randoms(use_true_random=False), operations=st.integers(0, 12))
    def power_cut_at_opening(self, keep: Any, operations: int) -> None:
        """Twice: the second time while it is opened."""
        self.disk, self.database = self.disk.crash(lambda effect: bool(keep.getrandbits(1))), None
        self.disk.cut_after(operations)
        try:
            self.open()
        except PowerCut:
            pass
        self.power_cut(keep)

    @usable
    @rule(fault=FAULTS, after=st.integers(0, 3), again=st.none() | st.integers(0, 2), key=KEYS, size=SIZES)
    def failing(self, fault: tuple[str, int], after: int, again: int | None, key: int, size: int) -> None:
        """The disk fails soon, once or twice in a row, and the program gives up where it notices."""
        self.disk.fail(*fault, after)
        if again is not None:
            self.disk.fail(*fault, again)
        self.write(key, size)
        if len(self.may) == 2:
            self.reopen(newer=False)


DatabaseMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
TestDatabase = DatabaseMachine.TestCase
