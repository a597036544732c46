"""One direction of a circuit at a relay: the path of every cell that passes through this node.

    label u32 | seq u64 | body      →      next label | seq + offset | body ⊕ layer(seq)

The layer is the move: the body is encrypted from the receive buffer straight into the outgoing bundle.
Where there is no room now, the finished cell waits in a bounded queue, is poured out in turn with the
other circuits of that link, and the oldest is dropped when the queue is full. Cells of a queue that is long
or stands (`meshnet/codel.py`) leave with the congestion bit; if it goes on to stand, some do not leave at
all. Nothing is authenticated here, no object is made per cell that finds room, and the link it came by is
never paused.
"""

from __future__ import annotations

from collections import deque
from struct import Struct
from typing import Any, Final

from meshnet.cipher.aead import Stream
from meshnet.circuit.interface import Outlet, Step
from meshnet.circuit.keys import MASK
from meshnet.circuit.messages import CELL_COUNTED, CELL_FRAME, CELL_HEAD, MARKED
from meshnet.circuit.policy import Bucket, Pool
from meshnet.circuit.window import Window
from meshnet.codel import Codel
from meshnet.errors import Drop
from meshnet.limits import (
    CELL_HELD,
    CIRCUIT_QUEUE_BYTES,
    CIRCUIT_QUEUE_CELLS,
    CIRCUIT_QUEUE_MARK,
    QUEUE_MARKS,
    QUEUE_SECONDS,
    TURN_BYTES,
)  # fmt: skip

_NONE: Final = Drop.NONE
_nonce = Struct("<QQ").pack  # LE32 block counter 1 ‖ 0⁴ ‖ LE64(seq)
_put_head = Struct(">IQ").pack_into
_put_cell = Struct(">HBIQ").pack_into
_HEAD = Struct(">HBI")  # length, kind and label
_get_cell = Struct(">7sQ").unpack_from  # the same as one, and seq
_put_run_cell = Struct(">7sQ").pack_into


