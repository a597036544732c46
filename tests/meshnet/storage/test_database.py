"""Databases on the real disk: opened by the rules, migrated, copied, checked, rebuilt, refused."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from meshnet.errors import StorageError
from meshnet.storage.database import (
    CACHE,
    Connection,
    Damage,
    Database,
    Found,
    Schema,
    open_database,
)
from meshnet.storage.disk import CorruptFileError, LockedError, RealDisk
from meshnet.storage.quarantine import Quarantine

FIRST = "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT;"
SECOND = """
CREATE TABLE tag (note INTEGER NOT NULL REFERENCES note (id), word TEXT NOT NULL) STRICT;
CREATE TRIGGER short AFTER INSERT ON note BEGIN
    UPDATE note SET text = substr(text, 1, 100) WHERE id = new.id;
END;
"""
SCHEMA = Schema(0x4D455348, (FIRST,))
NEWER = Schema(0x4D455348, (FIRST, SECOND))


def add(connection: Connection, text: str) -> int:
    connection.execute("INSERT INTO note (text) VALUES (?)", (text,))
    return connection.last_row()


def texts(connection: Connection) -> list[str]:
    return [text for (text,) in connection.execute("SELECT text FROM note ORDER BY id")]


class DatabaseCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.disk = RealDisk()
        self.base = self.enterContext(tempfile.TemporaryDirectory())
        self.path = os.path.join(self.base, "sub", "notes.db")
        self.quarantine = Quarantine(self.disk, os.path.join(self.base, "quarantine"), lambda: 1.79e9)

    def open(self, schema: Schema = SCHEMA, **more: object) -> Database:
        database = open_database(self.disk, self.path, schema, **more)  # type: ignore[arg-type]
        self.addCleanup(database.close)
        return database

    def pragma(self, database: Database, name: str) -> object:
        return database._writer.execute(f"PRAGMA {name}")[0][0]


class RulesTests(DatabaseCase):
    def test_pragmas(self) -> None:
        """A durable database syncs its log at each commit, a cache at checkpoints; all else is the same."""
        database = self.open()
        wanted = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "cell_size_check": 1}
        wanted |= {"trusted_schema": 0, "busy_timeout": 5000, "application_id": 0x4D455348, "user_version": 1}
        self.assertEqual({name: self.pragma(database, name) for name in wanted}, wanted)
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        database.close()
        self.assertEqual(self.pragma(self.open(profile=CACHE), "synchronous"), 1)

    def test_write_and_read(self) -> None:
        """What is committed is read, also while a transaction is open; what raises is taken back."""
        database = self.open()
        self.assertEqual(database.write(lambda connection: add(connection, "one")), 1)
        with database.transaction() as connection:
            add(connection, "two")
            self.assertEqual(database.read(texts), ["one"])

        def fail(connection: Connection) -> None:
            add(connection, "three")
            raise ZeroDivisionError

        self.assertRaises(ZeroDivisionError, database.write, fail)
        self.assertEqual(database.read(texts), ["one", "two"])
        self.assertRaises(StorageError, database.read, lambda connection: add(connection, "no"))

    def test_many(self) -> None:
        """Works that share a transaction fail one by one."""
        database = self.open()

        def fail(connection: Connection) -> int:
            add(connection, "no")
            raise ZeroDivisionError

        first, failed, last = database.write_many(
            [lambda each: add(each, "a"), fail, lambda each: add(each, "b")]
        )
        self.assertEqual((first, last), (1, 2))
        self.assertIsInstance(failed, ZeroDivisionError)
        self.assertEqual(database.read(texts), ["a", "b"])

    def test_one_connection(self) -> None:
        """Without a reading connection nothing is shared: no file for the log's index."""
        database = self.open(separate_reader=False)
        database.write(lambda connection: add(connection, "one"))
        self.assertEqual(database.read(texts), ["one"])
        self.assertFalse(os.path.exists(self.path + "-shm"))

    def test_strict(self) -> None:
        """A wrong statement and a wrong type are sentences."""
        database = self.open()
        for statement in ("INSERT INTO note (id, text) VALUES (1, x'00')", "SELEKT"):
            error = self.assertRaises(
                StorageError, database.write, lambda connection, it=statement: connection.execute(it)
            )
            self.assertIn(self.path, str(error))

    def test_lock(self) -> None:
        """A second opening is refused, also from another process."""
        database = self.open()
        self.assertRaises(LockedError, self.open)
        again = "import sys; from meshnet.storage.database import *; from meshnet.storage.disk import *\n"
        again += "open_database(RealDisk(), sys.argv[1], Schema(1, ()))"
        done = subprocess.run([sys.executable, "-c", again, self.path], capture_output=True, text=True)
        self.assertIn("LockedError", done.stderr)
        database.close()
        self.open().close()


