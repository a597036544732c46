"""A connection under Twisted: a stream below, Deferreds and async iterators above.

`Channel` reads a stream into the core and writes what the core gathered, once per turn. A call of ours is a
Deferred (`Pending`), so it can be awaited, gathered and cancelled as any other; streamed items are an
`async for` (`Items`). Coroutines of implementations and sources of items are stepped by `Work`, each in its
own context; one that needs not wait costs no Deferred.

Nothing here knows where streams come from.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable
from contextvars import copy_context
from threading import get_ident
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from meshnet.errors import MeshError, UnreachableError
from meshnet.limits import RPC_LINGER
from meshnet.rpc.calls import Flow
from meshnet.rpc.connection import Connection
from meshnet.rpc.declare import Method
from meshnet.rpc.incoming import Offers
from meshnet.streams import Stream

_NEVER: Final = float("inf")


class Clock(Protocol):
    """Time, and calls later."""

    def now(self) -> float:
        """Monotonic seconds."""

    def call_later(self, delay: float, call: Callable[[], None]) -> Callable[[], None]:
        """Calls after `delay` seconds; returns what cancels it."""


class Channel:
    """One connection over one stream; it is the stream's reader.

    `opener` says whether this side opened the stream; `on_end` is told once why it ended. Until `attach`,
    calls are gathered.
    """

    __slots__ = (
        "_armed", "_cancel_timer", "_clock", "_finished", "_inside", "_on_end", "_owed", "_stream", "core",
    )  # fmt: skip

    def __init__(
        self, clock: Clock, opener: bool, offers: Offers, on_end: Callable[[MeshError], None]
    ) -> None:
        self._clock = clock
        self._on_end = on_end
        self._stream: Stream | None = None
        self._inside = False  # an event is being handled: what it makes leaves at its end
        self._finished = False  # our direction of the stream
        self._owed = 0  # bytes read and not credited
        self._armed = _NEVER
        self._cancel_timer: Callable[[], None] = lambda: None
        self.core = Connection(opener, offers, self, clock.now())
        self._arm()

    @property
    def over(self) -> MeshError | None:
        """Why it ended; None while it stands."""
        return self.core.over

    @property
    def idle(self) -> bool:
        """Whether nobody waits for anything."""
        return self.core.outgoing.idle and not self.core.incoming.calls

    def attach(self, stream: Stream) -> None:
        """The stream is there: what waits is written."""
        self._stream = stream
        self._flush()

    def call(self, asked: Asking, request: Any, seconds: float) -> None:
        """Makes a call; raises MeshError if it cannot even wait."""
        asked.channel = self
        core = self.core
        core.call(asked, request, self._clock.now(), seconds)
        if core.wire.earliest < self._armed:
            self._arm()

    def cancel(self, asked: Asking, why: Exception | None = None) -> None:
        """Gives a call up; it fails with `why`, or CancelledCallError. Harmless if it has ended."""
        self.core.wire.now = self._clock.now()
        self.core.outgoing.cancel(asked, why)
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
        self._cancel_timer = self._clock.call_later(RPC_LINGER, self._cut)
        if not self._inside:
            self._clock.call_later(0, self._flush)
        self._on_end(why)

    # -- the stream calls these

    def data_received(self, data: memoryview) -> None:
        """Bytes of the other side; their answers leave in one write."""
        core = self.core
        self._inside = True
        core.receive(data, self._clock.now())
        self._inside = False
        self._owed += len(data)
        self._flush()
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
        self._cancel_timer()

    def drained(self) -> None:
        """The stream takes bytes again."""
        self._flush()

    # -- within

    def _flush(self) -> None:
        """Writes what there is; the rest when the stream is drained. Credits what was read."""
        stream, wire = self._stream, self.core.wire
        if stream is None:
            return
        wire.woken = False
        outbox = wire.outbox
        if outbox.stuck:
            self._cut()
            self.core.lost(UnreachableError("the other side reads nothing of what waits for it"))
            return
        while outbox.end:
            taken = stream.write(outbox.pending)
            outbox.sent(taken)
            if outbox.end:
                break
            if wire.starved or not self.core.outgoing.idle:
                self.core.written()
        if outbox.end and stream.stopped and self._stream is not None:
            self._cut()
            self.core.lost(UnreachableError("the other side reads no more"))
            return
        if self._owed and not wire.full and self._stream is not None:
            owed, self._owed = self._owed, 0
            stream.consumed(owed)
        if wire.over is not None and not outbox.end and not self._finished:
            self._finished = True
            stream.finish()

    def _cut(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.reset()

    def _arm(self) -> None:
        """One timer for everything, at the earliest time that anything may be due."""
        if self.core.over is None:
            due = self.core.deadline()
            if due < self._armed:
                self._cancel_timer()
                self._armed = due
                self._cancel_timer = self._clock.call_later(max(0.0, due - self._clock.now()), self._tick)

    def _tick(self) -> None:
        self._armed = _NEVER
        self._inside = True
        self.core.tick(self._clock.now())
        self._inside = False
        self._flush()
        self._arm()


class Work:
    """A coroutine that is stepped by the Deferreds it awaits; `done` gets its value or a Failure, once.

    `room` is what it awaits where there is no room for an item; `writable` says that there is some.
    """

    __slots__ = ("_context", "_coroutine", "_done", "_room", "_waiting", "stopped")

    def __init__(self, coroutine: Coroutine[Any, Any, Any] | None, done: Callable[[Any], None]) -> None:
        self._coroutine = coroutine
        self._context = copy_context()
        self._done = done
        self._waiting: Deferred[Any] | None = None
        self._room: Deferred[None] | None = None
        self.stopped = False

    def begin(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Runs it up to where it waits, or ends."""
        self._coroutine = coroutine
        self._step(None)

    def wait(self, waiting: Deferred[Any]) -> None:
        """Goes on when this Deferred has fired; without a coroutine, its result is the value."""
        self._waiting = waiting
        waiting.addBoth(self._step)

    def stop(self) -> None:
        """What it waits for is cancelled; nobody cares what it returns."""
        self.stopped = True
        if self._waiting is not None:
            self._waiting.cancel()

    def room(self) -> Deferred[None]:
        """Fires when there may be room."""
        self._room = Deferred()
        return self._room

    def writable(self) -> None:
        """There may be room."""
        room, self._room = self._room, None
        if room is not None:
            room.callback(None)

    def _step(self, result: Any) -> None:
        self._waiting = None
        coroutine, run = self._coroutine, self._context.run
        if coroutine is None:
            self._done(result)
            return
        try:
            if isinstance(result, Failure):
                waiting = run(result.throwExceptionIntoGenerator, coroutine)
            else:
                waiting = run(coroutine.send, result)
        except StopIteration as stop:
            self._done(stop.value)
        except Exception:
            self._done(Failure())
        else:
            self.wait(waiting)


