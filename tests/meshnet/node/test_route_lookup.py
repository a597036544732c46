"""Route services and those who ask them: simulated routers with real circuits, in virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed

from lab.simulation.nodes import Collector, SimulatedNode
from meshnet.cipher.keys import PublicKey
from meshnet.errors import RefusedError, UnreachableError, UsageError
from meshnet.limits import SUMMARY_SECONDS
from meshnet.node import route_service, route_sync
from meshnet.node import topology as topology_module
from meshnet.node.app import Clock
from meshnet.node.config import RouteServiceSettings, TopologySettings, from_table
from meshnet.node.route_lookup import RouteLookup
from meshnet.node.route_service import RouteService
from meshnet.node.route_sync import RouteSync
from meshnet.node.topology import LIFE_MINUTES, REFRESH, Topology
from meshnet.storage.disk import RealDisk
from meshnet.storage.quarantine import Quarantine
from meshnet.streams import Accept, PortListener, Stream, StreamReader
from meshnet.topology.record import ROUTE_SERVICE, Name, name_of
from tests.meshnet.node.routers import RouterCase
from tests.support.nodes import new_folder
from tests.support.reactors import Threads
from tests.support.topology import key


class Face:
    """A simulated router as route lookup sees a node; `via` are the relays of its calls."""

    def __init__(self, node: SimulatedNode, clock: Clock, via: Sequence[PublicKey] | None) -> None:
        self.clock = clock
        self.public_key = node.public
        self.policies: list[str | None] = []
        self._router = node.router
        self._via = via

    def connect(
        self,
        target: Any,
        port: int,
        reader: StreamReader,
        *,
        via: Sequence[PublicKey] | None = None,
        identity: str = "anonymous",
        policy: str | None = None,
    ) -> Deferred[Stream]:
        assert identity == "anonymous"
        self.policies.append(policy)
        taken = self._via if via is None else via
        return self._router.connect(target, port, reader, via=taken, identity=identity)

    def listen(self, port: int, accept: Accept) -> PortListener:
        return self._router.listen(port, accept)


class Kept:
    """A store in memory."""

    place = "memory"

    def __init__(self) -> None:
        self.rows: dict[Name, Any] = {}
        self.notes: list[str] = []

    async def load(self, unix: float) -> list[Any]:
        return [(each.name, each.issued, each.data) for each in self.rows.values() if each.expires > unix]

    async def save(self, changed: Sequence[Any], gone: Sequence[Name]) -> None:
        for each in changed:
            self.rows[each.name] = each
        for name in gone:
            self.rows.pop(name, None)

    async def close(self) -> None:
        """Nothing is open."""


class LookupCase(RouterCase):
    """Alice asks bob, over r1; bob is linked with three more, of whom alice's neighbours tell her nothing."""

    def start(self, policy: str = "", **settings: Any) -> None:
        self.mesh(names=())
        for name in ("alice", "r1", "bob", "x1", "x2", "x3"):
            self.m.add(name, about=TopologySettings(policy=policy if name == "alice" else ""))
        for one, other in (("alice", "r1"), ("r1", "bob"), ("bob", "x1"), ("x1", "x2"), ("x2", "x3")):
            self.m.link(one, other)
        self.patch(self.of("r1").spread, "frames", lambda peer, now: [])
        last = name_of(self.m["x3"].public)
        self.until(lambda: self.of("bob").book.issued(last) > 0 and self.of("bob").book.attached >= 4)
        self.kept = Kept()
        bob = Face(self.m["bob"], self.m.clock, None)
        self.service = RouteService(
            bob, self.of("bob"), RouteServiceSettings(**settings), self.kept  # type: ignore[arg-type]
        )  # fmt: skip
        self.service.start()
        self.alice = Face(self.m["alice"], self.m.clock, self.m.route("r1"))
        self.sync = RouteSync(self.alice, self.of("alice"), [self.m["bob"].public])

    def of(self, name: str) -> Topology:
        topology = self.m[name].router.topology
        assert topology is not None
        return topology

    def finish(self) -> None:
        self.sync.stop()
        self.m.wait(Deferred.fromCoroutine(self.service.stop()))
        self.end()