class VersionTests(DatabaseCase):
    def test_migrations(self) -> None:
        """An older database is brought up to date, behind a copy that stays."""
        database = self.open()
        database.write(lambda connection: add(connection, "x" * 200))
        database.close()
        database = self.open(NEWER)
        database.write(lambda connection: add(connection, "y" * 200))
        self.assertEqual([len(text) for text in database.read(texts)], [200, 100])
        database.close()
        with sqlite3.connect(self.path + ".v1") as copy:
            self.assertEqual(copy.execute("SELECT count(*) FROM note").fetchone(), (1,))
        self.assertEqual(stat.S_IMODE(os.stat(self.path + ".v1").st_mode), 0o600)

    def test_newer(self) -> None:
        """A database of a newer program is refused, untouched."""
        self.open(NEWER).close()
        error = self.assertRaises(StorageError, self.open, SCHEMA)
        self.assertIn("newer version of this program (schema 2, this one knows 1)", str(error))
        self.open(NEWER).close()

    def test_of_another(self) -> None:
        """Another program's database is refused."""
        self.open().close()
        self.assertIn("another program", str(self.assertRaises(StorageError, self.open, Schema(7, (FIRST,)))))

    def test_failing_migration(self) -> None:
        """A migration that fails leaves what was there, and the next opening tries again."""
        self.open().close()
        broken = Schema(SCHEMA.application, (FIRST, "CREATE TABLE other (id) STRICT;\nINSERT INTO none;"))
        self.assertRaises(StorageError, self.open, broken)
        database = self.open()
        self.assertEqual((database.found, self.pragma(database, "user_version")), (Found.UNCLEAN, 1))

    def test_broken_references(self) -> None:
        """A migration that leaves references to nothing is refused."""
        database = self.open(NEWER)
        database.write(lambda connection: add(connection, "one"))
        database.write(lambda connection: connection.execute("INSERT INTO tag VALUES (1, 'x')"))
        database.close()
        newest = Schema(SCHEMA.application, (FIRST, SECOND, "DELETE FROM note;"))
        self.assertIn("references", str(self.assertRaises(StorageError, self.open, newest)))
        self.open(NEWER)

    def test_copies_are_bounded(self) -> None:
        """Only the newest few copies stay."""
        steps = tuple(f"CREATE TABLE t{i} (a INTEGER) STRICT;" for i in range(7))
        for i in range(1, 8):
            self.open(Schema(5, steps[:i])).close()
        copies = [name for name in os.listdir(os.path.dirname(self.path)) if ".db.v" in name]
        self.assertEqual(sorted(copies), ["notes.db.v4", "notes.db.v5", "notes.db.v6"])


