"""Nodes with circuits in one process, joined by links of plain memory. Nothing is encrypted on them."""

from __future__ import annotations

import random as randomness
from collections import deque
from collections.abc import Callable

from meshnet.bundle import FRAME_HEAD, Bundle
from meshnet.cipher.aead import TAG_SIZE, Backend, BadTag, backend, nonce96
from meshnet.cipher.keys import PublicKey, SecretKey
from meshnet.circuit.arrival import Arrival
from meshnet.circuit.end import CircuitEnd
from meshnet.circuit.events import Arrived, Built, CircuitFailed, CircuitLost, Event
from meshnet.circuit.interface import Run, Source, Steps
from meshnet.circuit.messages import CELL_BACKWARD, CELL_FORWARD, MARKED
from meshnet.circuit.origin import OriginCircuit
from meshnet.circuit.policy import Policy
from meshnet.circuit.replay import NoLog, Replays
from meshnet.circuit.table import Circuits
from meshnet.errors import CircuitError, Drop, Reason

NETWORK = 7
FIRST = b"first message of the handshake".ljust(49, b".")
REPLY = b"second message of the handshake".ljust(49, b".")
UNIX = 1_700_000_123.0
LARGE = 61_000

Tamper = Callable[[int, bytes], bytes | None]
"""Given kind and body of a frame on its way: what arrives, None for nothing."""


class FakeOutlet:
    """A bundle, and the sources that wait for room in it."""

    def __init__(self) -> None:
        self.bundle = Bundle(1 << 22)
        self.waiting: deque[Source] = deque()

    @property
    def blocked(self) -> bool:
        return self.bundle.limit == 0

    @blocked.setter
    def blocked(self, value: bool) -> None:
        self.bundle.limit = 0 if value else len(self.bundle.view)

    def ready(self, source: Source) -> None:
        if source not in self.waiting:
            self.waiting.append(source)

    def frames(self, now: float) -> list[tuple[int, bytes]]:
        """Pours what waits and takes all frames out."""
        while self.waiting and not self.blocked:
            source = self.waiting.popleft()
            if source.pour(now):
                self.ready(source)
        bundle, found, position = self.bundle, [], 0
        while position < bundle.end:
            length = int.from_bytes(bundle.view[position : position + 2], "big")
            stop = position + 2 + length
            body = bytes(bundle.view[position + FRAME_HEAD : stop])
            found.append((bundle.view[position + 2], body))
            position = stop
        bundle.end = 0
        return found


class FakeLink:
    """One node's side of a link to `peer`."""

    def __init__(self, peer: PublicKey) -> None:
        self.peer = peer
        self.way = FakeOutlet()
        self.lanes = 1
        self.standing = (0,)
        self.forward: Steps = {}
        self.backward: Steps = {}
        self.runs: dict[int, Run] = {}
        self.max_cell = LARGE
        self.drops = [0] * len(Drop)
        self.control: list[tuple[int, bytes]] = []
        self.full = False
        self.tamper: Tamper | None = None

    def outlet(self, label: int) -> FakeOutlet:
        return self.way

    def send(self, kind: int, body: bytes, label: int) -> bool:
        if not self.full:
            self.control.append((kind, body))
        return not self.full

    def frames(self, now: float) -> list[tuple[int, bytes]]:
        sent, self.control = self.control, []
        sent += self.way.frames(now)
        if self.tamper is None:
            return sent
        arriving = []
        for kind, body in sent:
            changed = self.tamper(kind, body)
            if changed is not None:
                arriving.append((kind, changed))
        return arriving

    def cell(self, kind: int, body: bytes, now: float) -> Drop:
        """One cell arrives, as a lane delivers it."""
        table = self.backward if kind & 1 else self.forward
        step = table.get(int.from_bytes(body[:4], "big"))
        drop = Drop.UNKNOWN_LABEL
        if step is not None:
            memory = bytearray(body[12:])
            drop = step(int.from_bytes(body[4:12], "big"), memoryview(memory), now, kind >= MARKED)
        self.drops[drop] += 1
        return drop


class FakeSession:
    """Seals what `say` is given, one cell each; keeps what it opened, with number and congestion bit."""

    def __init__(self, sending: bytes, receiving: bytes, library: Backend) -> None:
        self._seal = library.aead(sending * 32)
        self._open = library.aead(receiving * 32)
        self.number = -1
        self.cell_size = 1_200
        self.to_say: deque[bytes] = deque()
        self.heard: list[bytes] = []
        self.numbers: list[int] = []
        self.marks: list[bool] = []
        self.end: CircuitEnd | None = None

    def say(self, data: bytes) -> None:
        self.to_say.append(data)
        if self.end is not None:
            self.end.wake()

    def receive(self, number: int, body: memoryview, now: float, marked: bool) -> Drop:
        try:
            self.heard.append(self._open.decrypt(nonce96(number), body, None))
        except (BadTag, ValueError):
            return Drop.BAD_TAG
        self.numbers.append(number)
        self.marks.append(marked)
        return Drop.NONE

    more = True

    def fill(self, room: memoryview, now: float) -> int:
        if not self.to_say:
            return 0
        data = self.to_say.popleft()
        self.number += 1
        size = len(data) + TAG_SIZE
        self._seal.encrypt_into(nonce96(self.number), data, None, room[:size])
        return size


