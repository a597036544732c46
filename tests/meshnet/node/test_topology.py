"""Nodes that know the network: simulated meshes in which nobody names relays."""

from __future__ import annotations

import json
from collections.abc import Sequence
from ipaddress import IPv6Address
from itertools import pairwise
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred

from lab.simulation.disk import SimulatedDisk
from lab.simulation.nodes import Collector
from meshnet.cipher.keys import mesh_ipv6
from meshnet.errors import Drop, UnreachableError, UsageError
from meshnet.limits import THROUGH_IDLE
from meshnet.node.config import TopologySettings
from meshnet.node.topology import KEPT_BYTES, Topology
from meshnet.storage.kept import KeptFile
from meshnet.streams import Stream
from meshnet.topology.claims import Mark
from meshnet.topology.record import name_of
from tests.meshnet.node.routers import PORT, RouterCase

COUNTRIES = {"r1": "DE", "r2": "JP", "r3": "US"}
LINKS = (("alice", "r1"), ("r1", "r2"), ("r2", "bob"), ("alice", "r3"), ("r3", "bob"), ("r1", "r3"))
"""Two ways from alice to bob: over r3, and over r1 and r2."""


class KnowingCase(RouterCase):
    """Alice, bob and three relays that know each other."""

    def start(self, links: Sequence[tuple[str, str]] = LINKS) -> None:
        """All of them, linked, and everybody's record everywhere."""
        self.mesh(names=())
        names = sorted({name for link in links for name in link})
        for name in names:
            self.m.add(name, about=TopologySettings(country=COUNTRIES.get(name)))
        for one, other in links:
            self.m.link(one, other)
        self.m["bob"].router.listen(PORT, self.accept)
        self.until(lambda: all(len(self.of(name).map()["links"]) == len(links) for name in names))

    def of(self, name: str) -> Topology:
        """What a node knows."""
        topology = self.m[name].router.topology
        assert topology is not None
        return topology

    def go(self, policy: str | None = None) -> tuple[Collector, Deferred[Stream]]:
        """A stream from alice to bob, and nobody says which way."""
        reader = Collector()
        result = self.m["alice"].router.connect(
            self.m["bob"].public, PORT, reader, via=None, identity="anonymous", policy=policy
        )

        def connected(stream: Stream) -> Stream:
            reader.stream = stream
            return stream

        return reader, result.addCallback(connected)

    def gone(self, policy: str | None = None) -> Collector:
        """The same, and it stands."""
        reader, result = self.go(policy)
        self.m.wait(result)
        return reader

    def route(self) -> list[str]:
        """The relays of alice's circuit."""
        names = {node.public.hex(): name for name, node in self.m.nodes.items()}
        open_now = [each for each in self.m["alice"].router.snapshot()["circuits"] if each["state"] == "open"]
        return [names.get(key, "?") for key in open_now[-1]["route"][:-1]]

    def swallow(self, name: str) -> None:
        """What cells a relay holds and gets, it drops."""
        for link in self.m[name].router.links.by_key.values():
            link.runs.clear()
            for table in (link.forward, link.backward):
                for label in table:
                    table[label] = lambda seq, body, now, marked: Drop.NONE


