"""A node asks route services for the graph: all of it, then what has changed (docs/topology.md).

Every five minutes, more rarely in large networks, the services of `[topology] route_services` are visited,
one after the other; a visit is one look of `meshnet.topology.sync` over a stream of an anonymous circuit.
Nothing here asks for a destination.

Under a policy with guards (`private`) the circuit goes by that policy, the node offers nothing, and asks for
all that the service has, whatever it holds from elsewhere; else it offers its own record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from meshnet.cipher.address import Target
from meshnet.cipher.keys import PublicKey
from meshnet.errors import CodecError, MeshError, TimedOutError, UnreachableError
from meshnet.limits import SPREAD_NODES, SYNC_IDLE, SYNC_LONGEST, SYNC_RECORDS
from meshnet.node.app import Clock, Json
from meshnet.node.topology import Topology
from meshnet.streams import Stream, StreamReader
from meshnet.topology.book import Verdict
from meshnet.topology.record import Name, name_of, peek
from meshnet.topology.sync import Look, Shown

PORT: Final = 2
"""The mesh port of looks."""
FIRST: Final = 1.0  # seconds from the start to the first visit
EVERY: Final = 300.0  # seconds between visits, in networks that tell all to all …
RARELY: Final = 7_200.0  # … at most; a record that is renewed each half hour lives for three hours
AGAIN: Final = 15.0  # seconds to the next visit after one that failed; doubles up to EVERY
HOLDS: Final = 1_800.0  # seconds that a visit may be late; then neighbours are relied on again
_AGAIN: Final = (Verdict.OFTEN, Verdict.FULL, Verdict.AHEAD)
"""Records to be asked for another time."""

_log = Logger()


def spacing(listed: int) -> float:
    """Seconds between visits to a service that lists so many records: what is renewed meanwhile is fetched at
    each, so a network ten times as large is looked at ten times as rarely."""
    return min(EVERY * max(listed / SPREAD_NODES, 1.0), RARELY)


class Node(Protocol):
    """What is needed of a node."""

    @property
    def clock(self) -> Clock:
        """Its clock."""

    def connect(
        self,
        target: Target,
        port: int,
        reader: StreamReader,
        *,
        via: Sequence[PublicKey] | None = None,
        identity: str = "anonymous",
        policy: str | None = None,
    ) -> Deferred[Stream]:
        """Opens a stream."""


@define(eq=False)
class _Service:
    """One service: what it has shown, when it is visited next, how the last visit went."""

    key: PublicKey
    shown: Shown = field(factory=Shown)
    due: float = 0.0
    wait: float = AGAIN
    looks: int = 0
    failures: int = 0
    records: int = 0
    bytes: int = 0
    seconds: float = 0.0
    complete: bool = False
    why: str = ""

    @property
    def name(self) -> Name:
        """As the book calls the source of its records."""
        return name_of(self.key)


class Visit:
    """One look, as the reader of its stream; `result` fires with it when all was answered."""

    def __init__(self, look: Look, clock: Clock, take: Callable[[bytes], Verdict]) -> None:
        self.result: Deferred[Look] = Deferred()
        self.stream: Stream | None = None
        self._look = look
        self._clock = clock
        self._take = take
        self._left = b""
        self._heard = self._began = clock.now()
        self._tick()

    def _tick(self) -> None:
        now = self._clock.now()
        if now - self._heard >= SYNC_IDLE or now - self._began >= SYNC_LONGEST:
            self._fail(TimedOutError("the route service did not answer in time"))
        else:
            self._later = self._clock.call_later(SYNC_IDLE / 4, self._tick)

    def began(self, stream: Stream) -> None:
        """The stream stands."""
        self.stream = stream
        self._heard = self._clock.now()
        if self.result.called:
            stream.reset()
        else:
            self._left += self._look.output()
            self.drained()

    def data_received(self, data: memoryview) -> None:
        """Bytes of the service."""
        stream = self.stream
        if stream is None or self.result.called:
            return
        self._heard = self._clock.now()
        try:
            for record in self._look.receive(data):
                if self._take(record) in _AGAIN:
                    self._look.refused(peek(record)[0])
        except CodecError as error:
            self._fail(error)
            return
        stream.consumed(len(data))
        self._left += self._look.output()
        self.drained()
        if self._look.done:
            stream.finish()
            self._end()
            self.result.callback(self._look)

    def drained(self) -> None:
        """More may be written."""
        if self.stream is not None and self._left and not self.result.called:
            self._left = self._left[self.stream.write(self._left) :]

    def finished(self) -> None:
        """The service has ended, too early."""
        self._fail(UnreachableError("the route service ended before all was answered"))

    def lost(self, why: MeshError) -> None:
        """The stream is gone."""
        self._fail(why)

    def _fail(self, why: MeshError) -> None:
        if not self.result.called:
            self._end()
            if self.stream is not None:
                self.stream.reset()
            self.result.errback(why)

    def stop(self) -> None:
        """The node ends."""
        self._fail(UnreachableError("the node was stopped"))

    def _end(self) -> None:
        self._later()


class RouteSync:
    """One per node that names route services."""

    def __init__(self, node: Node, topology: Topology, services: Sequence[PublicKey]) -> None:
        self._node = node
        self._topology = topology
        own = topology.own
        self.services = [_Service(key) for key in services if name_of(key) != own]
        self._visit: Visit | None = None
        self._busy = False
        self._waiting: list[Deferred[None]] = []
        self._cancel: Callable[[], None] = lambda: None
        self._running = False

    def start(self) -> None:
        """Visits them soon, and then every few minutes."""
        self._running = True
        now = self._node.clock.now()
        for number, service in enumerate(self.services):
            service.due = now + FIRST * (1 + number)
            self._topology.book.expect(service.name, SYNC_RECORDS)
        self._plan()

    def stop(self) -> None:
        """No more visits."""
        self._running = False
        self._cancel()
        if self._visit is not None:
            self._visit.stop()
        for service in self.services:
            self._topology.book.expect(service.name, 0)

    def _plan(self) -> None:
        self._cancel()
        if not self._running or self._busy or not self.services:
            return
        due = min(service.due for service in self.services)
        delay = max(due - self._node.clock.now(), 0.001)
        self._cancel = self._node.clock.call_later(delay, self._go)

    def _go(self) -> None:
        service = min(self.services, key=lambda each: each.due)
        self._busy = True
        Deferred.fromCoroutine(self._look(service)).addBoth(self._over)

    def _over(self, _: object) -> None:
        self._busy = False
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)
        self._plan()

    async def now(self) -> None:
        """Visits all of them now, those under way included; their `why` says what failed."""
        for service in self.services:
            while self._busy:
                turn: Deferred[None] = Deferred()
                self._waiting.append(turn)
                await turn
            self._cancel()
            self._busy = True
            try:
                await self._look(service)
            finally:
                self._over(None)

    async def _look(self, service: _Service) -> None:
        topology, clock = self._topology, self._node.clock
        policy = topology.policy()
        hidden = policy.guarded
        own = None if hidden else topology.book.get(topology.own)
        look = Look(service.shown, topology.book.issued, whole=hidden, own=own)

        def take(data: bytes) -> Verdict:
            return topology.learn(data, service.name, clock.now())

        began = clock.now()
        visit = self._visit = Visit(look, clock, take)
        try:
            # A [[route]] of the config may be short; who wants guards is not led by it here.
            given = policy.text if hidden else None
            opening = self._node.connect(service.key, PORT, visit, policy=given)
            opening.addCallbacks(visit.began, lambda failure: visit.lost(failure.value))
            await visit.result
        except MeshError as error:
            service.failures += 1
            service.why, service.complete = str(error), False
            service.due = clock.now() + service.wait
            service.wait = min(2 * service.wait, EVERY)
            _log.info("route service {key}: {why}", key=service.key.hex()[:16], why=str(error))
        else:
            service.looks += 1
            service.why, service.complete, service.wait = "", True, AGAIN
            wait = spacing(len(service.shown))
            topology.served(clock.now() + wait + HOLDS)
            service.due = clock.now() + wait
        finally:
            self._visit = None
            service.records += look.records
            service.bytes += look.received
            service.seconds = clock.now() - began

    def status(self) -> list[Json]:
        """Each service: whether the last look was whole, and what came of all of them."""
        return [
            {
                "key": service.key.hex(),
                "complete": service.complete,
                "why": service.why or None,
                "lists": len(service.shown),
                "looks": service.looks,
                "failures": service.failures,
                "records": service.records,
                "bytes": service.bytes,
                "seconds": round(service.seconds, 3),
            }
            for service in self.services
        ]
