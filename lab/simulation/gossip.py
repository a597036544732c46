"""Topology cores joined by modelled links, in virtual time: no handshakes, no circuits, real records.

Each node is a `Spread` over a `Book`, and states its links as a real node would: at once when a link comes or
goes, else when its record is half as old as it may get. A link delays frames and carries so many bytes per
second. Everything follows from the seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from random import Random

from attrs import define, field

from lab.simulation.graphs import Shape
from meshnet.cipher.keys import SecretKey
from meshnet.topology.book import Book
from meshnet.topology.record import RELAYS, LinkRow, Name, Record, Statement, issue, name_of, read
from meshnet.topology.spread import Spread

LIFE = 180
REFRESH = 1_800.0
START = 1_700_000_000.0  # the wall clock at time 0
CHECKED = 20_000  # records
FRAME_COST = 50  # bytes of headers that a bundle of frames takes below


@define(eq=False)
class GossipNode:
    """One node: its key, core, neighbours, and when its record is due."""

    key: SecretKey
    spread: Spread
    book: Book
    index: int
    issued: int = 0
    due: float = 0.0
    skew: float = 0.0
    planned: float = float("inf")
    links: dict[Name, GossipLink] = field(factory=dict)
    country: bytes = b"\0\0"
    beside: tuple[LinkRow, ...] = ()
    """Links that it states beside those that are simulated."""

    @property
    def name(self) -> Name:
        """Its name."""
        return self.book.own


@define(eq=False)
class GossipLink:
    """A link: `delay` in seconds, `capacity` in bytes per second; bytes carried, both ways."""

    ends: tuple[GossipNode, GossipNode]
    delay: float
    capacity: float
    up: bool = True
    carried: int = 0

    def other(self, node: GossipNode) -> GossipNode:
        """Whom it leads to."""
        return self.ends[1] if node is self.ends[0] else self.ends[0]


class GossipNetwork:
    """Nodes 0 … n − 1; `connect` them, then `run`."""

    def __init__(self, seed: int, count: int, network: int = 1) -> None:
        self.random = Random(seed)
        self.now = 0.0
        self.nodes: list[GossipNode] = []
        self.links: dict[tuple[int, int], GossipLink] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._network = network
        self._checked: dict[bytes, Record] = {}
        for _ in range(count):
            self.add()

    def add(self, key: SecretKey | None = None) -> GossipNode:
        """One more node."""
        key = key or SecretKey(self.random.randbytes(32))
        book = Book(self._network, name_of(key.public), self.read)
        node = GossipNode(key, Spread(book), book, len(self.nodes))
        self.nodes.append(node)
        return node

    def read(self, data: bytes) -> Record:
        """A record, its signature checked once for all nodes: it is what most of the time would go to."""
        record = self._checked.get(data)
        if record is None:
            if len(self._checked) >= CHECKED:
                self._checked.clear()
            record = self._checked[data] = read(data)
        return record

    def at(self, time: float, call: Callable[[], None]) -> None:
        """Calls at a time."""
        self._order += 1
        heappush(self._events, (time, self._order, call))

    def connect(self, one: int, other: int, delay: float = 0.01, capacity: float = 1.25e6) -> GossipLink:
        """A link between two nodes, up from now on."""
        ends = (self.nodes[one], self.nodes[other])
        link = self.links[min(one, other), max(one, other)] = GossipLink(ends, delay, capacity)
        for node in ends:
            node.links[link.other(node).name] = link
            node.spread.up(link.other(node).name, capacity, self.now)
            self._changed(node)
        return link

    def cut(self, link: GossipLink, *, heal: bool = False) -> None:
        """The link falls, or stands again."""
        link.up = heal
        for node in link.ends:
            other = link.other(node).name
            if heal:
                node.spread.up(other, link.capacity, self.now)
            else:
                node.spread.down(other)
            self._changed(node)

    def _changed(self, node: GossipNode) -> None:
        node.due = min(node.due, self.now + 0.2) if node.issued else self.now + 0.2
        self._plan(node, node.due)

    def publish(self, node: GossipNode, rows: Iterable[LinkRow] | None = None) -> None:
        """The node states its links, or others."""
        unix = int(START + self.now + node.skew)
        node.issued = max(unix, node.issued + 1)
        stated = (
            tuple(rows)
            if rows is not None
            else (
                *node.beside,
                *(
                    LinkRow(name, int(link.delay * 1e6), 0, 0, int(link.capacity / 125))
                    for name, link in node.links.items()
                    if link.up
                ),
            )
        )
        statement = Statement(
            1, self._network, node.key.public, node.issued, LIFE, RELAYS, node.country, -128, 0, b"\0\0",
            bytes(8), 0, 0, bytes(33), stated,
        )  # fmt: skip
        node.spread.publish(self.read(issue(statement, node.key)), self.now)
        node.due = self.now + REFRESH * (0.9 + 0.2 * self.random.random())
        self._plan(node, node.due)
        self.pump(node)

    def pump(self, node: GossipNode) -> None:
        """Sends what the node has to say."""
        for name in node.spread.due(self.now):
            link = node.links[name]
            frames = node.spread.frames(name, self.now)
            if not frames:
                continue
            size = FRAME_COST + sum(len(body) + 3 for _, body in frames)
            link.carried += size
            arrival = self.now + link.delay + size / link.capacity
            self.at(arrival, lambda link=link, frames=frames: self._arrive(node, link, frames))  # type: ignore[misc]
        due = node.spread.deadline()
        if due is not None:
            self._plan(node, due)

    def _arrive(self, sender: GossipNode, link: GossipLink, frames: list[tuple[int, bytes]]) -> None:
        if not link.up:
            return
        node = link.other(sender)
        unix = START + self.now + node.skew
        for kind, body in frames:
            node.spread.receive(sender.name, kind, body, self.now, unix)
        self.pump(node)

    def _plan(self, node: GossipNode, time: float) -> None:
        if time < node.planned:
            node.planned = time
            self.at(max(time, self.now), lambda: self._wake(node, time))

    def _wake(self, node: GossipNode, time: float) -> None:
        if time != node.planned:
            return
        node.planned = float("inf")
        if self.now >= node.due:
            self.publish(node)
        node.spread.tick(self.now, START + self.now + node.skew)
        self.pump(node)
        self._plan(node, node.due)

    def build(self, shape: Shape) -> None:
        """Links as a graph has them."""
        for one, other in shape.links:
            self.connect(one, other)

    def run(self, until: float, done: Callable[[], bool] | None = None, every: float = 0.25) -> float:
        """Runs to a time, or until `done`, which is asked each `every` seconds; the time reached."""
        look = self.now + every
        while self._events and self._events[0][0] <= until:
            time, _, call = heappop(self._events)
            while done is not None and time > look:
                if done():
                    self.now = look
                    return self.now
                look += every
            self.now = time
            call()
        self.now = until
        return until

    def settle(self) -> None:
        """As if all nodes had run for long: their records are due at any time of the next half hour."""
        for node in self.nodes:
            node.due = self.now + REFRESH * self.random.random()
            self._plan(node, node.due)

    def reachable(self, node: GossipNode) -> int:
        """How many nodes the node knows a way to, itself included."""
        return len(node.book.graph.component(node.name))