async def send_all(
    work: Work, source: AsyncIterable[Any] | Iterable[Any], send: Callable[[Any], bool]
) -> None:
    """Sends items as they come and as there is room; ends when they do, or when the work is stopped."""
    items = source if isinstance(source, AsyncIterable) else _Plain(source)
    try:
        async for item in items:
            while not work.stopped and not send(item):
                await work.room()
            if work.stopped:
                return
    finally:
        close = getattr(source, "aclose", None)
        if close is not None:
            await close()


class _Plain:
    """An ordinary iterable."""

    def __init__(self, source: Iterable[Any]) -> None:
        self._iterator = iter(source)

    def __aiter__(self) -> _Plain:
        return self

    async def __anext__(self) -> Any:
        for item in self._iterator:
            return item
        raise StopAsyncIteration


class Items:
    """Streamed items as they come: `async for item in items`, by one reader. It ends when the other side ends
    them, and raises what ended the call otherwise. Items are credited as they are taken."""

    def __init__(self, consumed: Callable[[int], None]) -> None:
        self._consumed = consumed
        self._queue: deque[tuple[Any, int]] = deque()
        self._waiting: Deferred[None] | None = None
        self._over: BaseException | None = None

    def __aiter__(self) -> Items:
        return self

    async def __anext__(self) -> Any:
        while not self._queue:
            if self._over is not None:
                raise self._over
            self._waiting = Deferred()
            await self._waiting
        item, cost = self._queue.popleft()
        self._consumed(cost)
        return item

    @property
    def over(self) -> bool:
        """Whether no more come."""
        return self._over is not None

    def put(self, item: Any, cost: int) -> None:
        """One has come."""
        self._queue.append((item, cost))
        self._wake()

    def end(self, why: BaseException | None = None) -> None:
        """No more come; after an error also those are gone that were not taken."""
        if self._over is None:
            self._over = StopAsyncIteration() if why is None else why
            if why is not None:
                self._queue.clear()
            self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            waiting.callback(None)


