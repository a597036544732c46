"""Secrets where nobody should find them: texts, comparisons, files."""

from __future__ import annotations

import ast
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.keys import SecretKey
from meshnet.cli.main import main
from meshnet.node.hidden import HiddenServices
from meshnet.node.services import Services
from meshnet.storage.disk import RealDisk
from tests.meshnet.node.test_hidden import PATH, SECRET, HiddenCase
from tests.support.sources import INSTALLED, ROOT, python_files
from tests.threats.taps import remembered

PUBLIC = {"meshnet/link/seat.py: pong.token == self._asked"}
"""A ping's number, which its neighbour was told, and which proves nothing."""
TELLING = {"mac", "hmac", "tag", "secret", "token", "proof", "password", "cookie", "challenge"}


def comparisons(source: str) -> Iterator[ast.Compare]:
    """Where == or != stands beside a name that speaks of a secret or a proof."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Compare):
            continue
        sides = [node.left, *node.comparators]
        lengths = any(isinstance(side, ast.Name) and side.id.isupper() for side in sides)
        equal = any(isinstance(each, ast.Eq | ast.NotEq) for each in node.ops)
        words = {word for side in sides for word in _name(side).lower().split("_")}
        if equal and not lengths and TELLING & words:
            yield node


def _name(side: ast.expr) -> str:
    if isinstance(side, ast.Attribute):
        return side.attr
    return side.id if isinstance(side, ast.Name) else ""


class TextTests(HiddenCase):
    """What is shown, logged or raised."""

    def test_no_object_shows_a_key(self) -> None:
        """Everything in the memory of five nodes in mid-stream, one with a hidden service, is shown by repr
        and str: no secret key, session key, circuit secret or path id stands in any of it."""
        self.mesh()
        near = self.reach(self.hide("r2", "r3"), "r1", identity="node")
        self.exchange(near)
        secrets = {node.secret.secret for node in self.m.nodes.values()} | {SECRET.secret, PATH}
        things = [thing for node in self.m.nodes.values() for thing in remembered(node.router)]
        for thing in things:
            for name in ("shared_secret", "send", "receive", "chaining_key", "session_secret"):
                value = getattr(thing, name, None) if type(thing).__module__.startswith("meshnet") else None
                secrets |= {value} if isinstance(value, bytes) and len(value) == 32 else set()
        self.assertGreater(len(secrets), 12)
        forms = {form for each in secrets for form in (each.hex(), repr(each)[2:-1], repr(list(each))[1:-1])}
        shown: set[type] = set()
        for thing in things:
            if type(thing).__module__.split(".")[0] in ("meshnet", "apps", "lab"):
                shown.add(type(thing))
                text = f"{thing!r} {thing}"
                self.assertFalse([form for form in forms if form in text], type(thing))
        self.assertGreater(len(shown), 25)

    def test_errors_and_snapshots(self) -> None:
        """Neither an error nor a status page of a circuit that failed shows one."""
        self.mesh()
        self.hide("r3")
        _, result = self.calling(SecretKey(b"\x51" * 32).public, "r1", "r2")
        said = str(self.fails(result))
        shown = said + "".join(str(node.router.snapshot()) for node in self.m.nodes.values())
        for secret in [node.secret.secret for node in self.m.nodes.values()] + [SECRET.secret, PATH]:
            self.assertNotIn(secret.hex(), shown)


class CompareTests(SynchronousTestCase):
    """Time that tells."""

    def test_constant_time(self) -> None:
        """No == beside a mac, tag, token or secret in what is installed: `same` and compare_digest do it."""
        found = []
        for path in python_files(*INSTALLED):
            for node in comparisons((ROOT / path).read_text()):
                found.append(f"{path}: {ast.unparse(node)}")
        self.assertEqual(set(found), PUBLIC)

    def test_it_is_seen(self) -> None:
        """The sweep finds what it looks for."""
        self.assertEqual(len(list(comparisons("a = own_mac == b\nc = d.token != e\nf = tags == 1"))), 2)


class FileTests(SynchronousTestCase):
    """What other users of the machine can read."""

    def test_whatever_the_umask(self) -> None:
        """Keys, lists of services and the folders they lie in are their owner's alone, also where the umask
        is 0."""
        before = os.umask(0)
        try:
            folder = Path(tempfile.mkdtemp(prefix="meshnet-test-")) / "node"
            self.assertEqual(main(["init", str(folder), "--json"]), 0)
            secret = SecretKey(b"\x07" * 32)
            book = HiddenServices(
                RealDisk(),
                folder / "data",
                1,
                secret.public,
                Services(secret),
                unix=lambda: 1.8e9,
                reaches=lambda key: True,
                leave=lambda service: None,
            )
            book.load()
            book.new((), "blog")
        finally:
            os.umask(before)
        modes = {path.relative_to(folder): stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}
        for path, mode in modes.items():
            if path.name in ("key", "blog.key", "blog.json") or path.parts[0] == "data":
                self.assertEqual(mode & 0o077, 0, path)
        self.assertIn(Path("key"), modes)
        self.assertIn(Path("data/services/blog.key"), modes)
