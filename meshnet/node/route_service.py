"""The route service: a node that keeps the whole graph for others (docs/topology.md).

On mesh port 2 it answers looks (`meshnet.topology.sync`), on mesh port 4 calls of `routes`: the ways from one
node to another under a path policy, for devices that cannot keep the graph. A look shows it no destination; a
question does, and says so to whoever asks it. The records are also kept in a database, so that a restart does
not begin with nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from meshnet.cipher.keys import BadKeyError, PublicKey, public_key
from meshnet.codec import U8, U16, U32, U64, Fixed, Many, Var, message
from meshnet.errors import CodecError, LocalError, MeshError, RefusedError, UsageError
from meshnet.limits import (
    HOPS,
    POLICY_TEXT,
    RECORDS,
    ROUTE_QUESTIONS,
    ROUTE_QUESTIONS_BURST,
    SYNC_CATALOGUE,
    SYNC_IDLE,
    SYNC_LONGEST,
    SYNC_RECORDS,
)
from meshnet.node import route_sync
from meshnet.node.app import Clock, Json
from meshnet.node.config import RouteServiceSettings
from meshnet.node.graph_store import GraphStore
from meshnet.node.topology import Topology
from meshnet.rpc import Service, call, service
from meshnet.streams import Accept, PortListener, Stream
from meshnet.topology.choice import choose, keys_of
from meshnet.topology.record import Name, name_of
from meshnet.topology.sync import Answer, Catalogue

PORT: Final = 4
"""The mesh port of questions."""
WAYS: Final = 8  # in one answer
PATIENCE: Final = 15.0  # seconds for one answer, the set-up of the circuit included
PIECE: Final = 64 << 10  # bytes written at once
SAVE: Final = 30.0  # seconds between writes to the database, or tries to read it
GOES_ON: Final = " The service goes on with what it has in memory, and tries again every half minute."
LOADED: Final = 64  # records taken from the database in one turn: a signature costs 60 µs
STORED: Final = Name(b"\0\0stored")
"""The source of records from the database, as the book calls it."""

_log = Logger()


@message(skip=64)
class Question:
    """The ways from `source` to `target` under a policy as text; at most `most`."""

    source: Annotated[bytes, Fixed(33)]
    target: Annotated[bytes, Fixed(33)]
    policy: Annotated[str, Var(U16, POLICY_TEXT)]
    most: U8


@message
class WayTold:
    """A way: its relays; delay in µs, loss in 1/65,535, capacity in kbit/s, price in units a MiB."""

    relays: Annotated[tuple[Annotated[bytes, Fixed(33)], ...], Many(U8, HOPS)]
    delay: U32
    loss: U16
    capacity: U64
    price: U64


@message(skip=64)
class Ways:
    """The best first; where there is none, why."""

    ways: Annotated[tuple[WayTold, ...], Many(U8, WAYS)]
    reason: Annotated[str, Var(U16, 2_000)]


class Routes(Service):
    """What a route service can be asked."""

    name = "routes"
    find = call(1, Question, Ways)


class _OurRoutes(Routes):
    def __init__(self, answer: Callable[[Question], Ways]) -> None:
        self._answer = answer

    async def find(self, request: Question) -> Ways:
        """Ways that the graph has now."""
        return self._answer(request)


class Node(route_sync.Node, Protocol):
    """What is needed of a node."""

    def listen(self, port: int, accept: Accept) -> PortListener:
        """Takes a mesh port; raises LocalError if it is taken."""


@frozen
class Load:
    """How much a service was asked: looks, questions, refusals and bytes so far, `callers` now."""

    looks: int
    questions: int
    refused: int
    callers: int
    sent_bytes: int


class _Visitor:
    """A caller that looks."""

    def __init__(
        self, answer: Answer, stream: Stream, clock: Clock, gone: Callable[[_Visitor], None]
    ) -> None:
        self.answer = answer
        self._stream = stream
        self._clock = clock
        self._gone = gone
        self._left = b""
        self._open = True
        self._heard = self._began = clock.now()
        self._cancel: Callable[[], None] = lambda: None
        self._watch = clock.call_later(SYNC_IDLE, self._look)

    def _look(self) -> None:
        now = self._clock.now()
        if now - self._heard >= SYNC_IDLE or now - self._began >= SYNC_LONGEST:
            self.close()
        else:
            self._watch = self._clock.call_later(SYNC_IDLE / 2, self._look)

    def data_received(self, data: memoryview) -> None:
        """Questions."""
        if not self._open:
            return
        self._heard = self._clock.now()
        try:
            self.answer.receive(data)
        except CodecError as error:
            _log.debug("a caller of the route service breaks its rules: {why}", why=str(error))
            self.close()
            return
        self._stream.consumed(len(data))
        self.drained()

    def drained(self) -> None:
        """Sends what may go."""
        self._cancel()
        while self._open:
            if not self._left:
                self._left = self.answer.output(self._clock.now(), PIECE)
                if not self._left:
                    break
            taken = self._stream.write(self._left)
            self._left = self._left[taken:]
            if taken:
                self._heard = self._clock.now()
            if self._left:
                return
        due = self.answer.due() if self._open else None
        if due is not None:
            self._cancel = self._clock.call_later(max(due, 0.05), self.drained)

    def finished(self) -> None:
        """The caller has what it wants."""
        if self._open:
            self._stream.finish()
            self._end()

    def lost(self, why: MeshError) -> None:
        """The caller is gone."""
        self._end()

    def close(self) -> None:
        """Ends the look."""
        if self._open:
            self._stream.reset()
            self._end()

    def _end(self) -> None:
        if self._open:
            self._open = False
            self._cancel()
            self._watch()
            self._gone(self)


class RouteService:
    """One per node that is one. `start`, then `stop`."""

    def __init__(
        self, node: Node, topology: Topology, settings: RouteServiceSettings, store: GraphStore | None
    ) -> None:
        self._node = node
        self._topology = topology
        self._settings = settings
        self._store = store
        self._visitors: set[_Visitor] = set()
        self._listeners: list[Any] = []
        self._made: tuple[float, Catalogue] | None = None
        self._saved: dict[Name, int] = {}
        self._cancels: dict[str, Callable[[], None]] = {}
        self._tokens, self._tokens_at = float(ROUTE_QUESTIONS_BURST), node.clock.now()
        self._counts = {"looks": 0, "questions": 0, "refused": 0, "sent_bytes": 0}
        self.notes: list[str] = []
        self._running = self._loaded = self._heard = False
        self._fault: str | None = None
        self._waiting: list[Deferred[None]] = []

    def start(self) -> None:
        """Opens its ports and reads its database; raises LocalError if a port is taken."""
        listener: PortListener = self._node.listen(route_sync.PORT, self._accept)
        self._listeners.append(listener)
        if self._settings.questions:
            try:
                self._listeners.append(service.serve(self._node, PORT, _OurRoutes(self._answer)))
            except LocalError:
                listener.stop()
                raise
        self._running = True
        book = self._topology.book
        book.most = self._settings.records
        self._topology.serves = True
        if self._store is not None:
            book.expect(STORED, SYNC_RECORDS)
            self.notes += self._store.notes
            self._next()

    async def stop(self) -> None:
        """Closes its ports and ends all looks; keeps what it has."""
        self._running = False
        for listener in self._listeners:
            listener.stop()
        for visitor in list(self._visitors):
            visitor.close()
        for cancel in self._cancels.values():
            cancel()
        self._topology.serves = False
        self._topology.book.most = RECORDS
        self._topology.book.expect(STORED, 0)
        if self._store is not None:
            self._made = None
            try:
                if self._loaded:
                    await self._save(self._store)
            except MeshError as error:
                self._complain(error)
            await self._store.close()
            self._told()

    # looks

    def _accept(self, stream: Stream) -> _Visitor | None:
        if len(self._visitors) >= self._settings.callers:
            self._counts["refused"] += 1
            return None
        self._counts["looks"] += 1
        clock, topology = self._node.clock, self._topology
        source = Name(b"\0look" + self._counts["looks"].to_bytes(8, "big")[-3:])

        def take(data: bytes) -> None:
            topology.learn(data, source, clock.now())

        answer = Answer(self._catalogue, self._find, self._lacks, take, clock.now())
        visitor = _Visitor(answer, stream, clock, self._left)
        self._visitors.add(visitor)
        return visitor

    def _left(self, visitor: _Visitor) -> None:
        self._visitors.discard(visitor)
        self._counts["sent_bytes"] += visitor.answer.sent

    def _catalogue(self) -> Catalogue:
        now = self._node.clock.now()
        if self._made is None or now - self._made[0] >= SYNC_CATALOGUE:
            self._made = (now, Catalogue.of(self._topology.book.rows()))
        return self._made[1]

    def _find(self, name: Name) -> bytes | None:
        record = self._topology.book.get(name)
        return None if record is None else record.data

    def _lacks(self, name: Name, issued: int) -> bool:
        return self._topology.book.issued(name) < issued

    # questions

    def _answer(self, question: Question) -> Ways:
        now = self._node.clock.now()
        grown = max(now - self._tokens_at, 0.0) * ROUTE_QUESTIONS
        self._tokens, self._tokens_at = min(self._tokens + grown, float(ROUTE_QUESTIONS_BURST)), now
        if self._tokens < 1.0:
            self._counts["refused"] += 1
            raise RefusedError("This route service is asked too much now; ask again later.")
        self._tokens -= 1.0
        self._counts["questions"] += 1
        try:
            source, target = public_key(question.source), public_key(question.target)
        except BadKeyError as error:
            raise RefusedError(f"A key of the question is none: {error}.") from None
        try:
            policy = self._topology.policy_of_others(question.policy)
        except UsageError as error:
            raise RefusedError(str(error)) from None
        graph = self._topology.graph
        choice = choose(graph, name_of(source), name_of(target), policy)
        told = tuple(
            WayTold(
                tuple(keys_of(graph, way.relays)),
                min(int(way.delay * 1e6), 0xFFFF_FFFF),
                min(int(way.loss * 65_535), 0xFFFF),
                int(way.capacity / 125),
                way.price,
            )
            for way in choice.ways[: min(question.most, WAYS)]
            if len(way.relays) < HOPS
        )
        return Ways(told, choice.reason[:600])

    # the database

    def _next(self) -> None:
        """Reads the database until that was possible, then writes what has changed, again and again."""
        Deferred.fromCoroutine(self._turn()).addErrback(self._broken)

    async def _turn(self) -> None:
        store = self._store
        assert store is not None
        try:
            if not self._loaded:
                kept = await store.load(self._node.clock.unix())
                self._answered()
                await self._take(kept)
            else:
                await self._save(store)
                self._answered()
        except MeshError as error:
            self._complain(error)
        if self._running:
            self._cancels["turn"] = self._node.clock.call_later(SAVE, self._next)

    async def _take(self, kept: Sequence[tuple[Name, int, bytes]]) -> None:
        self._saved = {name: issued for name, issued, _ in kept}
        clock = self._node.clock
        for start in range(0, len(kept), LOADED):
            for _, _, data in kept[start : start + LOADED]:
                self._topology.learn(data, STORED, clock.now())
            turn: Deferred[None] = Deferred()
            self._cancels["load"] = clock.call_later(0, lambda turn=turn: turn.callback(None))  # type: ignore[misc]
            await turn
        self._loaded = True

    async def _save(self, store: GraphStore) -> None:
        rows = [row for bucket in self._catalogue().buckets for row in bucket]
        book = self._topology.book
        changed = [
            record
            for name, issued in rows
            if self._saved.get(name) != issued and (record := book.get(name)) is not None
        ]
        gone = [name for name in self._saved if not book.issued(name)]  # not those that are only apart
        if changed or gone:
            await store.save(changed, gone)
            self._saved.update((record.name, record.issued) for record in changed)
            for name in gone:
                del self._saved[name]

    def _complain(self, error: MeshError) -> None:
        """The database fails: what is known stays, and all of it is written when it answers again."""
        if self._fault is None:
            _log.warn("the route service goes on without its database: {why}", why=str(error))
        self._fault = str(error)
        self._saved = dict.fromkeys(self._saved, 0)
        self._told()

    def _answered(self) -> None:
        if self._fault is not None:
            _log.info("the route service's database answers again")
        self._fault = None
        self._told()

    def _told(self) -> None:
        self._heard = True
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    def _broken(self, failure: Any) -> None:
        _log.failure("the route service's database is used no more", failure)
        self._fault = str(failure.value)
        self._told()

    def asked(self) -> Deferred[None]:
        """Fires when the database was asked for the first time, and has answered or not."""
        answer: Deferred[None] = Deferred()
        if self._store is None or self._heard:
            answer.callback(None)
        else:
            self._waiting.append(answer)
        return answer

    # what it shows

    def load(self) -> Load:
        """How much it was asked."""
        sent = self._counts["sent_bytes"] + sum(each.answer.sent for each in self._visitors)
        return Load(
            looks=self._counts["looks"],
            questions=self._counts["questions"],
            refused=self._counts["refused"],
            callers=len(self._visitors),
            sent_bytes=sent,
        )

    def status(self) -> Json:
        """For people and scripts."""
        load = self.load()
        return {
            "records": self._topology.book.attached,
            "stored": len(self._saved),
            "database": None if self._store is None else self._store.place,
            "looks": load.looks,
            "questions": load.questions,
            "refused": load.refused,
            "callers": load.callers,
            "sent_bytes": load.sent_bytes,
            "notes": [*self.notes, *([] if self._fault is None else [self._fault + GOES_ON])],
        }


async def ask(node: Node, at: PublicKey, source: PublicKey, target: PublicKey, policy: str) -> Json:
    """What a route service knows of ways; raises MeshError. It learns who is asked for, not who asks."""
    peer = service.Peer.of_node(node, at, PORT)
    try:
        found = await peer.use(Routes, PATIENCE).find(Question(source, target, policy, WAYS))
    finally:
        peer.close()
    ways = [
        {
            "relays": [public_key(key).hex() for key in way.relays],
            "hops": len(way.relays) + 1,
            "delay_ms": round(way.delay / 1e3, 3),
            "loss": round(way.loss / 65_535, 5),
            "capacity_mbit": round(way.capacity / 1e3, 3),
            "price": way.price,
        }
        for way in found.ways
    ]
    return {"service": at.hex(), "source": source.hex(), "target": target.hex(), "ways": ways,
            "reason": found.reason}  # fmt: skip
