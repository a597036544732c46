"""The key file."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.keys import SecretKey
from meshnet.errors import StorageError
from meshnet.node.identity import KeyFileError, never_ran, ran, read_key, write_key
from meshnet.storage.disk import RealDisk
from tests.support.nodes import new_folder


class KeyFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = new_folder(self)
        self.path = folder / "key"
        self.disk = RealDisk()

    def refused(self, *words: str) -> None:
        error = self.assertRaises(KeyFileError, read_key, self.disk, self.path)
        self.assertEqual(error.exit_code, 2)
        for word in words:
            self.assertIn(word, str(error))

    def test_round_trip(self) -> None:
        """What was written is read, and only the owner may read it."""
        secret = SecretKey.generate()
        write_key(self.disk, self.path, secret)
        self.assertEqual(read_key(self.disk, self.path), secret)
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)

    def test_mark_of_a_new_key(self) -> None:
        """A new key is known as such until it has run; a key from elsewhere never is."""
        write_key(self.disk, self.path, SecretKey.generate())
        self.assertTrue(never_ran(self.disk, self.path))
        ran(self.disk, self.path)
        ran(self.disk, self.path)
        self.assertFalse(never_ran(self.disk, self.path))

    def test_never_overwritten(self) -> None:
        """A key that is there stays."""
        write_key(self.disk, self.path, SecretKey.generate())
        before = self.path.read_bytes()
        self.assertRaises(StorageError, write_key, self.disk, self.path, SecretKey.generate())
        self.assertEqual(self.path.read_bytes(), before)

    def test_readable_by_others(self) -> None:
        """Refused with what to do."""
        write_key(self.disk, self.path, SecretKey.generate())
        for mode in (0o640, 0o604, 0o620):
            os.chmod(self.path, mode)
            self.refused("chmod 600", str(self.path))

    def test_missing_or_no_key(self) -> None:
        """Each says what is wrong, never what is in the file."""
        self.refused("meshnet init")
        for content in (b"", b"hello", b"00" * 32, b"ff" * 32, b"\xff" * 64, b"ab" * 500):
            self.path.write_bytes(content)
            os.chmod(self.path, 0o600)
            error = self.assertRaises(KeyFileError, read_key, self.disk, self.path)
            self.assertNotIn("abab", str(error))