class FakeNode:
    """A node that answers every circuit ending at it, unless told otherwise."""

    def __init__(self, network: FakeNetwork, name: str, policy: Policy, replays: Replays) -> None:
        self.name = name
        self.secret = SecretKey(bytes([len(network.nodes) + 1]) * 32)
        self.key = self.secret.public
        self.links: dict[PublicKey, FakeLink] = {}
        self.network = network
        self.replays = replays
        self.circuits = Circuits(
            self.secret,
            NETWORK,
            policy=policy,
            replay=replays,
            random=network.random.randbytes,
            neighbours=self.links.get,
            backend=network.library,
        )
        self.answers: Reason | None = Reason.BAD_ONION  # stands for yes
        self.arrivals: list[Arrival] = []
        self.sessions: list[FakeSession] = []
        self.built: list[Built] = []
        self.failed: list[CircuitError] = []
        self.lost: list[CircuitError] = []

    def handle(self, event: Event, now: float) -> None:
        match event:
            case Arrived(arrival):
                self.arrivals.append(arrival)
                if self.answers is Reason.BAD_ONION:
                    session = FakeSession(b"b", b"f", self.network.library)
                    try:
                        session.end = self.circuits.answer(arrival, REPLY, session, now)
                    except CircuitError:
                        return  # it ended in the same turn
                    self.sessions.append(session)
                elif self.answers is not None:
                    self.circuits.refuse(arrival, self.answers, "not today", now)
            case Built():
                self.built.append(event)
                session = FakeSession(b"f", b"b", self.network.library)
                try:
                    session.end = event.circuit.attach(session)
                except CircuitError:
                    return  # as above
                self.sessions.append(session)
            case CircuitFailed(_, error):
                self.failed.append(error)
            case CircuitLost(_, error):
                self.lost.append(error)

    def link(self, other: FakeNode) -> FakeLink:
        return self.links[other.key]

    def received_cells(self, other: FakeNode) -> list[int]:
        return self.link(other).drops


class FakeNetwork:
    """`a — b — c …` as given; time stands unless moved."""

    def __init__(
        self,
        names: str = "arstb",
        *,
        policies: dict[str, Policy] | None = None,
        replays: dict[str, Replays] | None = None,
        library: str = "openssl",
        seed: int = 1,
    ) -> None:
        self.random = randomness.Random(seed)
        self.library = backend(library)
        self.now = 1_000.0
        self.unix = UNIX
        self.nodes: list[FakeNode] = []
        for name in names:
            policy = (policies or {}).get(name, Policy())
            known = (replays or {}).get(name) or Replays(NoLog(), UNIX)
            self.nodes.append(FakeNode(self, name, policy, known))
        self.named = {node.name: node for node in self.nodes}
        for one, other in zip(self.nodes, self.nodes[1:], strict=False):
            self.join(one, other)

    def __getitem__(self, name: str) -> FakeNode:
        return self.named[name]

    def join(self, one: FakeNode, other: FakeNode) -> None:
        one.links[other.key] = FakeLink(other.key)
        other.links[one.key] = FakeLink(one.key)

    def cut(self, one: str, other: str) -> None:
        """Their link is gone for good, on both sides."""
        for node, peer in ((self[one], self[other]), (self[other], self[one])):
            del node.links[peer.key]
            node.circuits.link_lost(peer.key, self.now)

    def route(self, names: str) -> list[PublicKey]:
        return [self[name].key for name in names]

    def pump(self) -> None:
        """Delivers frames and events until all is quiet."""
        by_key = {node.key: node for node in self.nodes}
        busy = True
        while busy:
            busy = False
            for node in self.nodes:
                for link in list(node.links.values()):
                    target = by_key[link.peer]
                    for kind, body in link.frames(self.now):
                        busy = True
                        self.deliver(target, node, kind, body)
            for node in self.nodes:
                for event in node.circuits.events():
                    busy = True
                    node.handle(event, self.now)

    def deliver(self, target: FakeNode, source: FakeNode, kind: int, body: bytes) -> Drop:
        """A frame from `source` arrives."""
        link = target.links.get(source.key)
        if link is None:
            return Drop.NONE
        if kind & ~MARKED in (CELL_FORWARD, CELL_BACKWARD):
            return link.cell(kind, body, self.now)
        target.circuits.receive(link, kind, memoryview(body), self.now, self.unix)
        return Drop.NONE

    def wait(self, seconds: float) -> None:
        """Time passes; every node's timers run at their time."""
        end = self.now + seconds
        while True:
            due = [
                time for node in self.nodes if (time := node.circuits.deadline()) is not None and time <= end
            ]
            if not due:
                break
            step = max(min(due), self.now)
            self.unix += step - self.now
            self.now = step
            for node in self.nodes:
                node.circuits.tick(self.now, self.unix)
            self.pump()
        self.unix += end - self.now
        self.now = end
        for node in self.nodes:
            node.circuits.tick(self.now, self.unix)
        self.pump()

    def open(self, names: str, idle: int = 60) -> OriginCircuit:
        """The first of `names` opens a circuit along the others."""
        origin = self[names[0]]
        circuit = origin.circuits.open(self.route(names[1:]), FIRST, self.now, self.unix, idle=idle)
        self.pump()
        return circuit

    def pair(self, names: str, idle: int = 60) -> tuple[FakeSession, FakeSession]:
        """The sessions at both ends of a fresh circuit."""
        self.open(names, idle)
        return self[names[0]].sessions[-1], self[names[-1]].sessions[-1]
