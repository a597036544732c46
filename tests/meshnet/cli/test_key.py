"""The verbs of the key file."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from meshnet.cli.main import main
from meshnet.node.dropins import Dropins
from meshnet.node.identity import password_from, read_key
from meshnet.storage.disk import RealDisk
from tests.support.nodes import new_folder


class KeyVerbTests(SynchronousTestCase):
    """encrypt, show, change-password, decrypt, in this order of a key's life."""

    def setUp(self) -> None:
        """A node of its own, two passwords in files."""
        self.folder = new_folder(self) / "node"
        self.assertEqual(self.run_verb("init", str(self.folder))[0], 0)
        self.key = self.folder / "key"
        self.secret = read_key(RealDisk(), self.key)
        self.first, self.second = (
            self.password("first", "one long password"),
            self.password("second", "another"),
        )

    def password(self, name: str, text: str) -> str:
        """A file that holds it."""
        path = self.folder / name
        path.write_text(text + "\n")
        path.chmod(0o600)
        return str(path)

    def run_verb(self, *argv: str) -> tuple[int, str, str]:
        """Exit code, stdout, stderr; nobody is there to type."""
        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            mock.patch.object(sys, "stdin", io.StringIO()),
        ):
            code = main(argv, Dropins())
        return code, out.getvalue(), err.getvalue()

    def encrypted(self) -> None:
        """The key under the first password."""
        code, _, err = self.run_verb("key", "encrypt", str(self.folder), "--new-password-file", self.first)
        self.assertEqual(code, 0, err)

    def test_encrypt(self) -> None:
        """The secret is nowhere in the file any more; who it is can still be read; mode 0600."""
        self.encrypted()
        data = self.key.read_bytes()
        self.assertNotIn(self.secret.secret.hex().encode(), data)
        self.assertNotIn(self.secret.secret, data)
        self.assertEqual(self.key.stat().st_mode & 0o777, 0o600)
        shown = json.loads(self.run_verb("key", "show", str(self.folder), "--json")[1])
        self.assertEqual((shown["public_key"], shown["encrypted"]), (self.secret.public.hex(), True))
        self.assertEqual(self.run_verb("config", "check", str(self.folder))[0], 0)

    def test_decrypt(self) -> None:
        """With the password the file is as it was; with another one it stays."""
        before = self.key.read_bytes()
        self.encrypted()
        sealed = self.key.read_bytes()
        code, _, err = self.run_verb("key", "decrypt", str(self.folder), "--password-file", self.second)
        self.assertEqual((code, self.key.read_bytes()), (2, sealed))
        self.assertIn("password is wrong", err)
        self.assertNotIn("another", err)
        self.assertEqual(
            self.run_verb("key", "decrypt", str(self.folder), "--password-file", self.first)[0], 0
        )
        self.assertEqual(self.key.read_bytes(), before)

    def test_change(self) -> None:
        """The old password opens nothing any more."""
        self.encrypted()
        both = ("--password-file", self.first, "--new-password-file", self.second)
        self.assertEqual(self.run_verb("key", "change-password", str(self.folder), *both)[0], 0)
        self.assertEqual(
            self.run_verb("key", "decrypt", str(self.folder), "--password-file", self.first)[0], 2
        )
        self.assertEqual(
            self.run_verb("key", "decrypt", str(self.folder), "--password-file", self.second)[0], 0
        )

    def test_wrong_moments(self) -> None:
        """Encrypting twice, decrypting what is in the clear, an empty password, nobody to ask: a sentence
        that leaves the file as it is."""
        before = self.key.read_bytes()
        empty = self.password("empty", "")
        for argv, words in (
            (("decrypt",), "not encrypted"),
            (("change-password",), "not encrypted"),
            (("encrypt", "--new-password-file", empty), "empty"),
            (("encrypt",), "--new-password-file"),
            (("encrypt", "--new-password-file", str(self.folder / "none")), "no password file"),
        ):
            code, _, err = self.run_verb("key", argv[0], str(self.folder), *argv[1:])
            self.assertEqual(code, 2, argv)
            self.assertIn(words, err)
            self.assertTrue(err.rstrip().endswith("."), err)
        self.assertEqual(self.key.read_bytes(), before)
        self.encrypted()
        self.assertIn("already", self.run_verb("key", "encrypt", str(self.folder))[2])

    def test_up_without_anybody_to_ask(self) -> None:
        """In a pipe an encrypted key ends the start at once, and says what to do."""
        self.encrypted()
        ran = subprocess.run(
            [sys.executable, "-m", "meshnet.cli.main", "up", str(self.folder)],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
            env={name: value for name, value in os.environ.items() if name != "CREDENTIALS_DIRECTORY"},
        )  # fmt: skip
        self.assertEqual(ran.returncode, 2, ran.stderr)
        self.assertIn("password_file", ran.stderr)
        self.assertIn("meshnet.password", ran.stderr)
        self.assertEqual(ran.stderr.count("\n"), 1)

    def test_where_the_password_comes_from(self) -> None:
        """The config's file first, then the service's credential, then the terminal."""
        self.encrypted()
        credentials = new_folder(self)
        (credentials / "meshnet.password").write_text("one long password\n")
        (credentials / "meshnet.password").chmod(0o440)
        disk, wrong = RealDisk(), Path(self.second)
        asked = password_from(disk, None, {"CREDENTIALS_DIRECTORY": str(credentials)}, lambda path: b"?")
        self.assertEqual(read_key(disk, self.key, asked), self.secret)
        asked = password_from(disk, wrong, {"CREDENTIALS_DIRECTORY": str(credentials)}, lambda path: b"?")
        self.assertEqual(asked(self.key), b"another")
        self.assertEqual(password_from(disk, None, {}, lambda path: b"?")(self.key), b"?")

    def test_typed_on_a_terminal(self) -> None:
        """`key decrypt` asks on its terminal, without showing what is typed."""
        self.encrypted()
        child, terminal = pty.fork()
        if child == 0:
            os.execv(
                sys.executable, [sys.executable, "-m", "meshnet.cli.main", "key", "decrypt", str(self.folder)]
            )
        said = b""
        while b"Password of" not in said:
            said += os.read(terminal, 4096)
        os.write(terminal, b"one long password\n")
        with contextlib.suppress(OSError):  # what reading a closed terminal raises
            while data := os.read(terminal, 4096):
                said += data
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0, said)
        os.close(terminal)
        self.assertNotIn(b"one long password", said)
        self.assertEqual(read_key(RealDisk(), self.key), self.secret)
