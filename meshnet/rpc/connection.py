"""One connection: bytes in, frames out, calls both ways.

Both sides may offer services and call those of the other. The core reads what came (`receive`), gathers what
goes out in `wire.outbox`, and tells its owner to write it. Every call ends exactly once on each side: with
its answer, an error, its deadline, a cancel, or the end of the connection. Whoever does not say the last word
about a call within RPC_GRACE loses the connection.

What the peer can make us hold is bounded by what was granted to it. Anything beyond, and any frame that
does not fit, ends the connection with a reason. The core reads no clock, writes nothing by itself, and never
raises for what the peer sent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from meshnet import limits
from meshnet.codec import decode
from meshnet.errors import CodecError, MeshError, UnreachableError
from meshnet.rpc import frames
from meshnet.rpc.calls import Asked, Leaving
from meshnet.rpc.failure import BrokenPeerError, CallLostError, Fault, heard, said
from meshnet.rpc.incoming import Call, Incoming, Offers
from meshnet.rpc.outgoing import Outgoing
from meshnet.rpc.wire import OURS, Owner, Wire

_LONGEST: Final = limits.RPC_BODY + frames.TIME_SIZE
_unpack = frames.HEAD.unpack_from

Take = Callable[[int, memoryview, int, int, int], None]
"""Takes a frame: the id, memory and where in it the body lies (start, stop), the slot."""


class Connection:
    """One side. `opener` says whether this side opened the connection; `now` is monotonic seconds."""

    __slots__ = (
        "_held",
        "_hello_by",
        "_idle_at",
        "_idle_for",
        "_kinds",
        "_parity",
        "_seen",
        "incoming",
        "outgoing",
        "wire",
    )  # fmt: skip

    def __init__(self, opener: bool, offers: Offers, owner: Owner, now: float) -> None:
        self._parity = 0 if opener else 1
        self.wire = Wire(owner, now)
        self.outgoing = Outgoing(self.wire, self._parity)
        self.incoming = Incoming(self.wire, 1 - self._parity, offers)
        self._hello_by = now + limits.RPC_HELLO
        self._idle_for = limits.RPC_IDLE if opener else limits.RPC_FORGOTTEN
        self._idle_at = now + self._idle_for
        self._seen = 0  # calls, at the last look
        self._held = bytearray()  # of a frame that is not all there
        self._kinds: Sequence[Take] = [self._hello] * 16  # until HELLO has come

    @property
    def over(self) -> MeshError | None:
        """Why the connection ended; None while it stands."""
        return self.wire.over

    def call(self, asked: Asked, request: Any, now: float, seconds: float) -> None:
        """Makes a call; see `Outgoing.make`."""
        self.wire.now = now
        self.outgoing.make(asked, request, seconds)

    def written(self) -> None:
        """All of the outbox was written: who waited for room goes on."""
        starved, self.wire.starved = self.wire.starved, []
        for call in starved:
            _tell_writable(call)
        self.outgoing.begin_waiting()

    # -- what comes

    def receive(self, data: bytes | memoryview, now: float) -> None:
        """Bytes of the peer, borrowed until return; what of them makes no sense ends the connection."""
        wire, view = self.wire, memoryview(data)
        if wire.over is not None:
            return
        wire.now = now
        pos, end = 0, len(view)
        try:
            while self._held and pos < end:
                pos = self._complete(view, pos, end)
            if pos < end and wire.over is None:
                pos = self._frames(view, pos, end)
                if pos < end and wire.over is None:
                    self._held += view[pos:]
                    _check_length(self._held)
        except (CodecError, BrokenPeerError) as error:
            self._broken(error)

    def _complete(self, data: memoryview, pos: int, end: int) -> int:
        """Adds to the frame that is not all there, and takes it once it is; the new position."""
        held, wanted = self._held, frames.HEAD_SIZE
        if len(held) >= wanted:
            wanted += _unpack(held)[0] & frames.LENGTH
        taken = min(end - pos, wanted - len(held))
        held += data[pos : pos + taken]
        _check_length(held)
        if len(held) >= frames.HEAD_SIZE + (_unpack(held)[0] & frames.LENGTH if len(held) >= 6 else 0):
            self._held = bytearray()
            self._frames(memoryview(held), 0, len(held))
        return pos + taken if self.wire.over is None else end

    def _frames(self, data: memoryview, pos: int, end: int) -> int:
        """Takes all whole frames; the position of the first that is not all there."""
        wire = self.wire
        while end - pos >= 6:  # the size of a head
            word, call_id = _unpack(data, pos)
            start = pos + 6
            pos = start + (word & 0xF_FFFF)
            if pos > end:
                return start - 6
            self._kinds[word >> 20 & 0xF](call_id, data, start, pos, word >> 24)
            if wire.over is not None:
                return end
        return pos

    def _hello(self, call_id: int, data: memoryview, start: int, stop: int, slot: int) -> None:
        """The first frame."""
        kind, body = _unpack(data, start - frames.HEAD_SIZE)[0] >> frames.SHIFT, data[start:stop]
        if kind != frames.HELLO or call_id or len(body) < frames.HELLO_SIZE:
            raise BrokenPeerError("the first frame is no HELLO; the other side speaks another protocol")
        hello = decode(frames.Hello, body[: frames.HELLO_SIZE])
        if hello.magic != frames.MAGIC or hello.version != frames.VERSION:
            raise BrokenPeerError("the other side speaks another protocol, or another version of this one")
        granted = ((getattr(hello, name), getattr(OURS, name)) for name in frames.GRANTS)
        if any(theirs < least for theirs, least in granted):
            raise BrokenPeerError("a HELLO grants less than every version does")
        self.wire.met = True
        calls, most = min(hello.calls, frames.MOST_CALLS), min(hello.body, frames.MOST_BODY)
        self.wire.peer = frames.Hello(
            hello.magic, hello.version, calls, hello.streamed, hello.requests, hello.credit, most
        )
        known: list[Take] = [self._unknown] * 16
        known[frames.BIND] = self.incoming.bind
        known[frames.CALL] = self.incoming.called
        known[frames.ANSWER] = self.outgoing.answered
        known[frames.FAIL] = self.outgoing.failed
        known[frames.ITEM] = self._item
        known[frames.END] = self._end
        known[frames.CANCEL] = self.incoming.cancelled
        known[frames.CREDIT] = self._credit
        known[frames.CLOSE] = self._close
        self._kinds = known
        self.outgoing.begin_waiting()

    @staticmethod
    def _unknown(call_id: int, data: memoryview, start: int, stop: int, slot: int) -> None:
        word = _unpack(data, start - frames.HEAD_SIZE)[0]
        raise BrokenPeerError(f"a frame begins with {word:#010x}, which means nothing here")

    def _item(self, call_id: int, data: memoryview, start: int, stop: int, slot: int) -> None:
        call = self._of(call_id)
        flow = None if call is None else call.flow
        if call is None or flow is None or not flow.receiving or slot:
            raise BrokenPeerError("an item of no stream of items")
        cost = stop - start + frames.HEAD_SIZE
        flow.allowed -= cost
        if flow.allowed < 0 or stop - start > limits.RPC_ITEM:
            raise BrokenPeerError("more bytes of items than were granted")
        if not isinstance(call, Call):
            call.item(call.method.parse_answer(data[start:stop]), cost)
        elif not call.ended and call.answerer is not None:
            call.answerer.item(call.method.parse_items(data[start:stop]), cost)

    def _end(self, call_id: int, data: memoryview, start: int, stop: int, slot: int) -> None:
        if start != stop or slot:
            raise BrokenPeerError("an END says too much")
        if call_id & 1 == self._parity:
            self.outgoing.finished(call_id)
        else:
            self.incoming.finished(call_id)

    def _credit(self, call_id: int, data: memoryview, start: int, stop: int, slot: int) -> None:
        if stop - start != frames.AMOUNT.size or slot:
            raise BrokenPeerError("a grant of a wrong size")
        call = self._of(call_id)
        if call is None or call.flow is None:
            return  # it has ended meanwhile
        call.flow.credit += frames.AMOUNT.unpack_from(data, start)[0]
        if call.flow.credit > frames.MOST_CREDIT:
            raise BrokenPeerError("a grant beyond all bounds")
        _tell_writable(call)

    def _close(self, call_id: int, data: memoryview, start: int, stop: int, slot: int) -> None:
        if stop - start < 2 or slot or call_id:
            raise BrokenPeerError("a CLOSE without a code")
        code, text = int.from_bytes(data[start : start + 2], "big"), heard(bytes(data[start + 2 : stop]))
        self._finish(UnreachableError(f"the other side closed the connection ({text or code})"))

    def _of(self, call_id: int) -> Asked | Leaving | Call | None:
        calls: dict[int, Any] = (self.outgoing if call_id & 1 == self._parity else self.incoming).calls
        return calls.get(call_id)

    # -- time

    def deadline(self) -> float:
        """When `tick` is due, at the latest; it may be asked for in vain."""
        due = min(self.wire.earliest, self._idle_at)
        return due if self.wire.met else min(due, self._hello_by)

    def tick(self, now: float) -> None:
        """Ends what has waited too long."""
        wire = self.wire
        wire.now = now
        try:
            if not self.wire.met and now >= self._hello_by:
                raise BrokenPeerError("no HELLO came")
            if now >= wire.earliest:
                wire.earliest = float("inf")
                due = min(self.incoming.expire(now), self.outgoing.expire(now))
                wire.expect(due)
            if now >= self._idle_at:
                self._look_idle(now)
        except BrokenPeerError as error:
            self._broken(error)

    def _look_idle(self, now: float) -> None:
        calls = self.outgoing.made + self.incoming.taken
        if calls == self._seen and self.outgoing.idle and not self.incoming.calls:
            self.close("nothing was asked for long")
        self._seen = calls
        self._idle_at = now + self._idle_for

    # -- the end

    def close(self, why: str) -> None:
        """Ends the connection and tells the peer; calls that are not ended fail. Harmless the second time."""
        self._finish(CallLostError(f"the connection was closed: {why}"), Fault.NONE, why)

    def lost(self, why: MeshError) -> None:
        """What carried the connection is gone, or takes nothing any more."""
        self._finish(why)

    def _broken(self, error: MeshError) -> None:
        text = str(error)
        self._finish(BrokenPeerError(f"the other side broke the rules: {text}"), Fault.PROTOCOL, text)

    def _finish(self, why: MeshError, code: int | None = None, text: str = "") -> None:
        wire = self.wire
        if wire.over is not None:
            return
        if code is not None:
            wire.say(frames.CLOSE, 0, code.to_bytes(2, "big") + said(text))
        wire.over = why
        wire.starved.clear()
        self._held = bytearray()
        self.outgoing.drop(why)
        self.incoming.drop(why)
        wire.owner.ended(why)


def _check_length(held: bytearray) -> None:
    if len(held) >= frames.HEAD_SIZE and _unpack(held)[0] & frames.LENGTH > _LONGEST:
        raise BrokenPeerError("a frame is longer than any may be")


def _tell_writable(call: Asked | Leaving | Call) -> None:
    if call.flow is None or not call.flow.sending:
        return
    if not isinstance(call, Call):
        call.writable()
    elif call.answerer is not None:
        call.answerer.writable()