class Ways(KnowingCase):
    """How streams find their way."""

    def test_mesh_addresses(self) -> None:
        """Who has only the mesh address of a node in the graph is told its key; of others, nothing."""
        self.start()
        alice = self.of("alice")
        for name in ("bob", "r2"):
            key = self.m[name].public
            self.assertEqual(alice.whose(mesh_ipv6(key)), key)
            self.assertIsNone(alice.whose(IPv6Address(int(mesh_ipv6(key)) ^ 1)))
        self.assertIsNone(alice.whose(IPv6Address("fc00::1")))

    def test_best(self) -> None:
        """A stream takes the best way, and data flows."""
        self.start()
        self.exchange(self.gone())
        self.assertEqual(self.route(), ["r3"])
        self.end()

    def test_policy(self) -> None:
        """Countries in order are kept; the same policy shares a circuit, another one has its own."""
        self.start()
        self.exchange(self.gone("countries DE>JP; max_hops 3"))
        self.assertEqual(self.route(), ["r1", "r2"])
        self.exchange(self.gone("countries DE>JP; max_hops 3"))
        self.assertEqual(len(self.m["alice"].router.snapshot()["circuits"]), 1)
        self.exchange(self.gone())
        self.assertEqual(self.route(), ["r3"])
        self.end()

    def test_no_way(self) -> None:
        """Where the policy leaves none, the error says which rule; a wrong policy says where."""
        self.start()
        error = self.fails(self.go("avoid_countries US,JP")[1])
        self.assertIsInstance(error, UnreachableError)
        self.assertIn("which stands in US, which is to be avoided", str(error))
        self.assertIsInstance(self.fails(self.go("fastest")[1]), UsageError)
        self.end()

    def test_killed_relay(self) -> None:
        """The relay of a way is killed: the stream goes on over the other one, and new ones too."""
        self.start()
        near = self.gone()
        self.exchange(near)
        self.m.kill("r3")
        self.exchange(near)
        self.assertEqual(self.route(), ["r1", "r2"])
        self.exchange(self.gone())
        self.m.network.run(60.0)
        self.assertEqual(len(self.of("alice").map()["links"]), 3)

    def test_black_hole(self) -> None:
        """A relay that builds circuits and drops what they carry is left within ten seconds."""
        self.start()
        near = self.gone()
        self.exchange(near)
        start = self.m.network.clock.seconds()

        def answered() -> bool:
            self.swallow("r3")
            return bytes(near.got).endswith(b"again"[::-1])

        near.send(b"again")
        far = self.accepted[-1]
        self.until(lambda: (self.swallow("r3") is None) and bytes(far.got).endswith(b"again"), 30.0)
        far.send(b"again"[::-1])
        self.until(answered, 30.0)
        self.assertLess(self.m.network.clock.seconds() - start, 10.0)
        self.assertEqual(self.route(), ["r1", "r2"])

    def test_silent_relay(self) -> None:
        """A relay that answers no CREATE costs a moment, not the time a circuit may take."""
        self.start()
        circuits = self.m["r3"].router.circuits
        self.patch(circuits, "receive", lambda *frame: None)
        start = self.m.network.clock.seconds()
        self.exchange(self.gone())
        self.assertLess(self.m.network.clock.seconds() - start, 5.0)
        self.assertEqual(self.route(), ["r1", "r2"])


class Far(KnowingCase):
    """Nodes that one circuit does not reach."""

    def test_waypoint(self) -> None:
        """Twelve hops away: a link over a circuit to a node in between, and a circuit over that."""
        row = ["alice", *(f"n{i}" for i in range(1, 12)), "bob"]
        self.start(list(pairwise(row)))
        near = self.gone()
        self.exchange(near)
        self.assertEqual(self.route()[0], "n8")
        self.assertEqual(len(self.m["alice"].router.through), 1)
        self.exchange(self.gone(), bytes(100_000))
        links = [link for link in self.m["alice"].router.brief()["links"] if link["up"]]
        self.assertEqual({link["address"].partition(":")[0] for link in links}, {"sim", "mesh"})

    def test_three_waypoints(self) -> None:
        """Twenty-eight hops away: links over links over links."""
        row = ["alice", *(f"n{i}" for i in range(1, 28)), "bob"]
        self.start(list(pairwise(row)))
        self.exchange(self.gone(), bytes(50_000))
        self.assertEqual(len(self.m["alice"].router.through), 3)

    def test_too_far(self) -> None:
        """Thirty-two hops away is too far, and is told so."""
        row = ["alice", *(f"n{i}" for i in range(1, 32)), "bob"]
        self.start(list(pairwise(row)))
        self.assertIn("at most 8 hops", str(self.fails(self.go()[1])))

    def test_waypoint_falls(self) -> None:
        """The waypoint is killed: the stream ends with a sentence; nothing waits for ever."""
        row = ["alice", *(f"n{i}" for i in range(1, 12)), "bob"]
        self.start(list(pairwise(row)))
        near = self.gone()
        self.exchange(near)
        self.m.kill("n8")
        near.send(b"lost")
        self.until(lambda: near.error is not None, 120.0)

    def test_given_up(self) -> None:
        """A link to a waypoint that nobody uses any more is given up, on both sides."""
        row = ["alice", *(f"n{i}" for i in range(1, 12)), "bob"]
        self.start(list(pairwise(row)))
        near = self.gone()
        self.exchange(near)
        assert near.stream is not None
        near.stream.reset()
        self.m.network.run(THROUGH_IDLE + 200.0)
        self.assertEqual(len(self.m["alice"].router.through), 0)
        self.assertEqual(self.m["n8"].router.through._accepted, 0)


