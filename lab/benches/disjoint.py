"""Four disjoint ways in a graph of 10,000 nodes, by our search and by libraries of graphs.

`python -m lab.benches.disjoint`: networkx and rustworkx are measured where they are installed; nothing else
uses them. All search the same pairs of the same random graph of degree 6 and take the cheapest path, then the
cheapest without its relays, and so on, as `meshnet.topology.search.disjoint` does. `cost` is the mean sum of
what they found: alike, if all are right.
"""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable
from itertools import pairwise
from random import Random
from statistics import median
from typing import Any

from lab.simulation.graphs import tangle
from meshnet.topology.search import disjoint

SEED = 10_000
NODES, DEGREE, WAYS, PAIRS = 10_000, 6, 4, 31
Costs = dict[int, tuple[tuple[int, float], ...]]
Found = list[float]
"""The costs of the ways found."""


def costs(count: int, degree: int, seed: int) -> Costs:
    """A random graph with costs of 1 to 50."""
    random = Random(f"{seed}/costs")
    made: dict[int, list[tuple[int, float]]] = {number: [] for number in range(count)}
    for one, other in tangle(count, degree, seed).links:
        cost = random.uniform(1.0, 50.0)
        made[one].append((other, cost))
        made[other].append((one, cost))
    return {number: tuple(edges) for number, edges in made.items()}


def ours(table: Costs) -> Callable[[int, int], Found]:
    """The search of the nodes."""

    def search(start: int, target: int) -> Found:
        paths = disjoint(table, start, target, WAYS, 64)
        return [sum(dict(table[a])[b] for a, b in pairwise(path)) for path in paths]

    return search


def by_networkx(table: Costs) -> Callable[[int, int], Found]:
    """Its search from both ends, in a view that hides what is used."""
    networkx: Any = importlib.import_module("networkx")
    graph = networkx.Graph()
    graph.add_weighted_edges_from((a, b, cost) for a, edges in table.items() for b, cost in edges)

    def search(start: int, target: int) -> Found:
        used: set[int] = set()
        found = []
        for _ in range(WAYS):
            view = networkx.restricted_view(graph, used, ()) if used else graph
            try:
                cost, path = networkx.bidirectional_dijkstra(view, start, target)
            except networkx.NetworkXNoPath:
                break
            found.append(cost)
            used.update(path[1:-1])
        return found

    return search


def by_rustworkx(table: Costs) -> Callable[[int, int], Found]:
    """Its search from one end, on a copy from which what is used is taken."""
    rustworkx: Any = importlib.import_module("rustworkx")
    graph = rustworkx.PyGraph()
    graph.add_nodes_from(range(len(table)))
    graph.add_edges_from([(a, b, cost) for a, edges in table.items() for b, cost in edges if a < b])

    def search(start: int, target: int) -> Found:
        left = graph.copy()
        found = []
        for _ in range(WAYS):
            reached = rustworkx.dijkstra_shortest_paths(left, start, target, weight_fn=float)
            if target not in reached:
                break
            path = list(reached[target])
            found.append(sum(dict(table[a])[b] for a, b in pairwise(path)))
            left.remove_nodes_from(path[1:-1])
        return found

    return search


SEARCHES = {"own": ours, "networkx": by_networkx, "rustworkx": by_rustworkx}


def compare(count: int = NODES, pairs: int = PAIRS) -> list[dict[str, Any]]:
    """A row for each search that can run: `milliseconds` is the median of the pairs, `cost` the mean sum."""
    table = costs(count, DEGREE, SEED)
    random = Random(SEED)
    asked = [random.sample(range(count), 2) for _ in range(pairs)]
    rows = []
    for name, make in SEARCHES.items():
        try:
            search = make(table)
        except ImportError:
            continue
        times, total = [], 0.0
        for start, target in asked:
            begun = time.perf_counter()
            found = search(start, target)
            times.append((time.perf_counter() - begun) * 1e3)
            total += sum(found)
        shown = {"milliseconds": round(median(times), 2), "slowest": round(max(times), 2)}
        rows.append({"search": name, **shown, "cost": round(total / pairs, 3)})
    return rows


if __name__ == "__main__":
    for each in compare():
        print(json.dumps(each))
