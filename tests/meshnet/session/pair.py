"""Two sessions joined by a seeded channel in virtual time, as a router would join them."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any

from meshnet.cipher.aead import backend
from meshnet.cipher.keys import SecretKey
from meshnet.errors import Drop, MeshError
from meshnet.session import keys
from meshnet.session.memory import Memory
from meshnet.session.session import Session, SessionLimits
from meshnet.session.streams import Stream

NETWORK = 7


def key(name: str) -> SecretKey:
    """A key pair that is the same in every run."""
    return SecretKey.draw(random.Random(f"key {name}").randbytes)


def circuit_keys(name: str = "") -> tuple[keys.CircuitKeys, keys.CircuitKeys]:
    """Keys of both ends of a circuit to `key("service")`."""
    opening = keys.start(key("service").public, NETWORK, key("e" + name), backend())
    reply, last = keys.respond(key("service"), NETWORK, opening.first, key("r" + name), backend())
    return opening.finish(reply), last


class Recorder:
    """A reader that keeps what it hears; `greedy` ones say at once that they have passed it on."""

    def __init__(self, greedy: bool = True) -> None:
        self.stream: Stream | None = None
        self.greedy = greedy
        self.data = bytearray()
        self.ended = 0
        self.why: MeshError | None = None
        self.drains = 0
        self.on_drained: Callable[[], None] = lambda: None

    def data_received(self, data: memoryview) -> None:
        self.data += data
        if self.greedy and self.stream is not None:
            self.stream.consumed(len(data))

    def finished(self) -> None:
        assert not self.ended and self.why is None
        self.ended += 1

    def lost(self, why: MeshError) -> None:
        assert self.why is None
        self.why = why

    def drained(self) -> None:
        self.drains += 1
        self.on_drained()


class Writer(Recorder):
    """Writes `content` as fast as the stream takes it, then finishes."""

    def __init__(self, content: bytes, piece: int = 10_000) -> None:
        super().__init__()
        self.content = memoryview(content)
        self.piece = piece
        self.at = 0
        self.on_drained = self.pump

    def pump(self) -> None:
        assert self.stream is not None
        while self.at < len(self.content):
            piece = self.content[self.at : self.at + self.piece]
            taken = self.stream.write(piece)
            self.at += taken
            if taken < len(piece):
                return
        self.stream.finish()


class End:
    """One session, its timer and what it said."""

    def __init__(self, pair: Pair, session: Session) -> None:
        self.pair = pair
        self.session = session
        self.events: list[Any] = []
        self.timer: float | None = None
        self.drops: dict[Drop, int] = {}
        self.sizes: list[int] = []

    def settle(self) -> None:
        """What a router does after a notification: fetch events, set the timer."""
        self.events += self.session.events()
        self.timer = self.session.deadline()


class Pair:
    """Origin `a` and last hop `b`. `streams` are those `b` accepted, `readers` their readers.

    Per cell: `loss`, `duplicate` and `late` are probabilities, `delay` and `jitter` seconds; `rate` (bytes/s)
    and `queue` (bytes) describe a bottleneck from a to b that marks cells above `mark` waiting bytes.
    `cells` hold (number, size) of all cells that a and b sent.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        delay: float = 0.02,
        jitter: float = 0.0,
        loss: float = 0.0,
        duplicate: float = 0.0,
        late: float = 0.0,
        rate: float | None = None,
        queue: int = 1 << 20,
        mark: int | None = None,
        max_cell: int = 61_000,
        identity: SecretKey | None = None,
        limits: SessionLimits | None = None,
        limits_b: SessionLimits | None = None,
        greedy: bool = True,
        accept: bool = True,
        trip: float | None = None,
        memory_b: Memory | None = None,
    ) -> None:
        print(f"seed {seed}")
        self.random = random.Random(seed)
        self.delay, self.jitter, self.loss = delay, jitter, loss
        self.duplicate, self.late = duplicate, late
        self.rate, self.queue, self.mark = rate, queue, mark
        self.busy_until = 0.0
        self.queue_drops = 0
        self.now = 0.0
        self.cut = False
        self.greedy, self.accepting = greedy, accept
        self.streams: list[Stream] = []
        self.readers: list[Recorder] = []
        self.cells: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._awake: set[int] = set()
        self._room = memoryview(bytearray(65_536))
        self.keys_a, self.keys_b = circuit_keys()
        self._noted: set[int] = {0, 1}
        limits = limits or SessionLimits()
        more = {"max_cell": max_cell, "trip": trip, "accept": self._accept}
        a = Session(
            self.keys_a,
            identity=identity,
            peer=key("service").public,
            limits=limits,
            **self._calls(0),
            **more,
        )
        b = Session(self.keys_b, limits=limits_b or limits, memory=memory_b, **self._calls(1), **more)
        self.a, self.b = End(self, a), End(self, b)
        self.ends = (self.a, self.b)
        self._awake.add(0)

    def _calls(self, side: int) -> dict[str, Any]:
        return {
            "wake": lambda path: self._awake.add(side),
            "notify": lambda session: self._noted.add(side),
        }

    def _accept(self, stream: Stream) -> Recorder | None:
        if not self.accepting:
            return None
        reader = Recorder(self.greedy)
        reader.stream = stream
        self.streams.append(stream)
        self.readers.append(reader)
        return reader

    def open(self, reader: Recorder | None = None, port: int = 80, side: int = 0) -> Recorder:
        """Opens a stream; its reader."""
        reader = reader or Recorder()
        reader.stream = self.ends[side].session.open(port, self.now, reader)
        return reader

    def send(self, content: bytes, port: int = 80, piece: int = 10_000) -> Writer:
        """Opens a stream from a that carries `content` and ends."""
        writer = Writer(content, piece)
        self.open(writer, port)
        writer.pump()
        return writer

    # time

    def _at(self, when: float, call: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, call))

    def pump(self) -> None:
        """Lets woken sides fill cells, and sets timers that were asked for."""
        while self._awake or self._noted:
            for side in sorted(self._awake):
                self._awake.discard(side)
                end = self.ends[side]
                while True:
                    size = end.session.path.fill(self._room, self.now)
                    if not size:
                        break
                    end.sizes.append(size)
                    self.cells[side].append((end.session.path.number, size))
                    self._depart(side, end.session.path.number, bytes(self._room[:size]))
            for side in sorted(self._noted):
                self._noted.discard(side)
                self.ends[side].settle()

    def _depart(self, side: int, number: int, body: bytes) -> None:
        if self.cut or self.random.random() < self.loss:
            return
        wait, marked = 0.0, False
        if self.rate is not None and side == 0:
            start = max(self.now, self.busy_until)
            waiting = (start - self.now) * self.rate
            if waiting > self.queue:
                self.queue_drops += 1
                return
            marked = self.mark is not None and waiting > self.mark
            self.busy_until = start + len(body) / self.rate
            wait = self.busy_until - self.now
        for _ in range(2 if self.random.random() < self.duplicate else 1):
            late = 4 * self.delay if self.random.random() < self.late else 0.0
            delay = wait + self.delay + late + self.random.uniform(0, self.jitter)
            self._at(self.now + delay, lambda: self.arrive(1 - side, number, body, marked))

    def arrive(self, side: int, number: int, body: bytes, marked: bool = False) -> Drop:
        """A cell arrives at a side."""
        end = self.ends[side]
        memory = bytearray(body)
        drop = end.session.path.receive(number, memoryview(memory), self.now, marked)
        memory[:] = b"\xaa" * len(memory)  # whoever kept a view is found out
        end.drops[drop] = end.drops.get(drop, 0) + 1
        return drop

    def run(self, seconds: float = 60.0, until: Callable[[], bool] | None = None) -> bool:
        """Lets time pass until `until()`, or for `seconds`, or until nothing will ever happen."""
        limit = self.now + seconds
        self.pump()
        while not (until and until()):
            timers = [end.timer for end in self.ends if end.timer is not None]
            when = min([*timers, *([self._heap[0][0]] if self._heap else [])], default=None)
            if when is None or when > limit:
                self.now = limit if until is None and when is not None else self.now
                break
            self.now = max(self.now, when)
            if self._heap and self._heap[0][0] <= self.now:
                heapq.heappop(self._heap)[2]()
            for end in self.ends:
                if end.timer is not None and end.timer <= self.now:
                    end.session.tick(self.now)
                    end.settle()
            self.pump()
        return until() if until else not self._heap

    def seal(self, side: int, number: int, plain: bytes) -> bytes:
        """A cell with any plaintext, sealed as that side would."""
        circuit = (self.keys_a, self.keys_b)[side]
        aead = circuit.backend.aead(circuit.send)
        return aead.encrypt(bytes(4) + number.to_bytes(8, "little"), plain, circuit.send_ad)

    def inject(self, side: int, plain: bytes, number: int | None = None) -> Drop:
        """Gives the other side a cell with this plaintext, under a number never used before."""
        if number is None:
            number = self.ends[side].session.path.recovery.next
            self.ends[side].session.path.recovery.next += 1
        drop = self.arrive(1 - side, number, self.seal(side, number, plain))
        self.pump()
        return drop

    def event(self, kind: type) -> list[Any]:
        """Events of this kind, of either side."""
        return [event for end in self.ends for event in end.events if isinstance(event, kind)]
