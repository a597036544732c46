"""`meshnet tun`: the interface of a node up and down, and what the verbs print."""

from __future__ import annotations

import io
import json
from argparse import ArgumentParser
from contextlib import redirect_stdout
from ipaddress import IPv6Address
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.trial.unittest import SynchronousTestCase

from apps.vpn.mesh.cli import TUN
from apps.vpn.mesh.control import MeshInterface
from apps.vpn.settings import Tun
from meshnet.errors import (
    ConfigError,
    LocalError,
    MeshError,
    MissingDependencyError,
    UnreachableError,
    UsageError,
)
from meshnet.node.app import Verb
from tests.support.packets import plain, udp
from tests.support.streams import FakeMesh
from tests.support.tuns import FakeDevice, FakeReactor


class NamedReactor(FakeReactor):
    """One whose DNS port is taken."""

    def listenUDP(self, port: int, protocol: object, interface: str, size: int) -> None:
        raise CannotListenError(interface, port, OSError("in use"))


class ControlTests(SynchronousTestCase):
    """`MeshInterface`, and the verbs over it."""

    def setUp(self) -> None:
        self.reactor = NamedReactor()
        self.mesh = FakeMesh(self.reactor)
        self.node = self.mesh.node("ann")
        self.far = self.mesh.node("bob")
        self.devices: list[FakeDevice] = []
        self.asked: list[Tun] = []
        self.tun = self.new(Tun())

    def new(self, settings: Tun) -> MeshInterface:
        return MeshInterface(self.node, settings, self.open)  # type: ignore[arg-type]  # a stand-in

    def open(self, settings: Tun, address: object) -> FakeDevice:
        self.asked.append(settings)
        self.devices.append(FakeDevice())
        return self.devices[-1]

    def call(self, method: str, path: str, body: Any) -> Any:
        """As the control API would."""
        self.assertEqual(path, "/apps/vpn/tun")
        return self.tun.show(body or {}) if method == "GET" else self.tun.change(body)

    def verb(self, *words: str) -> str:
        """What a verb prints."""
        verb = next(each for each in TUN.verbs if each.name == words[0])
        assert isinstance(verb, Verb)
        parser = ArgumentParser()
        parser.add_argument("--json", action="store_true")
        verb.arguments(parser)
        with redirect_stdout(io.StringIO()) as out:
            self.assertEqual(verb.run(parser.parse_args(words[1:]), self.call), 0)
        return out.getvalue()

    def test_up_and_down(self) -> None:
        """Up with other settings than the config's, once; down as often as one likes."""
        self.tun.start()
        self.assertEqual((self.verb("status"), self.devices), ("the mesh interface is down\n", []))
        printed = self.verb("up", "--name", "m7", "--mtu", "9000", "--hops", "2", "--callers", "bob")
        asked = self.asked[0]
        self.assertEqual((asked.name, asked.mtu, asked.hops), ("m7", 9_000, 2))
        self.assertEqual(asked.callers, (self.far.public_key,))
        self.assertIn(str(IPv6Address(self.tun.status()["address"])), printed)
        self.assertIn("No DNS", printed)
        self.assertRaises(LocalError, self.verb, "up")
        self.verb("down")
        self.assertEqual(self.verb("down"), "the mesh interface is down\n")
        self.assertTrue(self.devices[0].closed)
        self.verb("up", "--callers", "any")
        self.assertEqual((self.asked[1].callers, self.asked[1].mtu), ("any", 1_500))

    def test_wrong(self) -> None:
        """Sentences for what cannot be; nothing is opened."""
        for words in (("--mtu", "100"), ("--hops", "9"), ("--name", "a/b"), ("--callers", "nobody")):
            self.assertRaises(UsageError, self.verb, "up", *words)
        self.assertEqual(self.devices, [])
        self.assertRaises(ValueError, Tun, name="a/b")
        self.assertTrue(issubclass(ConfigError, UsageError))

    def test_from_the_start(self) -> None:
        """With `enabled` the node has it from its start, or does not start."""
        self.tun = self.new(Tun(enabled=True))
        self.tun.start()
        self.assertEqual(len(self.devices), 1)
        self.tun.down()

        def refuse(*_: object) -> FakeDevice:
            raise MissingDependencyError("No right.")

        self.tun = MeshInterface(self.node, Tun(enabled=True), refuse)  # type: ignore[arg-type]
        self.assertRaises(MeshError, self.tun.start)
        self.assertFalse(self.tun.status()["up"])

    def test_reload(self) -> None:
        """A config that was read again takes it up, down, or up with other settings; or says why not."""
        for settings, opened in ((Tun(enabled=True), 1), (Tun(enabled=True, mtu=9_000), 2), (Tun(), 2)):
            self.assertEqual(self.tun.change_to(settings), [])
            self.assertEqual((self.tun.status()["up"], len(self.devices)), (settings.enabled, opened))
        self.node.ports[1_082] = lambda stream: None
        self.assertEqual(self.tun.change_to(Tun(enabled=True)), ["mesh port 1082 is taken"])

    def test_status(self) -> None:
        """Who is reached, how, and what was dropped."""
        self.verb("up")
        address = self.tun.status()["address"]
        far = str(self.tun.network.names.find("bob"))  # type: ignore[union-attr]
        self.devices[0].frames += [plain(udp(address, to, (1, 2), b"x")) for to in (far, "fc00::1")]
        self.reactor.read()
        self.mesh.flush(30)
        printed = self.verb("status")
        for word in ("bob", "resting", "unknown 1", "bob: "):
            self.assertIn(word, printed)
        told = json.loads(self.verb("status", "--json"))
        self.assertEqual((told["up"], told["peers"][0]["key"]), (True, self.far.public_key.hex()))

    def test_gone(self) -> None:
        """An interface that vanished is an error of `status` until it is up again; its counts stay."""
        self.verb("up")
        self.devices[0].frames.append(plain(udp(self.tun.status()["address"], "fc00::1", (1, 2), b"x")))
        self.reactor.read()
        self.devices[0].broken = OSError(77, "File descriptor in bad state")
        self.reactor.read()
        error = self.assertRaises(UnreachableError, self.verb, "status")
        self.assertIn("`meshnet tun up` makes it anew", str(error))
        self.assertEqual(sum(self.tun.sums().dropped_out), 1)
        self.verb("up")
        self.assertTrue(self.tun.status()["up"])
        self.assertEqual(sum(self.tun.sums().dropped_out), 1)