class Asking:
    """A call of ours under way, whatever it brings. `source` are the items that we stream, if any."""

    def __init__(self, method: Method, source: AsyncIterable[Any] | Iterable[Any] | None = None) -> None:
        self.method = method
        self.id = -1
        self.size = 0
        self.expires = 0.0
        self.flow: Flow | None = None
        self.channel: Channel | None = None
        self._source = source
        self._work: Work | None = None

    def answered(self, answer: Any) -> None:
        """The call has ended with its answer."""
        raise NotImplementedError

    def failed(self, why: Exception) -> None:
        """The call has ended without."""
        raise NotImplementedError

    def item(self, item: Any, cost: int) -> None:
        """Items come only where they were asked for."""

    def finished(self) -> None:
        """The same."""

    def writable(self) -> None:
        """The call has begun, or there is room for items."""
        if self._work is not None:
            self._work.writable()
        elif self._source is not None and self.channel is not None:
            wire = self.channel.core.wire
            work = self._work = Work(None, self._all_sent)
            work.begin(send_all(work, self._source, lambda item: wire.send_item(self, item)))

    def _all_sent(self, result: Any) -> None:
        channel = self.channel
        if channel is None or self._work is None or self._work.stopped:
            return
        if isinstance(result, Failure):
            channel.cancel(self, result.value)  # type: ignore[arg-type]  # Work passes on no BaseException
        else:
            channel.core.outgoing.finish_items(self)

    def _stop_sending(self) -> None:
        if self._work is not None:
            self._work.stop()


class Pending(Deferred[Any], Asking):
    """A call of ours with one answer: fires with it, or fails with a MeshError (or with what the source of
    our items raised). Cancelling it tells the other side."""

    def __init__(self, method: Method, source: AsyncIterable[Any] | Iterable[Any] | None = None) -> None:
        Deferred.__init__(self)
        Asking.__init__(self, method, source)

    def answered(self, answer: Any) -> None:
        """The call has ended with its answer."""
        if self._work is not None:
            self._work.stop()
        self.callback(answer)

    def failed(self, why: Exception) -> None:
        """The call has ended without."""
        if self._work is not None:
            self._work.stop()
        self.errback(why)

    def cancel(self) -> None:
        """Gives the call up."""
        if not self.called and self.channel is not None:
            self.channel.cancel(self)
        else:
            super().cancel()


class Followed(Items, Asking):
    """A call of ours that brings items, as the connection holds it; `Following` is what its maker holds."""

    def __init__(self, method: Method, source: AsyncIterable[Any] | Iterable[Any] | None = None) -> None:
        Items.__init__(self, self._taken)
        Asking.__init__(self, method, source)

    def cancel(self) -> None:
        """No more are wanted. Harmless after the end."""
        if self.channel is not None:
            self.channel.cancel(self)

    def item(self, item: Any, cost: int) -> None:
        """One has come."""
        self.put(item, cost)

    def finished(self) -> None:
        """No more come."""
        self._stop_sending()
        self.end()

    def failed(self, why: Exception) -> None:
        """The call has ended before its items."""
        self._stop_sending()
        self.end(why)

    def _taken(self, cost: int) -> None:
        if self.channel is not None:
            self.channel.core.wire.consumed(self, cost)


class Following:
    """The items of a call of ours, for one reader. `cancel` or `aclose` gives the call up, and so does
    letting go of it, as an `async for` does that is left before the end."""

    def __init__(self, call: Followed) -> None:
        self._call = call
        self._thread = get_ident()

    def __aiter__(self) -> Following:
        return self

    async def __anext__(self) -> Any:
        return await self._call.__anext__()  # not handed on: what waits holds this

    def cancel(self) -> None:
        """No more are wanted. Harmless after the end."""
        self._call.cancel()

    async def aclose(self) -> None:
        """The same, for `contextlib.aclosing`."""
        self._call.cancel()

    def __del__(self) -> None:
        # Found in a cycle by a collection in another thread, it is left to its deadline.
        if not self._call.over and get_ident() == self._thread:
            self._call.cancel()
