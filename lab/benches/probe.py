"""An app of the lab inside real nodes: a source and a sink of bytes, and a maker of circuits.

Nodes load it when `lab/dropins` is on Python's path. Control routes under /apps/probe:

    POST /send   {target, via, seconds}            one stream as fast as it goes → {bytes, seconds, mbps}
    POST /setups {target, via, count, together}    circuits, `together` at a time → {ms: […]}
    POST /hold   {target, via, count, together}    streams that are sent to and never read; those before end
    POST /calls  {target, via, count, together}    calls of `Echo`, 1 KB there and back → {seconds}

The sink counts from the first byte to the last on its own clock and tells the source: u64 bytes, u64 µs.
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any

from attrs import field, frozen
from twisted.application import service
from twisted.internet.defer import Deferred, FirstError, gatherResults
from zope.interface import implementer

from meshnet.cipher.keys import PublicKey
from meshnet.codec import Fixed, message
from meshnet.errors import MeshError
from meshnet.node.app import IApp, IAppService, Json, Route, Verb
from meshnet.node.schema import read_body
from meshnet.rpc import Service, call
from meshnet.rpc.service import Peer, serve
from meshnet.streams import Stream

PORT = 9
CALLS_PORT = 10
SPRING_PORT = 12
PIECE = bytes(256 << 10)
REPORT = struct.Struct(">QQ")


@frozen
class ProbeSettings:
    """No sections."""


@frozen
class SendRequest:
    """One stream to `target`, for so many seconds."""

    target: PublicKey
    via: tuple[PublicKey, ...]
    seconds: float = 10.0


@frozen
class SetupsRequest:
    """`count` circuits to `target`."""

    target: PublicKey
    via: tuple[PublicKey, ...]
    count: int = 200
    together: int = 1


@message
class Load:
    """What goes there and back."""

    data: Annotated[bytes, Fixed(1024)]


class Echo(Service):
    """One method."""

    name = "echo"
    echo = call(1, Load, Load)


class OurEcho(Echo):
    """Gives back what came."""

    async def echo(self, request: Load) -> Load:
        """The same."""
        return request


class Sink:
    """Counts what it reads; reports when the source has finished."""

    def __init__(self, stream: Stream, clock: Any) -> None:
        self._stream = stream
        self._clock = clock
        self._bytes = 0
        self._first = self._last = 0.0

    def data_received(self, data: memoryview) -> None:
        """Counts and forgets."""
        size = len(data)
        self._last = self._clock.now()
        if not self._bytes:
            self._first = self._last
        self._bytes += size
        self._stream.consumed(size)

    def finished(self) -> None:
        """Tells the source what came, and in which time."""
        self._stream.write(REPORT.pack(self._bytes, int((self._last - self._first) * 1e6)))
        self._stream.finish()

    def lost(self, why: MeshError) -> None:
        """Nobody is left to be told."""

    def drained(self) -> None:
        """The report is shorter than any window."""


class Source:
    """Writes as fast as the stream takes it, until told to stop; `report` is the sink's answer."""

    def __init__(self) -> None:
        self.report: Deferred[Json] = Deferred()
        self._stream: Stream | None = None
        self._answer = b""
        self._ending = False

    def begin(self, stream: Stream) -> None:
        """Starts to write."""
        self._stream = stream
        self.drained()

    def stop(self) -> None:
        """Writes no more; the report follows when all has arrived."""
        self._ending = True
        if self._stream is not None:
            self._stream.finish()

    def drained(self) -> None:
        """There is room again."""
        if self._stream is not None and not self._ending:
            while self._stream.write(PIECE) == len(PIECE):
                pass

    def data_received(self, data: memoryview) -> None:
        """The sink's report."""
        self._answer += data
        assert self._stream is not None
        self._stream.consumed(len(data))

    def finished(self) -> None:
        """The report is there."""
        size, micros = REPORT.unpack(self._answer)
        mbps = size * 8 / micros if micros else 0.0
        self._settle({"bytes": size, "seconds": micros / 1e6, "mbps": mbps})

    def lost(self, why: MeshError) -> None:
        """No report will come."""
        self._settle(why)

    def _settle(self, outcome: Json | MeshError) -> None:
        report, self.report = self.report, Deferred()
        if isinstance(outcome, MeshError):
            report.errback(outcome)
        else:
            report.callback(outcome)


