"""The real disk: what the system calls do, and the sentences for what they do not."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import sys
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from meshnet.errors import LocalError, StorageError
from meshnet.storage.disk import (
    DiskFullError,
    ExistingFileError,
    LockedError,
    MissingFileError,
    RealDisk,
    read_whole,
    storage_error,
    write_whole,
)


class RealDiskTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.disk = RealDisk()
        self.base = self.enterContext(tempfile.TemporaryDirectory())
        self.path = os.path.join(self.base, "file")

    def test_file(self) -> None:
        """Bytes are written and read where they were asked for; the end of the file ends a read."""
        file = self.disk.open(self.path, "create")
        file.pwrite(b"world", 6)
        file.pwrite(memoryview(bytearray(b"hello ")), 0)
        self.assertEqual(file.append(b"!"), 11)
        self.assertEqual(file.pread(100, 0), b"hello world!")
        self.assertEqual(file.pread(3, 100), b"")
        file.truncate(5)
        file.fsync()
        self.assertEqual((file.size(), file.pread(9, 0)), (5, b"hello"))
        self.disk.fsyncdir(self.base)
        file.close()
        file.close()
        self.assertRaises(StorageError, file.pread, 1, 0)

    def test_permissions_and_inheritance(self) -> None:
        """New files are for their owner alone, and no child process inherits them."""
        file = self.disk.open(self.path, "write")
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        self.assertTrue(fcntl.fcntl(file._descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC)
        file.close()
        self.disk.mkdir(os.path.join(self.base, "room"))
        found = self.disk.stat(os.path.join(self.base, "room"))
        self.assertEqual((found.permissions, found.owner, found.directory), (0o700, os.geteuid(), True))

    def test_names(self) -> None:
        """Link does not replace, rename does."""
        other = os.path.join(self.base, "other")
        for path in (self.path, other):
            self.disk.open(path, "create").close()
        self.assertRaises(ExistingFileError, self.disk.link, self.path, other)
        self.assertRaises(ExistingFileError, self.disk.open, other, "create")
        self.disk.rename(self.path, other)
        self.assertEqual(self.disk.listdir(self.base), ["other"])
        self.assertFalse(self.disk.exists(self.path))
        self.disk.unlink(other)
        self.assertEqual(self.disk.listdir(self.base), [])

    def test_missing(self) -> None:
        """Each operation on what is not there says so, with the path."""
        for attempt in (
            lambda: self.disk.open(self.path),
            lambda: self.disk.unlink(self.path),
            lambda: self.disk.rename(self.path, self.path + "2"),
            lambda: self.disk.listdir(self.path),
            lambda: self.disk.stat(self.path),
            lambda: self.disk.fsyncdir(self.path),
            lambda: self.disk.open(os.path.join(self.path, "x"), "write"),
        ):
            self.assertIn(self.path, str(self.assertRaises(MissingFileError, attempt)))

    def test_lock(self) -> None:
        """A second holder is refused, also from another process; the holder's end frees it."""
        lock = self.disk.lock(self.path)
        error = self.assertRaises(LockedError, self.disk.lock, self.path)
        self.assertIsInstance(error, LocalError)
        self.assertIn(self.path, str(error))
        lock.release()
        lock.release()
        held = (
            "import fcntl, os, sys; f = os.open(sys.argv[1], os.O_RDWR); fcntl.flock(f, 2); print(); input()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", held, self.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            child.stdout.readline()
            self.assertRaises(LockedError, self.disk.lock, self.path)
            child.kill()
        self.disk.lock(self.path).release()

    def test_free_space(self) -> None:
        """A number of bytes."""
        self.assertGreater(self.disk.free_space(self.base), 0)

    def test_tokens_differ(self) -> None:
        """Temporary names are random."""
        self.assertNotEqual(self.disk.token(), self.disk.token())

    def test_a_full_disk(self) -> None:
        """Linux' always full device: the error says what to do."""
        if not os.path.exists("/dev/full"):
            return
        file = self.disk.open("/dev/full", "write")
        error = self.assertRaises(DiskFullError, file.pwrite, b"x", 0)
        self.assertIn("no space left to write /dev/full: free some", str(error))
        file.close()


class LoopTests(SynchronousTestCase):
    def test_short_writes(self) -> None:
        """A write that takes less is continued; one that takes nothing is an error, not an endless loop."""
        taken = bytearray(10)

        def three(rest: memoryview, offset: int) -> int:
            taken[offset : offset + 3] = rest[:3]
            return min(3, len(rest))

        write_whole(three, b"0123456789", 0)
        self.assertEqual(taken, b"0123456789")
        self.assertRaises(OSError, write_whole, lambda rest, offset: 0, b"x", 0)

    def test_short_reads(self) -> None:
        """A read that gives less is continued up to the end of the file."""
        data = b"0123456789"
        self.assertEqual(
            read_whole(lambda size, offset: data[offset : offset + min(size, 3)], 8, 1), data[1:9]
        )
        self.assertEqual(
            read_whole(lambda size, offset: data[offset : offset + min(size, 3)], 99, 1), data[1:]
        )

    def test_sentences(self) -> None:
        """Each code has a sentence that names the path; unknown ones say what the system says."""
        for code, text in (
            (errno.EDQUOT, "no space left"),
            (errno.EROFS, "read-only"),
            (errno.EACCES, "not allowed"),
            (errno.EIO, "check it"),
            (errno.ELOOP, os.strerror(errno.ELOOP)),
        ):
            sentence = str(storage_error(OSError(code, os.strerror(code)), "write", "/some/file"))
            self.assertIn(text, sentence)
            self.assertIn("/some/file", sentence)
