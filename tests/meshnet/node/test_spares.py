"""Circuits in reserve: real routers on a simulated network, and a relay that falls in mid-stream."""

from __future__ import annotations

from collections.abc import Sequence

from lab.simulation.network import Conditions
from lab.simulation.nodes import Collector
from meshnet.cipher.address import proves
from meshnet.circuit.origin import OriginCircuit
from meshnet.node.config import TopologySettings
from meshnet.node.conversation import Conversation, Leg
from meshnet.node.spares import AFTER, Spares
from meshnet.node.topology import Topology
from tests.meshnet.node.routers import PORT, RouterCase

RELAYS = ("r1", "r2", "r3")
DATA = bytes(range(256)) * 20_000
MADE = AFTER + 2.0
"""Seconds after which a spare stands."""


class SpareCase(RouterCase):
    """alice and bob, and three relays between them; r1's links are the fastest."""

    def start(self, spares: int = 16, rate: float | None = 4e6, relays: Sequence[str] = RELAYS) -> None:
        """All of them know each other; alice may have so many spares."""
        self.mesh(names=(), conditions=Conditions(delay=0.01, rate=rate))
        for name in ("alice", "bob", *relays):
            self.m.add(name, about=TopologySettings(spares=spares, country="DE"))
        for relay in relays:
            for end in ("alice", "bob"):
                self.m.network.change(end, relay, delay=0.01 * (1 + relays.index(relay)))
                self.m.link(end, relay)
        self.m["bob"].router.listen(PORT, self.accept)
        self.until(lambda: len(self.of("alice").map()["links"]) == 2 * len(relays))
        self.m.network.run(40.0)  # links are measured, and tell it

    def of(self, name: str) -> Topology:
        """What a node knows."""
        topology = self.m[name].router.topology
        assert topology is not None
        return topology

    def stream(self, policy: str | None = None) -> Collector:
        """A stream from alice to bob that has carried something."""
        reader = Collector()
        opened = self.m["alice"].router.connect(
            self.m["bob"].public, PORT, reader, via=None, identity="anonymous", policy=policy
        )
        reader.stream = self.m.wait(opened)
        self.exchange(reader)
        return reader

    @property
    def conversation(self) -> Conversation:
        """Alice's."""
        return next(iter(self.m["alice"].router._sessions.values()))

    @property
    def spares(self) -> Spares:
        """Alice's."""
        courses = self.m["alice"].router.courses
        assert courses is not None
        return courses.spares

    def relays(self, leg: Leg | None) -> list[str]:
        """By name, the relays of a circuit."""
        assert leg is not None and isinstance(leg.circuit, OriginCircuit)
        names = {node.public: name for name, node in self.m.nodes.items()}
        return [names.get(proves(key), "gone") for key in leg.circuit.route[:-1]]

    @property
    def spare(self) -> Leg | None:
        """The circuit in reserve."""
        return next((leg for leg in self.conversation.legs.values() if leg.path.spare), None)

    def pause(self, far: Collector, near: Collector) -> float:
        """The longest time without a byte while r1 falls in the middle of what `near` is sent."""
        self.m.network.run(MADE)
        before, clock = len(near.got), self.m.network.clock
        far.send(DATA)
        self.until(lambda: len(near.got) > before + len(DATA) // 4)
        self.m.kill("r1")
        longest, last = 0.0, clock.seconds()
        while len(near.got) < before + len(DATA):
            size = len(near.got)
            self.until(lambda size=size: len(near.got) > size)
            longest, last = max(longest, clock.seconds() - last), clock.seconds()
        self.assertEqual(bytes(near.got[before:]), DATA)
        return longest


class Spare(SpareCase):
    """How they are made, kept and used."""

    def test_made(self) -> None:
        """A circuit that has a stream for some seconds gets a spare over other relays; it carries probes
        only, and both ends know it."""
        self.start()
        near = self.stream()
        self.m.network.run(AFTER - 1.0)
        self.assertIsNone(self.spare)
        self.m.network.run(3.0)
        spare = self.spare
        assert spare is not None and spare.end is not None
        self.assertEqual((self.relays(self.conversation.leg), self.relays(spare)), (["r1"], ["r2"]))
        self.assertEqual((self.spares.standing, self.spares.built), (1, 1))
        self.exchange(near, DATA[:100_000])
        self.assertLess(spare.end.bytes_in + spare.end.bytes_out, 1_000)
        bob = next(iter(self.m["bob"].router._sessions))
        self.assertEqual([path.spare for path in bob.paths], [False, True])
        before = spare.end.bytes_in + spare.end.bytes_out
        self.m.network.run(300.0)
        self.assertIs(self.spare, spare)
        self.assertLess(spare.end.bytes_in + spare.end.bytes_out - before, 30 * 150)
        self.end()

    def test_relay_falls(self) -> None:
        """The relay in use falls while bytes come, or go: they go on over the spare within a second, all of
        them and once, and a new spare is made."""
        for back in (True, False):
            self.start()
            near = self.stream()
            far = self.ends.pop(id(near))
            pause = self.pause(far, near) if back else self.pause(near, far)
            print(f"longest pause {pause:.3f} s, {'to' if back else 'from'} the origin")
            self.assertLess(pause, 0.7)
            self.assertEqual(self.relays(self.conversation.leg), ["r2"])
            self.assertEqual(self.spares.used, 1)
            self.m.network.run(MADE + 5.0)
            spare = self.spare
            self.assertEqual(self.relays(spare), ["r3"])
            self.assertEqual(len(self.conversation.legs), 2)
            self.assertIsNone(near.error)

    def test_no_third_way(self) -> None:
        """Where there are two ways and one is used in place of the other, none is kept over the same relay,
        not even when the news of the change has not been acted on."""
        self.start(relays=("r1", "r2"))
        self.stream()
        self.m.network.run(MADE + AFTER)
        session, now = self.conversation.session, self.m.network.clock.seconds()
        assert session is not None
        self.assertTrue(session.paths.turn(now))
        self.spares.tick(self.conversation, now)
        self.m.network.run(MADE)
        self.assertEqual(self.relays(self.conversation.leg), ["r2"])
        spare = self.spare
        self.assertEqual([] if spare is None else self.relays(spare), ["r1"])
        self.end()

    def test_without(self) -> None:
        """Without spares it takes longer, and nothing is lost either."""
        self.start(spares=0)
        near = self.stream()
        pause = self.pause(self.ends.pop(id(near)), near)
        print(f"longest pause {pause:.3f} s")
        self.assertGreater(pause, 0.9)
        self.assertEqual(len(self.spares), 0)

    def test_measured(self) -> None:
        """A relay that takes longer than its links state is found out by whoever uses it: the next circuit
        goes another way, and the spare's way is known, too."""
        self.start()
        near = self.stream()
        way = (self.m["r1"].public, self.m["bob"].public)
        topology, now = self.of("alice"), self.m.network.clock.seconds
        self.assertEqual(topology.routes(way[-1], None, now())[0], way)
        for end in ("alice", "bob"):
            self.m.network.change(end, "r1", delay=0.2)
        self.m.network.run(35.0)
        self.assertEqual(topology.routes(way[-1], None, now())[0], (self.m["r2"].public, way[-1]))
        self.assertEqual(len(topology.measurements), 2)
        shown = topology.paths(self.m["bob"].public, None, now())
        self.assertIn(True, [each["measured"] for each in shown["rejected"]])
        self.assertIsNone(near.error)
        self.end()