class Lookups(LookupCase):
    """What looks and questions bring."""

    def test_whole_graph(self) -> None:
        """A node gets all that the service has, then only what is new, and the service gets its record."""
        self.start()
        alice, bob = self.of("alice"), self.of("bob")
        self.sync.start()
        self.until(lambda: self.sync.services[0].looks == 1)
        own = name_of(self.m["alice"].public)
        self.assertGreater(bob.book.issued(own), 0)
        names = [name_of(self.m[each].public) for each in ("bob", "x1", "x2", "x3")]
        self.assertTrue(all(alice.book.issued(each) for each in names))
        self.m.network.run(30.0)
        self.m.wait(Deferred.fromCoroutine(self.sync.now()))
        before = self.sync.services[0].records
        bob._due, bob._tokens = 0.0, 4.0
        self.m.network.run(route_service.SYNC_CATALOGUE + 1.0)
        self.m.wait(Deferred.fromCoroutine(self.sync.now()))
        self.assertEqual(self.sync.services[0].records - before, 1)
        self.assertEqual(self.sync.services[0].looks, 3)
        self.assertTrue(bob.book.get(bob.own).statement.flags & ROUTE_SERVICE)  # type: ignore[union-attr]
        self.assertEqual(self.service.load().looks, 3)
        self.finish()

    def test_private(self) -> None:
        """Under a policy with guards the node offers nothing, and asks for what it holds already, too."""
        self.start("private")
        held = self.of("bob").book.get(name_of(self.m["x1"].public))
        assert held is not None
        self.of("alice").learn(held.data, Name(b"somebody"), self.m.clock.now())
        self.sync.start()
        self.until(lambda: self.sync.services[0].looks == 1)
        self.assertEqual(self.of("bob").book.issued(name_of(self.m["alice"].public)), 0)
        self.assertEqual(self.sync.services[0].records, len(self.sync.services[0].shown))
        self.assertEqual(self.alice.policies, ["private"])
        self.finish()

    def test_not_told_on(self) -> None:
        """What a node knows from a service floods nobody: a neighbour of it that asks none learns the node,
        and not one of those that only the service knows."""
        self.start()
        between = self.of("r1").book.get(name_of(self.m["r1"].public))
        assert between is not None
        self.of("alice").learn(between.data, Name(b"somebody"), self.m.clock.now())
        self.m.add("carol", about=TopologySettings())
        self.m.link("carol", "alice")
        self.sync.start()
        names = [name_of(self.m[each].public) for each in ("bob", "x1", "x2", "x3")]
        self.until(lambda: self.of("alice").book.attached == 7)
        self.m.network.run(1.2 * SUMMARY_SECONDS)
        carol = self.of("carol").book
        self.assertTrue(carol.issued(name_of(self.m["alice"].public)))
        self.assertEqual([carol.issued(each) for each in names], [0] * 4)
        self.finish()

    def test_large_network(self) -> None:
        """Where there are more nodes than may tell all, and a service shows them, neighbours exchange their
        own records only; when none has been reached for long enough they tell all again."""
        self.patch(route_sync, "HOLDS", 60.0)
        self.patch(topology_module, "SPREAD_NODES", 0)
        self.start()
        alice = self.of("alice")
        self.sync.start()
        self.until(lambda: self.sync.services[0].looks == 1)
        self.m.network.run(1.0)
        self.assertFalse(alice.spread.passes_on)
        self.assertFalse(self.of("bob").spread.passes_on)
        self.assertTrue(self.of("r1").spread.passes_on)
        self.m.wait(Deferred.fromCoroutine(self.service.stop()))
        self.m.network.run(route_sync.EVERY + route_sync.HOLDS + 1.0)
        self.assertTrue(alice.spread.passes_on)
        self.assertTrue(self.of("bob").spread.passes_on)
        self.sync.stop()
        self.end()

    def test_spacing(self) -> None:
        """Small networks are looked at every five minutes, larger ones as much more rarely, and always before
        records expire that were renewed in time."""
        found = [route_sync.spacing(count) for count in (0, 1_000, 4_000, 24_000, 200_000)]
        self.assertEqual(found, [300.0, 300.0, 1_200.0, 7_200.0, 7_200.0])
        self.assertLess(route_sync.RARELY + REFRESH, 60 * LIFE_MINUTES)

    def test_no_service(self) -> None:
        """Who is no route service costs a sentence, and is asked again later, ever more rarely."""
        self.start()
        self.m.wait(Deferred.fromCoroutine(self.service.stop()))
        self.sync.start()
        self.m.network.run(60.0)
        service = self.sync.services[0]
        self.assertIn("port 2 is not open", service.why)
        self.assertIn(service.failures, (2, 3))
        self.sync.stop()
        self.end()

    def test_silent_service(self) -> None:
        """A service that says nothing is left after half a minute, and nothing of it stays."""
        self.start()
        self.patch(route_service.Answer, "output", lambda answer, now, room: b"")
        self.sync.start()
        self.until(lambda: bool(self.sync.services[0].failures))
        self.assertTrue(self.sync.services[0].why)
        self.sync.stop()
        self.m.network.run(40.0)
        self.assertEqual(self.service.load().callers, 0)
        self.finish()

    def test_callers(self) -> None:
        """No more callers than the operator allows; the next is refused, and told so."""
        self.start(callers=1)
        collectors = [self.look_silent() for _ in range(2)]
        self.until(lambda: self.service.load().refused == 1)
        self.assertEqual(self.service.load().callers, 1)
        self.m.network.run(50.0)
        self.assertEqual(self.service.load().callers, 0)
        self.assertTrue(all(each.error is not None for each in collectors))
        self.finish()

    def look_silent(self) -> Any:
        """A caller that opens a look and says nothing."""
        collector = Collector()
        self.alice.connect(self.m["bob"].public, route_sync.PORT, collector).addErrback(
            lambda failure: collector.lost(failure.value)
        )
        return collector

    def test_questions(self) -> None:
        """Ways under a policy come as keys; a wrong policy and too many questions are refused in words."""
        self.start()
        keys = {name: self.m[name].public for name in self.m.nodes}

        def ask(policy: str, source: str = "bob", target: str = "x3") -> Any:
            asking = route_service.ask(
                self.alice, keys["bob"], keys[source], keys[target], policy  # type: ignore[arg-type]
            )  # fmt: skip
            return Deferred.fromCoroutine(asking)

        found = self.m.wait(ask("max_hops 4"))
        self.assertEqual(found["ways"][0]["relays"], [keys["x1"].hex(), keys["x2"].hex()])
        none = self.m.wait(ask("max_hops 2"))
        self.assertEqual(none["ways"], [])
        self.assertTrue(none["reason"])
        self.assertIn("fastest", str(self.fails(ask("fastest"))))
        self.patch(route_service, "ROUTE_QUESTIONS", 0.0)
        self.service._tokens = 0.0
        self.assertIsInstance(self.fails(ask("max_hops 4")), RefusedError)
        self.finish()

    def test_restart(self) -> None:
        """A service that starts again has the graph of before, checked anew: a record damaged on the disk is
        not believed."""
        self.start()
        self.m.wait(Deferred.fromCoroutine(self.service.stop()))
        rows = self.kept.rows
        self.assertGreaterEqual(len(rows), 4)
        lost = name_of(self.m["x3"].public)
        stored = {name: (each.data, each.issued) for name, each in rows.items()}
        self.m.add("carol", about=TopologySettings())
        self.m.link("carol", "bob")
        book = self.of("carol").book
        bad = bytearray(stored[lost][0])
        bad[-1] ^= 1

        class Old(Kept):
            async def load(self, unix: float) -> list[Any]:
                found = [(name, at, body) for name, (body, at) in stored.items() if name != lost]
                return [*found, (lost, stored[lost][1], bytes(bad))]

        again = RouteService(
            Face(self.m["carol"], self.m.clock, None),  # type: ignore[arg-type]
            self.of("carol"),
            RouteServiceSettings(),
            Old(),  # type: ignore[arg-type]
        )
        self.patch(self.of("bob").spread, "frames", lambda peer, now: [])
        again.start()
        self.m.network.run(1.0)
        self.assertGreater(book.issued(name_of(self.m["x2"].public)), 0)
        self.assertEqual(book.issued(lost), 0)
        self.m.wait(Deferred.fromCoroutine(again.stop()))
        self.service.stop = lambda: _nothing()  # type: ignore[method-assign]
        self.finish()


