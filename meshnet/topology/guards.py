"""The two relays that `private` paths pass second, kept for 30 days.

Whoever owns many relays is met sooner or later by someone who chooses anew each time; someone who stays with
two relays meets him with the chance of two choices. Guards are drawn by capacity, so that the more is carried
the likelier, and replaced when their time is over or when they have been gone for long. What is kept is
names and times; it is the caller's to store. Time and randomness are arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

from attrs import evolve, frozen

from meshnet.topology.graph import Graph
from meshnet.topology.record import Name

COUNT: Final = 2
LIFE: Final = 30 * 86_400
GONE: Final = 2 * 86_400
"""Seconds without a record, or without a neighbour of ours beside it, after which a guard is replaced."""


@frozen
class Guard:
    """A guard, since when it is one and when it was last of use, Unix seconds."""

    name: Name
    since: int
    seen: int


def keep(
    guards: Sequence[Guard],
    graph: Graph,
    origin: Name,
    unix: int,
    random: Callable[[int], bytes],
    avoid: Collection[Name] = frozenset(),
) -> tuple[Guard, ...]:
    """The guards that hold now: those that still serve, and new ones for those that do not."""
    able = {name: width for name, width in _able(graph, origin).items() if name not in avoid}
    kept = []
    for guard in guards:
        since = min(guard.since, unix)  # a clock that was set back makes nobody a guard for longer
        seen = unix if guard.name in able else min(guard.seen, unix)
        if unix - since < LIFE and unix - seen < GONE and guard.name not in avoid:
            kept.append(evolve(guard, since=since, seen=seen))
    kept = kept[:COUNT]
    for guard in kept:
        able.pop(guard.name, None)
    while len(kept) < COUNT and able:
        name = _draw(able, random)
        del able[name]
        kept.append(Guard(name, unix, unix))
    return tuple(kept)


def _able(graph: Graph, origin: Name) -> dict[Name, float]:
    """Relays two hops away that nothing speaks against, and their widest link in bytes per second."""
    node = graph.nodes.get(origin)
    if node is None:
        return {}
    found: dict[Name, float] = {}
    for first in node.edges:
        if not graph.nodes[first].relays:
            continue
        for name, edge in graph.nodes[first].edges.items():
            other = graph.nodes[name]
            if name != origin and other.relays and not other.marks and not edge.marks:
                found[name] = max(found.get(name, 0.0), edge.capacity)
    return found


def _draw(able: dict[Name, float], random: Callable[[int], bytes]) -> Name:
    """One of them, by its share of the capacity."""
    point = int.from_bytes(random(8), "big") / (1 << 64) * sum(able.values())
    for name, width in sorted(able.items()):
        point -= width
        if point < 0:
            return name
    return max(able)