class Records(KnowingCase):
    """What nodes state."""

    def test_liar(self) -> None:
        """A node that states links to nodes that do not state them is marked by all."""
        links = [*LINKS, *((f"x{i}", "r1") for i in range(6))]
        self.start(links)
        liar = self.of("bob")
        others = [name_of(self.m[f"x{i}"].public) for i in range(6)]
        real = liar._rows
        fake = real()[0]
        self.patch(liar, "_rows", lambda: (*real(), *(type(fake)(name, 1_000, 0, 0, 0) for name in others)))
        liar._soon(self.m.clock.now())
        own = name_of(self.m["bob"].public)
        self.until(lambda: bool(self.of("alice").graph.nodes[own].marks))
        self.assertEqual(self.of("r1").graph.nodes[own].marks, Mark.ONE_SIDED)

    def test_quiet(self) -> None:
        """In an hour in which nothing happens a node issues two or three records."""
        self.start()
        before = self.of("r1").published
        self.m.network.run(3_600.0)
        self.assertIn(self.of("r1").published - before, (2, 3))

    def test_growth(self) -> None:
        """A network that grows one by one around a node is known while it grows, not a minute later."""
        self.start((("alice", "r1"), ("r1", "bob")))
        begun = self.of("r1").published
        for i in range(6):
            self.m.add(f"x{i}", about=TopologySettings())
            self.m.link(f"x{i}", "r1")
            self.m.network.run(1.0)
        self.until(lambda: len(self.of("alice").map()["links"]) == 8, 10.0)
        self.assertLess(self.of("r1").published - begun, 5)

    def test_restart(self) -> None:
        """A node that starts again with its clock set back is heard: it learns from its neighbours that it
        was ahead."""
        self.start()
        known = self.of("alice").book.issued(name_of(self.m["r3"].public))
        unix = self.m.clock.unix
        gone = self.m["r3"]
        self.m.kill("r3")
        self.m.wait(maybeDeferred(gone.router.stop))
        self.m.network.run(5.0)
        self.m.network.heal()
        self.patch(self.m.clock, "unix", lambda: unix() - 1_800)
        self.m.add("r3", gone.secret, TopologySettings(country="FR"))
        self.patch(self.m.clock, "unix", unix)
        self.m.link("r3", "bob")
        own = name_of(self.m["r3"].public)
        self.until(lambda: self.of("alice").graph.nodes[own].record.country == "FR", 120.0)
        self.assertGreater(self.of("alice").book.issued(own), known)


class Kept(KnowingCase):
    """The guards of private ways."""

    def test_guards_outlive(self) -> None:
        """They are on the disk, and are the same after a start; a damaged file costs a sentence."""
        self.start()
        disk = SimulatedDisk()
        disk.mkdir("/data")
        kept = KeptFile(disk, Path("/data/topology"), KEPT_BYTES)
        topology = self.of("alice")
        topology._kept = kept
        topology.guards = ()
        topology._keep_guards(self.m.clock.now())
        names = [guard.name for guard in topology.guards]
        self.assertTrue(names)
        frame = KeptFile(disk, Path("/data/topology"), KEPT_BYTES).load().frame
        assert frame is not None
        rows: list[dict[str, Any]] = json.loads(frame.data)["guards"]
        self.assertEqual([bytes.fromhex(row["name"]) for row in rows], names)
