"""IP packets that travel beside a stream's bytes, at one end (docs/wire-format.md §5, PACKETS).

A source is asked when a cell is being made, and writes straight into it; a sink gets a view of the cell that
was just opened. So packets are never copied here, and they wait where they are counted: in front of the
source. What is in a body is the business of the two apps. Nothing is sent again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnet.session.items import PACKETS, PACKETS_HEADER, VARINT4
from meshnet.session.items import pack_packets as _put_packets
from meshnet.streams import PacketSink, PacketSource

if TYPE_CHECKING:
    from meshnet.session.streams import Stream


class Carried:
    """The packets of one stream, both ways, and what became of them.

    `listed` says that the source waits for its turn in a cell; `contents` is what a cell that carried some
    notes. Counts: `cells_out`, `bytes_out`, `cells_arrived` (of those), `cells_in`, `bytes_in` (of bodies; a
    cell with two items counts twice), `marked_in` (of those that came, by a congested relay).
    """

    __slots__ = (
        "_whole", "bytes_in", "bytes_out", "cells_arrived", "cells_in", "cells_out", "contents", "listed",
        "marked_in", "sink", "source", "stream",
    )  # fmt: skip

    def __init__(self, stream: Stream, source: PacketSource, sink: PacketSink) -> None:
        self.stream = stream
        self.source = source
        self.sink = sink
        self.listed = False
        self._whole = -1  # -1: the source is to be asked
        self.contents = (PACKETS, self)
        self.cells_out = self.bytes_out = self.cells_arrived = 0
        self.cells_in = self.bytes_in = self.marked_in = 0

    def whole(self) -> int:
        """Bytes of plaintext that the next item needs at least; 0 if no packet waits, or the source fails. It
        is asked once for each cell."""
        whole = self._whole
        if self.stream.over or self.stream.carried is not self:
            return 0
        if whole < 0:
            try:
                whole = self.source.waiting()
            except Exception as error:
                self.stream.packets_failed(error)
                return 0
            if whole:
                whole += PACKETS_HEADER
            self._whole = whole
        return whole

    def ask(self) -> None:
        """What the source said last is true no more."""
        self._whole = -1

    def accompany(self) -> None:
        """A cell leaves that has room."""
        if self.stream.over or self.stream.carried is not self:
            return
        try:
            self.source.accompany()
        except Exception as error:
            self.stream.packets_failed(error)

    def pack(self, room: memoryview, pos: int, limit: int, now: float) -> int:
        """One item of as many packets as fit between `pos` and `limit`; the position behind it."""
        stream = self.stream
        if stream.over or stream.carried is not self:
            return pos
        start = pos + PACKETS_HEADER
        self._whole = -1
        try:
            size = self.source.pour(room[start:limit], now)
        except Exception as error:
            stream.packets_failed(error)
            return pos
        if not 0 < size <= limit - start:
            return pos
        _put_packets(room, pos, PACKETS, VARINT4 | stream.id, VARINT4 | size)
        self.cells_out += 1
        self.bytes_out += size
        return start + size

    def received(self, body: memoryview, marked: bool) -> None:
        """Some came."""
        self.cells_in += 1
        self.bytes_in += len(body)
        self.marked_in += marked
        try:
            self.sink.packets_received(body, marked)
        except Exception as error:
            self.stream.packets_failed(error)
