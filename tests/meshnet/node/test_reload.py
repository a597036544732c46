"""A changed config in a running node."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from apps.vpn.app import VpnApp
from apps.vpn.service import VpnService
from apps.vpn.settings import Exit, Forward, Serve, Socks, VpnSettings
from meshnet.cipher.keys import SecretKey
from meshnet.circuit.policy import Policy
from meshnet.errors import CircuitError, ConfigError, Reason, UsageError
from meshnet.node.app import IReloads, Reloaded
from meshnet.node.config import from_table
from meshnet.node.node import Node
from tests.meshnet.node.routers import RouterCase
from tests.meshnet.node.test_node import Door, DoorService, DoorSettings
from tests.support.nodes import FakeRouter, make_node, new_folder
from tests.support.streams import FakeMesh
from tests.support.tcp import NamedReactor

A, B, C = (SecretKey(bytes(31) + bytes([number])).public for number in (1, 2, 3))


class DoorApp:
    """An app that gets its settings at a start only."""

    name = "door"
    settings = DoorSettings

    def make_service(self, node: Any, settings: DoorSettings) -> DoorService:
        return DoorService(None)


class NodeTests(SynchronousTestCase):
    """What a node makes of a second config."""

    def node(self, **table: Any) -> tuple[Node, FakeRouter]:
        """A running node with this config; `reads` is what it will read the next time."""
        self.folder = new_folder(self)
        node, router = make_node(self.folder, NamedReactor(), table, apps=[DoorApp()])
        node.startService()
        self.addCleanup(node.stopService)
        self.successResultOf(node.ready())
        self.reads: dict[str, Any] = table
        apps: list[Any] = [DoorApp()]
        node.reread = lambda: from_table(self.reads, self.folder / "node.toml", apps)
        return node, router

    def reload(self, node: Node) -> dict[str, Any]:
        """Its report."""
        return dict(self.successResultOf(Deferred.fromCoroutine(node.reload())))

    def peers(self, *pairs: tuple[Any, str]) -> dict[str, Any]:
        """[[link.peer]]."""
        return {"peer": [{"key": key.hex(), "address": address} for key, address in pairs]}

    def test_nothing(self) -> None:
        """The same config changes nothing."""
        node, router = self.node(link=self.peers((A, "tcp:a:1")))
        self.assertEqual(self.reload(node), {"applied": [], "restart": [], "failed": []})
        self.assertEqual(router.changes, [])

    def test_peers(self) -> None:
        """Who is new is dialled, who is gone is dropped, who has moved is dialled there; the rest is left."""
        node, router = self.node(link=self.peers((A, "tcp:a:1"), (B, "tcp:b:1"), (C, "tcp:c:1")))
        added = SecretKey.generate().public
        self.reads = {"link": self.peers((A, "tcp:a:1"), (B, "tcp:b:2"), (added, "tcp:d:1"))}
        report = self.reload(node)
        self.assertEqual(router.changes, [("remove", C), ("move", B, "tcp:b:2")])
        self.assertEqual(router.peers[-1], (added, "tcp:d:1"))
        self.assertEqual(len(report["applied"]), 3)
        self.assertEqual([peer.key for peer in node.settings.link.peer], [A, B, added])
        self.assertEqual(self.reload(node)["applied"], [])

    def test_accept_counts_peers(self) -> None:
        """With a list, the dialled peers may link, too, and they change with it."""
        node, router = self.node(link={"accept": [A.hex()]})
        self.reads = {"link": {"accept": [A.hex()], **self.peers((B, "tcp:b:1"))}}
        self.reload(node)
        self.assertEqual(router.changes, [("accept", frozenset({A, B}))])

    def test_limits_names_routes(self) -> None:
        """They hold at once, and status says so."""
        node, router = self.node()
        self.reads = {
            "relay": {"max_circuits": 5},
            "known": [{"name": "bob", "key": B.hex()}],
            "route": [{"to": "bob", "via": [A.hex()]}],
        }
        report = self.reload(node)
        self.assertEqual(router.changes, [("limit", Policy(max_circuits=5))])
        self.assertEqual(node.lookup("bob"), B)
        self.assertEqual(node.route_to(B, None), (A,))
        self.assertEqual(node.status()["limits"]["max_circuits"], 5)
        self.assertEqual(report["applied"], ["relay.max_circuits: 5", "route", "known"])

    def test_for_the_next_start(self) -> None:
        """What cannot change in a running node is named, and stays as it was."""
        node, _ = self.node(link={"listen": ["tcp:127.0.0.1:1"]})
        self.reads = {
            "node": {"network": 9, "name": "other"},
            "link": {"listen": ["tcp:127.0.0.1:2"], "lanes": 2},
            "metrics": {"listen": "127.0.0.1:9100"},
            "door": {"colour": "blue"},
        }
        report = self.reload(node)
        self.assertEqual(
            report["restart"],
            ["node.name", "node.network", "link.listen", "link.lanes", "[metrics]", "[door]"],
        )
        self.assertEqual(report["applied"], [])
        self.assertEqual(node.settings.node.network, 1)
        self.assertEqual(node.settings.apps["door"], DoorSettings(Door("red")))
        self.assertEqual(self.reload(node), report)

    def test_wrong_config(self) -> None:
        """Nothing at all changes, and the sentence names the place."""
        node, router = self.node(link=self.peers((A, "tcp:a:1")))
        before = node.settings
        for wrong, place in (
            ({"relay": {"max_circuits": 5}, "link": {"accept": ["nobody"]}}, "link.accept"),
            ({"relay": {"max_circuits": -1}}, "relay.max_circuits"),
            ({"link": self.peers((node.public_key, "tcp:a:1"))}, "link.peer.0.key"),
        ):
            self.reads = wrong
            error = self.failureResultOf(Deferred.fromCoroutine(node.reload()), ConfigError).value
            self.assertIn(place, str(error))
        self.assertIs(node.settings, before)
        self.assertEqual(router.changes, [])

    def test_without_a_file(self) -> None:
        """A node of another program's making says that it has none."""
        node, _ = make_node(new_folder(self), Clock(), {})
        self.failureResultOf(Deferred.fromCoroutine(node.reload()), UsageError)


