"""Nodes that have links and nothing above them, on the simulated network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from lab.simulation.network import Conditions, Network
from lab.simulation.transport import Internet
from meshnet.cipher.aead import backend
from meshnet.cipher.keys import PublicKey, SecretKey
from meshnet.errors import Drop
from meshnet.link.contest import LOSER_READ
from meshnet.link.driver import Identity, Links, Watch, no_watch
from meshnet.link.link import Link
from meshnet.node.clock import NodeClock
from meshnet.transports.interface import Transport
from meshnet.transports.registry import Transports

NETWORK = 7
NOTE = 31
LABEL = 5
# Ordered by public key, so that `SECRETS[0]` is the smallest.
SECRETS = sorted(
    (SecretKey(bytes([number]) * 32) for number in range(1, 9)), key=lambda secret: secret.public
)
SMALL, LARGE, THIRD = SECRETS[:3]


@define(eq=False)
class Node:
    """A node's links; `up`, `gone` and `notes` are what it was told, with the time."""

    name: str
    secret: SecretKey
    links: Links = field(init=False)
    up: list[tuple[float, PublicKey]] = field(factory=list)
    gone: list[tuple[float, PublicKey]] = field(factory=list)
    restarted: list[tuple[float, PublicKey]] = field(factory=list)
    notes: list[bytes] = field(factory=list)
    cells: list[bytes] = field(factory=list)
    fault: Exception | None = None
    slept: float = 0.0
    """Seconds that its machine has slept through."""

    @property
    def key(self) -> PublicKey:
        return self.secret.public

    def link_up(self, link: Link, now: float) -> None:
        self.up.append((now, link.peer))
        link.forward.setdefault(LABEL, self.cell)

    def link_gone(self, link: Link, now: float) -> None:
        self.gone.append((now, link.peer))

    def link_restarted(self, link: Link, now: float) -> None:
        self.restarted.append((now, link.peer))

    def note(self, link: Link, kind: int, body: memoryview, now: float) -> None:
        if self.fault is not None:
            raise self.fault
        self.notes.append(bytes(body))

    def cell(self, seq: int, body: memoryview, now: float, marked: bool) -> Drop:
        self.cells.append(bytes(body))
        return Drop.NONE

    def to(self, other: Node) -> Link | None:
        """The standing link."""
        return self.links.standing(other.key)

    def connections(self) -> int:
        """How many carriers it has, of whatever kind."""
        return len(self.links._connections)


class Neighbours:
    """A network of such nodes."""

    def __init__(self, seed: int = 0, conditions: Conditions | None = None) -> None:
        self.network = Network(seed, conditions or Conditions(delay=0.02))
        self.internet = Internet(self.network)
        self.nodes: dict[str, Node] = {}

    def add(
        self,
        name: str,
        secret: SecretKey,
        *,
        network: int = NETWORK,
        accept: Sequence[Node] | None = None,
        transport: Transport | None = None,
        lanes: int = 1,
        watch: Watch = no_watch,
    ) -> Node:
        """A node that listens on `sim:NAME`; a node of that name before it is forgotten."""
        node = Node(name, secret)
        allowed = None if accept is None else frozenset(each.key for each in accept)
        identity = Identity(secret, network, backend(), allowed, lanes)
        node.links = Links(
            identity,
            Transports([transport or self.internet.transport(name)]),
            NodeClock(self.network.clock, lambda: self.network.clock.seconds() + node.slept),
            self.network.bytes_source(f"node {name} {len(self.nodes)}"),
            node,
            {NOTE: node.note},
            watch,
        )
        started: list[object] = []
        Deferred.fromCoroutine(node.links.start([f"sim:{name}"])).addBoth(started.append)
        assert started == [[f"sim:{name}"]], started
        self.nodes[name] = node
        return node

    def dial(self, dialler: Node, other: Node) -> None:
        """Keeps a link from now on."""
        dialler.links.add_peer(other.key, f"sim:{other.name}")

    def run(self, seconds: float) -> None:
        self.network.run(seconds)

    def linked(self, one: Node, other: Node, limit: float = 60.0) -> bool:
        """Lets time pass until both see a standing link."""
        return self.network.run_until(lambda: one.to(other) is not None and other.to(one) is not None, limit)

    def say(self, one: Node, other: Node, text: bytes) -> None:
        """A control frame."""
        link = one.to(other)
        assert link is not None and link.send(NOTE, text)

    def stop(self) -> None:
        """Ends all nodes; nothing is left to happen."""
        for node in self.nodes.values():
            node.links.stop()
        self.network.run(5)
        assert self.internet.connections == [], self.internet.connections
        assert self.network.clock.getDelayedCalls() == []
        for node in self.nodes.values():
            assert node.connections() == node.links.half_open == 0
            assert not node.links._timers and not node.links.calls.attempts


class DriverCase(SynchronousTestCase):
    """Two nodes: `small` has the smaller key."""

    def world(self, seed: int = 0, conditions: Conditions | None = None, **large: Any) -> Neighbours:
        world = Neighbours(seed, conditions)
        self.small = world.add("small", SMALL)
        self.large = world.add("large", LARGE, **large)
        return world

    def agree(self, world: Neighbours) -> None:
        """Both ends use one and the same connection, there is no other, and it carries both ways."""
        self.assertTrue(world.linked(self.small, self.large))
        world.run(2 * LOSER_READ)
        self.assertEqual(len(world.internet.connections), 1)
        one, other = self.small.to(self.large), self.large.to(self.small)
        assert one is not None and one.seats[0].lane and other is not None and other.seats[0].lane
        self.assertNotEqual(one.seats[0].lane.dialled, other.seats[0].lane.dialled)
        for sender, receiver in ((self.small, self.large), (self.large, self.small)):
            receiver.notes.clear()
            world.say(sender, receiver, b"hello")
            world.run(1)
            self.assertEqual(receiver.notes, [b"hello"])
