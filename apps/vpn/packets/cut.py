"""Superpackets made smaller: into superpackets of fewer segments, or into single packets with checksums.

A superpacket is one packet that stands for several: the same headers before each `segment` bytes of its
payload (`virtio.Gso`). To cut it is to copy the headers and to mend what differs: lengths, identification,
sequence numbers, flags, and the sum of the pseudo header. No pass over the payload is needed for that, since
the checksum is still to be made by the kernel that gets the piece. Only `complete` makes it itself, for
devices that leave checksums to us.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from apps.vpn.packets.checksum import checksum, fold, ones_sum
from apps.vpn.packets.headers import headers_length
from apps.vpn.packets.virtio import ECN, HEADER, SUM, Gso, read, write

_LAST_ONLY: Final = 0x09  # FIN and PSH: of the last segment
_FIRST_ONLY: Final = 0x80  # CWR: of the first


class Pieces:
    """A superpacket on its way out, piece by piece.

    `frame` is `virtio header | packet` as `headers.check` passed it; it is kept and never changed. `least` is
    how many bytes the next piece needs at least, 0 if none is left.
    """

    __slots__ = ("_at", "_frame", "_gso", "_head", "_offset", "_segment", "_size", "_start", "least")

    def __init__(self, frame: memoryview) -> None:
        flags, gso, _, segment, start, offset = read(frame)
        head = headers_length(frame, gso & ~ECN, frame[HEADER] >> 4, start, offset)
        if not head or not segment or not flags & SUM:
            raise ValueError("that is no superpacket")
        self._frame = frame
        self._gso = gso
        self._segment = segment
        self._start = start
        self._offset = offset
        self._head = HEADER + head
        self._size = len(frame)
        self._at = 0
        self._measure()

    @property
    def whole(self) -> bool:
        """Whether nothing has been cut off yet."""
        return not self._at

    def next(self, room: memoryview) -> int:
        """Writes as many segments as fit into `room`, as one frame; its size, 0 if not even one fits."""
        head, segment, at = self._head, self._segment, self._at
        left = self._size - head - at
        if not 0 < self.least <= len(room):
            return 0
        payload = min((len(room) - head) // segment * segment, left) if len(room) - head < left else left
        payload = payload or left  # a last one that is shorter than a segment
        begin = head + at
        size = head + payload
        room[:head] = self._frame[:head]
        room[head:size] = self._frame[begin : begin + payload]
        self._mend(room, size, payload, at == 0, payload == left)
        self._at = at + payload
        self._measure()
        return size

    def _measure(self) -> None:
        left = self._size - self._head - self._at
        self.least = self._head + min(self._segment, left) if left > 0 else 0

    def _mend(self, room: memoryview, size: int, payload: int, first: bool, last: bool) -> None:
        """Headers that were copied from the whole become those of a piece."""
        start, offset, segment = self._start, self._offset, self._segment
        single = payload <= segment
        gso = 0 if single else self._gso if first else self._gso & ~ECN
        write(room, 0, SUM, gso, self._head - HEADER, 0 if single else segment, start, offset)
        set_lengths(room, size, self._at // segment)
        transport = HEADER + start
        if self._gso & ~ECN == Gso.UDP:
            _put(room, transport + 4, size - transport)
        else:
            sequence = int.from_bytes(room[transport + 4 : transport + 8], "big") + self._at
            room[transport + 4 : transport + 8] = (sequence & 0xFFFFFFFF).to_bytes(4, "big")
            room[transport + 13] &= ~((0 if first else _FIRST_ONLY) | (0 if last else _LAST_ONLY))
        field = transport + offset
        old, new = self._size - transport, size - transport
        _put(room, field, fold((room[field] << 8 | room[field + 1]) + (0xFFFF ^ old) + new))


def set_lengths(frame: memoryview, size: int, number: int = 0) -> None:
    """The IP header of a frame of `size` bytes, the `number`th (from 0) of those with this identification."""
    if frame[HEADER] >> 4 == 4:
        end = HEADER + (frame[HEADER] & 15) * 4
        _put(frame, HEADER + 2, size - HEADER)
        if number:
            _put(frame, HEADER + 4, (frame[HEADER + 4] << 8 | frame[HEADER + 5]) + number & 0xFFFF)
        _put(frame, HEADER + 10, 0)
        _put(frame, HEADER + 10, checksum(frame[HEADER:end]))
    else:
        _put(frame, HEADER + 4, size - HEADER - 40)


def complete(frame: memoryview) -> None:
    """Makes the checksum that SUM leaves to do; the frame is plain afterwards. One pass over the payload."""
    flags, _, _, _, start, offset = read(frame)
    if flags & SUM:
        field = HEADER + start + offset
        value = 0xFFFF ^ ones_sum(frame[HEADER + start :])
        # In UDP 0 means that there is none (RFC 768).
        _put(frame, field, value or (0xFFFF if offset == 6 else 0))
    write(frame, 0, 0, 0, 0, 0, 0, 0)


def singles(frame: memoryview) -> Iterator[memoryview]:
    """The packets of a frame one by one, complete, each borrowed until the next: without any offload."""
    if not frame[1] & ~ECN:
        complete(frame)
        yield frame
        return
    pieces = Pieces(frame)
    room = memoryview(bytearray(pieces.least))
    while pieces.least:
        size = pieces.next(room[: pieces.least])
        complete(room[:size])
        yield room[:size]


def _put(room: memoryview, at: int, number: int) -> None:
    room[at] = number >> 8
    room[at + 1] = number & 0xFF
