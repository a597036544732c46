"""The graph: links of two ends, lies, and what is remembered."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.topology.claims import Mark, distance, least_delay
from meshnet.topology.graph import Edge, Graph, Node
from tests.support.topology import UNIX, graph, name, record, row

BERLIN, TOKYO = (52, 13), (36, 140)
SEED = 31


class Links(SynchronousTestCase):
    """What is an edge."""

    def test_both_ends(self) -> None:
        """A link that one end states is none; it appears with the other, and goes with it."""
        made = Graph()
        made.put(record(1, [row(2)]))
        self.assertIsNone(made.edge(name(1), name(2)))
        made.put(record(2, []))
        self.assertIsNone(made.edge(name(1), name(2)))
        made.put(record(2, [row(1)]))
        self.assertIsNotNone(made.edge(name(1), name(2)))
        self.assertIsNotNone(made.edge(name(2), name(1)))
        made.put(record(1, []))
        self.assertIsNone(made.edge(name(2), name(1)))
        made.put(record(1, [row(2)]))
        made.remove(name(2))
        self.assertIsNone(made.edge(name(1), name(2)))

    def test_worse_end_counts(self) -> None:
        """Of two statements the slower delay and the narrower capacity hold."""
        made = Graph()
        made.put(record(1, [row(2, 10_000, capacity=8_000)]))
        made.put(record(2, [row(1, 20_000, capacity=80_000)]))
        edge = made.edge(name(1), name(2))
        assert edge is not None
        self.assertEqual((edge.delay, edge.capacity), (0.02, 1e6))

    @given(st.lists(st.tuples(st.integers(1, 6), st.sets(st.integers(1, 6), max_size=4)), max_size=30))
    def test_any_order(self, steps: list[tuple[int, set[int]]]) -> None:
        """However records came and changed, the edges are those of the last ones."""
        made, last = Graph(), {}
        for number, others in steps:
            last[number] = others - {number}
            made.put(record(number, [row(other) for other in sorted(last[number])]))
        expected = {
            (name(one), name(other))
            for one, others in last.items()
            for other in others
            if one in last.get(other, ())
        }
        self.assertEqual({(one, other) for one in made.nodes for other in made.nodes[one].edges}, expected)

    def test_component(self) -> None:
        """Who is connected, the nearest first."""
        made = graph({(1, 2): 1, (2, 3): 1, (4, 5): 1})
        self.assertEqual(made.component(name(1)), [name(1), name(2), name(3)])
        self.assertEqual(made.component(name(9)), [])


class Weighed(SynchronousTestCase):
    """What edges cost, kept while the graph changes."""

    def test_as_anew(self) -> None:
        """Whatever comes, goes, is marked or stated again: what is kept equals what is weighed anew."""
        random = Random(SEED)
        made = graph({(i, i % 30 + 1): 1_000 * i for i in range(1, 31)})

        def weight(edge: Edge, node: Node) -> float:
            return edge.delay * (2 if edge.marks or node.marks else 1) + node.record.statement.price

        for step in range(150):
            number = random.randint(1, 32)
            others = random.sample([each for each in range(1, 33) if each != number], random.randint(0, 9))
            if step % 7 == 0:
                made.remove(name(number))
            elif step % 5 == 0:
                made.note(name(number), Mark.DROPS, bool(step % 2))
            elif step % 11 == 0 and made.nodes[name(2)].edges:
                made.seen(name(2), next(iter(made.nodes[name(2)].edges)), 1.0)
            else:
                made.put(record(number, [row(each, 1_000 + step) for each in others], price=step % 3))
            kept = made.weighted(weight), made.weighted_back(weight)

            def other(edge: Edge, node: Node) -> float:
                return weight(edge, node)

            fresh = made.weighted(other), made.weighted_back(other)
            made._weighted.pop(other)
            self.assertEqual(kept, fresh, f"seed {SEED}, step {step}")

    def test_the_same_again(self) -> None:
        """A record that says the same of its node again changes no version; another price does."""
        made = graph({(1, 2): 1_000})
        version = made.version
        made.put(record(1, [row(2, 1_000)], issued=UNIX + 1_800))
        self.assertEqual((made.version, made.nodes[name(1)].record.issued), (version, UNIX + 1_800))
        made.put(record(1, [row(2, 1_000)], issued=UNIX + 1_801, price=1))
        self.assertGreater(made.version, version)


class Claims(SynchronousTestCase):
    """Statements that cannot be true."""

    def test_light(self) -> None:
        """Berlin to Tokyo in a millisecond is faster than light; in 60 it is not."""
        self.assertLess(abs(distance(BERLIN, TOKYO) - 8_960), 10)
        self.assertGreater(least_delay(BERLIN, TOKYO), 0.028)
        places = {"latitude": {1: 52, 2: 36}, "longitude": {1: 13, 2: 140}}
        fast = graph({(1, 2): 1_000}, **places).edge(name(1), name(2))
        slow = graph({(1, 2): 60_000}, **places).edge(name(1), name(2))
        assert fast is not None and slow is not None
        self.assertEqual(fast.marks, Mark.FASTER_THAN_LIGHT)
        self.assertEqual(slow.marks, Mark(0))

    def test_contradiction(self) -> None:
        """Two ends that measure 5 ms and 300 ms do not both tell the truth."""
        made = Graph()
        made.put(record(1, [row(2, 5_000)]))
        made.put(record(2, [row(1, 300_000)]))
        edge = made.edge(name(1), name(2))
        assert edge is not None
        self.assertEqual(edge.marks, Mark.CONTRADICTED)

    def test_one_sided(self) -> None:
        """Who states links to many that do not state them is marked, until they do or he stops."""
        made = graph({(i, i + 1): 1_000 for i in range(2, 9)})
        made.put(record(1, [row(i) for i in range(2, 10)]))
        self.assertEqual(made.nodes[name(1)].marks, Mark.ONE_SIDED)
        made.put(record(1, []))
        self.assertEqual(made.nodes[name(1)].marks, Mark(0))

    def test_unknown_is_no_lie(self) -> None:
        """Links to nodes whose records have not come yet mark nobody."""
        made = Graph()
        made.put(record(1, [row(i) for i in range(2, 30)]))
        self.assertEqual(made.nodes[name(1)].marks, Mark(0))

    def test_capacity(self) -> None:
        """A hundred times what was ever carried is not believed."""
        made = graph({(1, 2): 1_000})
        made.seen(name(1), name(2), 10_000.0)
        edge = made.edge(name(1), name(2))
        assert edge is not None
        self.assertEqual(edge.marks, Mark.UNSEEN_CAPACITY)

    def test_noted(self) -> None:
        """What was found out of a node outlives its next record, until it is taken back."""
        made = graph({(1, 2): 1_000})
        made.note(name(2), Mark.DROPS, True)
        made.put(record(2, [row(1)]))
        self.assertEqual(made.nodes[name(2)].marks, Mark.DROPS)
        made.note(name(2), Mark.DROPS, False)
        self.assertEqual(made.nodes[name(2)].marks, Mark(0))
