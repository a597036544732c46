"""Shortest paths, against trying every path of small graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from math import inf
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lab.benches import disjoint as disjoint_bench
from meshnet.topology import search
from meshnet.topology.search import Effort, Remaining, cost_of, disjoint, in_order, shortest

SEED = 8
Costs = dict[int, list[tuple[int, float]]]


@st.composite
def graphs(draw: st.DrawFn) -> Costs:
    """Up to eight nodes, each way of a link with the same cost."""
    size = draw(st.integers(2, 8))
    costs: Costs = {node: [] for node in range(size)}
    for one, other in combinations(range(size), 2):
        cost = draw(st.one_of(st.none(), st.integers(1, 9)))
        if cost is not None:
            costs[one].append((other, float(cost)))
            costs[other].append((one, float(cost)))
    return costs


def every_path(costs: Costs, start: int, target: int) -> Iterator[tuple[int, ...]]:
    """All that enter no node twice."""
    todo = [(start,)]
    while todo:
        path = todo.pop()
        for there, _ in costs[path[-1]]:
            if there == target:
                yield (*path, there)
            elif there not in path:
                todo.append((*path, there))


class Shortest(SynchronousTestCase):
    """One path."""

    @given(graphs(), st.integers(1, 8), st.sets(st.integers(2, 7), max_size=2))
    def test_cheapest(self, costs: Costs, hops: int, closed: set[int]) -> None:
        """No path in so few hops around the closed nodes costs less; where there is one, one is found."""
        allowed = [
            path for path in every_path(costs, 0, 1) if len(path) - 1 <= hops and not closed & {*path[1:-1]}
        ]
        found = shortest(costs, 0, 1, hops, closed)
        if not allowed:
            self.assertIsNone(found)
            return
        assert found is not None
        self.assertIn(found, allowed)
        self.assertEqual(cost_of(costs, found), min(cost_of(costs, path) for path in allowed))

    def test_one_way(self) -> None:
        """Costs that differ by direction are those of the way that is gone."""
        costs = {0: [(1, 5.0), (2, 1.0)], 1: [(0, 1.0), (2, 1.0)], 2: [(1, 1.0), (0, 9.0)]}
        back = {0: [(1, 1.0), (2, 9.0)], 1: [(0, 5.0), (2, 1.0)], 2: [(0, 1.0), (1, 1.0)]}
        self.assertEqual(shortest(costs, 0, 1, 8, back=back), (0, 2, 1))
        self.assertEqual(shortest(costs, 1, 0, 8, back=costs), (1, 0))

    def test_nowhere(self) -> None:
        """A node that is not there, and the start itself, have no path."""
        costs: Costs = {0: [(1, 1.0)], 1: [(0, 1.0)]}
        self.assertIsNone(shortest(costs, 0, 9, 8))
        self.assertIsNone(shortest(costs, 0, 0, 8))


class Disjoint(SynchronousTestCase):
    """Several."""

    @settings(max_examples=60)
    @given(graphs(), st.integers(1, 4))
    def test_as_many_as_there_are(self, costs: Costs, count: int) -> None:
        """They share no node, and there are as many as any choice of paths has."""
        found = disjoint(costs, 0, 1, count, 8)
        inner = [set(path[1:-1]) for path in found]
        for one, other in combinations(inner, 2):
            self.assertFalse(one & other)
        self.assertEqual(len(set(found)), len(found))
        for path in found:
            self.assertLess(cost_of(costs, path), inf)
        self.assertEqual(len(found), min(count, _most(list(every_path(costs, 0, 1)))))

    def test_trap(self) -> None:
        """Where the cheapest path stands in the way of two, two others are found."""
        links = [(0, 2, 1), (2, 3, 1), (3, 1, 1), (0, 4, 2), (4, 3, 2), (2, 5, 2), (5, 1, 2)]
        costs: Costs = {node: [] for node in range(6)}
        for one, other, cost in links:
            costs[one].append((other, float(cost)))
            costs[other].append((one, float(cost)))
        self.assertEqual(shortest(costs, 0, 1, 8), (0, 2, 3, 1))
        self.assertEqual(disjoint(costs, 0, 1, 2, 8), [(0, 2, 5, 1), (0, 4, 3, 1)])


def _most(paths: list[tuple[int, ...]]) -> int:
    """The most paths that share no inner node and are not the same."""
    best = 0

    def grow(index: int, used: frozenset[int], count: int, direct: bool) -> None:
        nonlocal best
        best = max(best, count)
        if best >= 4:
            return
        for i in range(index, len(paths)):
            inner = frozenset(paths[i][1:-1])
            if not inner & used and (inner or not direct):
                grow(i + 1, used | inner, count + 1, direct or not inner)

    grow(0, frozenset(), 0, False)
    return best


class InOrder(SynchronousTestCase):
    """Paths that pass given places."""

    @settings(max_examples=60)
    @given(graphs(), st.integers(2, 8))
    def test_cheapest(self, costs: Costs, hops: int) -> None:
        """What is found passes an even node and then an odd one, in so many hops; where no path does,
        none is found."""
        stops = [lambda node: node % 2 == 0, lambda node: node % 2 == 1]

        def fits(path: tuple[int, ...]) -> bool:
            passed = 0
            for node in path[1:-1]:
                passed += passed < 2 and stops[passed](node)
            return passed == 2 and len(path) - 1 <= hops

        found = in_order(costs, 0, stops, hops, Remaining(costs, 1, Effort()))
        allowed = [path for path in every_path(costs, 0, 1) if fits(path)]
        if found is not None:
            self.assertIn(found, allowed)
        if not allowed:
            self.assertIsNone(found)

    def over(self, costs: Costs, stops: list[Callable[[int], bool]], hops: int) -> tuple[int, ...] | None:
        """From node 0 to node 1."""
        return in_order(costs, 0, stops, hops, Remaining(costs, 1, Effort()))

    def test_stops(self) -> None:
        """A detour is made for a stop, and a path through the stops in the wrong order is none."""
        costs: Costs = {0: [(1, 1.0), (2, 1.0)], 1: [(0, 1.0), (3, 1.0)], 2: [(0, 1.0), (3, 1.0)], 3: []}
        costs[3] = [(1, 1.0), (2, 1.0)]
        self.assertEqual(self.over(costs, [lambda node: node == 3], 8), (0, 2, 3, 1))
        self.assertEqual(self.over(costs, [], 8), (0, 1))
        backwards = [lambda node: node == 3, lambda node: node == 2]
        self.assertIsNone(self.over(costs, backwards, 8))
        self.assertIsNone(self.over(costs, [lambda node: node == 3], 2))


class Bounds(SynchronousTestCase):
    """What a search may cost at most."""

    def test_more_ways_cost_no_more_in_a_larger_graph(self) -> None:
        """Where the nearest ways stand in the way of more, those are looked for among what lies between: four
        times the nodes are hardly more work."""
        spent = [self.spent(count) for count in (1_500, 6_000)]
        self.assertGreater(spent[0], 0)
        self.assertLess(spent[1], 2 * spent[0])

    def spent(self, count: int) -> int:
        """Edges looked at for ten pairs, by the part that undoes what was found."""
        costs: Any = disjoint_bench.costs(count, 4, SEED)
        random, total = Random(SEED), 0
        for _ in range(10):
            start, target = random.sample(range(count), 2)
            effort = Effort(10**9)
            near = search._near(costs, costs, start, target, 8, (), effort)
            search._together(near, start, target, 4, effort)
            total += 10**9 - effort.left
        return total

    def test_effort(self) -> None:
        """However large the graph, no search goes on when the effort is spent; and none finds nonsense."""
        costs: Any = disjoint_bench.costs(3_000, 6, SEED)
        random = Random(SEED)
        for edges in (0, 10, 100, 1_000, 10_000):
            start, target = random.sample(range(3_000), 2)
            effort = Effort(edges)
            found = disjoint(costs, start, target, 4, 8, effort=effort)
            rest = Remaining(costs, target, effort)
            stops = [lambda node: node % 3 == 0] * 4
            passed = in_order(costs, start, stops, 8, rest, effort=effort)
            self.assertGreater(effort.left, -100)
            for path in (*found, *([] if passed is None else [passed])):
                self.assertEqual((path[0], path[-1]), (start, target))
                self.assertLess(cost_of(costs, path), float("inf"))
