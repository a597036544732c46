"""Choosing ways: rules kept, the best taken, reasons given."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.limits import HOPS
from meshnet.topology.choice import Choice, choose, keys_of, long_way
from meshnet.topology.claims import Mark
from meshnet.topology.graph import Graph
from meshnet.topology.measured import Measured
from meshnet.topology.policy import parse_policy
from meshnet.topology.record import Name
from tests.support.topology import graph, key, lookup, name, record, row

NUMBERS = {name(i): i for i in range(1, 80)}


def ways(made: Graph, target: int, text: str = "", origin: int = 1, **more: object) -> Choice:
    """What is chosen between two nodes under a policy."""
    policy = parse_policy(text, lookup)
    call = {"name": lambda each: f"n{NUMBERS[each]}", **more}
    return choose(made, name(origin), name(target), policy, **call)  # type: ignore[arg-type]


def numbers(choice: Choice) -> list[list[int]]:
    """The nodes of the ways chosen, by number."""
    return [[NUMBERS[each] for each in way.nodes] for way in choice.ways]


SQUARE = {(1, 2): 10_000, (2, 4): 10_000, (1, 3): 30_000, (3, 4): 30_000}
"""From 1 to 4 over 2 in 20 ms or over 3 in 60 ms."""
COUNTRIES = {2: b"DE", 3: b"JP", 5: b"US"}


class Rules(SynchronousTestCase):
    """Each rule decides, and says what it rejected."""

    def test_latency(self) -> None:
        """The fast way is taken; the slow one is named with its delay."""
        found = ways(graph(SQUARE), 4)
        self.assertEqual(numbers(found), [[1, 2, 4]])
        self.assertEqual([each.reason for each in found.rejected], ["takes 60.5 ms, the best 20.5"])

    def test_measured(self) -> None:
        """What a circuit took beats what links state, where it is clearly more; small differences do not."""
        made, fast = graph(SQUARE), (name(1), name(2), name(4))
        for delay, loss, best in ((0.024, None, 2), (0.1, None, 3), (0.0205, 0.5, 3), (0.0205, 0.005, 2)):
            found = ways(made, 4, measured={fast: Measured(delay, loss, 0.0)})
            self.assertEqual(numbers(found), [[1, best, 4]], (delay, loss))
        found = ways(made, 4, measured={fast: Measured(0.1, None, 0.0)})
        self.assertEqual([each.reason for each in found.rejected], ["took 100.0 ms, the best 60.5"])
        slow = (name(1), name(3), name(4))
        self.assertEqual(numbers(ways(made, 4, measured={slow: Measured(0.005, 0.0, 0.0)})), [[1, 3, 4]])
        self.assertEqual(ways(made, 4, "max_delay 50", measured={fast: Measured(0.06, None, 0.0)}).ways, ())

    def test_avoid(self) -> None:
        """A node, a country, a suspect: the way around, and the reason at the way not taken."""
        made = graph(SQUARE, country=COUNTRIES)
        for text, more, reason in (
            ("avoid n2", {}, "enters n2, which is to be avoided"),
            ("avoid_countries DE", {}, "enters n2, which stands in DE, which is to be avoided"),
            ("only_countries JP", {}, "enters n2, which stands in DE, not in JP"),
            ("", {"suspects": {name(2)}}, "enters n2, which was in circuits that died early"),
        ):
            found = ways(made, 4, text, **more)
            self.assertEqual(numbers(found), [[1, 3, 4]], text)
            self.assertIn(reason, [each.reason for each in found.rejected], text)

    def test_onion_keys(self) -> None:
        """A relay that states no onion key, or one that it no longer has, is gone around where that is
        wanted, and only there."""
        stale = graph(SQUARE)
        self.assertEqual(numbers(ways(stale, 4)), [[1, 2, 4]])
        none = ways(stale, 4, "onion_keys")
        self.assertEqual(none.ways, ())
        self.assertIn("enters n2, which states no onion key that changes", none.reason)
        mine = name(3)
        found = ways(stale, 4, "onion_keys", keyed=lambda record: record.name == mine)
        self.assertEqual(numbers(found), [[1, 3, 4]])

    def test_bounds(self) -> None:
        """Delay, price and capacity are bounds over the whole way; where all break one, there is no way and
        the reason is the nearest's."""
        made = graph(SQUARE, price={2: 100, 3: 5})
        self.assertEqual(numbers(ways(made, 4, "price_cap 50")), [[1, 3, 4]])
        self.assertEqual(numbers(ways(made, 4, "cheap")), [[1, 3, 4]])
        self.assertEqual(numbers(ways(made, 4, "max_delay 30")), [[1, 2, 4]])
        none = ways(made, 4, "max_delay 5")
        self.assertEqual(none.ways, ())
        self.assertIn("takes 20.5 ms, more than max_delay 5", none.reason)

    def test_countries(self) -> None:
        """Relays stand in the countries asked for, in that order."""
        links = {(1, 2): 10, (2, 3): 10, (3, 4): 10, (1, 3): 10, (2, 4): 10, (1, 4): 10}
        made = graph(links, country=COUNTRIES)
        self.assertEqual(numbers(ways(made, 4, "countries DE>JP; max_hops 3")), [[1, 2, 3, 4]])
        self.assertEqual(numbers(ways(made, 4, "countries JP>DE")), [[1, 3, 2, 4]])
        none = ways(made, 4, "countries US")
        self.assertIn("misses US of countries US", none.reason)

    def test_pin(self) -> None:
        """Pinned relays are the way, whatever is faster; a pin without links is none."""
        made = graph(SQUARE)
        self.assertEqual(numbers(ways(made, 4, "pin n3")), [[1, 3, 4]])
        self.assertEqual(ways(made, 4, "pin n3,n2").ways, ())

    def test_disjoint(self) -> None:
        """As many ways as are asked for and there are, without a common relay."""
        made = graph(SQUARE | {(1, 5): 50_000, (5, 4): 50_000})
        self.assertEqual(numbers(ways(made, 4, "disjoint 3")), [[1, 2, 4], [1, 3, 4], [1, 5, 4]])

    def test_no_relay(self) -> None:
        """Who does not relay is on no way, and can still be its end."""
        made = graph(SQUARE, flags={2: 0, 4: 0})
        self.assertEqual(numbers(ways(made, 4)), [[1, 3, 4]])

    def test_liars_cost(self) -> None:
        """A marked node is taken where there is no other way only."""
        made = graph(SQUARE)
        made.note(name(2), Mark.DROPS, True)
        self.assertEqual(numbers(ways(made, 4)), [[1, 3, 4]])
        self.assertEqual(numbers(ways(graph({(1, 2): 10, (2, 4): 10}), 4)), [[1, 2, 4]])


