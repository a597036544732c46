"""Items: what the plaintext of a cell is made of (docs/wire-format.md §5).

A cell's plaintext is items, one behind the other, to its end. Integers called *v* are QUIC varints
(RFC 9000 §16; forms longer than needed are valid), the others are big-endian of fixed width.

| type | item | body |
|---|---|---|
| 0 | PAD | the rest of the cell, any bytes |
| 1 | PING | token v; token 0 only asks for an acknowledgement, others are answered by PONG |
| 2 | ACK | largest v, delay v µs, marks v, count v, first v, then `count` times: gap v, length v |
| 3 | PONG | token v |
| 4 | RESET | stream v, code v, final size v: the sender's direction ends here, what is missing is not sent |
| 5 | STOP | stream v, code v: send no more on it; the answer is RESET |
| 6 | AUTH | kind u8, then 0: nothing · 1: public key 33, mac 32 · 2: session id 16, mac 32 |
| 7 | OPEN | stream v, port u16, window v |
| 8, 9 | DATA | stream v, offset v, length v, bytes; 9: the last byte of the stream is its last |
| 10 | WINDOW | stream v, limit v: the sender may send up to this offset |
| 11 | SESSION-WINDOW | limit v: the same for the sum of all streams |
| 12 | DATAGRAM | source port u16, target port u16, length v, bytes |
| 13 | CLOSE | code v, length v, sentence (UTF-8, at most 200 bytes); nothing after it is read |
| 14 | CELL-LIMIT | size v: the path back carries bodies up to this size, tag included (at least 1,200) |
| 32 | PACKETS | stream v, length v, bytes: IP packets of two apps, beside the stream's own bytes |
| 33–39 | PACKETS | reserved for other packets |
| 48 | SPARE | nothing: the origin keeps this circuit in reserve; send nothing of the session over it |
| 49 | USE | nothing: the sender sends over this circuit from now on; do so too |
| 50 | PROBE | token v: answered by REPORT |
| 51 | REPORT | token v, time v µs, cells received v, cells sent v, over this circuit |
| 52–63 | PATH | reserved for bonding |

ACK is as in QUIC: numbers largest − first … largest have been opened; then, downwards, `gap` + 1 numbers
have not and `length` + 1 have. `count` is at most 31. `marks` is how many cells arrived with the congestion
bit. All types but PAD, ACK and CLOSE ask for an acknowledgement. The origin sends CELL-LIMIT behind AUTH,
because it alone learnt from CREATED what every relay carries. The time of a REPORT is that at which the PROBE
came, since the circuit began there: it names no clock.

Our DATA always has a stream of 4, an offset of 8 and a length of 4 bytes, our PACKETS 4 and 4, so that writer
and reader need one struct call; any other widths are read as well. An unknown type, or bytes that end inside
an item, make the whole cell malformed; `read` then raises CodecError and nothing else. This module knows no
state.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final, Protocol

from meshnet.codec.varint import read_varint, write_varint
from meshnet.errors import CodecError
from meshnet.limits import ACK_RANGES, CLOSE_TEXT

PAD: Final = 0
PING: Final = 1
ACK: Final = 2
PONG: Final = 3
RESET: Final = 4
STOP: Final = 5
AUTH: Final = 6
OPEN: Final = 7
DATA: Final = 8  # bit 0: FIN
WINDOW: Final = 10
SESSION_WINDOW: Final = 11
DATAGRAM: Final = 12
CLOSE: Final = 13
CELL_LIMIT: Final = 14
PACKETS: Final = 32
SPARE: Final = 48
USE: Final = 49
PROBE: Final = 50
REPORT: Final = 51

AUTH_ANONYMOUS: Final = 0
AUTH_CALLER: Final = 1
AUTH_JOIN: Final = 2
_AUTH_SIZES: Final = {AUTH_ANONYMOUS: 0, AUTH_CALLER: 33 + 32, AUTH_JOIN: 16 + 32}

DATA_HEADER: Final = 17
"""Bytes of our DATA before its payload."""
LARGEST_STREAM: Final = (1 << 30) - 1
"""The highest stream id we use (4 bytes)."""
DATAGRAM_HEADER: Final = 9
"""Bytes of our DATAGRAM before its payload."""
PACKETS_HEADER: Final = 9
"""Bytes of our PACKETS before its body."""

_DATA: Final = Struct(">BIQI")
_ACK: Final = Struct(">BIIIBI")
_DATAGRAM: Final = Struct(">BHHI")
_PACKETS: Final = Struct(">BII")
pack_packets = _PACKETS.pack_into
"""`put_packets` without its call: (room, pos, PACKETS, VARINT4 | stream, VARINT4 | length)."""
_U16: Final = Struct(">H")
VARINT4: Final = 0x8000_0000  # the length bits of a varint of 4 bytes
_VARINT8: Final = 0xC000_0000_0000_0000
_MASK4: Final = 0x3FFF_FFFF
_MASK8: Final = (1 << 62) - 1
_pack_data = _DATA.pack_into
_unpack_data = _DATA.unpack_from
_unpack_packets = _PACKETS.unpack_from


class Sink(Protocol):
    """What is told of each item of a cell, in order. Views are borrowed until return."""

    def ack(self, largest: int, delay: int, marks: int, ranges: list[tuple[int, int]], /) -> None:
        """Inclusive ranges, descending; `delay` in µs."""

    def ping(self, token: int, /) -> None:
        """PING."""

    def pong(self, token: int, /) -> None:
        """PONG."""

    def reset(self, stream: int, code: int, size: int, /) -> None:
        """RESET."""

    def stop(self, stream: int, code: int, /) -> None:
        """STOP."""

    def auth(self, kind: int, body: bytes, /) -> None:
        """AUTH; `body` has the length its kind asks for."""

    def open(self, stream: int, port: int, window: int, /) -> None:
        """OPEN."""

    def data(self, stream: int, offset: int, data: memoryview, fin: bool, /) -> None:
        """DATA."""

    def window(self, stream: int, limit: int, /) -> None:
        """WINDOW."""

    def session_window(self, limit: int, /) -> None:
        """SESSION-WINDOW."""

    def datagram(self, source: int, target: int, data: memoryview, /) -> None:
        """DATAGRAM."""

    def packets(self, stream: int, body: memoryview, /) -> None:
        """PACKETS."""

    def cell_limit(self, size: int, /) -> None:
        """CELL-LIMIT."""

    def spare(self) -> None:
        """SPARE."""

    def use(self) -> None:
        """USE."""

    def probe(self, token: int, /) -> None:
        """PROBE."""

    def report(self, token: int, time: int, received: int, sent: int, /) -> None:
        """REPORT; `time` in µs."""

    def close(self, code: int, text: str, /) -> None:
        """CLOSE; the last item of its cell."""


def read(cell: memoryview, sink: Sink) -> bool:
    """Tells `sink` every item of a cell's plaintext; whether any of them asks for an acknowledgement.

    Raises CodecError at the first item that cannot be read; those before it have been told.
    """
    pos, end = 0, len(cell)
    asks = False
    while pos < end:
        kind = cell[pos]
        if kind & 0xFE == DATA:
            asks = True
            if end - pos >= DATA_HEADER:
                _, stream, offset, length = _unpack_data(cell, pos)
                pos += DATA_HEADER
                if stream >> 30 != 2 or offset >> 62 != 3 or length >> 30 != 2:
                    pos = _read_data(cell, pos - DATA_HEADER, sink)
                    continue
                start, pos = pos, pos + (length & _MASK4)
                if pos > end:
                    raise CodecError("DATA is longer than its cell")
                sink.data(stream & _MASK4, offset & _MASK8, cell[start:pos], kind == 9)
            else:
                pos = _read_data(cell, pos, sink)
            continue
        if kind == PACKETS and end - pos >= PACKETS_HEADER:
            _, stream, length = _unpack_packets(cell, pos)
            if stream >> 30 == 2 and length >> 30 == 2:
                asks = True
                start = pos + PACKETS_HEADER
                pos = start + (length & _MASK4)
                if pos > end:
                    raise CodecError("PACKETS is longer than its cell")
                sink.packets(stream & _MASK4, cell[start:pos])
                continue
        if kind == PAD:
            break
        reader = _READERS.get(kind)
        if reader is None:
            raise CodecError(f"there is no item of type {kind}")
        if kind != ACK and kind != CLOSE:
            asks = True
        pos = reader(cell, pos + 1, sink)
    return asks


def join_proof(cell: memoryview) -> bytes:
    """The body of an AUTH of kind 2 at the start of a cell; empty if there is none."""
    size = _AUTH_SIZES[AUTH_JOIN]
    if len(cell) < 2 + size or cell[0] != AUTH or cell[1] != AUTH_JOIN:
        return b""
    return bytes(cell[2 : 2 + size])


def _span(cell: memoryview, pos: int) -> tuple[int, int]:
    """Start and end of bytes that have their length in front."""
    length, pos = read_varint(cell, pos)
    if length > len(cell) - pos:
        raise CodecError("an item is longer than its cell")
    return pos, pos + length


def _read_data(cell: memoryview, pos: int, sink: Sink) -> int:
    fin = cell[pos] == DATA | 1
    stream, pos = read_varint(cell, pos + 1)
    offset, pos = read_varint(cell, pos)
    start, end = _span(cell, pos)
    sink.data(stream, offset, cell[start:end], fin)
    return end


def _read_ack(cell: memoryview, pos: int, sink: Sink) -> int:
    largest, pos = read_varint(cell, pos)
    delay, pos = read_varint(cell, pos)
    marks, pos = read_varint(cell, pos)
    count, pos = read_varint(cell, pos)
    first, pos = read_varint(cell, pos)
    if count >= ACK_RANGES:
        raise CodecError(f"an ACK has at most {ACK_RANGES} ranges")
    low = largest - first
    ranges = [(low, largest)]
    for _ in range(count):
        gap, pos = read_varint(cell, pos)
        length, pos = read_varint(cell, pos)
        high = low - gap - 2
        low = high - length
        ranges.append((low, high))
    if low < 0:
        raise CodecError("an ACK names numbers below 0")
    sink.ack(largest, delay, marks, ranges)
    return pos


def _read_ping(cell: memoryview, pos: int, sink: Sink) -> int:
    token, pos = read_varint(cell, pos)
    sink.ping(token)
    return pos


def _read_pong(cell: memoryview, pos: int, sink: Sink) -> int:
    token, pos = read_varint(cell, pos)
    sink.pong(token)
    return pos


def _read_reset(cell: memoryview, pos: int, sink: Sink) -> int:
    stream, pos = read_varint(cell, pos)
    code, pos = read_varint(cell, pos)
    size, pos = read_varint(cell, pos)
    sink.reset(stream, code, size)
    return pos


def _read_stop(cell: memoryview, pos: int, sink: Sink) -> int:
    stream, pos = read_varint(cell, pos)
    code, pos = read_varint(cell, pos)
    sink.stop(stream, code)
    return pos


def _read_auth(cell: memoryview, pos: int, sink: Sink) -> int:
    if pos >= len(cell):
        raise CodecError("AUTH has no kind")
    kind = cell[pos]
    size = _AUTH_SIZES.get(kind)
    if size is None:
        raise CodecError(f"there is no AUTH of kind {kind}")
    end = pos + 1 + size
    if end > len(cell):
        raise CodecError("AUTH is longer than its cell")
    sink.auth(kind, bytes(cell[pos + 1 : end]))
    return end


def _read_open(cell: memoryview, pos: int, sink: Sink) -> int:
    stream, pos = read_varint(cell, pos)
    if pos + 2 > len(cell):
        raise CodecError("OPEN has no port")
    port = _U16.unpack_from(cell, pos)[0]
    window, pos = read_varint(cell, pos + 2)
    sink.open(stream, port, window)
    return pos


def _read_window(cell: memoryview, pos: int, sink: Sink) -> int:
    stream, pos = read_varint(cell, pos)
    limit, pos = read_varint(cell, pos)
    sink.window(stream, limit)
    return pos


def _read_session_window(cell: memoryview, pos: int, sink: Sink) -> int:
    limit, pos = read_varint(cell, pos)
    sink.session_window(limit)
    return pos


def _read_cell_limit(cell: memoryview, pos: int, sink: Sink) -> int:
    size, pos = read_varint(cell, pos)
    sink.cell_limit(size)
    return pos


def _read_datagram(cell: memoryview, pos: int, sink: Sink) -> int:
    if pos + 4 > len(cell):
        raise CodecError("DATAGRAM has no ports")
    source, target = _U16.unpack_from(cell, pos)[0], _U16.unpack_from(cell, pos + 2)[0]
    start, end = _span(cell, pos + 4)
    sink.datagram(source, target, cell[start:end])
    return end


def _read_packets(cell: memoryview, pos: int, sink: Sink) -> int:
    stream, pos = read_varint(cell, pos)
    start, end = _span(cell, pos)
    sink.packets(stream, cell[start:end])
    return end


def _read_spare(cell: memoryview, pos: int, sink: Sink) -> int:
    sink.spare()
    return pos


def _read_use(cell: memoryview, pos: int, sink: Sink) -> int:
    sink.use()
    return pos


def _read_probe(cell: memoryview, pos: int, sink: Sink) -> int:
    token, pos = read_varint(cell, pos)
    sink.probe(token)
    return pos


def _read_report(cell: memoryview, pos: int, sink: Sink) -> int:
    token, pos = read_varint(cell, pos)
    time, pos = read_varint(cell, pos)
    received, pos = read_varint(cell, pos)
    sent, pos = read_varint(cell, pos)
    sink.report(token, time, received, sent)
    return pos


def _read_close(cell: memoryview, pos: int, sink: Sink) -> int:
    code, pos = read_varint(cell, pos)
    start, end = _span(cell, pos)
    if end - start > CLOSE_TEXT:
        raise CodecError(f"the sentence of a CLOSE has at most {CLOSE_TEXT} bytes")
    # It is shown to a person: nothing that moves his cursor.
    text = bytes(cell[start:end]).decode("utf-8", "replace")
    sink.close(code, "".join(letter if letter.isprintable() else "?" for letter in text))
    return len(cell)


_READERS: Final[dict[int, Callable[[memoryview, int, Sink], int]]] = {
    PING: _read_ping,
    ACK: _read_ack,
    PONG: _read_pong,
    RESET: _read_reset,
    STOP: _read_stop,
    AUTH: _read_auth,
    OPEN: _read_open,
    WINDOW: _read_window,
    SESSION_WINDOW: _read_session_window,
    DATAGRAM: _read_datagram,
    CLOSE: _read_close,
    CELL_LIMIT: _read_cell_limit,
    PACKETS: _read_packets,
    SPARE: _read_spare,
    USE: _read_use,
    PROBE: _read_probe,
    REPORT: _read_report,
}


# Writing: DATA, ACK, DATAGRAM and PACKETS straight into the cell, the rare ones as bytes.


def put_data(room: memoryview, pos: int, stream: int, offset: int, length: int, fin: bool) -> None:
    """Writes the 17 bytes before `length` bytes of payload."""
    _pack_data(room, pos, 9 if fin else 8, VARINT4 | stream, _VARINT8 | offset, VARINT4 | length)


def put_datagram(room: memoryview, pos: int, source: int, target: int, length: int) -> None:
    """Writes the 9 bytes before `length` bytes of payload."""
    _DATAGRAM.pack_into(room, pos, DATAGRAM, source, target, VARINT4 | length)


def put_packets(room: memoryview, pos: int, stream: int, length: int) -> None:
    """Writes the 9 bytes before `length` bytes of packets."""
    pack_packets(room, pos, PACKETS, VARINT4 | stream, VARINT4 | length)


def put_ack(
    room: memoryview, pos: int, limit: int, delay: int, marks: int, lows: list[int], highs: list[int]
) -> int:
    """Writes an ACK of inclusive ascending ranges (at least one), the highest first, as many as fit.

    Returns the position after it; `pos` if there is no room for even one range.
    """
    largest = highs[-1]
    if len(lows) == 1 and largest < VARINT4 >> 1 and marks < VARINT4 >> 1:
        if limit - pos < _ACK.size:
            return pos
        first = largest - lows[0]
        delay = min(delay, _MASK4)
        _ACK.pack_into(
            room, pos, ACK, VARINT4 | largest, VARINT4 | delay, VARINT4 | marks, 0, VARINT4 | first
        )
        return pos + _ACK.size
    count = min(len(lows) - 1, (limit - pos - 41) // 16, ACK_RANGES - 1)  # if all varints took 8 bytes
    if count < 0:
        return pos
    room[pos] = ACK
    pos += 1
    for value in (largest, delay, marks, count, largest - lows[-1]):
        pos = write_varint(value, room, pos)
    for i in range(len(lows) - 2, len(lows) - 2 - count, -1):
        pos = write_varint(lows[i + 1] - highs[i] - 2, room, pos)
        pos = write_varint(highs[i] - lows[i], room, pos)
    return pos


def item(kind: int, *values: int) -> bytes:
    """An item that is its type and varints: PING, PONG, RESET, STOP, WINDOW, SESSION-WINDOW, CELL-LIMIT,
    SPARE, USE, PROBE, REPORT."""
    buffer = bytearray(1 + 8 * len(values))
    buffer[0] = kind
    pos = 1
    for value in values:
        pos = write_varint(value, buffer, pos)
    return bytes(buffer[:pos])


def open_item(stream: int, port: int, window: int) -> bytes:
    """OPEN."""
    return item(OPEN, stream) + _U16.pack(port) + item(0, window)[1:]


def auth_item(kind: int, body: bytes = b"") -> bytes:
    """AUTH."""
    return bytes((AUTH, kind)) + body


def close_item(code: int, text: str) -> bytes:
    """CLOSE; the sentence is cut to 200 bytes."""
    said = text.encode("utf-8")[:CLOSE_TEXT].decode("utf-8", "ignore").encode("utf-8")
    return item(CLOSE, code, len(said)) + said
