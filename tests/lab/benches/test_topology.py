"""Small runs of the benches of the topology: they measure what they say, and would show a fault."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from lab.benches import paths, topology, topology_nodes
from lab.simulation.gossip import GossipNetwork
from lab.simulation.graphs import grid, tangle
from meshnet.topology.record import issue


class Shapes(SynchronousTestCase):
    """Graphs."""

    def test_grid(self) -> None:
        """The published grid, or ours, has the links of a grid."""
        for side in (4, 7):
            shape = grid(side)
            self.assertEqual((shape.count, len(shape.links)), (side * side, 2 * side * (side - 1)))

    def test_tangle(self) -> None:
        """A random graph has nearly its degree, is connected, and follows from its seed."""
        shape = tangle(200, 6, 5)
        self.assertGreater(2 * len(shape.links) / 200, 5.8)
        self.assertEqual(len(topology_nodes.near(shape, 200)), 200)
        self.assertEqual(shape, tangle(200, 6, 5))
        self.assertNotEqual(shape, tangle(200, 6, 6))


class Probes(SynchronousTestCase):
    """Probes in a modelled network."""

    def test_stale(self) -> None:
        """All arrive where all is known; over a link that has just fallen, none does before it is told."""
        network = GossipNetwork(3, 9)
        network.build(tangle(9, 2, 3))
        network.run(10.0)
        self.assertTrue(topology.whole(network))
        self.assertEqual(topology.probed(network), 100.0)
        link = next(iter(network.links.values()))
        network.cut(link)
        self.assertFalse(topology.arrives(network, *link.ends))
        self.assertLess(topology.probed(network), 100.0)
        network.run(20.0)
        self.assertTrue(topology.arrives(network, *link.ends))
        self.assertEqual(topology.probed(network), 100.0)

    def test_parts(self) -> None:
        """Nobody is asked to reach what no link leads to."""
        network = GossipNetwork(3, 4)
        network.connect(0, 1)
        network.connect(2, 3)
        network.run(5.0)
        self.assertEqual([len(part) for part in topology.parts(network)], [2, 2])
        self.assertEqual(topology.probed(network), 100.0)

    def test_control(self) -> None:
        """A small grid sends little."""
        row = topology.control(3, 60.0)
        self.assertTrue(0 < row.value < 100.0, row)


class Routers(SynchronousTestCase):
    """Whole routers."""

    def test_converge(self) -> None:
        """Nine nodes know each other."""
        row = topology_nodes.converge(3, 1)
        self.assertTrue(0 < row.value < 8.0, row)


class Paths(SynchronousTestCase):
    """A small graph."""

    def test_small(self) -> None:
        """Four ways are found, the sync costs about the records, memory is measured."""
        keys, statements = paths.records(100, 6, 1)
        datas = [issue(*each) for each in zip(statements, keys, strict=True)]
        self.assertIn("4.00 ways", paths.searches(keys, statements, datas, 3).note)
        wire = paths.wire(keys, statements, datas)
        self.assertTrue(1.0 < wire.value * 1e6 / sum(map(len, datas)) < 2.0, wire)