class StopTests(DatabaseCase):
    def filled(self) -> Database:
        database = self.open()
        for i in range(50):
            database.write(lambda connection, i=i: add(connection, f"{i}" * 40))  # type: ignore[misc]
        return database

    def rebuild(self, connection: Connection, damage: Damage) -> None:
        self.damage = damage
        add(connection, "fetched again")

    def reopened(self) -> Database:
        return self.open(quarantine=self.quarantine, rebuild=self.rebuild)

    def test_clean(self) -> None:
        """Closed in order, one file is left, and its hash."""
        self.filled().close()
        names = ["notes.db", "notes.db.lock", "notes.db.state"]
        self.assertEqual(sorted(os.listdir(os.path.dirname(self.path))), names)
        database = self.open()
        self.assertEqual(database.found, Found.CLEAN)

    def test_killed(self) -> None:
        """A process that was killed leaves an unclean database, which is checked, with all its commits."""
        die = (
            "import os, signal, sys; from meshnet.storage.database import *\n"
            "from meshnet.storage.disk import *\n"
            "database = open_database(RealDisk(), sys.argv[1], Schema(0x4D455348, (sys.argv[2],)))\n"
            "database.write(lambda c: c.execute(\"INSERT INTO note (text) VALUES ('one')\"))\n"
            "os.kill(os.getpid(), signal.SIGKILL)"
        )
        subprocess.run([sys.executable, "-c", die, self.path, FIRST], check=False)
        database = self.open()
        self.assertEqual((database.found, database.read(texts)), (Found.UNCLEAN, ["one"]))

    def test_each_flipped_byte(self) -> None:
        """After an orderly stop, any changed byte is noticed; whoever changed it himself can say so."""
        self.filled().close()
        content = Path(self.path).read_bytes()
        for at in range(0, len(content), 211):
            with open(self.path, "r+b") as file:
                file.seek(at)
                file.write(bytes([content[at] ^ 0x10]))
            error = self.assertRaises(CorruptFileError, self.open)
            self.assertIn("has changed since it was closed", str(error))
            with open(self.path, "wb") as file:
                file.write(content)
        os.unlink(self.path + ".state")
        self.assertEqual(self.open().found, Found.UNCLEAN)

    def test_rebuilt(self) -> None:
        """A damaged database goes to the quarantine, and a new one is filled."""
        self.filled().close()
        with open(self.path, "r+b") as file:
            file.seek(4096 + 100)
            file.write(bytes(3000))
        database = self.reopened()
        self.assertEqual((database.found, database.read(texts)), (Found.REBUILT, ["fetched again"]))
        self.assertTrue(os.path.exists(self.damage.quarantined))
        self.assertIn("has changed", self.damage.why)
        self.assertEqual(len(database.notes), 1)
        database.close()
        self.assertEqual(self.open().found, Found.CLEAN)

    def test_damaged_and_unclean(self) -> None:
        """After an unclean stop the check finds damage; without a rebuild it is refused and stays."""
        self.filled().close()
        os.unlink(self.path + ".state")
        with open(self.path, "r+b") as file:
            file.seek(4096)
            file.write(bytes(2000))
        before = Path(self.path).read_bytes()
        self.assertRaises(CorruptFileError, self.open)
        self.assertEqual(Path(self.path).read_bytes(), before)
        self.assertEqual(self.reopened().found, Found.REBUILT)

    def test_no_database(self) -> None:
        """Something else at its place is damage too."""
        os.makedirs(os.path.dirname(self.path))
        with open(self.path, "wb") as file:
            file.write(b"no database at all" * 100)
        self.assertRaises(CorruptFileError, self.open)
        self.assertEqual(self.reopened().found, Found.REBUILT)

    def test_log_without_its_database(self) -> None:
        """A log whose main file is gone is not thrown away."""
        self.filled()
        os.unlink(self.path)
        os.unlink(self.path + ".lock")  # our own process still holds that one
        self.assertIn("is gone", str(self.assertRaises(CorruptFileError, self.open)))

    def test_emptied_or_gone(self) -> None:
        """A database that was closed in order, and is empty or gone now, is not taken for a new one."""
        for emptied in (True, False):
            self.filled().close()
            if emptied:
                os.truncate(self.path, 0)
            else:
                os.unlink(self.path)
            error = self.assertRaises(CorruptFileError, self.open)
            self.assertIn("has changed" if emptied else "is gone", str(error))
            database = self.reopened()
            self.assertEqual((database.found, database.read(texts)), (Found.REBUILT, ["fetched again"]))
            database.close()
            for name in os.listdir(os.path.dirname(self.path)):
                os.unlink(os.path.join(os.path.dirname(self.path), name))  # whoever wants to begin anew
            self.assertEqual(self.open().found, Found.NEW)
            self.path += "2"

    def test_rebuild_that_fails(self) -> None:
        """A rebuild that fails is done again at the next opening, without taking the new file as damaged."""
        self.filled().close()
        with open(self.path, "r+b") as file:
            file.write(bytes(100))

        def fail(connection: Connection, damage: Damage) -> None:
            raise StorageError("not now")

        for _ in range(3):
            self.assertRaises(StorageError, self.open, quarantine=self.quarantine, rebuild=fail)
        self.assertRaises(CorruptFileError, self.open)
        self.assertEqual(self.reopened().read(texts), ["fetched again"])
        self.assertEqual(len(self.quarantine.items()), 1)

    def test_backup(self) -> None:
        """A copy of a database in use is a database."""
        database = self.filled()
        target = os.path.join(self.base, "copy.db")
        for _ in range(2):
            database.backup_to(target)
        database.close()
        self.path = target
        self.assertEqual(len(self.open().read(texts)), 50)
        self.assertEqual(stat.S_IMODE(os.stat(target).st_mode), 0o600)

    def test_close_that_fails(self) -> None:
        """A connection that cannot even be closed does not keep the lock."""
        database = self.filled()
        real = database._writer

        class Failing:
            execute = real.execute

            def close(self) -> None:
                real.close()
                raise StorageError("the disk is gone")

        database._writer = Failing()  # type: ignore[assignment]
        self.assertRaises(StorageError, database.close)
        self.assertEqual(len(self.open().read(texts)), 50)

    def test_closed(self) -> None:
        """A closed database says so."""
        database = self.open()
        database.close()
        database.close()
        self.assertIn("is closed", str(self.assertRaises(StorageError, database.write, texts)))
