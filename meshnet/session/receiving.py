"""The receiving half of a stream: bytes in order to the reader, early ones kept until the gap closes.

Offsets: `delivered` ≤ `highest` ≤ `limit`. All below `delivered` went to the reader, `highest` is the first
above all received, `limit` what the peer was allowed. Early bytes lie in a ring, so one byte far ahead costs
at most the window; the number of gaps is bounded too. In-order bytes are never copied here.
"""

from __future__ import annotations

from meshnet.limits import STREAM_PIECES
from meshnet.session.codes import Code, SessionFaultError
from meshnet.session.ranges import Ranges
from meshnet.session.ring import Ring


class ReceiveHalf:
    """Bytes from the peer.

    `window` is how many bytes may be unread; `consumed` how many the app has passed on. `size` is the final
    size once known. `done` says that nothing more is expected: all was delivered, or the peer reset.
    `stopped` says that the app wants no more: bytes are dropped on arrival.
    """

    __slots__ = (
        "consumed", "delivered", "done", "early", "highest", "limit", "ring", "size", "stopped", "window",
    )  # fmt: skip

    def __init__(self, limit: int, window: int) -> None:
        self.limit = limit
        self.window = window
        self.delivered = 0
        self.highest = 0
        self.consumed = 0
        self.early = Ranges()
        self.ring = Ring()
        self.size: int | None = None
        self.done = False
        self.stopped = False

    def extend(self, end: int, fin: bool) -> int:
        """Bytes up to `end` (the last if `fin`) have come; by how much `highest` grew.

        Raises SessionFaultError if they break the window or contradict the final size.
        """
        if self.size is not None and (end > self.size or (fin and end != self.size)):
            raise SessionFaultError(Code.STREAM_STATE, "a stream goes on behind its end")
        if fin:
            if end < self.highest:
                raise SessionFaultError(Code.STREAM_STATE, "a stream ends before what was sent")
            self.size = end
        grown = end - self.highest
        if grown <= 0:
            return 0
        if end > self.limit:
            raise SessionFaultError(Code.FLOW_CONTROL, "a stream has more bytes than its window allows")
        self.highest = end
        return grown

    def keep(self, offset: int, data: memoryview) -> bool:
        """Keeps early bytes; false if there are too many gaps already (the cell must come again)."""
        end = offset + len(data)
        start = max(offset, self.delivered)
        if start >= end:
            return True
        early = self.early
        if len(early) >= STREAM_PIECES and start not in early:
            return False
        self.ring.reserve(self.delivered, early.ends[-1] if early.ends else self.delivered, end)
        self.ring.put(start, data[start - offset :])
        early.add(start, end)
        return True

    def take(self) -> memoryview | None:
        """The next early bytes that are in order now, borrowed until the next call; None if there are none.

        They count as delivered.
        """
        early = self.early
        if not early.starts or early.starts[0] > self.delivered:
            if not early.starts:
                self.ring.drop()
            return None
        data = self.ring.piece(self.delivered, early.ends[0] - self.delivered)
        self.delivered += len(data)
        early.remove(early.starts[0], self.delivered)
        return data

    @property
    def complete(self) -> bool:
        """Whether the last byte has been delivered."""
        return self.size is not None and self.delivered == self.size

    def drop(self) -> int:
        """Drops what is kept; bytes received that the app will never pass on."""
        self.early.clear()
        self.ring.drop()
        unread = self.highest - self.consumed
        self.consumed = self.highest
        return unread

    def window_due(self) -> bool:
        """Whether half of the window was used, so that the peer should hear of a new limit."""
        if self.done or self.size is not None:
            return False
        return self.consumed + self.window - self.limit >= self.window // 2

    def grant(self) -> int:
        """The new limit, from now on binding."""
        self.limit = max(self.limit, self.consumed + self.window)
        return self.limit
