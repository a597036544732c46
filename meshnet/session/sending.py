"""The sending half of a stream: what was written, what is in flight, what must go again.

Offsets: `base` ≤ `next` ≤ `end`. Below `base` all has arrived, `next` is the first never sent, `end` the
first not yet written. `again` are ranges to send again, `arrived` those above `base` that arrived. Bytes are
kept once, in a ring, until `base` has passed them. A packet number never comes here.
"""

from __future__ import annotations

from meshnet.limits import SEND_BUFFER
from meshnet.session.ranges import Ranges
from meshnet.session.ring import Ring


class SendHalf:
    """Bytes on their way to the peer.

    `limit` is the offset up to which the peer takes bytes, `buffer` the most bytes kept. `finishing` says
    that `end` is final, `fin_sent` and `fin_arrived` how far that news got, `done` that all has arrived.
    `reset_code` is set once a RESET replaces what is missing; then `done` means that the RESET arrived.
    """

    __slots__ = (
        "again", "arrived", "base", "buffer", "done", "end", "fin_arrived", "fin_sent", "finishing",
        "limit", "next", "reset_code", "ring",
    )  # fmt: skip

    def __init__(self, limit: int, buffer: int) -> None:
        self.ring = Ring()
        self.base = 0
        self.next = 0
        self.end = 0
        self.limit = limit
        self.buffer = buffer
        self.again = Ranges()
        self.arrived = Ranges()
        self.finishing = False
        self.fin_sent = False
        self.fin_arrived = False
        self.done = False
        self.reset_code: int | None = None

    @property
    def open(self) -> bool:
        """Whether more may be written."""
        return not self.finishing and self.reset_code is None

    @property
    def writable(self) -> int:
        """Bytes that `write` would take."""
        return self.buffer - (self.end - self.base) if self.open else 0

    def write(self, data: memoryview, most: int = SEND_BUFFER) -> int:
        """Copies as much of `data` (flat bytes) as fits, at most `most`; how much."""
        size = min(len(data), self.buffer - (self.end - self.base), most)
        if size > 0:
            end = self.end + size
            ring = self.ring
            if end - self.base > ring.capacity:
                ring.reserve(self.base, self.end, end)
            ring.put(self.end, data if size == len(data) else data[:size])
            self.end = end
        return size

    def ready(self) -> bool:
        """Whether there is something to send, were it not for the session's window."""
        if self.reset_code is not None:
            return False
        return bool(
            self.again.starts
            or self.next < min(self.end, self.limit)
            or (self.finishing and not self.fin_sent and self.next == self.end)
        )

    def piece(self, most: int, credit: int) -> tuple[int, int]:
        """Start and end of what to send next, at most `most` bytes, of new ones at most `credit`."""
        if self.again.starts:
            start = self.again.starts[0]
            return start, min(self.again.ends[0], start + most)
        start = self.next
        return start, max(start, min(self.end, self.limit, start + min(most, credit)))

    def sent(self, start: int, end: int, fin: bool) -> int:
        """[start, end) is in a cell, with or without FIN; how many bytes of it are new."""
        if fin:
            self.fin_sent = True
        if start < self.next:
            self.again.remove(start, end)
            return 0
        self.next = end
        return end - start

    def acknowledged(self, start: int, end: int, fin: bool) -> int:
        """A cell with [start, end) arrived; how many bytes are held no longer."""
        if self.reset_code is not None:
            return 0
        before = self.base
        if self.again.starts:
            self.again.remove(start, end)
        if start > before:
            self.arrived.add(start, end)
        elif end > before:
            self.base = self.arrived.pop_from(end) if self.arrived.starts else end
        if fin:
            self.fin_arrived = True
        if self.base == self.end:
            self.ring.release()
            if self.fin_arrived:
                self.done = True
        return self.base - before

    def lost(self, start: int, end: int, fin: bool) -> None:
        """A cell with [start, end) got lost, or may have: what has not arrived goes again."""
        if self.reset_code is not None or self.done:
            return
        start = max(start, self.base)
        if start < end:
            self.again.add(start, end)
            if self.arrived.starts:
                self.again.remove_all(self.arrived)
        if fin and not self.fin_arrived:
            self.fin_sent = False

    def reset(self, code: int) -> int:
        """Nothing more is sent but RESET; what is missing is dropped: so many bytes."""
        held = self.end - self.base
        self.reset_code = code
        self.done = False
        self.end = self.next  # the final size
        self.again.clear()
        self.arrived.clear()
        self.ring.drop()
        return held
