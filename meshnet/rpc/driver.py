"""A connection under Twisted: streams below, Deferreds and coroutines above.

`Channel` reads a stream into the core and writes what the core gathered, once per turn. A call is a Deferred
(`Pending`), so it can be awaited, gathered and cancelled as any other. Implementations run as coroutines that
are stepped here: one that answers at once costs no Deferred at all.

Nothing here knows where streams come from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from meshnet.cipher.keys import PublicKey
from meshnet.errors import EncodeError, MeshError, UnreachableError
from meshnet.rpc.calls import Flow
from meshnet.rpc.connection import Connection
from meshnet.rpc.declare import Method, Service, implemented
from meshnet.rpc.failure import Fault, to_wire
from meshnet.rpc.incoming import Call, Entry, Offers
from meshnet.streams import Stream

_log = Logger()
_NO_TIMER: Final = float("inf")


class Clock(Protocol):
    """Time, and calls later."""

    def now(self) -> float:
        """Monotonic seconds."""

    def call_later(self, delay: float, call: Callable[[], None]) -> Callable[[], None]:
        """Calls after `delay` seconds; returns what cancels it."""


@frozen
class Caller:
    """Who calls: `key` is None for one that stays anonymous, or where the stream has no keys."""

    key: PublicKey | None
    port: int


class Pending(Deferred[Any]):
    """A call of ours under way: fires with the answer, fails with a MeshError. Cancelling it tells the other
    side."""

    def __init__(self, method: Method) -> None:
        Deferred.__init__(self)
        self.method = method
        self.id = -1
        self.size = 0
        self.expires = 0.0
        self.flow: Flow | None = None
        self.channel: Channel | None = None

    def answered(self, answer: Any) -> None:
        """The call has ended with its answer."""
        self.callback(answer)

    def failed(self, why: MeshError) -> None:
        """The call has ended without."""
        self.errback(why)

    def cancel(self) -> None:
        """Gives the call up."""
        if not self.called and self.channel is not None:
            self.channel.cancel(self)
        else:
            super().cancel()

    def item(self, item: Any, cost: int) -> None:
        """Never: no items flow."""

    def finished(self) -> None:
        """Never."""

    writable = finished


class Channel:
    """One connection over one stream; it is the stream's reader.

    `opener` says whether this side opened the stream; `on_end` is told once why it ended.
    """

    __slots__ = (
        "_armed", "_cancel_timer", "_clock", "_closing", "_inside", "_on_end", "_owed", "_stream", "core",
    )  # fmt: skip

    def __init__(
        self, clock: Clock, opener: bool, offers: Offers, on_end: Callable[[MeshError], None]
    ) -> None:
        self._clock = clock
        self._on_end = on_end
        self._stream: Stream | None = None
        self._inside = False  # an event is being handled: what it makes leaves at its end
        self._closing = False
        self._owed = 0  # bytes read and not credited
        self._armed = _NO_TIMER
        self._cancel_timer: Callable[[], None] = lambda: None
        self.core = Connection(opener, offers, self, clock.now())
        self._arm()

    @property
    def over(self) -> MeshError | None:
        """Why it ended; None while it stands."""
        return self.core.over

    def attach(self, stream: Stream) -> None:
        """The stream is there: what waits is written."""
        self._stream = stream
        self._flush()

    def call(self, pending: Pending, request: Any, seconds: float) -> None:
        """Makes a call; raises MeshError if it cannot even wait."""
        pending.channel = self
        core = self.core
        core.call(pending, request, self._clock.now(), seconds)
        if core.wire.earliest < self._armed:
            self._arm()

    def cancel(self, pending: Pending) -> None:
        """Gives a call up; it fails with CancelledCallError."""
        self.core.wire.now = self._clock.now()
        self.core.outgoing.cancel(pending)
        self._arm()

    def close(self, why: str) -> None:
        """Ends the connection in order: what was written is delivered, calls that are under way fail."""
        self.core.close(why)

    # -- the core calls these

    def wake(self) -> None:
        """Something is to be written: at the end of this event, or in the next turn."""
        if not self._inside:
            self._clock.call_later(0, self._flush)

    def ended(self, why: MeshError) -> None:
        """The connection is over."""
        self._cancel_timer()
        self._on_end(why)
        if not self._inside:
            self._clock.call_later(0, self._flush)

    # -- the stream calls these

    def data_received(self, data: memoryview) -> None:
        """Bytes of the other side; their answers leave in one write."""
        self._inside = True
        core = self.core
        core.receive(data, self._clock.now())
        self._owed += len(data)
        self._inside = False
        if core.wire.woken:
            self._flush()
        if not core.wire.full and self._stream is not None:
            owed, self._owed = self._owed, 0
            self._stream.consumed(owed)
        if core.wire.earliest < self._armed:
            self._arm()

    def finished(self) -> None:
        """The other side sends no more: without answers there are no calls."""
        self.core.lost(UnreachableError("the other side ended the connection"))
        self._flush()

    def lost(self, why: MeshError) -> None:
        """The stream is gone."""
        self._stream = None
        self.core.lost(why)

    def drained(self) -> None:
        """The stream takes bytes again."""
        self._flush()

    # -- within

    def _flush(self) -> None:
        """Writes what there is; the rest when the stream is drained."""
        stream, core = self._stream, self.core
        if stream is None:
            return
        wire = core.wire
        outbox = wire.outbox
        if outbox.stuck:
            self._stream = None
            stream.reset()
            core.lost(UnreachableError("the other side reads nothing"))
            return
        wire.woken = False
        was_full = wire.full
        while len(outbox):
            taken = stream.write(outbox.pending)
            outbox.sent(taken)
            if len(outbox):
                break
            if self._stream is None:
                return
        if core.over is not None:
            self._end_stream(stream)
        elif not len(outbox) or (was_full and not wire.full):
            core.written()
        if self._owed and not wire.full and self._stream is not None:
            owed, self._owed = self._owed, 0
            stream.consumed(owed)

    def _end_stream(self, stream: Stream) -> None:
        if not len(self.core.wire.outbox) and not self._closing:
            self._closing = True
            stream.finish()

    def _arm(self) -> None:
        """One timer for everything, at the earliest time that anything may be due."""
        if self.core.over is not None:
            return
        due = self.core.deadline()
        if due < self._armed:
            self._cancel_timer()
            self._armed = due
            self._cancel_timer = self._clock.call_later(max(0.0, due - self._clock.now()), self._tick)

    def _tick(self) -> None:
        self._armed = _NO_TIMER
        self._inside = True
        self.core.tick(self._clock.now())
        self._inside = False
        self._flush()
        self._arm()


def entries(service: Service) -> dict[int, Entry]:
    """What an implementation offers, by number."""
    methods = type(service).methods
    return {
        number: Entry(methods[number], Answering(bound)) for number, bound in implemented(service).items()
    }


class Answering:
    """Runs one method of an implementation."""

    __slots__ = ("_bound",)

    def __init__(self, bound: Callable[..., Any]) -> None:
        self._bound = bound

    def __call__(self, call: Call, request: Any) -> None:
        """Begins to answer; what is awaited already is sent at once."""
        try:
            result = self._bound(request)
            send = getattr(result, "send", None)
            if send is None:
                Running(call, None).wait(result)
                return
            waiting = send(None)
        except StopIteration as stop:
            _answer(call, stop.value)
        except Exception as error:
            _fail(call, error)
        else:
            Running(call, result).wait(waiting)


class Running:
    """A method that waits for something."""

    __slots__ = ("_call", "_coroutine", "_waiting")

    def __init__(self, call: Call, coroutine: Any) -> None:
        self._call = call
        self._coroutine = coroutine
        self._waiting: Deferred[Any] | None = None
        call.answerer = self

    def wait(self, waiting: Any) -> None:
        """Goes on when this Deferred has fired."""
        self._waiting = waiting
        waiting.addBoth(self._step)

    def _step(self, result: Any) -> None:
        self._waiting = None
        call, coroutine = self._call, self._coroutine
        try:
            if coroutine is None:
                if isinstance(result, Failure):
                    result.raiseException()
                _answer(call, result)
                return
            if isinstance(result, Failure):
                waiting = result.throwExceptionIntoGenerator(coroutine)
            else:
                waiting = coroutine.send(result)
        except StopIteration as stop:
            _answer(call, stop.value)
        except Exception as error:
            _fail(call, error)
        else:
            self.wait(waiting)

    def cancelled(self, why: MeshError) -> None:
        """Nobody waits any more: what is waited for is cancelled."""
        if self._waiting is not None:
            self._waiting.cancel()

    def item(self, item: Any, cost: int) -> None:
        """Never: no items flow."""

    def finished(self) -> None:
        """Never."""

    writable = finished


def _answer(call: Call, answer: Any) -> None:
    try:
        call.answer(answer)
    except EncodeError as error:
        _fail(call, error)


def _fail(call: Call, error: Exception) -> None:
    if call.ended:
        return
    code, text = to_wire(error)
    if code == Fault.INTERNAL:
        _log.failure("{method} failed", failure=Failure(error), method=str(call.method))
    call.fail(code, text)