class Parts(Face):
    """The same with what the whole of route lookup needs beside it; pings answer, but of one node."""

    def __init__(
        self, case: LookupCase, name: str, folder: Path, table: dict[str, Any], dead: PublicKey
    ) -> None:
        super().__init__(case.m[name], case.m.clock, None)
        self.settings = from_table(table, folder / "node.toml")
        self.topology = case.of(name)
        self.keeps_topology = True
        self.disk = RealDisk()
        self.data = folder
        self.quarantine = Quarantine(self.disk, folder / "quarantine", lambda: 0.0)
        self.reactor = Threads()
        self._dead = dead

    def ping(self, target: Any, via: None, count: int) -> Deferred[Any]:
        if target == self._dead:
            return fail(UnreachableError("no answer"))
        return succeed({"setup_ms": 2.0, "rtt_ms": 1.0})


class Roles(LookupCase):
    """A node that asks and is asked, as its config and its control API say."""

    def roles(self, table: dict[str, Any]) -> RouteLookup:
        """Of x1."""
        self.start()
        parts = Parts(self, "x1", new_folder(self), table, self.m["x3"].public)
        return RouteLookup(parts)  # type: ignore[arg-type]

    def series(self, lookup: RouteLookup) -> dict[str, float]:
        """Metrics without labels, by name."""
        return {
            sample.name: sample.value
            for each in lookup.facts()
            for sample in each.samples
            if not sample.labels
        }

    def test_config(self) -> None:
        """As the config says: somebody is asked, and the node is a service itself; both end with the node."""
        services = {"route_services": [self.stranger()]}
        lookup = self.roles({"topology": services, "route_service": {"enabled": True, "records": 900}})
        lookup.start()
        self.assertEqual(self.of("x1").book.most, 900)
        found = self.m.wait(Deferred.fromCoroutine(lookup.refresh()))
        self.assertTrue(found["services"][0]["why"])  # nobody has this key
        self.assertGreaterEqual(found["serves"]["records"], 4)
        self.assertEqual(self.series(lookup)["meshnet_topology_nodes"], self.of("x1").book.attached)
        self.m.wait(lookup.stop())
        self.assertEqual(lookup.status(), {"services": [], "serves": None})
        self.assertFalse(self.of("x1").serves)
        self.finish()

    def stranger(self) -> str:
        """A node that nobody knows."""
        return key(4_711).public.hex()

    def test_on_demand(self) -> None:
        """The control API makes it one, once; its file is where the caller said, and stays."""
        lookup = self.roles({})
        lookup.start()
        self.assertIsNone(lookup.status()["serves"])
        lookup.serve("graph.sqlite")
        self.assertRaises(UsageError, lookup.serve, None)
        self.m.wait(lookup.unserve())
        lookup.serve("graph.sqlite")
        self.m.network.run(1.0)
        self.assertGreaterEqual(lookup.status()["serves"]["stored"], 4)
        self.m.wait(lookup.stop())
        self.assertRaises(UsageError, lookup.serve, "mysql://somewhere")
        self.assertIsNone(lookup.service)
        self.finish()

    def test_probe(self) -> None:
        """Nodes are pinged all at a time; who does not answer says why."""
        lookup = self.roles({})
        targets = [self.m["bob"].public, self.m["x3"].public]
        one, other = self.m.wait(Deferred.fromCoroutine(lookup.probe(targets)))
        self.assertEqual(one, {"key": targets[0].hex(), "setup_ms": 2.0, "rtt_ms": 1.0})
        self.assertEqual(other, {"key": targets[1].hex(), "error": "no answer"})
        self.finish()


async def _nothing() -> None:
    """It has stopped already."""