class RoutersTests(RouterCase):
    """The same among simulated nodes with traffic."""

    def test_unchanged_links_carry_on(self) -> None:
        """While alice's stream to bob runs, the relay gets other limits, another neighbour and a list of
        whom it accepts: the stream goes on over the same connections."""
        self.mesh(("alice", "r1", "bob"), 5)
        self.m.add("carol")
        near = self.open("r1")
        self.exchange(near, bytes(50_000))
        relay = self.m["r1"].router
        before = {link.peer: link.connections for link in relay.links.by_key.values()}
        self.m.link("r1", "carol")
        relay.limit(Policy(max_circuits=7, creates_per_second=1.0, create_burst=2, max_rate=50_000_000))
        relay.accept_only(frozenset(self.m[name].public for name in ("alice", "bob", "carol")))
        self.exchange(near, bytes(range(250)) * 200)
        self.until(lambda: relay.links.standing(self.m["carol"].public) is not None)
        after = {link.peer: link.connections for link in relay.links.by_key.values()}
        self.assertEqual({peer: after[peer] for peer in before}, before)

    def test_limits_hold_at_once(self) -> None:
        """A relay that relays no more refuses the next circuit; the one that stands goes on."""
        self.mesh(("alice", "r1", "bob"), 6)
        near = self.open("r1")
        self.m["r1"].router.limit(Policy(enabled=False))
        self.exchange(near)
        error = self.fails(self.m["alice"].router.ping(self.m["bob"].public, self.m.route("r1"), 1))
        assert isinstance(error, CircuitError)
        self.assertIs(error.reason, Reason.REFUSED)

    def test_accept_ends_links(self) -> None:
        """Who is no longer accepted loses its link, and gets none again."""
        self.mesh(("alice", "r1", "bob"), 7)
        relay, alice = self.m["r1"].router, self.m["alice"].public
        relay.accept_only(frozenset({self.m["bob"].public}))
        self.until(lambda: relay.links.standing(alice) is None)
        self.m.network.run(10.0)
        self.assertIsNone(relay.links.standing(alice))
        self.assertIsNotNone(relay.links.standing(self.m["bob"].public))
        relay.accept_only(None)
        self.until(lambda: relay.links.standing(alice) is not None, 120.0)

    def test_peer_removed(self) -> None:
        """Its link ends and it is not dialled again; what is added later is."""
        self.mesh(("alice", "r1"), 8)
        router, r1 = self.m["alice"].router, self.m["r1"].public
        address = router.links.peers[r1].addresses
        router.remove_peer(r1)
        self.m.network.run(120.0)
        self.assertIsNone(router.links.standing(r1))
        self.assertEqual(router.waiting(), {})
        router.add_peer(r1, *address)
        self.until(lambda: router.links.standing(r1) is not None)

    def test_peer_moved(self) -> None:
        """The link stays over its connection; when that is lost, the new address is dialled."""
        self.mesh(("alice", "r1"), 9)
        router, r1 = self.m["alice"].router, self.m["r1"].public
        link, address = router.links.by_key[r1], router.links.peers[r1].addresses[0]
        connections = link.connections
        router.move_peer(r1, "mem:nowhere" if address.startswith("mem:") else address, address)
        self.m.network.run(20.0)
        self.assertEqual((link.up, link.connections), (True, connections))
        self.assertEqual(len(router.links.peers[r1].addresses), 2)


