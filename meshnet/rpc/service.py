"""Services between programs: offered with `serve`, called with a `Peer`.

    serving = serve(node, 7000, OurClock())                 on a mesh port of a node
    peer = Peer.of_node(node, key, 7000)
    answer = await peer.use(Clock).now(Ask())

    await endpoint.listen(serving_factory(reactor, OurClock()))   on any endpoint of Twisted
    peer = Peer.of_endpoint(reactor, endpoint)

A peer dials when it is first called, and again when it is called after its connection was lost; calls that
were under way then fail, and none is ever made twice. Between attempts that fail it waits; calls meanwhile
fail with the error of the last one. Nothing here knows the bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextvars import copy_context
from inspect import iscoroutinefunction
from typing import Any, Generic, Protocol, Self, TypeVar, cast, overload

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import connectProtocol
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from meshnet.cipher.address import Target
from meshnet.cipher.keys import PublicKey
from meshnet.errors import EncodeError, LocalError, MeshError, UsageError
from meshnet.limits import RPC_CONNECTIONS, RPC_LONGEST, RPC_REDIAL, RPC_REDIAL_MOST, RPC_SECONDS
from meshnet.rpc.declare import Method, Service, implemented
from meshnet.rpc.driver import Asking, Channel, Clock, Followed, Following, Items, Pending, Work, send_all
from meshnet.rpc.failure import Fault, to_wire
from meshnet.rpc.incoming import Call, Entry
from meshnet.stream_protocol import StreamProtocol
from meshnet.streams import Accept, PortListener, Stream, StreamReader

S = TypeVar("S", bound=Service)
_log = Logger()


@frozen
class Caller:
    """Who calls: `key` is None for one that stays anonymous, and where the stream has no keys."""

    key: PublicKey | None
    port: int


@frozen
class ReactorClock:
    """The clock of a reactor."""

    _reactor: Any

    def now(self) -> float:
        """Its seconds."""
        return float(self._reactor.seconds())

    def call_later(self, delay: float, call: Callable[[], None]) -> Callable[[], None]:
        """Calls after `delay` seconds; returns what cancels it."""
        later = self._reactor.callLater(delay, call)
        return lambda: later.cancel() if later.active() else None


Offer = Service | Callable[[Caller], Service | None]
"""A service for everybody, or what makes one for each caller (None: not for this one)."""


class Node(Protocol):
    """What is needed of a node (`meshnet.node.app.MeshNode` in all)."""

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
    ) -> Deferred[Stream]:
        """Opens a stream."""

    def listen(self, port: int, accept: Accept) -> PortListener:
        """Takes a mesh port; raises LocalError if it is taken."""


# -- offered


def serve(node: Node, port: int, *offers: Offer) -> Serving:
    """Offers services on a mesh port; raises LocalError if it is taken."""
    serving = Serving(node.clock, offers)
    serving.listener = node.listen(port, serving.accept)
    return serving


def serving_factory(reactor: Any, *offers: Offer) -> Factory:
    """The same for any Twisted endpoint: what its `listen` takes. All callers are anonymous."""
    clock = ReactorClock(reactor)
    serving = Serving(clock, offers)

    def made(stream: StreamProtocol) -> StreamReader | None:
        channel = serving.channel(Caller(None, 0))
        if channel is not None:
            channel.attach(stream)
        return channel

    return Factory.forProtocol(lambda: StreamProtocol(made))


@define(eq=False)
class Serving:
    """Services that are offered; `stop` ends that, and the connections."""

    _clock: Clock
    _offers: Sequence[Offer]
    listener: PortListener | None = None
    channels: dict[Channel, PublicKey | None] = field(factory=dict)

    def accept(self, stream: Stream) -> StreamReader | None:
        """A connection of one caller; None refuses it."""
        channel = self.channel(Caller(stream.peer, stream.port))
        if channel is not None:
            self._clock.call_later(0, lambda: channel.attach(stream))
        return channel

    def channel(self, caller: Caller) -> Channel | None:
        """What is offered to one caller, to be attached to its stream; None if nothing is."""
        if not self._room_for(caller.key):
            return None
        made = [offer if isinstance(offer, Service) else offer(caller) for offer in self._offers]
        offered = {each.name: entries(each) for each in made if each is not None}
        if not offered:
            return None

        def ended(why: MeshError) -> None:
            self.channels.pop(channel, None)

        channel: Channel = Channel(self._clock, False, offered, ended)
        self.channels[channel] = caller.key
        return channel

    def _room_for(self, key: PublicKey | None) -> bool:
        """Whether one more may come from this caller. When the port is full, the caller who has most of it
        gives one up for a caller who has fewer, so that no stranger keeps a port to himself."""
        if len(self.channels) < RPC_CONNECTIONS:
            return True
        held = Counter(self.channels.values())
        ((most, count),) = held.most_common(1)
        if count < held[key] + 2:
            return False
        theirs = [channel for channel, whose in self.channels.items() if whose == most]
        least = next((channel for channel in theirs if channel.idle), theirs[-1])
        least.close("too many connections, and others have fewer")
        return True

    def stop(self) -> None:
        """Accepts no more and closes what there is."""
        if self.listener is not None:
            self.listener.stop()
        for channel in list(self.channels):
            channel.close("the service stops")


def entries(service: Service) -> dict[int, Entry]:
    """What an implementation offers, by number; raises UsageError if it lacks a method."""
    found = {}
    for number, bound in implemented(service).items():
        method = service.methods[number]
        found[number] = Entry(method, _starter(method, bound), service.longest)
    return found


def _starter(method: Method, bound: Callable[..., Any]) -> Callable[[Call, Any], None]:
    """What begins to answer a call by this method of an implementation."""

    def start_coroutine(call: Call, request: Any) -> None:
        """One that needs not wait has answered when this returns."""
        context = copy_context()
        try:
            coroutine = bound(request)
            waiting = context.run(coroutine.send, None)
        except StopIteration as stop:
            _answer(call, stop.value)
        except Exception:
            _fail(call, Failure())
        else:
            Answering(call, None, coroutine).wait(waiting)

    def start(call: Call, request: Any) -> None:
        """One that may stream, or returns anything that can be awaited."""
        items = Items(call.consumed) if method.items is not None else None
        answering = Answering(call, items)
        try:
            made = bound(request) if items is None else bound(request, items)
        except Exception:
            _fail(call, Failure())
        else:
            answering.begin(send_all(answering, made, call.send_item) if method.many else _awaited(made))

    return start_coroutine if iscoroutinefunction(bound) and not method.streamed else start


async def _awaited(made: Any) -> Any:
    return await made


class Answering(Work):
    """A method of an implementation that has not answered at once."""

    __slots__ = ("_call", "_items")

    def __init__(self, call: Call, items: Items | None, coroutine: Any = None) -> None:
        super().__init__(coroutine, self._ended)
        self._call = call
        self._items = items
        call.answerer = self

    def _ended(self, result: Any) -> None:
        if isinstance(result, Failure):
            _fail(self._call, result)
        elif self._call.method.many:
            self._call.end()
        else:
            _answer(self._call, result)

    def cancelled(self, why: MeshError) -> None:
        """Nobody waits any more."""
        if self._items is not None:
            self._items.end(why)
        self.stop()

    def item(self, item: Any, cost: int) -> None:
        """An item of the caller."""
        if self._items is not None:
            self._items.put(item, cost)

    def finished(self) -> None:
        """It sends no more."""
        if self._items is not None:
            self._items.end()


def _answer(call: Call, answer: Any) -> None:
    try:
        call.answer(answer)
    except EncodeError:
        _fail(call, Failure())


def _fail(call: Call, failure: Failure) -> None:
    if call.ended:
        return
    error = cast(Exception, failure.value)  # nothing else is caught
    code, text = to_wire(error)
    if code == Fault.INTERNAL:
        _log.failure("{method} failed", failure, method=str(call.method))
    call.fail(code, text)


# -- called


class Peer:
    """The services of another program. `dial` opens a stream to it for a reader."""

    def __init__(self, clock: Clock, dial: Callable[[StreamReader], Deferred[Stream]]) -> None:
        self._clock = clock
        self._dial = dial
        self._channel: Channel | None = None
        self._wait = 0.0  # between two attempts
        self._redial_at = 0.0
        self._stubs: dict[tuple[type[Service], float], Service] = {}

    @classmethod
    def of_node(
        cls,
        node: Node,
        target: Target,
        port: int,
        *,
        via: Sequence[PublicKey] | None = None,
        identity: str = "anonymous",
    ) -> Self:
        """Those on a mesh port of another node; `via` and `identity` as in `MeshNode.connect`."""
        return cls(node.clock, lambda reader: node.connect(target, port, reader, via=via, identity=identity))

    @classmethod
    def of_endpoint(cls, reactor: Any, endpoint: IStreamClientEndpoint) -> Self:
        """Those behind an endpoint of Twisted, such as TCP, TLS or a UNIX socket."""

        def dial(reader: StreamReader) -> Deferred[Stream]:
            protocol = StreamProtocol(lambda stream: reader)
            return cast("Deferred[Stream]", connectProtocol(endpoint, protocol))

        return cls(ReactorClock(reactor), dial)

    def use(self, service: type[S], within: float = RPC_SECONDS) -> S:
        """The service as it is called: each method takes a request (and items to stream) and gives what can
        be awaited or iterated. A call is given up after `within` seconds; raises UsageError for more than
        RPC_LONGEST."""
        if not 0 < within <= RPC_LONGEST:
            raise UsageError(f"A call may take up to {RPC_LONGEST:.0f} seconds, not {within}.")
        key = service.declared, within
        if key not in self._stubs:
            self._stubs[key] = _stub(service.declared)(self, within)
        return cast(S, self._stubs[key])

    def start(self, asked: Asking, request: Any, seconds: float) -> None:
        """Makes one call; dials if need be, and if the last attempt was long enough ago."""
        channel = self._channel
        if channel is None or (channel.core.wire.over is not None and self._clock.now() >= self._redial_at):
            channel = self._connect()
        try:
            channel.call(asked, request, seconds)
        except MeshError as error:
            asked.failed(error)

    def close(self) -> None:
        """Ends the connection; calls that are under way fail. The next call dials again."""
        if self._channel is not None:
            self._channel.close("it is not needed any more")
        self._wait = self._redial_at = 0.0

    def _connect(self) -> Channel:
        channel = self._channel = Channel(
            self._clock, True, {}, lambda why: self._ended(channel.core.wire.met)
        )

        def failed(failure: Failure) -> None:
            error = failure.value
            channel.lost(error if isinstance(error, MeshError) else LocalError(str(error)))

        maybeDeferred(self._dial, channel).addCallbacks(channel.attach, failed)
        return channel

    def _ended(self, met: bool) -> None:
        """A connection is over; `met` says that there was one."""
        self._wait = 0.0 if met else min(max(2 * self._wait, RPC_REDIAL), RPC_REDIAL_MOST)
        self._redial_at = self._clock.now() + self._wait


class Uses(Generic[S]):
    """A service of a peer as an attribute; see `uses`."""

    def __init__(self, service: type[S], within: float) -> None:
        self._service = service
        self._within = within

    @overload
    def __get__(self, peer: None, owner: type) -> Uses[S]: ...
    @overload
    def __get__(self, peer: Peer, owner: type) -> S: ...
    def __get__(self, peer: Peer | None, owner: type) -> Uses[S] | S:
        return self if peer is None else peer.use(self._service, self._within)


def uses(service: type[S], within: float = RPC_SECONDS) -> Uses[S]:
    """For classes of peers: `clock = uses(Clock)` in a subclass, and then `await peer.clock.now(Ask())`."""
    return Uses(service, within)


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
    def calling(self: Any, request: Any) -> Any:
        asked = Pending(method)
        self._start(asked, request, self._seconds)
        return asked

    def collecting(self: Any, request: Any, items: Any) -> Any:
        asked = Pending(method, items)
        self._start(asked, request, self._seconds)
        return asked

    def following(self: Any, request: Any) -> Any:
        asked = Followed(method)
        self._start(asked, request, self._seconds)
        return Following(asked)

    def conversing(self: Any, request: Any, items: Any) -> Any:
        asked = Followed(method, items)
        self._start(asked, request, self._seconds)
        return Following(asked)

    if method.many:
        chosen = following if method.items is None else conversing
    else:
        chosen = calling if method.items is None else collecting
    chosen.__name__ = method.name
    return chosen
