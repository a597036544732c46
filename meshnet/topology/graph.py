"""The graph that records make: links that both of their ends state, and what is known of each.

A link goes both ways, and each way is an `Edge`: as slow as the slower statement says and as wide as the
narrower. Records come from the book, which has checked them; nothing here looks at signatures or clocks.
Node and edge objects are shared with whoever asks, and not to be changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from attrs import define, evolve, field

from meshnet.topology.claims import BEYOND, NONE, Mark, judge, one_sided
from meshnet.topology.record import RELAYS, LinkRow, Name, Record, Statement

UNKNOWN_DELAY: Final = 0.05  # seconds, where nobody has measured
UNKNOWN_CAPACITY: Final = 125_000.0  # bytes per second
TOUCHED: Final = 4  # where more than this share of all nodes changed, costs are weighed anew
Weight = Callable[["Edge", "Node"], float]
"""What an edge costs that leads to a node; positive."""
Table = dict[Name, tuple[tuple[Name, float], ...]]
"""For each node, others and costs."""


@define(eq=False, slots=True)
class Edge:
    """One way over a link: `delay` and `jitter` in seconds, `loss` 0 to 1, `capacity` in bytes per second,
    `price` in units a MiB."""

    delay: float
    jitter: float
    loss: float
    capacity: float
    price: int
    marks: Mark


@define(eq=False, slots=True)
class Node:
    """A node, its edges by the names they lead to, and what it is distrusted for."""

    record: Record
    edges: dict[Name, Edge] = field(factory=dict)
    marks: Mark = NONE
    noted: Mark = NONE
    """What was found out about it otherwise than by its record."""

    @property
    def relays(self) -> bool:
        """Whether it carries circuits of others."""
        return bool(self.record.statement.flags & RELAYS)


@define(eq=False, slots=True)
class _Weighed:
    """What edges cost by one weight, ahead and back; `touched` nodes or their edges have changed since."""

    ahead: Table = field(factory=dict)
    back: Table = field(factory=dict)
    touched: set[Name] = field(factory=set)


class Graph:
    """Nodes that records are held of, and their links. Whether a node states links that nobody else does is
    counted when somebody asks next, not at each record that touches it: a node of a thousand links is touched
    by a thousand."""

    def __init__(self) -> None:
        self._nodes: dict[Name, Node] = {}
        self._version = 0
        self._doubted: set[Name] = set()
        self._weighted: dict[Weight, _Weighed] = {}
        self._seen: dict[tuple[Name, Name], float] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def __contains__(self, name: object) -> bool:
        return name in self._nodes

    @property
    def nodes(self) -> dict[Name, Node]:
        """Every node with a record, connected or not."""
        if self._doubted:
            self._judge()
        return self._nodes

    @property
    def version(self) -> int:
        """Grows with each change."""
        if self._doubted:
            self._judge()
        return self._version

    def put(self, record: Record) -> None:
        """A node's new record; replaces its last. One that says the same of it again changes no path, and
        leaves `version` as it is."""
        node = self._nodes.get(record.name)
        if node is not None and _alike(node.record.statement, record.statement):
            node.record = record
            self._doubted.add(record.name)
            return
        self._version += 1
        self._touch(record.name)
        if node is None:
            node = self._nodes[record.name] = Node(record)
        else:
            for gone in [other for other in node.edges if other not in record.links]:
                self._cut(node, gone)
            node.record = record
        for other, row in record.links.items():
            self._join(node, Name(other), row)
        self._doubted.add(record.name)

    def remove(self, name: Name) -> None:
        """The node's record is gone."""
        node = self._nodes.pop(name, None)
        if node is None:
            return
        self._version += 1
        self._touch(name)
        self._doubted.discard(name)
        for other in list(node.edges):
            self._cut(node, other)

    def note(self, name: Name, mark: Mark, on: bool) -> None:
        """Marks a node for what it did, or takes that back; harmless for an unknown one."""
        node = self._nodes.get(name)
        if node is not None:
            noted = node.noted | mark if on else node.noted & ~mark
            if noted != node.noted:
                node.noted = noted
                node.marks = node.marks & ~mark | noted
                self._version += 1
                self._touch(name)

    def seen(self, one: Name, other: Name, rate: float) -> None:
        """`rate` bytes per second were carried from `one` to `other`, over which more was wanted."""
        if len(self._seen) < len(self._nodes) + 1_024:
            self._seen[one, other] = max(rate, self._seen.get((one, other), 0.0))
            node = self._nodes.get(one)
            edge = None if node is None else node.edges.get(other)
            if node is not None and edge is not None and edge.capacity > BEYOND * self._seen[one, other]:
                node.edges[other] = evolve(edge, marks=edge.marks | Mark.UNSEEN_CAPACITY)
                self._version += 1
                self._touch(one)

    def _join(self, node: Node, name: Name, row: LinkRow) -> None:
        other = self._nodes.get(name)
        back = None if other is None else other.record.links.get(node.record.name)
        if other is None or back is None:
            if node.edges.pop(name, None) is not None:
                self._touch(name)
            return
        self._touch(name)
        marks = judge(node.record, row, other.record, back)
        edge = _edge(row, back, marks)
        node.edges[name] = edge
        other.edges[node.record.name] = edge if back.price == row.price else evolve(edge, price=back.price)
        self._doubted.add(name)

    def _cut(self, node: Node, name: Name) -> None:
        self._touch(name)
        node.edges.pop(name, None)
        other = self._nodes.get(name)
        if other is not None:
            other.edges.pop(node.record.name, None)
            self._doubted.add(name)

    def _judge(self) -> None:
        """Those whose links, or the nodes at their other ends, have changed."""
        nodes, doubted, self._doubted = self._nodes, self._doubted, set()
        for name in doubted:
            node = nodes[name]
            known = sum([other in nodes for other in node.record.links])
            marks = node.noted | Mark.ONE_SIDED if one_sided(known, len(node.edges)) else node.noted
            if marks != node.marks:
                node.marks = marks
                self._version += 1
                self._touch(name)

    def _touch(self, name: Name) -> None:
        """What leads to and from this node must be weighed again; where that is much of all, everything."""
        if not self._weighted:
            return
        for weight, weighed in list(self._weighted.items()):
            weighed.touched.add(name)
            if len(weighed.touched) > len(self._nodes) // TOUCHED:
                del self._weighted[weight]

    # asking

    def edge(self, one: Name, other: Name) -> Edge | None:
        """The way from one node to another; None if there is no link."""
        node = self._nodes.get(one)
        return None if node is None else node.edges.get(other)

    def weighted(self, weight: Weight) -> Table:
        """For each node, where its edges lead and what they cost. It is kept, and only what changed is
        weighed again when it is asked for next; till then it stays as it is."""
        return self._weigh(weight).ahead

    def weighted_back(self, weight: Weight) -> Table:
        """For each node, where edges lead to it from, and what these cost."""
        return self._weigh(weight).back

    def _weigh(self, weight: Weight) -> _Weighed:
        nodes = self.nodes
        weighed = self._weighted.get(weight)
        if weighed is None:
            weighed = self._weighted[weight] = _Weighed()
            names: set[Name] | dict[Name, Node] = nodes
        elif weighed.touched:
            names = set(weighed.touched)
            names.update(other for name in weighed.touched if name in nodes for other in nodes[name].edges)
            weighed.touched = set()
        else:
            return weighed
        for name in names:
            node = nodes.get(name)
            if node is None:
                weighed.ahead.pop(name, None)
                weighed.back.pop(name, None)
                continue
            edges = node.edges
            weighed.ahead[name] = tuple(
                [(other, weight(edge, nodes[other])) for other, edge in edges.items()]
            )
            weighed.back[name] = tuple([(other, weight(nodes[other].edges[name], node)) for other in edges])
        return weighed

    def beside(self, name: Name) -> Iterable[Name]:
        """Those that links connect with a node that has a record."""
        return self._nodes[name].edges

    def component(self, start: Name) -> list[Name]:
        """All nodes that links connect with `start`, the nearest first, itself included; empty if it has no
        record."""
        if start not in self._nodes:
            return []
        found, todo, nodes = {start}, [start], self._nodes
        for name in todo:
            for other in nodes[name].edges:
                if other not in found:
                    found.add(other)
                    todo.append(other)
        return todo

    def links(self) -> Iterator[tuple[Name, Name, Edge]]:
        """Every link once, by the smaller name first, with the edge that leads from it."""
        for name, node in self._nodes.items():
            for other, edge in node.edges.items():
                if name < other:
                    yield name, other, edge


def _alike(one: Statement, other: Statement) -> bool:
    """Whether two statements of one node say the same of everything that paths or marks depend on."""
    return (
        one.links == other.links
        and one.flags == other.flags
        and one.price == other.price
        and one.latitude == other.latitude
        and one.longitude == other.longitude
    )


def _edge(row: LinkRow, back: LinkRow, marks: Mark) -> Edge:
    delay = max(row.delay, back.delay) / 1e6
    narrow = min(row.capacity, back.capacity) or max(row.capacity, back.capacity)
    return Edge(
        delay=delay or UNKNOWN_DELAY,
        jitter=max(row.jitter, back.jitter) * 16e-6,
        loss=max(row.loss, back.loss) / 65_535,
        capacity=narrow * 125.0 or UNKNOWN_CAPACITY,
        price=row.price,
        marks=marks,
    )
