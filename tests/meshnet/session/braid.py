"""Two ends of one session joined by any number of circuits, each a seeded channel, in virtual time."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any

from meshnet.cipher.keys import SecretKey
from meshnet.errors import Drop, LocalError, MeshError
from meshnet.session.keys import CircuitKeys
from meshnet.session.memory import Memory
from meshnet.session.path import Path
from meshnet.session.session import Session
from meshnet.session.streams import Stream
from tests.meshnet.session.pair import Recorder, Writer, circuit_keys, key

GONE = LocalError("the circuit is gone")


class Strand:
    """One circuit. `paths` are those of its two ends, `made_for` the session that the last hop made for it.

    `loss` is a probability, `delay` in seconds, grown by up to `jitter` of it; a `cut` one carries nothing
    and nobody knows.
    """

    def __init__(self, loss: float, delay: float) -> None:
        self.loss = loss
        self.delay = delay
        self.jitter = 0.2
        self.cut = False
        self.paths: tuple[Path, Path]
        self.made_for: Session
        self.drops: list[Drop] = []


class Braid:
    """Origin `a` and last hop `b` with one strand; `joinable` is what the last hop's service has.

    `streams` are those that b accepted, `readers` their readers. `told` holds the events of every session.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        loss: float = 0.0,
        delay: float = 0.02,
        survives: float = 30.0,
        identity: SecretKey | None = None,
        max_cell: int = 61_000,
    ) -> None:
        print(f"seed {seed}")
        self.random = random.Random(seed)
        self.loss, self.delay, self.survives, self.max_cell = loss, delay, survives, max_cell
        self.now = 0.0
        self.joinable: dict[bytes, Session] = {}
        self.memories = Memory(), Memory()
        self.strands: list[Strand] = []
        self.streams: list[Stream] = []
        self.readers: list[Recorder] = []
        self.told: dict[Session, list[Any]] = {}
        self._due: dict[Session, float | None] = {}
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._awake: dict[Path, tuple[Strand, int]] = {}
        self._ways: dict[Path, tuple[Strand, int]] = {}
        self._noted: dict[Session, None] = {}
        self._count = 0
        self._room = memoryview(bytearray(65_536))
        near, far = circuit_keys("strand 0")
        self.a = Session(
            near,
            wake=self._wake,
            notify=self._note,
            accept=self._accept,
            peer=key("service").public,
            identity=identity,
            max_cell=max_cell,
            memory=self.memories[0],
            survives=survives,
        )
        self.told[self.a] = []
        first = self._strand(self.a.path, far)
        self.b = first.made_for

    def _strand(self, near: Path, keys: CircuitKeys) -> Strand:
        strand = Strand(self.loss, self.delay)
        strand.made_for = self.last_hop(keys)
        strand.paths = near, strand.made_for.path
        for side, path in enumerate(strand.paths):
            self._ways[path] = strand, side
        self.strands.append(strand)
        self._wake(near)
        return strand

    def last_hop(self, keys: CircuitKeys) -> Session:
        """What the last hop makes for a circuit that comes."""
        session = Session(
            keys,
            wake=self._wake,
            notify=self._note,
            accept=self._accept,
            max_cell=self.max_cell,
            memory=self.memories[1],
            joinable=self.joinable,
            survives=self.survives,
        )
        self.told[session] = []
        return session

    def join(self, loss: float | None = None, delay: float | None = None, spare: bool = False) -> Strand:
        """Another circuit, on which the origin joins; a `spare` one is kept in reserve."""
        near, far = circuit_keys(f"strand {len(self.strands)}")
        path = self.a.paths.join(near, now=self.now, wake=self._wake, max_cell=self.max_cell, spare=spare)
        strand = self._strand(path, far)
        strand.loss = self.loss if loss is None else loss
        strand.delay = self.delay if delay is None else delay
        return strand

    def lose(self, strand: Strand, *sides: int) -> None:
        """These ends (both unless told) learn that a circuit is gone; nothing passes any more."""
        strand.cut = True
        for side in sides or (0, 1):
            path = strand.paths[side]
            path.session.paths.lose(path, GONE, self.now)
        self.pump()

    def open(self, content: bytes, side: int = 0) -> Writer:
        """A stream from one end that carries `content` and ends."""
        writer = Writer(content)
        writer.stream = (self.a, self.b)[side].open(80, self.now, writer)
        writer.pump()
        return writer

    def _accept(self, stream: Stream) -> Recorder:
        reader = Recorder()
        reader.stream = stream
        self.streams.append(stream)
        self.readers.append(reader)
        return reader

    # time

    def _wake(self, path: Path) -> None:
        if path in self._ways:
            self._awake[path] = self._ways[path]

    def _note(self, session: Session) -> None:
        self._noted[session] = None

    def pump(self) -> None:
        """Lets woken paths fill cells, and sets timers that were asked for."""
        while self._awake or self._noted:
            awake, self._awake = self._awake, {}
            for path, (strand, side) in awake.items():
                while path in path.session.paths and (size := path.fill(self._room, self.now)):
                    self._depart(strand, side, path.number, bytes(self._room[:size]))
            noted, self._noted = self._noted, {}
            for session in noted:
                self.told[session] += session.events()
                self._due[session] = session.deadline()

    def _depart(self, strand: Strand, side: int, number: int, body: bytes) -> None:
        if strand.cut or self.random.random() < strand.loss:
            return
        self._count += 1
        when = self.now + strand.delay * (1 + self.random.uniform(0.0, strand.jitter))
        heapq.heappush(self._heap, (when, self._count, lambda: self._arrive(strand, 1 - side, number, body)))

    def _arrive(self, strand: Strand, side: int, number: int, body: bytes) -> None:
        path = strand.paths[side]
        if not strand.cut and path in path.session.paths:
            memory = bytearray(body)
            strand.drops.append(path.receive(number, memoryview(memory), self.now, False))
            memory[:] = b"\xaa" * len(memory)

    def run(self, seconds: float = 60.0, until: Callable[[], bool] = lambda: False) -> bool:
        """Lets time pass until `until()`, or for `seconds`."""
        limit = self.now + seconds
        self.pump()
        while not until():
            times = [due for due in self._due.values() if due is not None]
            when = min([*times, *(entry[0] for entry in self._heap[:1])], default=limit)
            if when >= limit:
                self.now = limit
                break
            self.now = max(self.now, when)
            if self._heap and self._heap[0][0] <= self.now:
                heapq.heappop(self._heap)[2]()
            for session in [each for each, due in self._due.items() if due is not None and due <= self.now]:
                session.tick(self.now)
                self.told[session] += session.events()
                self._due[session] = session.deadline()
            self.pump()
        return until()

    # looking

    def kinds(self, session: Session) -> list[str]:
        """The names of what a session has told."""
        return [type(event).__name__ for event in self.told[session]]

    def why(self, session: Session) -> MeshError:
        """What it ended with."""
        closed: MeshError = self.told[session][-1].error
        return closed

    def seal(self, strand: Strand, plain: bytes) -> Drop:
        """The last hop gets a cell of this plaintext, sealed as the origin would, under an unused number."""
        near = strand.paths[0]
        number = near.recovery.next
        near.recovery.next += 1
        aead = near.keys.backend.aead(near.keys.send)
        body = aead.encrypt(bytes(4) + number.to_bytes(8, "little"), plain, near.keys.send_ad)
        drop = strand.paths[1].receive(number, memoryview(bytearray(body)), self.now, False)
        self.pump()
        return drop
