"""Circuits over links of several lanes, in virtual time."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from lab.simulation.network import Conditions
from lab.simulation.nodes import Collector, Mesh

LANES = 4
STREAMS = 8
DATA = bytes(range(256)) * 400


class LanesTests(SynchronousTestCase):
    """One, a relay, another; every link has four lanes."""

    def setUp(self) -> None:
        self.mesh = mesh = Mesh(("one", "relay", "other"), 3, Conditions(delay=0.02, jitter=0.02), LANES)
        self.assertTrue(mesh.linked())
        mesh.network.run(5)
        self.accepted: list[Collector] = []

        def accept(stream: Any) -> Collector:
            self.accepted.append(Collector(stream=stream))
            return self.accepted[-1]

        mesh["other"].router.listen(7, accept)

    def link(self, node: str, peer: str) -> Any:
        return self.mesh[node].router.links.by_key[self.mesh[peer].public]

    def streams(self, number: int) -> list[Collector]:
        """Each of a circuit of its own."""
        mesh, made = self.mesh, []
        for _ in range(number):
            collector = Collector()
            router = mesh["one"].router
            router._calls._standing.clear()  # the next caller gets a circuit of his own
            collector.stream = mesh.wait(
                router.connect(
                    mesh["other"].public, 7, collector, via=mesh.route("relay"), identity="anonymous"
                )
            )
            made.append(collector)
        return made

    def test_circuits_spread(self) -> None:
        """Labels are drawn by turns: every lane carries, both links, and all arrives."""
        self.assertEqual(self.link("one", "relay").standing, tuple(range(LANES)))
        for collector in self.streams(STREAMS):
            collector.send(DATA, finish=True)
        self.mesh.network.run(30)
        self.assertEqual([bytes(each.got) for each in self.accepted], [DATA] * STREAMS)
        for node, peer in (("one", "relay"), ("relay", "other")):
            sent = [seat.outlet.sealer.bytes_sent for seat in self.link(node, peer).seats]
            self.assertGreater(min(sent), len(DATA), sent)
            self.assertEqual({label % LANES for label in self.link(peer, node).forward}, set(range(LANES)))

    def test_one_lane_breaks(self) -> None:
        """Circuits of the other lanes lose nothing and wait for nothing; those of that lane recover."""
        collectors = self.streams(LANES)
        seat = self.link("one", "relay").seats[2]
        carrier = self.mesh["one"].router.links._connections[seat.lane].carrier
        (line,) = (line for line in self.mesh.internet.connections if carrier in (line.near, line.far))
        for collector in collectors:
            collector.send(DATA, finish=True)
        self.mesh.network.run(0.1)
        line.reset("cut")
        self.mesh.network.run(30)
        self.assertEqual([bytes(each.got) for each in self.accepted], [DATA] * LANES)
        self.assertEqual(seat.connections, 2)
        self.assertEqual([collector.error for collector in collectors], [None] * LANES)

    def test_new_labels_prefer_lanes_that_stand(self) -> None:
        """While a lane is down no circuit begins on it."""
        links = self.mesh["one"].router.links
        link = self.link("one", "relay")
        links.calls.peers[link.peer].calls[1].dialler.stop()
        links._connections[link.seats[1].lane].carrier.close()
        self.mesh.network.run(1)
        self.assertEqual(link.standing, (0, 2, 3))
        before = set(link.backward)
        self.streams(6)
        drawn = [label % LANES for label in set(link.backward) - before]
        self.assertEqual((len(drawn), set(drawn)), (6, {0, 2, 3}))
