"""Apps and transports among the dropins."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from meshnet.node.dropins import Dropins, find_dropins
from tests.support.nodes import new_folder

APP = """
from attrs import frozen
from twisted.plugin import IPlugin
from zope.interface import implementer
from meshnet.node.app import IApp

@frozen
class Section:
    size: int = 1

@frozen
class Settings:
    {section}: Section = Section()

@implementer(IPlugin, IApp)
class App:
    name = "{name}"
    settings = Settings
    def verbs(self): return []
    def make_service(self, node, settings): raise NotImplementedError

app = App()
again = app
"""
TRANSPORT = """
from twisted.plugin import IPlugin
from zope.interface import implementer
from meshnet.errors import MissingDependencyError
from meshnet.transports.registry import ITransport
from meshnet.transports.tcp import TcpTransport

@implementer(IPlugin, ITransport)
class Tcp:
    name = "tcp"
    def make(self, reactor): return TcpTransport(reactor)

@implementer(IPlugin, ITransport)
class Ssh:
    name = "ssh"
    def make(self, reactor): raise MissingDependencyError("install meshnet[ssh].")

tcp, ssh = Tcp(), Ssh()
"""


class DropinTests(SynchronousTestCase):
    def found(self, **modules: str) -> Dropins:
        folder = new_folder(self)
        for name, source in modules.items():
            (folder / f"{name}.py").write_text(source)
        package: Any = ModuleType("dropins_under_test")
        package.__path__ = [str(folder)]
        sys.modules[package.__name__] = package
        self.addCleanup(self.forget)
        return find_dropins(package)

    def forget(self) -> None:
        for name in [name for name in sys.modules if name.startswith("dropins_under_test")]:
            del sys.modules[name]

    def test_finds_each_once(self) -> None:
        """Apps and transports of our modules; others are not even imported."""
        found = self.found(
            meshnet_door=APP.format(name="door", section="door"),
            meshnet_ways=TRANSPORT,
            other_thing="raise SystemExit",
        )
        self.assertEqual([app.name for app in found.apps], ["door"])
        self.assertEqual([each.name for each in found.transports], ["tcp", "ssh"])
        self.assertEqual(found.broken, ())

    def test_missing_extra(self) -> None:
        """A transport that lacks something is named; the others work."""
        transports, lacking = self.found(meshnet_ways=TRANSPORT).open_transports(None)
        self.assertEqual(transports.names, ["tcp"])
        self.assertEqual(lacking, ["Transport ssh is not available: install meshnet[ssh]."])

    def test_broken(self) -> None:
        """A dropin that fails, a section of the core, a name twice: a sentence each."""
        found = self.found(
            meshnet_a="import nothing_of_that_name",
            meshnet_b=APP.format(name="b", section="relay"),
            meshnet_c=APP.format(name="c", section="door"),
            meshnet_d=APP.format(name="c", section="window"),
            meshnet_e="1 +",
        )
        self.assertEqual([app.name for app in found.apps], ["c"])
        self.assertEqual(len(found.broken), 4)
        for word in ("nothing_of_that_name", "[relay]", "its name", "SyntaxError"):
            self.assertTrue(any(word in sentence for sentence in found.broken), (word, found.broken))
