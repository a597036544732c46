"""UNIX sockets: who may connect, and files that are left behind."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from meshnet.errors import ConfigError, LocalError, UnreachableError
from meshnet.transports import sockets
from meshnet.transports.conformance import OwnReactor, Sink
from meshnet.transports.unix import LONGEST_PATH, UnixTransport, split


class UnixTests(SynchronousTestCase):
    """One directory."""

    def setUp(self) -> None:
        self.world = OwnReactor()
        self.addCleanup(self.world.close)
        self.transport = UnixTransport(self.world.reactor)
        self.directory = Path(mkdtemp())  # a short one: a socket's path may have few bytes
        self.addCleanup(rmtree, self.directory)
        self.path = str(self.directory / "sock")

    def listen(self, rest: str) -> Any:
        return self.world.result(self.transport.listen(rest, Sink))

    def mode(self) -> int:
        return stat.S_IMODE(os.stat(self.path).st_mode)

    def test_modes(self) -> None:
        """Nobody else may connect, unless the address says who; whatever the umask is."""
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        for umask in (0, 0o77, 0o22):
            os.umask(umask)
            for option, mode in (("", 0o600), (":mode=660", 0o660), (":mode=666", 0o666)):
                rest = self.path + option
                listener = self.listen(rest)
                self.assertEqual((self.mode(), listener.address), (mode, f"unix:{self.path}"))
                listener.stop()
                self.assertFalse(os.path.exists(self.path))

    def test_a_file_left_behind(self) -> None:
        """Of a node that was killed: it is replaced."""
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(self.path)
        self.listen(self.path).stop()
        self.assertFalse(os.path.exists(self.path))

    def test_somebody_listens(self) -> None:
        """His socket stays; the error says what to do. So it does where he takes no more for now."""
        for backlog in (5, 0):
            with socket.socket(socket.AF_UNIX) as other:
                other.bind(self.path)
                other.listen(backlog)
                waiting = [socket.socket(socket.AF_UNIX) for _ in range(3)]
                for each in waiting:
                    each.setblocking(False)
                    each.connect_ex(self.path)
                error = self.assertRaises(LocalError, self.listen, self.path)
                self.assertIn("stop what listens there", str(error))
                self.assertTrue(os.path.exists(self.path))
                for each in waiting:
                    each.close()
            os.unlink(self.path)

    def test_no_socket(self) -> None:
        """A file of another kind is not touched."""
        Path(self.path).write_text("dear diary")
        self.assertIn("no socket", str(self.assertRaises(LocalError, self.listen, self.path)))
        self.assertEqual(Path(self.path).read_text(), "dear diary")

    def test_only_our_own_file_is_removed(self) -> None:
        """Another one that took its place stays."""
        listener = self.listen(self.path)
        os.unlink(self.path)
        Path(self.path).write_text("another's")
        listener.stop()
        self.assertEqual(Path(self.path).read_text(), "another's")

    def test_no_directory(self) -> None:
        """The system's sentence, with the path."""
        error = self.assertRaises(LocalError, self.listen, f"{self.directory}/none/sock")
        self.assertIn("No such file", str(error))

    def test_paths(self) -> None:
        """As long as the kernel takes them, to the byte; the rest is told at once."""
        self.assertEqual(split("/" + "x" * (LONGEST_PATH - 1)).mode, 0o600)
        error = self.assertRaises(ConfigError, split, "/" + "ä" * (LONGEST_PATH // 2) + "x")
        self.assertIn(str(LONGEST_PATH), str(error))
        self.assertEqual(split("/a:b:mode=770"), split("/a:b:mode=770"))
        self.assertEqual((split("/a:b:mode=770").path, split("/a:b:mode=770").mode), ("/a:b", 0o770))
        self.assertIn("file mode", str(self.assertRaises(ConfigError, split, "/a:mode=8")))

    def test_a_listener_that_is_full(self) -> None:
        """A dial that finds no room fails at once with a sentence, not as if it stood."""
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(self.path)
            other.listen(0)
            waiting = [socket.socket(socket.AF_UNIX) for _ in range(3)]
            for each in waiting:
                each.setblocking(False)
                each.connect_ex(self.path)
            error = self.assertRaises(
                UnreachableError, self.world.result, self.transport.dial(self.path, Sink)
            )
            self.assertIn("takes no more", str(error))
            for each in waiting:
                each.close()
        self.assertEqual(self.world.left(), [])

    def test_names(self) -> None:
        """Who has bound a path of his own is shown by it; as a rule there is none."""
        one, other = socket.socketpair(socket.AF_UNIX)
        self.assertEqual(sockets.remote(one), "")
        one.close()
        other.close()