class VpnTests(SynchronousTestCase):
    """The app's sections."""

    def start(self, settings: VpnSettings) -> VpnService:
        """A running service."""
        self.reactor = NamedReactor()
        self.user = FakeMesh(self.reactor).node("user")
        service = VpnApp().make_service(self.user, settings)  # type: ignore[arg-type]
        service.startService()
        verifyObject(IReloads, service)
        return service

    def reload(self, service: VpnService, settings: VpnSettings) -> Reloaded:
        """Its report."""
        return self.successResultOf(Deferred.fromCoroutine(service.reload(settings)))

    def test_listeners(self) -> None:
        """Gone ones are closed, new ones opened, the others are not touched, the exit follows."""
        stays, goes = Forward(("127.0.0.1", 8001), A, 80), Forward(("127.0.0.1", 8002), A, 80)
        comes = Forward(("127.0.0.1", 8003), B, 80)
        service = self.start(VpnSettings(forward=(stays, goes), serve=(Serve(22, ("127.0.0.1", 22)),)))
        # the memory reactor binds all names to 0.0.0.0
        kept = service._forwards["0.0.0.0:8001"]
        wanted = VpnSettings(socks=Socks(exit=B), forward=(stays, comes), exit=Exit(enabled=True))
        report = self.reload(service, wanted)
        self.assertEqual(report.settings, wanted)
        self.assertEqual(set(service._forwards), {"0.0.0.0:8001", "0.0.0.0:8003"})
        self.assertIs(service._forwards["0.0.0.0:8001"], kept)
        self.assertEqual(set(service._socks), {"0.0.0.0:1080"})
        self.assertTrue(service.status()["exit"]["enabled"])
        self.assertEqual(service.status()["serve"], [])
        self.assertEqual(len(report.applied), 5)
        self.assertEqual(self.reload(service, wanted), Reloaded(wanted))

    def test_what_a_command_added_stays(self) -> None:
        """A reload is about the config only."""
        service = self.start(VpnSettings())
        service.add_forward(Forward(("127.0.0.1", 8009), A, 80))
        self.reload(service, VpnSettings(exit=Exit(enabled=True)))
        self.assertEqual(set(service._forwards), {"0.0.0.0:8009"})

    def test_own_key(self) -> None:
        """A route over the node itself is a wrong config."""
        service = self.start(VpnSettings())
        wrong = VpnSettings(socks=Socks(exit=self.user.public_key))
        self.assertRaises(ConfigError, service.check, wrong)
        self.assertEqual(evolve(wrong, socks=None), VpnSettings())
