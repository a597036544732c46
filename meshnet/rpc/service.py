"""Services between nodes: `serve` offers them on a mesh port, `Peer` calls those of another node.

    serving = serve(node, 7000, OurClock())
    peer = Peer(node, key, 7000)
    answer = await peer.use(Clock).now(Ask())

A peer dials when it is first called and again when it is called after its connection was lost; calls that
were under way then fail, and none is ever made twice. Nothing here knows the bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, cast

from attrs import define, field
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from meshnet.cipher.keys import PublicKey
from meshnet.errors import LocalError, MeshError
from meshnet.limits import RPC_CONNECTIONS, RPC_SECONDS
from meshnet.rpc.declare import Method, Service
from meshnet.rpc.driver import Caller, Channel, Clock, Pending, entries
from meshnet.streams import Accept, PortListener, Stream, StreamReader

S = TypeVar("S", bound=Service)
Offer = Service | Callable[[Caller], Service | None]
"""A service for everybody, or what makes one for each caller (None: not for this one)."""


class Node(Protocol):
    """What is needed of a node (`meshnet.node.app.MeshNode` in all)."""

    @property
    def clock(self) -> Clock:
        """Its clock."""

    def connect(
        self,
        target: PublicKey,
        port: int,
        reader: StreamReader,
        *,
        via: Sequence[PublicKey] | None = None,
        identity: str = "anonymous",
    ) -> Deferred[Stream]:
        """Opens a stream."""

    def listen(self, port: int, accept: Accept) -> PortListener:
        """Takes a mesh port; raises LocalError if it is taken."""


def serve(node: Node, port: int, *offers: Offer) -> Serving:
    """Offers services on a mesh port; raises LocalError if it is taken."""
    serving = Serving(node.clock, offers)
    serving.listener = node.listen(port, serving.accept)
    return serving


@define(eq=False)
class Serving:
    """Services that are offered; `stop` ends that, and the connections."""

    _clock: Clock
    _offers: Sequence[Offer]
    listener: PortListener | None = None
    channels: set[Channel] = field(factory=set)

    def accept(self, stream: Stream) -> StreamReader | None:
        """A connection of one caller; None refuses it."""
        if len(self.channels) >= RPC_CONNECTIONS:
            return None
        caller = Caller(stream.peer, stream.port)
        made = [offer if isinstance(offer, Service) else offer(caller) for offer in self._offers]
        offered = {each.name: entries(each) for each in made if each is not None}
        if not offered:
            return None
        channel: Channel = Channel(self._clock, False, offered, lambda why: self.channels.discard(channel))
        self.channels.add(channel)
        self._clock.call_later(0, lambda: channel.attach(stream))
        return channel

    def stop(self) -> None:
        """Accepts no more and closes what there is."""
        if self.listener is not None:
            self.listener.stop()
        for channel in list(self.channels):
            channel.close("the service stops")


class Peer:
    """Another node's services. `via` and `identity` are those of `MeshNode.connect`."""

    def __init__(
        self,
        node: Node,
        target: PublicKey,
        port: int,
        *,
        via: Sequence[PublicKey] | None = None,
        identity: str = "anonymous",
    ) -> None:
        self._clock = node.clock
        self._dial: Callable[[StreamReader], Deferred[Stream]] = lambda reader: node.connect(
            target, port, reader, via=via, identity=identity
        )
        self._channel: Channel | None = None
        self._stubs: dict[tuple[type[Service], float], Service] = {}

    def use(self, service: type[S], within: float = RPC_SECONDS) -> S:
        """The service as it is called: each of its methods takes a request and gives what can be awaited.

        A call is given up after `within` seconds.
        """
        key = service.declared, within
        if key not in self._stubs:
            self._stubs[key] = _stub(service.declared)(self, within)
        return cast(S, self._stubs[key])

    def start(self, method: Method, request: Any, seconds: float) -> Pending:
        """Makes one call; dials if need be."""
        pending = Pending(method)
        channel = self._channel
        if channel is None or channel.core.wire.over is not None:
            channel = self._connect()
        try:
            channel.call(pending, request, seconds)
        except MeshError as error:
            pending.failed(error)
        return pending

    def close(self) -> None:
        """Ends the connection; calls that are under way fail. The next call dials again."""
        if self._channel is not None:
            self._channel.close("it is not needed any more")

    def _connect(self) -> Channel:
        channel = self._channel = Channel(self._clock, True, {}, lambda why: None)

        def failed(failure: Failure) -> None:
            error = failure.value
            channel.core.lost(error if isinstance(error, MeshError) else LocalError(str(error)))

        maybeDeferred(self._dial, channel).addCallbacks(channel.attach, failed)
        return channel


_STUBS: dict[type[Service], type[Any]] = {}


def _stub(service: type[Service]) -> type[Any]:
    """The class of a service whose methods make calls; made once."""
    if service not in _STUBS:
        body: dict[str, Any] = {"__init__": _init_stub, "__doc__": service.__doc__}
        body.update({method.name: _calling(method) for method in service.methods.values()})
        _STUBS[service] = type(service.__name__, (service,), body)
    return _STUBS[service]


def _init_stub(self: Any, peer: Peer, seconds: float) -> None:
    self._start = peer.start
    self._seconds = seconds


def _calling(method: Method) -> Callable[..., Any]:
    def calling(self: Any, request: Any) -> Pending:
        made: Pending = self._start(method, request, self._seconds)
        return made

    calling.__name__ = method.name
    return calling