class Spring:
    """Writes whatever it is allowed to, for ever."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def data_received(self, data: memoryview) -> None:
        """The caller's first byte: begins."""
        self._stream.consumed(len(data))
        self.drained()

    def drained(self) -> None:
        """There is room again."""
        while self._stream.write(PIECE) == len(PIECE):
            pass

    def finished(self) -> None:
        """The caller is silent anyway."""

    def lost(self, why: MeshError) -> None:
        """It is over."""


class Holder:
    """Never says that it has read anything."""

    def data_received(self, data: memoryview) -> None:
        """Keeps the sender waiting."""

    def finished(self) -> None:
        """Never."""

    def lost(self, why: MeshError) -> None:
        """It is over."""

    def drained(self) -> None:
        """Nothing is written."""


@implementer(IAppService)
class ProbeService(service.Service):
    """The probe on one node."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self._listener: Any = None
        self._serving: Any = None
        self._springs: Any = None
        self._held: list[Stream] = []

    def startService(self) -> None:
        """Opens the sink's port."""
        super().startService()
        self._listener = self._node.listen(PORT, lambda stream: Sink(stream, self._node.clock))
        self._springs = self._node.listen(SPRING_PORT, Spring)
        self._serving = serve(self._node, CALLS_PORT, OurEcho())

    def stopService(self) -> None:
        """Closes it."""
        super().stopService()
        self._listener.stop()
        self._springs.stop()
        self._serving.stop()

    def status(self) -> Json:
        """Nothing to say."""
        return {}

    def routes(self) -> Mapping[str, Route]:
        """See the module."""
        return {
            "POST /send": self._send,
            "POST /setups": self._setups,
            "POST /hold": self._hold,
            "POST /calls": self._calls,
        }

    async def _send(self, body: Json) -> Json:
        request = read_body(SendRequest, body)
        source = Source()
        report = source.report
        stream = await self._node.connect(request.target, PORT, source, via=request.via)
        self._node.clock.call_later(request.seconds, source.stop)
        source.begin(stream)
        return await report

    async def _setups(self, body: Json) -> Json:
        request = read_body(SetupsRequest, body)
        times: list[float] = []

        async def set_up() -> None:
            report = await self._node.ping(request.target, request.via, 1)
            times.append(report["setup_ms"])

        await _repeat(set_up, request.count, request.together)
        return {"ms": times}

    async def _hold(self, body: Json) -> Json:
        request = read_body(SetupsRequest, body)
        held, self._held = self._held, []
        for stream in held:
            stream.reset()

        async def hold() -> None:
            stream = await self._node.connect(request.target, SPRING_PORT, Holder(), via=request.via)
            stream.write(b"!")
            self._held.append(stream)

        await _repeat(hold, request.count, request.together)
        return {}

    async def _calls(self, body: Json) -> Json:
        request = read_body(SetupsRequest, body)
        peer = Peer.of_node(self._node, request.target, CALLS_PORT, via=request.via)
        echo, load = peer.use(Echo), Load(bytes(1024))
        await echo.echo(load)  # the circuit stands

        async def one_call() -> None:
            await echo.echo(load)

        start = self._node.clock.now()
        await _repeat(one_call, request.count, request.together)
        seconds = self._node.clock.now() - start
        peer.close()
        return {"seconds": seconds}


async def _repeat(work: Callable[[], Awaitable[None]], count: int, together: int) -> None:
    """Does it so often, so many at a time; raises what the first of them raised."""
    left = [count]

    async def one_after_the_other() -> None:
        while left[0] > 0:
            left[0] -= 1
            await work()

    running = [Deferred.fromCoroutine(one_after_the_other()) for _ in range(together)]
    try:
        await gatherResults(running, consumeErrors=True)
    except FirstError as error:
        error.subFailure.raiseException()


@implementer(IApp)
@frozen
class Probe:
    """The app."""

    name: str = "probe"
    settings: type = field(default=ProbeSettings)

    def verbs(self) -> Sequence[Verb]:
        """None."""
        return ()

    def make_service(self, node: Any, settings: Any) -> ProbeService:
        """A probe for this node."""
        return ProbeService(node)