class Private(SynchronousTestCase):
    """The preset that hides."""

    def setUp(self) -> None:
        """A ladder with cross links: 2–9 between 1 and 10."""
        links = {(1, 2): 10, (1, 3): 10, (8, 10): 10, (9, 10): 10, (7, 10): 10}
        links |= {(a, b): 10 + b for a in (2, 3) for b in (4, 5, 6)}
        links |= {(a, b): 10 + b for a in (4, 5, 6) for b in (7, 8, 9)}
        self.links = links

    def test_apart(self) -> None:
        """Never two relays of one country, operator or /16, and at least four hops, behind a guard."""
        made = graph(
            self.links,
            country={2: b"DE", 3: b"FR", 4: b"DE", 5: b"FR", 6: b"US"},
            subnet={7: b"\1\2", 6: b"\1\2"},
            operator={8: b"operator", 6: b"operator"},
        )
        found = ways(made, 10, "private", guards=(name(6),))
        self.assertEqual(len(found.ways), 1)
        way = numbers(found)[0]
        self.assertEqual((way[2], way[3]), (6, 9))
        reasons = " ".join(each.reason for each in found.rejected)
        self.assertIn("n6 and n7 of one /16", reasons)

    def test_guards_only(self) -> None:
        """Without a guard there is no private way: none is made up."""
        found = ways(graph(self.links), 10, "private", guards=(name(77),))
        self.assertEqual(found.ways, ())
        self.assertIn("guards", found.reason)


class Nowhere(SynchronousTestCase):
    """No way, and why."""

    def test_reasons(self) -> None:
        """An unknown node, a node behind no link, a node too far."""
        made = graph({(1, 2): 10, (3, 4): 10})
        self.assertIn("No link-state record", ways(made, 9).reason)
        self.assertIn("No chain of links", ways(made, 4).reason)
        self.assertIn("no neighbours", ways(made, 2, origin=8).reason)
        line = graph({(i, i + 1): 10 for i in range(1, 20)})
        self.assertIn(f"at most {HOPS} hops", ways(line, 15).reason)

    def test_long_way(self) -> None:
        """A longer path comes in pieces that circuits can have, joined at waypoints."""
        line = graph({(i, i + 1): 10 for i in range(1, 20)})
        pieces = [[NUMBERS[each] for each in piece] for piece in long_way(line, name(1), name(20))]
        self.assertEqual(pieces, [[*range(1, 10)], [*range(9, 17)], [16, 17, 18, 19, 20]])
        self.assertEqual(long_way(line, name(1), name(70)), ())
        self.assertEqual(keys_of(line, [name(3)]), (key(3).public,))


class Always(SynchronousTestCase):
    """Any network, any policy."""

    @settings(max_examples=60)
    @given(
        st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 90_000)), max_size=25),
        st.sampled_from(
            ["", "disjoint 3", "countries DE", "private", "min_hops 3", "cheap; max_hops 2", "bulk; apart"]
        ),
    )
    def test_kept(self, links: list[tuple[int, int, int]], text: str) -> None:
        """A way that is chosen exists link by link, repeats no node, and is not among the rejected."""
        table = {(min(a, b), max(a, b)): delay for a, b, delay in links if a != b}
        made = graph(table, country={i: [b"DE", b"JP", b"US"][i % 3] for i in range(1, 10)})
        found = ways(made, 9, text, guards=(name(4), name(5)))
        taken: set[tuple[Name, ...]] = set()
        for way in found.ways:
            self.assertEqual(len(set(way.nodes)), len(way.nodes))
            self.assertLessEqual(way.hops, HOPS)
            for one, other in zip(way.nodes, way.nodes[1:], strict=False):
                self.assertIsNotNone(made.edge(one, other))
            taken.add(way.nodes)
        self.assertFalse(taken & {each.way.nodes for each in found.rejected})
        self.assertEqual(bool(found.ways), not found.reason)

    def test_own_record(self) -> None:
        """A node whose links no one confirms has no ways."""
        made = Graph()
        made.put(record(1, [row(2)]))
        made.put(record(2, []))
        self.assertEqual(ways(made, 2).ways, ())