class Hop:
    """Takes cells of one direction. `cells` and `bytes` count what has been sent on, bodies only; `drops`
    is indexed by `Drop`; `marked` of those sent got the congestion bit here; `used` is when the last cell
    came; `queued` counts bytes that wait."""

    __slots__ = (
        "_apply", "_body", "_bundle", "_ceiling", "_codel", "_commit", "_largest", "_ours", "_outlet",
        "_pool", "_queue", "_reset", "_room", "_size", "_theirs", "_turn", "bytes", "cells", "drops", "kind",
        "label", "marked", "offset", "queued", "used", "window",
    )  # fmt: skip

    def __init__(
        self,
        outlet: Outlet,
        kind: int,
        label: int,
        layer: Stream,
        offset: int,
        max_cell: int,
        now: float,
        pool: Pool | None = None,
    ) -> None:
        """Cells leave by `outlet` with `kind` and `label`; bodies are at most `max_cell` bytes; what waits
        counts in `pool`, which all circuits of a node share."""
        self._outlet = outlet
        self._bundle = outlet.bundle
        self._room = outlet.bundle.room
        self._commit = outlet.bundle.commit
        self._reset = layer.reset_nonce
        self._apply = layer.update_into
        self._largest = max_cell
        self._ceiling = max_cell  # -1 while cells wait: all others queue behind them
        self._queue: deque[tuple[int, bytearray, float]] = deque()  # kind, cell, and since when it waits
        self._pool = Pool() if pool is None else pool
        self._codel: Codel | None = None  # once a cell has waited
        self._turn = 0  # bytes of the turn that are left, or were too many
        self.kind = kind
        self.label = label
        self.offset = offset
        self._theirs = b""
        self._ours = b""
        self._size = CELL_FRAME
        self._body = 0
        self.window = Window()
        self.cells = 0
        self.bytes = 0
        self.drops = [0] * len(Drop)
        self.marked = 0
        self.queued = 0
        self.used = now

    def relay(self, seq: int, body: memoryview, now: float, marked: bool) -> Drop:
        """Passes one cell on; a `Step`. Straight-line code: this is what the whole node runs for."""
        window = self.window
        if seq == window.next:
            window.next = seq + 1
        elif drop := window.misplaced(seq):
            self.drops[drop] += 1
            return drop
        size = len(body)
        bundle = self._bundle
        end = bundle.end
        stop = end + CELL_FRAME + size
        self.used = now
        if stop > bundle.limit or size > self._ceiling or marked:
            return self._with_care(seq, body, marked)
        self._reset(_nonce(1, seq))
        self._apply(body, bundle.view[end + CELL_FRAME : stop])
        _put_cell(bundle.view, end, size + CELL_COUNTED, self.kind, self.label, seq + self.offset & MASK)
        bundle.end = stop
        if end == bundle.first:
            bundle.touched()
        self.cells += 1
        self.bytes += size
        return _NONE

    def run(self, memory: memoryview, begin: int, end: int, now: float) -> int:
        """Passes on the cells at `begin` that belong together; a `Run`.

        The same as `relay` for many cells of one size, with everything at hand: it stops at the first
        that is not of this circuit and size, not in order, marked, or without room.
        """
        window = self.window
        bundle = self._bundle
        head = self._theirs
        size = self._size
        ours = self._ours
        first = expected = window.next
        start = out = bundle.end
        leaving = first + self.offset & MASK
        room, count = bundle.limit - start, end - begin
        count = (count if count < room else room) // size
        if leaving + count > MASK:
            return 0
        reset, apply = self._reset, self._apply
        target = bundle.view
        for position in range(begin, begin + count * size, size):
            theirs, seq = _get_cell(memory, position)
            if seq != expected or theirs != head:
                break
            reset(_nonce(1, seq))
            after = out + size
            apply(memory[position + CELL_FRAME : position + size], target[out + CELL_FRAME : after])
            _put_run_cell(target, out, ours, leaving)
            expected += 1
            leaving += 1
            out = after
        cells = expected - first
        if not cells:
            return self.run(memory, begin, end, now) if self._learn(memory, begin) else 0
        window.next, bundle.end = expected, out
        self.used = now
        self.cells += cells
        self.bytes += cells * self._body
        if start == bundle.first:
            bundle.touched()
        return cells

    def _learn(self, memory: memoryview, position: int) -> bool:
        """Remembers how cells like this one leave; false if that is known already, or if it needs care."""
        head: bytes = _get_cell(memory, position)[0]
        size = (head[0] << 8 | head[1]) + 2
        if head == self._theirs or head[2] != self.kind or not CELL_FRAME <= size <= self._ceiling:
            return False
        self._theirs, self._size, self._body = head, size, size - CELL_FRAME
        self._ours = _HEAD.pack(size - 2, self.kind, self.label)
        return True

    def _with_care(self, seq: int, body: memoryview, marked: bool) -> Drop:
        """A cell that is too large, marked, or finds no room at once."""
        size = len(body) + CELL_HEAD
        if len(body) > self._largest:
            self.drops[Drop.TOO_LARGE] += 1
            return Drop.TOO_LARGE
        if self._queue or (room := self._room(self.kind | MARKED if marked else self.kind, size)) is None:
            return self._wait(seq, body, size, marked)
        self._reset(_nonce(1, seq))
        self._apply(body, room[CELL_HEAD:])
        _put_head(room, 0, self.label, seq + self.offset & MASK)
        self._commit(size)
        self.cells += 1
        self.bytes += len(body)
        return _NONE

    def limited(self, bucket: Bucket) -> Step:
        """`relay` under a limit of bytes per second; for nodes whose operator set one."""

        def step(seq: int, body: memoryview, now: float, marked: bool) -> Drop:
            if bucket.take(len(body) + CELL_HEAD, now):
                return self.relay(seq, body, now, marked)
            self.drops[Drop.RATE] += 1
            return Drop.RATE

        return step

    def _wait(self, seq: int, body: memoryview, size: int, marked: bool) -> Drop:
        """Queues a cell behind those that wait; QUEUE_FULL if that cost the oldest, or it, its place."""
        dropped = self._make_room(size)
        if dropped is None:
            return Drop.QUEUE_FULL
        cell = bytearray(size)
        self._reset(_nonce(1, seq))
        self._apply(body, memoryview(cell)[CELL_HEAD:])
        _put_head(cell, 0, self.label, seq + self.offset & MASK)
        self.queued += size
        self._pool.used += size + CELL_HELD
        self._queue.append((self.kind | MARKED if marked else self.kind, cell, self.used))
        self._ceiling = -1
        self._theirs = b""
        if self._codel is None:
            self._codel = Codel()
        self._outlet.ready(self)
        return dropped

    def _make_room(self, size: int) -> Drop | None:
        """Drops the oldest cells until one of `size` bytes fits: NONE, or QUEUE_FULL if any had to go; None
        (and counted) if it does not fit even then."""
        queue, pool, result = self._queue, self._pool, _NONE
        while (
            self.queued + size > CIRCUIT_QUEUE_BYTES
            or len(queue) >= CIRCUIT_QUEUE_CELLS
            or pool.room(self.queued + CELL_HELD * len(queue)) < size + CELL_HELD
        ):
            self.drops[Drop.QUEUE_FULL] += 1
            if not queue:
                self._ceiling = self._largest
                return None
            self._leave(len(queue.popleft()[1]))
            result = Drop.QUEUE_FULL
        return result

    def _leave(self, size: int) -> None:
        """A cell waits no longer."""
        self.queued -= size
        self._pool.used -= size + CELL_HELD

    def pour(self, now: float) -> bool:
        """Sends waiting cells, the oldest first, of as many bytes as each circuit gets in a turn; true if
        more wait (`Source`). Who sent too much in one turn, since cells are not cut, misses others."""
        queue, codel = self._queue, self._codel
        if codel is None:
            return False
        self._turn = min(self._turn, 0) + TURN_BYTES
        if self._turn <= 0 and not self._outlet.waiting:
            self._turn = TURN_BYTES  # nobody is owed anything
        while queue:
            if self._turn <= 0:
                return True
            kind, cell, since = queue[0]
            size = len(cell)
            room = self._room(kind, size)
            if room is None:
                return True
            waited = now - since
            queue.popleft()
            signalled = self._signalled(codel, kind, size, waited, now)
            if signalled != kind:
                if not signalled:
                    continue
                room = self._room(signalled, size)
                assert room is not None  # as a moment ago
            room[:] = cell
            self._commit(size)
            self._leave(size)
            self._turn -= size
            self.cells += 1
            self.bytes += size - CELL_HEAD
        self._turn = 0
        self._ceiling = self._largest
        return False

    def _signalled(self, codel: Codel, kind: int, size: int, waited: float, now: float) -> int:
        """The kind with which the oldest cell leaves; 0 if it is dropped."""
        due = codel.signal(waited, self.queued - size <= TURN_BYTES, now)
        if due and codel.in_a_row > QUEUE_MARKS and waited > QUEUE_SECONDS:
            self.drops[Drop.STOOD] += 1
            self._pool.stood += 1
            self._leave(size)
            return 0
        if not kind & MARKED and (due or self.queued > CIRCUIT_QUEUE_MARK or waited > QUEUE_SECONDS):
            self.marked += 1
            kind |= MARKED
        return kind

    @property
    def waiting(self) -> int:
        """Cells in the queue."""
        return len(self._queue)

    def close(self) -> None:
        """Forgets what waits (counted as LATE)."""
        self.drops[Drop.LATE] += len(self._queue)
        self._pool.used -= self.queued + CELL_HELD * len(self._queue)
        self._queue.clear()
        self._ceiling = self._largest
        self.queued = 0

    def snapshot(self) -> dict[str, Any]:
        """For status pages."""
        return {
            "cells": self.cells,
            "bytes": self.bytes,
            "queued_bytes": self.queued,
            "queued_cells": self.waiting,
            "marked": self.marked,
            "dropped": {drop.name.lower(): n for drop, n in zip(Drop, self.drops, strict=True) if n},
        }
