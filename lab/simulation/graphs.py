"""Graphs for simulations: published ones where they lie beside the checkout, grids and random ones made here.

A graph is a number of nodes, 0 … n − 1, and the pairs that are linked.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from random import Random

from attrs import frozen

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = "topologies/meshnet-lab"


@frozen
class Shape:
    """`origin` says where it comes from."""

    count: int
    links: tuple[tuple[int, int], ...]
    origin: str


def published(name: str) -> Shape | None:
    """A graph of the meshnet-lab project, such as `freifunk/freifunk-bremen`; None where it is absent. It
    is looked for in $MESHNET_VECTORS, else beside the checkout. Undeclared ends of links count as nodes."""
    base = Path(os.environ.get("MESHNET_VECTORS") or ROOT.parent / "shared" / "vectors")
    path = base / FOLDER / f"{name}.json"
    if not path.exists():
        return None
    rows = json.loads(path.read_text())["links"]
    numbers: dict[object, int] = {}
    pairs = set()
    for row in rows:
        ends = sorted(numbers.setdefault(row[end], len(numbers)) for end in ("source", "target"))
        if ends[0] != ends[1]:
            pairs.add((ends[0], ends[1]))
    return Shape(len(numbers), tuple(sorted(pairs)), f"{name.rpartition('/')[2]} of meshnet-lab")


def grid(side: int) -> Shape:
    """side × side nodes, each linked to those beside it: the published one, or the same made here."""
    known = published(f"grid4/grid4-{side * side:04}")
    if known is not None:
        return known
    right = [(i, i + 1) for i in range(side * side) if i % side < side - 1]
    down = [(i, i + side) for i in range(side * (side - 1))]
    return Shape(side * side, tuple(sorted(right + down)), f"grid of {side} × {side}, made here")


def tangle(count: int, degree: int, seed: int) -> Shape:
    """A random graph whose nodes have `degree` neighbours each, an even number: half as many rings through
    all nodes in random order. Connected; where two rings share a link a node has one neighbour fewer."""
    random = Random(f"{seed}/tangle {count} {degree}")
    pairs: set[tuple[int, int]] = set()
    for _ in range(degree // 2):
        ring = random.sample(range(count), count)
        pairs.update((min(pair), max(pair)) for pair in zip(ring, ring[1:] + ring[:1], strict=True))
    return Shape(count, tuple(sorted(pairs)), f"random graph of degree {degree}, seed {seed}")
