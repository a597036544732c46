"""Finding a node's sockets."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from meshnet.control.find import ATTACH, find_socket, named_path, runtime_sockets
from meshnet.errors import ConfigError, UnreachableError, UsageError
from tests.support.nodes import new_folder


class FindTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.here = new_folder(self)
        (self.here / "data").mkdir(parents=True)
        self.file = self.here / "node.toml"

    def found(self, node: str | None = None, **environ: str) -> Path:
        return find_socket(node, environ, self.here)

    def test_order(self) -> None:
        """What is named, then the environment, the directory's config, the runtime directory."""
        self.file.write_text("[node]\ndata = 'store'\n")
        self.assertEqual(self.found("/x/a.sock", MESHNET_CONTROL="/x/b.sock"), Path("/x/a.sock"))
        self.assertEqual(self.found(MESHNET_CONTROL="/x/b.sock"), Path("/x/b.sock"))
        self.assertEqual(self.found(), self.here / "store" / "control.sock")
        self.file.unlink()
        runtime = self.here / "run" / "meshnet"
        runtime.mkdir(parents=True)
        (runtime / "control.sock").touch()
        self.assertEqual(self.found(XDG_RUNTIME_DIR=str(self.here / "run")), runtime / "control.sock")
        self.assertEqual(len(runtime_sockets({})), 1)

    def test_door(self) -> None:
        """The door is beside the control socket unless the config moves it; its variable is its own, and a
        node may be named by its other socket."""

        def found(node: str | None = None, **environ: str) -> Path:
            return find_socket(node, environ, self.here, ATTACH)

        for text, place in (
            ("", self.here / "data" / "attach.sock"),
            ("[node]\ndata = 'store'\n", self.here / "store" / "attach.sock"),
            ("[control]\nsocket = 'run/c.sock'\n", self.here / "run" / "attach.sock"),
            ("[control]\nsocket = 'run/c.sock'\nattach = '/x/a.sock'\n", Path("/x/a.sock")),
        ):
            self.file.write_text(text)
            self.assertEqual(found(), place)
            self.assertEqual(found(MESHNET_CONTROL="/x/b.sock"), place)
        self.assertEqual(found(MESHNET_ATTACH="/x/b.sock"), Path("/x/b.sock"))
        self.assertEqual(found("/x/control.sock"), Path("/x/attach.sock"))
        self.assertEqual(self.found("/x/attach.sock"), Path("/x/control.sock"))
        self.file.unlink()
        error = self.assertRaises(UnreachableError, found)
        self.assertIn("MESHNET_ATTACH", str(error))

    def test_directories_and_files(self) -> None:
        """A directory's config says where; without one, the socket itself is looked for."""
        self.file.write_text("[control]\nsocket = 'c.sock'\n")
        for name in (self.here, self.file):
            self.assertEqual(self.found(str(name)), self.here / "c.sock")
        self.file.unlink()
        (self.here / "data" / "control.sock").touch()
        for name in (self.here, self.here / "data"):
            self.assertEqual(self.found(str(name)), self.here / "data" / "control.sock")

    def test_nothing_there(self) -> None:
        """Each dead end says what to do."""
        for name, words in (("nowhere", "There is no "), ("node.key", "is neither a node's directory nor")):
            (self.here / "node.key").touch()
            error = self.assertRaises(UsageError, self.found, str(self.here / name))
            self.assertIn(words, str(error))
        self.assertRaises(UsageError, self.found, str(self.here))
        for content in (
            "[node",
            "node = 3",
            "[node]\ndata = 3",
            "[control]\nsocket = 3",
            "x = " + "[" * 9_000,
        ):
            self.file.write_text(content)
            self.assertRaises(ConfigError, self.found)
        self.file.unlink()
        if not runtime_sockets({})[0].exists():
            self.assertRaises(UnreachableError, self.found)

    def test_a_home_that_is_not_there(self) -> None:
        """`~nobody-like-that` is a sentence, wherever a path is written."""
        self.assertEqual(named_path("a/b"), Path("a/b"))
        error = self.assertRaises(UsageError, named_path, "~nobody-like-that/x")
        self.assertIn("home directory", str(error))
        config = self.here / "node.toml"
        config.write_text('[node]\ndata = "~ "\n')
        self.assertRaises(ConfigError, find_socket, None, {}, self.here)
