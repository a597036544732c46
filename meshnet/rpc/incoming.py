"""The calls of the other side on one connection: what it may call, and what is under way.

Only methods that are offered, and that the caller declares as we do, have slots that start anything; a call
of any other slot fails at once. What a caller can make us hold is what `wire.OURS` grants: so many calls, so
many bytes of their requests, so many unread bytes of items each. A call whose caller streams items is
forgotten when both sides have ended it, and all calls end by their deadline.

Work that a caller has us begin and then cancels is bounded, too: beyond RPC_CANCELS a second the work stops,
but our last word about the call comes RPC_HELD later, and until then the caller has one call less.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import frozen

from meshnet import limits
from meshnet.codec import decode
from meshnet.errors import EncodeError, MeshError, TimedOutError
from meshnet.rpc import frames
from meshnet.rpc.calls import NOTHING, Answerer, Flow
from meshnet.rpc.declare import Method
from meshnet.rpc.failure import BrokenPeerError, CancelledCallError, Fault, said
from meshnet.rpc.wire import FOREVER, Wire

_ANSWER: Final = frames.ANSWER << frames.SHIFT
_time = frames.TIME.unpack_from


class Call:
    """A call of the other side's. Who answers it later than at once sets `answerer`; whoever it is says
    `answer`, `fail` or `end` once. `ended` says that this was done, or that nobody waits any more."""

    __slots__ = ("_calls", "answerer", "ended", "expires", "flow", "id", "method", "size")

    def __init__(self, calls: Incoming, call_id: int, method: Method, size: int, expires: float) -> None:
        self._calls = calls
        self.id = call_id
        self.method = method
        self.size = size
        self.expires = expires
        self.flow: Flow | None = None
        self.answerer: Answerer | None = None
        self.ended = False

    def answer(self, answer: Any) -> None:
        """Ends the call with its answer. Raises EncodeError if it is none; then the call is still open."""
        if not self.ended:
            self._calls.answer(self, answer)

    def fail(self, code: int, text: str = "") -> None:
        """Ends the call with a code of `failure.py` and a sentence."""
        if not self.ended:
            self._calls.fail(self, code, text)

    def end(self) -> None:
        """Ends the call: no more items follow."""
        if not self.ended:
            self._calls.finish(self)

    def send_item(self, item: Any) -> bool:
        """Sends one item; False if there is no room, and then `writable` follows. Raises EncodeError."""
        if not self.ended and type(item) is not self.method.answer:
            raise EncodeError(f"{self.method} streams {self.method.answer.__qualname__}, not {item!r}")
        return self._calls.wire.send_item(self, item)

    def consumed(self, cost: int) -> None:
        """An item was taken: the caller may send as much again."""
        self._calls.wire.consumed(self, cost)

    def time_left(self) -> float:
        """Seconds until the caller gives up, as of the last event."""
        return self.expires - self._calls.wire.now


@frozen
class Entry:
    """A method that is offered: `start(call, request)` begins to answer it and raises nothing; after
    `longest` seconds it is given up."""

    method: Method
    start: Callable[[Call, Any], None]
    longest: float = limits.RPC_GRANTED


@frozen
class Refusal:
    """A slot that cannot be called, and why; `streams` says that its caller would stream items."""

    code: int
    streams: bool


Offers = Mapping[str, Mapping[int, Entry]]
"""What the other side may call: by the name of the service, by the number of the method."""


class Incoming:
    """Calls that the other side makes; `parity` is that of their ids. `taken` only grows."""

    __slots__ = (
        "_bytes",
        "_cancels",
        "_cancels_until",
        "_offers",
        "_parity",
        "_slots",
        "_streamed",
        "calls",
        "taken",
        "wire",
    )  # fmt: skip

    def __init__(self, wire: Wire, parity: int, offers: Offers) -> None:
        self.wire = wire
        self._parity = parity
        self._offers = offers
        self._slots: list[Entry | Refusal] = []
        self._bytes = 0
        self._streamed = 0
        self._cancels = 0  # in the second that ends at `_cancels_until`
        self._cancels_until = 0.0
        self.calls: dict[int, Call] = {}
        self.taken = 0

    def bind(self, call_id: int, data: memoryview, start: int, stop: int, slot: int) -> None:
        """BIND came: slots for the methods of a service."""
        bind = decode(frames.Bind, data[start:stop])
        if call_id or slot:
            raise BrokenPeerError("a BIND of a call")
        if len(self._slots) + len(bind.methods) > limits.RPC_BOUND:
            raise BrokenPeerError(f"more than {limits.RPC_BOUND} methods are named")
        offered = self._offers.get(bind.service, {})
        for wanted in bind.methods:
            entry = offered.get(wanted.number)
            if entry is None:
                self._slots.append(Refusal(Fault.NOT_OFFERED, bool(wanted.form & 1)))
            elif entry.method.signature != wanted.signature or entry.method.form != wanted.form:
                self._slots.append(Refusal(Fault.SCHEMA, bool(wanted.form & 1)))
            else:
                self._slots.append(entry)

    def called(self, call_id: int, data: memoryview, start: int, stop: int, slot: int) -> None:
        """CALL came."""
        calls, wire = self.calls, self.wire
        size = stop - start - 2
        if call_id & 1 != self._parity or call_id in calls:
            raise BrokenPeerError("a call has an id that is not free")
        if len(calls) >= limits.RPC_CALLS or not 0 <= size <= limits.RPC_BODY:
            raise BrokenPeerError("more calls, or more bytes, than were granted")
        if slot >= len(self._slots):
            raise BrokenPeerError("a call of a method that was not named")
        self._bytes += size
        if self._bytes > limits.RPC_REQUESTS and calls:
            raise BrokenPeerError("more bytes of requests than were granted")
        entry = self._slots[slot]
        if type(entry) is Refusal:
            self._refuse(call_id, size, entry)
            return
        method = entry.method  # type: ignore[union-attr]
        request = method.parse_request(data[start + 2 : stop])
        code = _time(data, start)[0]
        seconds = ((code & 0xFFF) << (code >> 12)) / 1e3
        expires = wire.now + (seconds if seconds < entry.longest else entry.longest)  # type: ignore[union-attr]
        call = calls[call_id] = Call(self, call_id, method, size, expires)
        if expires < wire.earliest:
            wire.earliest = expires
        if method.streamed:
            self._flow(call, Flow(wire.peer.credit, limits.RPC_CREDIT, method.many, method.items is not None))
        self.taken += 1
        entry.start(call, request)  # type: ignore[union-attr]

    def _flow(self, call: Call, flow: Flow) -> None:
        self._streamed += 1
        if self._streamed > limits.RPC_STREAMED:
            raise BrokenPeerError("more calls with streams of items than were granted")
        call.flow = flow

    def _refuse(self, call_id: int, size: int, refusal: Refusal) -> None:
        """Ends a call of what is not offered; items that its caller has begun to send are not read."""
        call = self.calls[call_id] = Call(self, call_id, NOTHING, size, FOREVER)
        if refusal.streams:
            self._flow(call, Flow(0, limits.RPC_CREDIT, False, True))
        self.fail(call, refusal.code, "")

    # -- how calls end

    def answer(self, call: Call, answer: Any) -> None:
        """See `Call.answer`."""
        method, wire = call.method, self.wire
        if type(answer) is not method.answer or method.many:
            raise EncodeError(f"{method} answers {method.answer.__qualname__}, not {answer!r}")
        wire.put(_ANSWER, call.id, answer, wire.peer.body)
        if call.flow is None:  # as `_said`, for most calls
            call.ended = True
            del self.calls[call.id]
            self._bytes -= call.size
        else:
            self._said(call)

    def fail(self, call: Call, code: int, text: str) -> None:
        """See `Call.fail`."""
        self.wire.say(frames.FAIL, call.id, code.to_bytes(2, "big") + said(text))
        self._said(call)

    def finish(self, call: Call) -> None:
        """See `Call.end`."""
        self.wire.say(frames.END, call.id)
        self._said(call)

    def _said(self, call: Call) -> None:
        """We have said our last word about a call."""
        call.ended = True
        flow = call.flow
        if flow is not None:
            flow.sending = False
            if flow.receiving:  # until the caller has ended its items, too
                call.expires = self.wire.now + limits.RPC_GRACE
                self.wire.expect(call.expires)
                return
            self._streamed -= 1
        del self.calls[call.id]
        self._bytes -= call.size

    def finished(self, call_id: int) -> None:
        """END came: the caller sends no more items."""
        call = self.calls.get(call_id)
        if call is None or call.flow is None or not call.flow.receiving:
            raise BrokenPeerError("an end of no stream of items")
        call.flow.receiving = False
        if call.ended:
            self._said(call)
        elif call.answerer is not None:
            call.answerer.finished()

    def cancelled(self, call_id: int, data: memoryview, start: int, stop: int, slot: int) -> None:
        """CANCEL came. Our last word may be on its way already: then there is nothing left to cancel."""
        if start != stop or slot or call_id & 1 != self._parity:
            raise BrokenPeerError("a CANCEL says too much, or of a call that the other side did not make")
        call = self.calls.get(call_id)
        if call is None:
            return
        if call.flow is not None:
            call.flow.receiving = False
        if call.ended:
            self._said(call)
            return
        now, why = self.wire.now, CancelledCallError("the caller cancelled the call")
        if now >= self._cancels_until:
            self._cancels, self._cancels_until = 0, now + 1.0
        self._cancels += 1
        if self._cancels <= limits.RPC_CANCELS:
            self._give_up(call, Fault.CANCELLED, why)
        else:
            self._hold(call, why)

    def _hold(self, call: Call, why: MeshError) -> None:
        """Stops the work for a call now, and puts something in its place that ends later."""
        expires = min(call.expires, self.wire.now + limits.RPC_HELD)
        held = self.calls[call.id] = Call(self, call.id, NOTHING, call.size, expires)
        held.flow, call.ended = call.flow, True
        if held.flow is not None:
            held.flow.sending = False
        self.wire.expect(expires)
        if call.answerer is not None:
            call.answerer.cancelled(why)

    def _give_up(self, call: Call, code: int, why: MeshError) -> None:
        self.fail(call, code, "")
        if call.answerer is not None:
            call.answerer.cancelled(why)

    def expire(self, now: float) -> float:
        """Ends calls whose time is over; when the next one is due. Raises BrokenPeerError for one that its
        caller does not end."""
        for call in [each for each in self.calls.values() if each.expires <= now]:
            if self.calls.get(call.id) is not call:
                continue
            if call.ended:
                raise BrokenPeerError("a call was not ended in time by its caller")
            self._give_up(
                call, Fault.DEADLINE, TimedOutError(f"{call.method} took longer than its caller waits")
            )
        return min((each.expires for each in self.calls.values()), default=FOREVER)

    def drop(self, why: MeshError) -> None:
        """The connection is over: nobody waits for an answer any more."""
        calls = [each for each in self.calls.values() if not each.ended]
        self.calls.clear()
        for call in calls:
            call.ended = True
            if call.answerer is not None:
                call.answerer.cancelled(why)
