"""The end of a circuit, at its origin or at its last hop: between a link's cells and a session.

    origin      number n ⇄ seq = start + n, all relays' layers on or off, in place
    last hop    number n ⇄ seq = start + n, no layer

The session's AEAD is innermost; what it cannot open changes nothing but a count, and three of those end the
circuit. The last hop sends nothing before the first forward cell has opened: only then is the origin's
handshake known to be fresh. Everything here runs per cell and makes no objects but slices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any, Final

from meshnet.cipher.aead import Stream
from meshnet.circuit.interface import Outlet, SessionEnd
from meshnet.circuit.keys import MASK
from meshnet.circuit.messages import CELL_COUNTED, CELL_FRAME, CELL_HEAD
from meshnet.errors import Drop
from meshnet.limits import BAD_CELLS, PACKETS, TURN_BYTES

_NONE: Final = Drop.NONE
_UNOPENED: Final = frozenset({Drop.BAD_TAG, Drop.REPLAYED, Drop.TOO_OLD, Drop.TOO_LARGE})
_nonce = Struct("<QQ").pack  # LE32 block counter 1 ‖ 0⁴ ‖ LE64(seq)
_put_cell = Struct(">HBIQ").pack_into

Layer = tuple[Stream, int]
"""A relay's layer, and what its own seq is for packet number 0."""


class Layers:
    """One direction at an end: `start` is this end's seq of packet number 0."""

    __slots__ = ("each", "start")

    def __init__(self, start: int, layers: Sequence[Layer] = ()) -> None:
        self.start = start
        self.each = tuple((layer.reset_nonce, layer.update_into, first) for layer, first in layers)

    def apply(self, number: int, body: memoryview) -> None:
        """XORs the layers of packet `number` into `body`."""
        for reset, update, first in self.each:
            reset(_nonce(1, number + first & MASK))
            update(body, body)


class CircuitEnd:
    """Joins an outlet and a session; `receive` is a `Step`, `pour` makes it a `Source`.

    Cells and bytes (with heads) count what opened and what was sent; `drops` is indexed by `Drop`.
    `broken` is called after three cells that did not open, or with what the session raised.
    """

    __slots__ = (
        "_bad", "_broken", "_bundle", "_closed", "_incoming", "_outgoing", "_outlet", "_room",
        "_turn", "bytes_in", "bytes_out", "cells_in", "cells_out", "drops", "kind", "label", "max_cell",
        "opened", "session", "used",
    )  # fmt: skip

    def __init__(
        self,
        session: SessionEnd,
        outlet: Outlet,
        kind: int,
        label: int,
        *,
        incoming: Layers,
        outgoing: Layers,
        max_cell: int,
        opened: bool,
        broken: Callable[[float, Exception | None], None],
        now: float,
    ) -> None:
        """`opened` is true at the origin, which sends first; the last hop starts with false."""
        self.session = session
        self._outlet = outlet
        self._room = outlet.bundle.room
        self._bundle = outlet.bundle
        self._incoming = incoming
        self._outgoing = outgoing
        self._broken: Callable[[float, Exception | None], None] | None = broken
        self._bad = 0
        self._turn = 0  # bytes that were too many in the last turn: below 0
        self._closed = False
        self.kind = kind
        self.label = label
        self.max_cell = max_cell
        self.opened = opened
        self.used = now
        self.cells_in = self.bytes_in = self.cells_out = self.bytes_out = 0
        self.drops = [0] * len(Drop)

    def receive(self, seq: int, body: memoryview, now: float, marked: bool) -> Drop:
        """Takes a cell off the circuit; a `Step`."""
        incoming = self._incoming
        number = seq - incoming.start & MASK
        if number >= PACKETS:
            self.drops[Drop.MALFORMED] += 1
            return Drop.MALFORMED
        if incoming.each:
            incoming.apply(number, body)
        try:
            drop = self.session.receive(number, body, now, marked)
        except Exception as fault:
            return self._failed(fault, now)
        if drop:
            return self._refused(drop, now)
        self.cells_in += 1
        self.bytes_in += len(body) + CELL_HEAD
        self.used = now
        if not self.opened:
            self.opened = True
            self._outlet.ready(self)
        return _NONE

    def pour(self, now: float) -> bool:
        """Sends what the session has, of as many bytes as each circuit gets in a turn; true if it may have
        more (`Source`)."""
        session, outgoing, bundle = self.session, self._outgoing, self._bundle
        turn = self._turn + TURN_BYTES
        if turn <= 0 and not self._outlet.waiting:
            turn = TURN_BYTES  # nobody is owed anything
        self._turn = min(turn, 0)
        while turn > 0:
            if self._closed or not self.opened:
                return False
            most = min(session.cell_size, self.max_cell)
            room = self._room(self.kind, most + CELL_HEAD)
            if room is None:
                return True
            try:
                size = session.fill(room[CELL_HEAD:], now)
            except Exception as fault:
                self._failed(fault, now)
                return False
            if not size:
                self._turn = 0
                return False
            number = session.number
            start = bundle.end
            if outgoing.each:
                body = room[CELL_HEAD : CELL_HEAD + size]
                for reset, update, first in outgoing.each:
                    reset(_nonce(1, number + first & MASK))
                    update(body, body)
            # As `bundle.commit`, with both headers at once.
            _put_cell(
                bundle.view, start, size + CELL_COUNTED, self.kind, self.label, number + outgoing.start & MASK
            )
            bundle.end = start + CELL_FRAME + size
            if start == bundle.first:
                bundle.touched()
            self.cells_out += 1
            self.bytes_out += size + CELL_HEAD
            self.used = now
            if not session.more:
                self._turn = 0
                return False
            turn -= size
            self._turn = min(turn, 0)
        return True

    def wake(self) -> None:
        """The session has something to send; cells follow as the link has room."""
        if self.opened and not self._closed:
            self._outlet.ready(self)

    def close(self) -> None:
        """No cell leaves any more."""
        self._closed = True
        self._broken = None

    def _refused(self, drop: Drop, now: float) -> Drop:
        self.drops[drop] += 1
        if not self.opened and drop not in _UNOPENED:
            self.opened = True  # it was the origin's, though its items were wrong: it may be told so
            self._outlet.ready(self)
        if drop is Drop.BAD_TAG:
            self._bad += 1
            if self._bad >= BAD_CELLS and self._broken is not None:
                self._broken(now, None)
        return drop

    def _failed(self, fault: Exception, now: float) -> Drop:
        """A fault of our own: it costs this circuit, and neither the link the cell came by nor another."""
        self.drops[Drop.MALFORMED] += 1
        if self._broken is not None:
            self._broken(now, fault)
        return Drop.MALFORMED

    def snapshot(self) -> dict[str, Any]:
        """For status pages."""
        return {
            "cells_in": self.cells_in,
            "bytes_in": self.bytes_in,
            "cells_out": self.cells_out,
            "bytes_out": self.bytes_out,
            "dropped": {drop.name.lower(): n for drop, n in zip(Drop, self.drops, strict=True) if n},
        }
