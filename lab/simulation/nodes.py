"""Whole routers on the simulated network, in virtual time, from a seed.

The routers are those of real nodes; only clock, randomness, transport and the memory of onions are simulated.
The same seed gives the same run, to the byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, maybeDeferred, succeed

from lab.simulation.network import Conditions, Network
from lab.simulation.transport import Internet
from meshnet.cipher.aead import backend
from meshnet.cipher.keys import PublicKey, SecretKey
from meshnet.circuit.policy import Policy
from meshnet.circuit.replay import NoLog, Replays
from meshnet.errors import MeshError
from meshnet.node.clock import NodeClock, virtual_clock
from meshnet.node.config import TopologySettings
from meshnet.node.onion_keys import OnionKeys
from meshnet.node.router import Router
from meshnet.node.topology import Topology
from meshnet.storage.disk import Disk
from meshnet.streams import Stream
from meshnet.transports.registry import Transports

NETWORK_ID = 77


class Forgetful:
    """Remembers onions only as long as the router lives (`meshnet.node.replay.ReplayMemory`)."""

    fault = ""

    def open(self, unix: float) -> Replays:
        """Nothing is remembered."""
        return Replays(NoLog(), unix)

    def sync(self) -> None:
        """Nothing is to be made durable."""

    def close(self) -> Deferred[None]:
        """Nothing is open."""
        return succeed(None)


@define(eq=False)
class SimulatedNode:
    """A router at a place of the network."""

    name: str
    secret: SecretKey
    router: Router

    @property
    def public(self) -> PublicKey:
        """Its key."""
        return self.secret.public


class Mesh:
    """Nodes in a row, each linked to the next, on a network of their own."""

    def __init__(
        self,
        names: Sequence[str],
        seed: int = 0,
        conditions: Conditions | None = None,
        lanes: int = 1,
        **policy: Any,
    ) -> None:
        self.network = Network(seed, conditions)
        self.internet = Internet(self.network)
        self.clock: NodeClock = virtual_clock(self.network.clock)
        self.policy = Policy(**policy)
        self.lanes = lanes
        self.nodes: dict[str, SimulatedNode] = {}
        self._started = 0
        for name in names:
            self.add(name)
        for name, following in pairwise(names):
            self.link(name, following)

    def __getitem__(self, name: str) -> SimulatedNode:
        return self.nodes[name]

    def add(
        self,
        name: str,
        secret: SecretKey | None = None,
        about: TopologySettings | None = None,
        *,
        clock: NodeClock | None = None,
        disk: Disk | None = None,
    ) -> SimulatedNode:
        """A running node at the place `name`, without links; with `about` it knows the network, and says that
        of itself. It may have a clock of its own, and a `disk` that keeps its onion keys."""
        self._started += 1  # a node that starts again draws anew
        random = self.network.bytes_source(f"node {name}, start {self._started}")
        secret, clock = secret or SecretKey.draw(random), clock or self.clock
        router = Router(
            secret,
            NETWORK_ID,
            transports=Transports([self.internet.transport(name)]),
            clock=clock,
            random=random,
            backend=backend(),
            policy=self.policy,
            memory=Forgetful(),
            lanes=self.lanes,
            onion_keys=OnionKeys(secret, random, disk),
        )
        if about is not None:
            know = Topology(
                secret,
                NETWORK_ID,
                about,
                router,
                relays=self.policy.enabled,
                unix=clock.unix,
                random=random,
                lookup=lambda text: self[text].public,
            )
            router.know(know)
        node = self.nodes[name] = SimulatedNode(name, secret, router)
        self.wait(Deferred.fromCoroutine(router.start([f"sim:{name}"])))
        return node

    def link(self, dialler: str, other: str) -> None:
        """Lets one node dial the other, and keep the link."""
        self[dialler].router.add_peer(self[other].public, f"sim:{other}")

    def kill(self, name: str) -> None:
        """A node is gone without a word: its connections are reset, what it sends reaches nobody."""
        del self.nodes[name]
        self.internet.remove(name)
        self.network.partition({name})

    def restart(self, name: str, *links: str) -> None:
        """The same after a fall: killed, and started again at once with the same key; dials `links`."""
        gone = self[name]
        self.kill(name)
        self.wait(maybeDeferred(gone.router.stop))  # it is cut off: nobody hears it
        self.network.heal()
        self.add(name, gone.secret)
        for other in links:
            self.link(name, other)

    def route(self, *names: str) -> tuple[PublicKey, ...]:
        """Their keys."""
        return tuple(self[name].public for name in names)

    def wait(self, result: Deferred[Any], limit: float = 60.0) -> Any:
        """Lets time pass until a result is there; raises its MeshError, or MeshError if it takes longer."""
        found: list[Any] = []
        result.addBoth(found.append)
        if not self.network.run_until(lambda: bool(found), limit):
            raise MeshError(f"no result in {limit:g} simulated seconds (seed {self.network.seed})")
        if hasattr(found[0], "raiseException"):
            found[0].raiseException()
        return found[0]

    def linked(self, limit: float = 30.0) -> bool:
        """Lets time pass until every configured link stands."""
        nodes = list(self.nodes.values())
        wanted = 2 * (len(nodes) - 1)

        def up() -> int:
            return sum(link["up"] for node in nodes for link in node.router.brief()["links"])

        return self.network.run_until(lambda: up() >= wanted, limit)

    def stop(self) -> None:
        """Ends all nodes; afterwards nothing is left to happen."""
        stopping = [maybeDeferred(node.router.stop) for node in self.nodes.values()]
        for stopped in stopping:
            self.wait(stopped)
        self.network.run(60.0)


@define(eq=False)
class Collector:
    """A stream's reader that keeps what it reads, and a writer that writes as the stream allows.

    A `slow` one says of nothing that it was passed on, until `slow` is set to False.
    """

    got: bytearray = field(factory=bytearray)
    queue: bytes = b""
    ended: bool = False
    error: MeshError | None = None
    stream: Stream | None = None
    slow: bool = False

    def send(self, data: bytes, finish: bool = False) -> None:
        """Writes as far as there is room; the rest follows by itself."""
        self.queue += data
        self._finish = finish
        self.drained()

    _finish: bool = False

    def drained(self) -> None:
        """There is room again."""
        assert self.stream is not None
        self.queue = self.queue[self.stream.write(self.queue) :]
        if self._finish and not self.queue:
            self.stream.finish()

    def data_received(self, data: memoryview) -> None:
        """Keeps it."""
        self.got += data
        if not self.slow and self.stream is not None:
            self.stream.consumed(len(data))

    def finished(self) -> None:
        """The peer sends no more."""
        self.ended = True

    def lost(self, why: MeshError) -> None:
        """The stream is gone."""
        self.error = why
