"""An app of the lab inside real nodes: streams of seeded content both ways, checked at both ends.

    a stream, forward     head: seed u64 | there u64 | back u64 | rate u32 | slow u8     then `there` bytes
    a stream, backward    `back` bytes

    POST /open  {target, via, seed, there, back, rate, slow}    begins one; {} at once
    GET  /ended      what ended since the last time, in both roles:
                     {ended: [{seed, role, outcome, why, read}], open}

`outcome` is whole, wrong (bytes lost, doubled or changed), lost (the stream ended with an error) or refused
(it ended before the other end knew of it: such a stream does not wait for another circuit). `rate` is in
bytes per second, 0 for as fast as it goes; a `slow` reader takes its time.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen
from twisted.application import service
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from lab.load.content import Check, Content
from meshnet.cipher.keys import PublicKey
from meshnet.errors import MeshError
from meshnet.node.app import IApp, IAppService, Json, Route, Verb
from meshnet.node.schema import read_body
from meshnet.streams import Stream

PORT = 11
HEAD = struct.Struct(">QQQIB")
BACKWARD = 1 << 63
"""The seed of the way back is that of the way there with this bit."""
TICK = 0.05
SLOW = 0.2


@frozen
class LoadSettings:
    """No sections."""


@frozen
class OpenRequest:
    """A stream to `target`."""

    target: PublicKey
    via: tuple[PublicKey, ...]
    seed: int
    there: int
    back: int
    rate: int = 0
    slow: bool = False


class End:
    """One end of such a stream, as its reader; the caller's knows the head, the other learns it."""

    def __init__(self, owner: LoadService, role: str, stream: Stream | None = None) -> None:
        self._owner = owner
        self._later = owner.node.clock.call_later
        self._role = role
        self._stream = stream
        self._head = b""
        self._out: Content | None = None
        self._check: Check | None = None
        self._rate = 0
        self._slow = False
        self._full = self._over = self._sent = self._ended = False
        self._met = role == "last"
        self.seed = 0

    def know(self, seed: int, there: int, back: int, rate: int, slow: bool) -> None:
        """What goes which way."""
        self.seed, self._rate, self._slow = seed, rate, slow
        out, come = Content(seed, there), Check(seed | BACKWARD, back)
        if self._role == "last":
            out, come = Content(seed | BACKWARD, back), Check(seed, there)
        self._out, self._check = out, come

    def begin(self, stream: Stream, head: bytes) -> None:
        """The caller's stream stands: the head fits any first window."""
        self._stream = stream
        if self._over:
            return
        stream.when_met(self._meet)
        stream.write(head)
        self._pour()

    def _meet(self) -> None:
        self._met = True

    def _pour(self) -> None:
        """Writes what its rate allows for one tick, or all."""
        stream, out = self._stream, self._out
        if self._over or self._sent or self._full or stream is None or out is None:
            return
        turn = int(self._rate * TICK) or out.left
        while out.left and turn > 0:
            data = out.next(turn)
            taken = stream.write(data)
            out.take(taken)
            turn -= taken
            if taken < len(data):
                self._full = True
                return
        if out.left:
            self._later(TICK, self._pour)
        else:
            self._sent = True
            stream.finish()
            self._settle()

    def drained(self) -> None:
        """There is room again."""
        if self._full:
            self._full = False
            self._pour()

    def data_received(self, data: memoryview) -> None:
        """The head, then content."""
        size = len(data)
        if self._check is None:
            need = HEAD.size - len(self._head)
            self._head += data[:need]
            data = data[need:]
            if len(self._head) == HEAD.size:
                seed, there, back, rate, slow = HEAD.unpack(self._head)
                self.know(seed, there, back, rate, bool(slow))
                self._pour()
        if self._check is not None:
            self._check.feed(data)
        if self._slow:
            self._later(SLOW, lambda: self._consumed(size))
        else:
            self._consumed(size)

    def _consumed(self, size: int) -> None:
        if not self._over and self._stream is not None:
            self._stream.consumed(size)

    def finished(self) -> None:
        """The other end has sent all."""
        self._ended = True
        self._settle()

    def lost(self, why: MeshError) -> None:
        """The stream has failed."""
        self.tell("lost" if self._met else "refused", str(why))

    def _settle(self) -> None:
        if self._sent and self._ended:
            self.tell("whole", "")

    def tell(self, outcome: str, why: str) -> None:
        """It is over; what was read wrongly counts more than how it ended."""
        if self._over:
            return
        self._over = True
        check = self._check
        if check is not None and (check.wrong is not None or (outcome == "whole" and not check.whole)):
            outcome, why = "wrong", f"{why} at byte {check.read if check.wrong is None else check.wrong}"
        read = check.read if check is not None else 0
        report = {"seed": self.seed, "role": self._role, "outcome": outcome, "why": why, "read": read}
        self._owner.over(self, report)


@implementer(IAppService)
class LoadService(service.Service):
    """The app on one node."""

    def __init__(self, node: Any) -> None:
        self.node = node
        self._listener: Any = None
        self._open: set[End] = set()
        self._ended: list[Json] = []

    def startService(self) -> None:
        """Opens the port."""
        super().startService()
        self._listener = self.node.listen(PORT, self._accept)

    def stopService(self) -> None:
        """Closes it."""
        super().stopService()
        self._listener.stop()

    def status(self) -> Json:
        """How many streams are open."""
        return {"open": len(self._open)}

    def routes(self) -> Mapping[str, Route]:
        """See the module."""
        return {"POST /open": self._begin, "GET /ended": self._report}

    def over(self, end: End, report: Json) -> None:
        """A stream has ended."""
        self._open.discard(end)
        self._ended.append(report)

    def _accept(self, stream: Stream) -> End:
        end = End(self, "last", stream)
        self._open.add(end)
        return end

    def _begin(self, body: Json) -> Json:
        request = read_body(OpenRequest, body)
        end = End(self, "origin")
        terms = (request.seed, request.there, request.back, request.rate, request.slow)
        end.know(*terms)
        self._open.add(end)
        found: Deferred[Stream] = self.node.connect(request.target, PORT, end, via=request.via)
        head = HEAD.pack(*terms)
        found.addCallbacks(lambda stream: end.begin(stream, head), self._refused, errbackArgs=(end,))
        return {}

    @staticmethod
    def _refused(failure: Failure, end: End) -> None:
        failure.trap(MeshError)
        end.tell("refused", str(failure.value))

    def _report(self, body: Json) -> Json:
        ended, self._ended = self._ended, []
        return {"ended": ended, "open": len(self._open)}


@implementer(IApp)
@frozen
class Load:
    """The app."""

    name: str = "load"
    settings: type = field(default=LoadSettings)

    def verbs(self) -> Sequence[Verb]:
        """None."""
        return ()

    def make_service(self, node: Any, settings: Any) -> LoadService:
        """One for this node."""
        return LoadService(node)
