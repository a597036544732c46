"""Two sides of a connection, joined by hand, for tests of the core and of what stands on it."""

from __future__ import annotations

from typing import Any

from attrs import frozen
from twisted.internet.task import Clock as TwistedClock

from meshnet.errors import MeshError
from meshnet.rpc import Service
from meshnet.rpc.calls import Flow
from meshnet.rpc.connection import Connection
from meshnet.rpc.declare import Method
from meshnet.rpc.driver import Channel
from meshnet.rpc.incoming import Call, Entry, Offers
from meshnet.rpc.service import Peer, Serving
from tests.meshnet.rpc.samples import Number, OurSums, Sums
from tests.support.streams import FakeClock, FakeMesh, FakeNode


class Ask:
    """A call that keeps all that is told of it."""

    def __init__(self, method: Method) -> None:
        self.method = method
        self.id = self.size = -1
        self.expires = 0.0
        self.flow: Flow | None = None
        self.ends: list[Any] = []
        self.items: list[tuple[Any, int]] = []
        self.rooms = 0

    def answered(self, answer: Any) -> None:
        """The answer."""
        self.ends.append(answer)

    def failed(self, why: Exception) -> None:
        """An error."""
        self.ends.append(why)

    def item(self, item: Any, cost: int) -> None:
        """An item."""
        self.items.append((item, cost))

    def finished(self) -> None:
        """The end of items."""
        self.ends.append("finished")

    def writable(self) -> None:
        """Room."""
        self.rooms += 1


class Answerer:
    """Who answers a call by hand."""

    def __init__(self, call: Call, request: Any) -> None:
        self.call = call
        self.request = request
        self.items: list[tuple[Any, int]] = []
        self.ends: list[Any] = []
        call.answerer = self

    def cancelled(self, why: MeshError) -> None:
        """Nobody waits."""
        self.ends.append(why)

    def item(self, item: Any, cost: int) -> None:
        """An item."""
        self.items.append((item, cost))

    def finished(self) -> None:
        """The end of items."""
        self.ends.append("finished")

    def writable(self) -> None:
        """Room."""


class Side:
    """A core whose owner keeps what it is told; `taken` are the calls of the other side."""

    def __init__(self, opener: bool, now: float = 0.0, service: type[Service] | None = Sums) -> None:
        self.taken: list[Answerer] = []
        self.ended_by: list[MeshError] = []
        offers: Offers = {}
        if service is not None:
            offers = {
                service.name: {each.number: Entry(each, self.start) for each in service.methods.values()}
            }
        self.core = Connection(opener, offers, self, now)

    def start(self, call: Call, request: Any) -> None:
        """Keeps it for later."""
        self.taken.append(Answerer(call, request))

    def wake(self) -> None:
        """Who asks takes the bytes."""

    def ended(self, why: MeshError) -> None:
        """The connection is over."""
        self.ended_by.append(why)

    def output(self) -> bytes:
        """What waits to be written."""
        outbox = self.core.wire.outbox
        data = bytes(outbox.pending)
        outbox.sent(len(data))
        self.core.wire.woken = False
        return data

    def ask(self, number: int, request: Any = None, seconds: float = 30.0, now: float = 0.0) -> Ask:
        """Makes a call of `Sums`."""
        asked = Ask(Sums.methods[number])
        self.core.call(asked, Number(1) if request is None else request, now, seconds)
        return asked


class Pair:
    """A caller and one that offers `Sums`; bytes move when `move` is said."""

    def __init__(self) -> None:
        self.near, self.far = Side(True), Side(False)
        self.now = 0.0

    def move(self, turns: int = 10) -> None:
        """All bytes, both ways, until none are left."""
        for _ in range(turns):
            there, back = self.near.output(), self.far.output()
            self.far.core.receive(there, self.now)
            self.near.core.receive(back, self.now)
            self.near.core.written()
            self.far.core.written()

    def tick(self, now: float) -> None:
        """Time has passed."""
        self.now = now
        self.near.core.tick(now)
        self.far.core.tick(now)
        self.move()


class Joined:
    """Two fake nodes: `serving` offers on one, `peer` calls from the other."""

    def __init__(self, *offers: Any, window: int = 1 << 18, identity: str = "anonymous") -> None:
        self.mesh = FakeMesh(TwistedClock(), window)
        self.near: FakeNode = self.mesh.node("near")
        self.far: FakeNode = self.mesh.node("far")
        self.serving = Serving(self.far.clock, offers or (OurSums(),))
        self.serving.listener = self.far.listen(7, self.serving.accept)
        self.peer = Peer.of_node(self.near, self.far.public_key, 7, identity=identity)

    @property
    def channel(self) -> Channel:
        """The caller's connection."""
        assert self.peer._channel is not None
        return self.peer._channel

    def pass_time(self, seconds: float = 0.0, step: float = 1.0) -> None:
        """Lets it pass, and all that is due happen."""
        self.mesh.flush(60)
        while seconds > 0:
            self.mesh.reactor.advance(min(step, seconds))
            seconds -= step
            self.mesh.flush(20)


@frozen
class OnMesh:
    """A simulated node as a service sees it."""

    clock: Any
    router: Any
    name: str = "a node"

    def connect(self, target: Any, port: int, reader: Any, *, via: Any = None, identity: str = "") -> Any:
        """Opens a stream."""
        return self.router.connect(target, port, reader, via=via or (), identity=identity)

    def listen(self, port: int, accept: Any) -> Any:
        """Takes a port."""
        return self.router.listen(port, accept)


__all__ = ["Answerer", "Ask", "FakeClock", "Joined", "OnMesh", "Pair", "Side"]
