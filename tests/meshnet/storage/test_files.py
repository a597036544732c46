"""Whole files and secrets, on both disks."""

from __future__ import annotations

import errno
import tempfile
from contextlib import closing

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lab.simulation.disk import SimulatedDisk
from meshnet.errors import StorageError
from meshnet.storage.disk import Disk, ExistingFileError, MissingFileError, RealDisk
from meshnet.storage.files import (
    create_file,
    make_directory,
    read_file,
    read_secret,
    sweep,
    wipe,
    write_file,
    write_secret,
)


class FileTests(SynchronousTestCase):
    def disks(self) -> list[tuple[Disk, str]]:
        """Both disks, each with an empty directory."""
        base = self.enterContext(tempfile.TemporaryDirectory())
        pair: list[tuple[Disk, str]] = []
        for disk in (RealDisk(), SimulatedDisk()):
            make_directory(disk, base)
            pair.append((disk, base))
        return pair

    def test_write_and_read(self) -> None:
        """The last content written is read; nothing else is left in the directory."""
        for disk, base in self.disks():
            for data in (b"one", bytes(100_000), b""):
                write_file(disk, f"{base}/file", data, 0o640)
                self.assertEqual(read_file(disk, f"{base}/file", 100_000), data)
            self.assertEqual(disk.listdir(base), ["file"])
            self.assertEqual(disk.stat(f"{base}/file").permissions, 0o640)

    def test_maximum(self) -> None:
        """A file longer than its maximum is refused; one that is missing is told from it."""
        for disk, base in self.disks():
            write_file(disk, f"{base}/file", b"12345")
            self.assertEqual(read_file(disk, f"{base}/file", 5), b"12345")
            self.assertIn(
                "longer than 4", str(self.assertRaises(StorageError, read_file, disk, f"{base}/file", 4))
            )
            self.assertRaises(MissingFileError, read_file, disk, f"{base}/none", 4)

    def test_create(self) -> None:
        """What is there is not replaced, and no temporary file stays."""
        for disk, base in self.disks():
            create_file(disk, f"{base}/file", b"first")
            self.assertRaises(ExistingFileError, create_file, disk, f"{base}/file", b"second")
            self.assertEqual(read_file(disk, f"{base}/file", 99), b"first")
            self.assertEqual(disk.listdir(base), ["file"])

    def test_directories(self) -> None:
        """Directories are made with those above them; a file in their place is an error."""
        for disk, base in self.disks():
            make_directory(disk, f"{base}/a/b/c/")
            make_directory(disk, f"{base}/a/b/c")
            write_file(disk, f"{base}/a/b/c/file", b"x")
            self.assertRaises(StorageError, make_directory, disk, f"{base}/a/b/c/file")
            self.assertEqual(disk.stat(f"{base}/a/b").permissions, 0o700)

    def test_sweep(self) -> None:
        """Temporary files of a crash are removed, others stay."""
        for disk, base in self.disks():
            write_file(disk, f"{base}/file", b"x")
            disk.open(f"{base}/.file.0123.tmp", "create").close()
            disk.open(f"{base}/notes.tmp", "create").close()
            self.assertEqual(sweep(disk, base), 1)
            self.assertEqual(disk.listdir(base), ["file", "notes.tmp"])

    def test_wipe(self) -> None:
        """A secret is overwritten on the medium before its name goes; one that is missing is as good."""
        for disk, base in self.disks():
            write_secret(disk, f"{base}/key", b"secret")
            with closing(disk.open(f"{base}/key")) as held:
                wipe(disk, f"{base}/key")
                self.assertEqual(held.pread(99, 0), bytes(6))
            self.assertEqual(disk.listdir(base), [])
            wipe(disk, f"{base}/key")

    def test_secret(self) -> None:
        """A secret is for its owner alone and not overwritten by accident."""
        for disk, base in self.disks():
            path = f"{base}/key"
            write_secret(disk, path, b"secret")
            self.assertEqual(disk.stat(path).permissions, 0o600)
            self.assertEqual(read_secret(disk, path), b"secret")
            error = self.assertRaises(ExistingFileError, write_secret, disk, path, b"other")
            self.assertEqual(str(error), f"{path} is there already and is not overwritten")
            write_secret(disk, path, b"other", replace=True)
            self.assertEqual(read_secret(disk, path), b"other")
            self.assertRaises(StorageError, read_secret, disk, path, maximum=4)

    @given(st.integers(0, 0o777))
    def test_secret_that_others_read(self, permissions: int) -> None:
        """Any permission for others refuses the file, with the command that mends it."""
        disk = SimulatedDisk()
        write_secret(disk, "/key", b"secret")
        disk.chmod("/key", permissions)
        if permissions & 0o077:
            error = self.assertRaises(StorageError, read_secret, disk, "/key")
            self.assertIn("run chmod 600 /key", str(error))
        else:
            self.assertEqual(read_secret(disk, "/key"), b"secret")

    def test_secret_of_another(self) -> None:
        """A secret that somebody else owns is refused."""
        disk = SimulatedDisk()
        write_secret(disk, "/key", b"secret")
        self.patch(disk, "user", lambda: 77)
        self.assertIn(
            "belongs to another user", str(self.assertRaises(StorageError, read_secret, disk, "/key"))
        )


class FaultTests(SynchronousTestCase):
    def test_the_old_file_stays(self) -> None:
        """Whatever fails on the way, the old content stands and no temporary file is left."""
        for operation, code in (
            ("make", errno.ENOSPC),
            ("write", errno.ENOSPC),
            ("write", errno.EIO),
            ("sync", errno.EIO),
            ("rename", errno.EACCES),
        ):
            disk = SimulatedDisk()
            write_file(disk, "/file", b"old")
            disk.fail(operation, code)
            self.assertRaises(StorageError, write_file, disk, "/file", b"new")
            self.assertEqual(disk.snapshot(), {"/file": b"old"}, operation)

    def test_full_disk(self) -> None:
        """No room for the new file: the old one stands, and a shorter one still fits."""
        disk = SimulatedDisk(capacity=100)
        write_file(disk, "/file", bytes(60))
        self.assertIn(
            "no space left", str(self.assertRaises(StorageError, write_file, disk, "/file", bytes(50)))
        )
        write_file(disk, "/file", bytes(40))
        self.assertEqual(disk.snapshot(), {"/file": bytes(40)})

    def test_directory_sync_fails(self) -> None:
        """The error is told: nobody may take the file for durable."""
        disk = SimulatedDisk()
        disk.fail("syncdir")
        self.assertRaises(StorageError, write_file, disk, "/file", b"new")
