"""Our own calls on one connection: their ids and turns, and how they end.

A call takes an id of ours that is free, and keeps it until the other side has said its last word, even if it
has ended here by its deadline or a cancel. No more are under way than the other side granted; the rest waits
in order. Methods are named to the other side, all of a service at once, before the first call of one.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from meshnet import limits
from meshnet.codec import encode
from meshnet.errors import MeshError, TimedOutError, UsageError
from meshnet.rpc import frames
from meshnet.rpc.calls import NOTHING, Asked, Flow, Leaving
from meshnet.rpc.declare import Method
from meshnet.rpc.failure import (
    BrokenPeerError,
    BusyError,
    CallLostError,
    CancelledCallError,
    from_wire,
    heard,
)
from meshnet.rpc.wire import FOREVER, Wire

_CALL: Final = frames.CALL << frames.SHIFT
_WAITS: Final = -1


class Outgoing:
    """Calls that this side makes; `first` is its first id, 0 or 1. `made` only grows."""

    __slots__ = ("_bound", "_next", "_requests", "_streamed", "_waiting", "_wire", "calls", "made")

    def __init__(self, wire: Wire, first: int) -> None:
        self._wire = wire
        self._next = first
        self._bound: dict[Method, int] = {}
        self._streamed = 0
        self._requests = 0  # bytes
        self._waiting: deque[tuple[Asked, Any]] = deque()
        self.calls: dict[int, Asked | Leaving] = {}
        self.made = 0

    @property
    def idle(self) -> bool:
        """Whether no call is under way or waits."""
        return not self.calls and not self._waiting

    def make(self, asked: Asked, request: Any, seconds: float) -> None:
        """Makes a call that is given up after so many seconds; `asked.method` says which.

        It may wait for its turn. Raises UsageError, EncodeError and BusyError, and then nothing has begun.
        """
        wire = self._wire
        if type(request) is not asked.method.request:
            raise UsageError(f"{asked.method} takes a {asked.method.request.__qualname__}, not {request!r}.")
        if wire.over is not None:
            raise self._never_begun(asked, wire.over)
        asked.id = _WAITS
        asked.expires = expires = wire.now + seconds
        if self._waiting or not self._begin(asked, request):
            if len(self._waiting) >= limits.RPC_WAITING:
                raise BusyError(f"{asked.method} was not begun: {limits.RPC_WAITING} calls wait already")
            self._waiting.append((asked, request))
        if expires < wire.earliest:
            wire.earliest = expires

    def _never_begun(self, asked: Asked, why: MeshError) -> MeshError:
        return CallLostError(f"{asked.method} was not begun: {why}") if self._wire.met else why

    def _begin(self, asked: Asked, request: Any) -> bool:
        """Sends a call if its turn has come."""
        wire, calls, method = self._wire, self.calls, asked.method
        peer, outbox = wire.peer, wire.outbox
        if len(calls) >= peer.calls or outbox.end - outbox.start > limits.RPC_QUEUE_MARK:
            return False
        if method.streamed and self._streamed >= peer.streamed:
            return False
        if self._requests > peer.requests - peer.body and calls:
            return False
        slot = self._bound.get(method)
        if slot is None:
            slot = self._bind(method)
        call_id = self._next
        while call_id in calls:
            call_id = call_id + 2 & 0xFFFF
        size = outbox.put_call(slot << 24 | _CALL, call_id, asked.expires - wire.now, request, peer.body)
        if not wire.woken:
            wire.wake()
        self._next = call_id + 2 & 0xFFFF
        self._requests += size
        self.made += 1
        asked.id, asked.size = call_id, size
        calls[call_id] = asked
        if method.streamed:
            self._streamed += 1
            asked.flow = Flow(peer.credit, limits.RPC_CREDIT, method.items is not None, method.many)
            asked.writable()
        return True

    def _bind(self, method: Method) -> int:
        """Names all methods of a service to the other side; the slot of this one."""
        first = len(self._bound)
        if first + len(method.siblings) > limits.RPC_BOUND:
            raise BusyError(f"{method} was not begun: {limits.RPC_BOUND} methods are in use already")
        wanted = tuple(frames.Wanted(each.number, each.form, each.signature) for each in method.siblings)
        self._wire.say(frames.BIND, 0, encode(frames.Bind(method.service, wanted)))
        self._bound.update((each, first + place) for place, each in enumerate(method.siblings))
        return self._bound[method]

    def begin_waiting(self) -> None:
        """Sends those whose turn has come."""
        while self._waiting and self._wire.over is None:
            asked, request = self._waiting.popleft()
            try:
                if not self._begin(asked, request):
                    self._waiting.appendleft((asked, request))
                    return
            except MeshError as error:
                asked.failed(error)

    # -- how calls end

    def cancel(self, asked: Asked, why: Exception | None = None) -> None:
        """Ends a call; it fails with `why`, usually CancelledCallError. Harmless if it has ended."""
        wire = self._wire
        if asked.id == _WAITS:
            place = next((place for place, each in enumerate(self._waiting) if each[0] is asked), None)
            if place is None:
                return
            del self._waiting[place]
        elif self.calls.get(asked.id) is not asked:
            return
        else:
            leaving = self.calls[asked.id] = Leaving(asked, wire.now + limits.RPC_GRACE)
            wire.expect(leaving.expires)
            if leaving.flow is not None:
                leaving.flow.sending = False
            wire.say(frames.CANCEL, asked.id)
        asked.failed(why or CancelledCallError(f"{asked.method} was cancelled"))

    def finish_items(self, asked: Asked) -> None:
        """Ends our items of a call. Harmless if it has ended."""
        flow = asked.flow
        if flow is not None and flow.sending:
            flow.sending = False
            self._wire.say(frames.END, asked.id)

    def answered(self, call_id: int, data: memoryview, start: int, stop: int, slot: int) -> None:
        """ANSWER came."""
        asked = self.calls.get(call_id)
        if asked is None or slot:
            raise BrokenPeerError("an answer to no call")
        method = asked.method
        answer = method.parse_answer(data[start:stop])
        if method.many and method is not NOTHING:
            raise BrokenPeerError("one answer where items were asked for")
        self._over(asked)
        asked.answered(answer)

    def failed(self, call_id: int, data: memoryview, start: int, stop: int, slot: int) -> None:
        """FAIL came."""
        asked = self.calls.get(call_id)
        if asked is None or stop - start < 2 or slot:
            raise BrokenPeerError("a failure of no call")
        self._over(asked)
        code = int.from_bytes(data[start : start + 2], "big")
        asked.failed(from_wire(code, heard(bytes(data[start + 2 : stop])), str(asked.method)))

    def finished(self, call_id: int) -> None:
        """END came."""
        asked = self.calls.get(call_id)
        if asked is None or not asked.method.many:
            raise BrokenPeerError("an end of no stream of items")
        self._over(asked)
        asked.finished()

    def _over(self, asked: Asked | Leaving) -> None:
        """The other side has said its last word about a call."""
        del self.calls[asked.id]
        self._requests -= asked.size
        flow = asked.flow
        if flow is not None:
            self._streamed -= 1
            flow.receiving = False
            if flow.sending:
                flow.sending = False
                self._wire.say(frames.END, asked.id)
        if self._waiting:
            self.begin_waiting()

    def expire(self, now: float) -> float:
        """Ends calls whose time is over; when the next one is due. Raises BrokenPeerError for one that the
        other side does not end."""
        late = [each for each in self.calls.values() if each.expires <= now]
        late += [each for each, _ in self._waiting if each.expires <= now]
        for asked in late:
            if not isinstance(asked, Leaving):
                self.cancel(asked, TimedOutError(f"{asked.method} was not answered in time"))
            elif self.calls.get(asked.id) is asked:
                raise BrokenPeerError("a call was not ended in time by the other side")
        times = [each.expires for each in self.calls.values()]
        return min([*times, *(each.expires for each, _ in self._waiting)], default=FOREVER)

    def drop(self, why: MeshError) -> None:
        """The connection is over: all calls fail; with `why` itself if the other side was never met."""
        calls, waiting = [*self.calls.values()], [*self._waiting]
        self.calls.clear()
        self._waiting.clear()
        for asked in calls:
            asked.failed(CallLostError(f"{asked.method} was not answered: {why}") if self._wire.met else why)
        for never, _ in waiting:
            never.failed(self._never_begun(never, why))
