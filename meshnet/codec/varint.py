"""Integers of variable length: QUIC's varints (RFC 9000 §16) and Lightning's BigSize (BOLT 1).

A varint takes 1, 2, 4 or 8 bytes; the two high bits of the first byte say which, the rest is the value, so it
ends at 2^62 - 1. Longer forms than needed are read, as RFC 9000 allows, and never written.

A BigSize takes 1, 3, 5 or 9 bytes: a value below 253 is one byte, 0xfd, 0xfe and 0xff stand before a u16, u32
and u64. Only the shortest form is valid.

All readers take any flat byte buffer and a position and return the value and the next position; all they
raise is `CodecError`. All writers write into the caller's buffer, return the next position and raise
`EncodeError` where the value or the buffer does not fit. Per-cell code calls these: forms of one and two
bytes come first and make no object but the result.
"""

from __future__ import annotations

import struct
from struct import Struct
from typing import Final

from meshnet.errors import CodecError, EncodeError

VARINT_MAX: Final = (1 << 62) - 1
BIGSIZE_MAX: Final = (1 << 64) - 1

_U16: Final = Struct(">H")
_U32: Final = Struct(">I")
_U64: Final = Struct(">Q")
_unpack16 = _U16.unpack_from
_unpack32 = _U32.unpack_from
_unpack64 = _U64.unpack_from
_pack32 = _U32.pack_into
_pack64 = _U64.pack_into
_TAG_3: Final = Struct(">BH").pack_into
_TAG_5: Final = Struct(">BI").pack_into
_TAG_9: Final = Struct(">BQ").pack_into


def read_varint(data: bytes | bytearray | memoryview, pos: int) -> tuple[int, int]:
    """The QUIC varint at `pos` and the position after it; `CodecError` if the buffer ends inside it."""
    try:
        first = data[pos]
        if first < 0x40:
            return first, pos + 1
        if first < 0x80:
            return (first & 0x3F) << 8 | data[pos + 1], pos + 2
        if first < 0xC0:
            return _unpack32(data, pos)[0] & 0x3FFF_FFFF, pos + 4
        return _unpack64(data, pos)[0] & VARINT_MAX, pos + 8
    except (IndexError, struct.error):
        raise CodecError("the message ends inside a varint") from None


def write_varint(value: int, buffer: bytearray | memoryview, pos: int) -> int:
    """Write `value` (0 to 2^62 - 1) as its shortest QUIC varint at `pos`; the position after it."""
    try:
        if 0 <= value < 0x40:
            buffer[pos] = value
            return pos + 1
        if 0 <= value < 0x4000:
            buffer[pos + 1] = value & 0xFF
            buffer[pos] = 0x40 | value >> 8
            return pos + 2
        if 0 <= value < 0x4000_0000:
            _pack32(buffer, pos, 0x8000_0000 | value)
            return pos + 4
        if 0 <= value <= VARINT_MAX:
            _pack64(buffer, pos, 0xC000_0000_0000_0000 | value)
            return pos + 8
    except (IndexError, struct.error):
        raise EncodeError("the buffer is too small for a varint") from None
    raise EncodeError(f"a varint holds 0 to 2^62 - 1, not {value}")


def varint_size(value: int) -> int:
    """How many bytes `write_varint` takes for `value`: 1, 2, 4 or 8."""
    if 0 <= value < 0x40:
        return 1
    if 0 <= value < 0x4000:
        return 2
    if 0 <= value < 0x4000_0000:
        return 4
    if 0 <= value <= VARINT_MAX:
        return 8
    raise EncodeError(f"a varint holds 0 to 2^62 - 1, not {value}")


def read_bigsize(data: bytes | bytearray | memoryview, pos: int) -> tuple[int, int]:
    """The BigSize at `pos` and the position after it; `CodecError` if it is cut short or not minimal."""
    try:
        first = data[pos]
        if first < 0xFD:
            return first, pos + 1
        if first == 0xFD:
            value: int = _unpack16(data, pos + 1)[0]
            least, pos = 0xFD, pos + 3
        elif first == 0xFE:
            value = _unpack32(data, pos + 1)[0]
            least, pos = 0x1_0000, pos + 5
        else:
            value = _unpack64(data, pos + 1)[0]
            least, pos = 0x1_0000_0000, pos + 9
    except (IndexError, struct.error):
        raise CodecError("the message ends inside a BigSize") from None
    if value < least:
        raise CodecError(f"the BigSize of {value} is not in its shortest form")
    return value, pos


def write_bigsize(value: int, buffer: bytearray | memoryview, pos: int) -> int:
    """Write `value` (0 to 2^64 - 1) as BigSize at `pos`; the position after it."""
    try:
        if 0 <= value < 0xFD:
            buffer[pos] = value
            return pos + 1
        if 0 <= value < 0x1_0000:
            _TAG_3(buffer, pos, 0xFD, value)
            return pos + 3
        if 0 <= value < 0x1_0000_0000:
            _TAG_5(buffer, pos, 0xFE, value)
            return pos + 5
        if 0 <= value <= BIGSIZE_MAX:
            _TAG_9(buffer, pos, 0xFF, value)
            return pos + 9
    except (IndexError, struct.error):
        raise EncodeError("the buffer is too small for a BigSize") from None
    raise EncodeError(f"a BigSize holds 0 to 2^64 - 1, not {value}")


def bigsize_size(value: int) -> int:
    """How many bytes `write_bigsize` takes for `value`: 1, 3, 5 or 9."""
    if 0 <= value < 0xFD:
        return 1
    if 0 <= value < 0x1_0000:
        return 3
    if 0 <= value < 0x1_0000_0000:
        return 5
    if 0 <= value <= BIGSIZE_MAX:
        return 9
    raise EncodeError(f"a BigSize holds 0 to 2^64 - 1, not {value}")
