"""The sending side of a link: control frames first, then everybody's cells in turn.

An `Outlet` lives as long as its link; connections come and go under it. Cells go straight into the
outgoing bundle while the carrier keeps up. When it does not, control frames wait here, cells wait where
they are counted (a relay's circuit queue, a session's streams), and each waiting source is asked for one
cell at a time, round robin. Nothing here pauses another link.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

from meshnet.limits import CONTROL_QUEUE_BYTES, CONTROL_QUEUE_FRAMES, LARGEST_FRAME
from meshnet.link.pace import Pace
from meshnet.link.record import BUFFER_SIZE, Sealer


class Source(Protocol):
    """Something with cells to send."""

    def pour(self, now: float) -> bool:
        """Puts one cell into the outlet if it has one and there is room; true if it wants another turn."""


class Outbox:
    """Outlets with something to send, emptied at the end of each read event; one may be in it twice.

    `soon` runs a call in a later turn of the reactor; it is used only for what is written outside of a
    read event (an app's write, a timer).
    """

    __slots__ = ("_now", "_scheduled", "_soon", "reading", "waiting")

    def __init__(self, soon: Callable[[Callable[[], None]], object], now: Callable[[], float]) -> None:
        self._soon = soon
        self._now = now
        self._scheduled = False
        self.waiting: list[Outlet] = []
        self.reading = False

    def wake(self) -> None:
        """Something waits: outside of a read event somebody must send it."""
        if not self.reading and not self._scheduled:
            self._scheduled = True
            self._soon(self._flush_now)

    def _flush_now(self) -> None:
        self._scheduled = False
        self.flush(self._now())

    def flush(self, now: float) -> None:
        """Seals and sends everything that waits, and what is added meanwhile."""
        self.reading = True
        waiting = self.waiting
        try:
            while waiting:
                outlet = waiting.pop()
                while waiting and waiting[-1] is outlet:  # each of its records was announced
                    waiting.pop()
                outlet.flush(now)
        finally:
            self.reading = False


class Outlet:
    """Where a link's frames leave; `room` and `commit` are its sealer's own (cached by the hot path).

    `limit_unsent` is the carrier's, where it has one (`meshnet.transports.interface`).
    """

    __slots__ = (
        "_control", "_control_bytes", "_outbox", "_ring", "_sources", "_write", "bundle", "commit",
        "control_dropped", "limit_unsent", "pace", "room", "sealer",
    )  # fmt: skip

    def __init__(self, outbox: Outbox) -> None:
        self._write: Callable[[memoryview], int] | None = None
        self._control: deque[tuple[int, bytes]] = deque()
        self._control_bytes = 0
        self._ring: deque[Source] = deque()
        self._sources: set[Source] = set()
        self.control_dropped = 0
        self.pace = Pace(BUFFER_SIZE)
        self.limit_unsent: Callable[[int], None] | None = None
        self._outbox = outbox
        self.sealer = Sealer(touched=partial(outbox.waiting.append, self), flush=self._push)
        self.bundle = self.sealer
        self.room = self.sealer.room
        self.commit = self.sealer.commit

    def serve(self, connection: Sealer, write: Callable[[memoryview], int]) -> None:
        """A connection takes over: its keys and what it has not sent yet; `write` is its carrier's.

        What is not sealed yet still goes over the connection before, if there is one.
        """
        if self._write is not None and not self.sealer.blocked:
            self._push()
        self._write = write
        self.sealer.adopt(connection)
        self._push()
        self._touch()

    def stop(self) -> None:
        """The connection is gone: bundles in flight are lost, sources wait for the next one."""
        self._write = self.limit_unsent = None
        self.sealer.stop()

    def forget(self) -> None:
        """Drops the control frames that wait: the neighbour has restarted, their labels mean nothing now."""
        self._control.clear()
        self._control_bytes = 0

    def send(self, kind: int, body: bytes) -> bool:
        """Queues a control frame ahead of all cells; false if the queue is full or the link is down.

        A body that fits no frame is refused too.
        """
        if not self._control:
            room = self.room(kind, len(body))
            if room is not None:
                room[:] = body
                self.commit(len(body))
                self._outbox.wake()
                return True
        if self._write is None or self._full(len(body)):
            self.control_dropped += 1
            return False
        self._control.append((kind, body))
        self._control_bytes += len(body)
        return True

    def ready(self, source: Source) -> None:
        """Asks for `source.pour` in turn, as soon as there is room; harmless if it is listed already."""
        if self._list(source) and not self.sealer.blocked:
            self._touch()

    def drained(self, now: float) -> None:
        """The carrier takes bytes again."""
        self.pace.short_at = now
        if now >= self.pace.due:
            self._measure(now)
        self._push()
        if not self.sealer.blocked:
            self.flush(now)

    def flush(self, now: float) -> None:
        """Control frames, then one cell of each source in turn while the carrier keeps up; then sends.

        A blocked outlet waits for `drained`.
        """
        sealer = self.sealer
        while not sealer.blocked:
            if self._control or self._ring:
                self._gather(now)
            if (data := sealer.seal()) and self._write is not None:
                sealer.sent(self._write(data))
            if not self._ring:
                break
        if now >= self.pace.due:  # when what was to be sent is on its way
            self._measure(now)

    def _gather(self, now: float) -> None:
        sealer = self.sealer
        while self._control and not sealer.blocked:
            kind, body = self._control[0]
            room = self.room(kind, len(body))
            if room is None:
                break
            room[:] = body
            self.commit(len(body))
            self._control.popleft()
            self._control_bytes -= len(body)
        ring, burst = self._ring, self.pace.burst
        while ring and not sealer.blocked and sealer.end < burst:
            source = ring.popleft()
            self._sources.discard(source)
            more = source.pour(now)
            while more and not (ring or sealer.blocked) and sealer.end < burst:  # it is alone
                more = source.pour(now)
            if more:
                self._list(source)

    def _measure(self, now: float) -> None:
        """Follows the carrier: sealed ahead of it is what it takes in some milliseconds, since what is sealed
        leaves in order, and who waits for his turn waits longer."""
        pace, sealer = self.pace, self.sealer
        unsent = pace.unsent
        pace.measure(sealer.bytes_sent, now)
        sealer.cap(pace.record)
        if pace.unsent != unsent and self.limit_unsent is not None:
            self.limit_unsent(pace.unsent)

    @property
    def waiting(self) -> int:
        """Sources that have cells to send and wait for room."""
        return len(self._ring)

    def _touch(self) -> None:
        self._outbox.waiting.append(self)
        self._outbox.wake()

    def _list(self, source: Source) -> bool:
        if source in self._sources:
            return False
        self._sources.add(source)
        self._ring.append(source)
        return True

    def _full(self, size: int) -> bool:
        return (
            len(self._control) >= CONTROL_QUEUE_FRAMES
            or self._control_bytes + size > CONTROL_QUEUE_BYTES
            or size >= LARGEST_FRAME
        )

    def _push(self) -> None:
        """Gives the carrier what is sealed, as far as it takes it; blocked while some is left."""
        write, sealer = self._write, self.sealer
        if write is None:
            return
        if data := sealer.seal():
            sealer.sent(write(data))
        if sealer.blocked and not sealer.unsent:
            sealer.unblock()
