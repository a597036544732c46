"""What both directions of a connection share: the outbox, the time, and what the peer granted.

Frames are put here and leave together: the owner is woken once, and writes them all in one go at the end of
its turn. Nothing here reads.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from meshnet import limits
from meshnet.codec import encode, size_of
from meshnet.errors import MeshError
from meshnet.rpc import frames
from meshnet.rpc.calls import Flow
from meshnet.rpc.outbox import Outbox

FOREVER: Final = float("inf")
OURS: Final = frames.Hello(
    frames.MAGIC,
    frames.VERSION,
    limits.RPC_CALLS,
    limits.RPC_STREAMED,
    limits.RPC_REQUESTS,
    limits.RPC_CREDIT,
    limits.RPC_BODY,
)
_ITEM: Final = frames.ITEM << frames.SHIFT


class Owner(Protocol):
    """Who drives a connection."""

    def wake(self) -> None:
        """There is something in the outbox; said again only after `Wire.woken` was set to False."""

    def ended(self, why: MeshError) -> None:
        """The connection is over; what is in the outbox may still be written."""


class Streaming(Protocol):
    """A call with streamed items, of either side."""

    id: int
    flow: Flow | None


class Wire:
    """`now` is the time of the last event, `earliest` when the first call expires (or sooner), `over` why the
    connection ended, `met` whether the other side ever said HELLO, `peer` what it granted, `starved` who
    waits for room in the outbox."""

    __slots__ = ("earliest", "met", "now", "outbox", "over", "owner", "peer", "starved", "woken")

    def __init__(self, owner: Owner, now: float) -> None:
        self.owner = owner
        self.now = now
        self.outbox = Outbox()
        self.woken = False
        self.met = False
        self.peer = OURS  # until it says more
        self.over: MeshError | None = None
        self.earliest = FOREVER
        self.starved: list[Any] = []
        self.outbox.put_bytes(frames.HELLO << frames.SHIFT, 0, encode(OURS))

    @property
    def full(self) -> bool:
        """Whether so much waits to be written that nothing more should be begun."""
        return len(self.outbox) > limits.RPC_QUEUE_MARK

    def put(self, word: int, call_id: int, message: Any, most: int) -> int:
        """A frame of one message of at most so many bytes; its size. Raises EncodeError, and then nothing
        was put."""
        size = self.outbox.put(word, call_id, message, most)
        if not self.woken:
            self.wake()
        return size

    def say(self, kind: int, call_id: int, body: bytes = b"") -> None:
        """A frame of plain bytes."""
        self.outbox.put_bytes(kind << frames.SHIFT, call_id, body)
        if not self.woken:
            self.wake()

    def wake(self) -> None:
        """Lets the owner know that there is something to write."""
        self.woken = True
        self.owner.wake()

    def expect(self, when: float) -> None:
        """Something expires then."""
        if when < self.earliest:
            self.earliest = when

    def send_item(self, call: Streaming, item: Any) -> bool:
        """An item of a call; False if there is no room, and then `writable` follows. Raises EncodeError."""
        flow = call.flow
        if flow is None or not flow.sending or self.over is not None:
            return True  # nobody wants it any more
        if self.full:
            self.starved.append(call)
            return False
        size = size_of(item)
        if flow.credit < size + frames.HEAD_SIZE and size <= limits.RPC_ITEM:
            return False
        self.put(_ITEM, call.id, item, limits.RPC_ITEM)
        flow.credit -= size + frames.HEAD_SIZE
        return True

    def consumed(self, call: Streaming, cost: int) -> None:
        """An item that cost so much was taken: more is granted when half of the credit was used."""
        flow = call.flow
        if flow is None or not flow.receiving or self.over is not None:
            return
        flow.owed += cost
        if flow.owed >= limits.RPC_CREDIT // 2:
            amount, flow.owed = flow.owed, 0
            flow.allowed += amount
            self.say(frames.CREDIT, call.id, frames.AMOUNT.pack(amount))
