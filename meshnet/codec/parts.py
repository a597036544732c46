"""The small functions that generated codecs call: errors, and the integers of rare forms.

The generated source calls these only when something is wrong, or for text and for BOLT 1's truncated and
signed integers. `NAMES` is what that source finds as its globals.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Final

from meshnet.codec.varint import (
    bigsize_size,
    read_bigsize,
    read_varint,
    varint_size,
    write_bigsize,
    write_varint,
)
from meshnet.errors import CodecError, EncodeError

Buffer = bytes | bytearray | memoryview
"""What `decode` takes: a flat buffer of bytes."""

FAULTS: Final = (struct.error, TypeError, ValueError, AttributeError, OverflowError, IndexError)
"""What Python raises while it writes a value of a wrong type or size."""


def short(where: str, need: int, have: int) -> CodecError:
    """The message ends too early."""
    return CodecError(f"{where}: {need} bytes are needed, {have} are left")


def long(where: str, most: int | str, size: int | str) -> CodecError:
    """More than was declared."""
    return CodecError(f"{where}: at most {most} are allowed, not {size}")


def bad(where: str, text: str) -> CodecError:
    """A value that has no meaning."""
    return CodecError(f"{where} {text}")


def wrong_size(where: str, want: int, size: int) -> CodecError:
    """Too few bytes or too many."""
    return CodecError(f"{where}: {want} bytes are needed, not {size}")


def unfit(where: str, want: int, size: int) -> EncodeError:
    """A fixed field of another length."""
    return EncodeError(f"{where} takes exactly {want} bytes, not {size}")


def miscounted(where: str, want: int, count: int) -> EncodeError:
    """An array with another number of items."""
    return EncodeError(f"{where} takes exactly {want} items, not {count}")


def twice(where: str, name: str) -> EncodeError:
    """Two items of ours with the same key."""
    return EncodeError(f"{where} has items with equal {name}")


def excess(where: str, most: int, size: int) -> EncodeError:
    """More than was declared, in a message of ours."""
    return EncodeError(f"{where} holds at most {most}, not {size}")


def text(where: str, data: Buffer, start: int, stop: int) -> str:
    """Strict UTF-8."""
    try:
        return str(data[start:stop], "utf-8")
    except UnicodeDecodeError:
        raise CodecError(f"{where} is not UTF-8") from None


def truncated_size(value: int) -> int:
    """Bytes of an unsigned integer without leading zeros; 0 for 0."""
    return (value.bit_length() + 7) // 8


def write_truncated(where: str, value: int, most: int, buffer: bytearray | memoryview, pos: int) -> int:
    """An unsigned integer without its leading zero bytes."""
    size = truncated_size(value)
    if value < 0 or size > most:
        raise EncodeError(f"{where} holds 0 to 2^{8 * most} - 1, not {value}")
    buffer[pos : pos + size] = value.to_bytes(size, "big")
    return pos + size


def read_truncated(where: str, data: Buffer, pos: int, end: int, most: int) -> int:
    """The unsigned integer in `data[pos:end]`; a leading zero byte is refused."""
    if end - pos > most:
        raise long(where, most, end - pos)
    if end > pos and data[pos] == 0:
        raise bad(where, "has leading zero bytes")
    return int.from_bytes(data[pos:end], "big")


def signed_size(value: int) -> int:
    """The fewest of 1, 2, 4 or 8 bytes that hold `value` in two's complement."""
    for size in (1, 2, 4, 8):
        if -(1 << 8 * size - 1) <= value < 1 << 8 * size - 1:
            return size
    raise EncodeError(f"{value} does not fit in 8 bytes")


def write_signed(where: str, value: int, buffer: bytearray | memoryview, pos: int) -> int:
    """A signed integer in its shortest form."""
    size = signed_size(value)
    buffer[pos : pos + size] = value.to_bytes(size, "big", signed=True)
    return pos + size


def read_signed(where: str, data: Buffer, pos: int, end: int) -> int:
    """The signed integer in `data[pos:end]`; longer forms than needed are refused."""
    if end - pos not in (1, 2, 4, 8):
        raise bad(where, "is not 1, 2, 4 or 8 bytes")
    value = int.from_bytes(data[pos:end], "big", signed=True)
    if signed_size(value) != end - pos:
        raise bad(where, "is not in its shortest form")
    return value


def framed(size: int) -> int:
    """The size of a value with its BigSize length before it."""
    return bigsize_size(size) + size


NAMES: Final[Mapping[str, Any]] = {
    one.__name__: one
    for one in (
        *(short, long, bad, wrong_size, unfit, miscounted, excess, twice, text, CodecError, EncodeError),
        *(read_varint, write_varint, varint_size, read_bigsize, write_bigsize, bigsize_size, framed),
        *(truncated_size, write_truncated, read_truncated, signed_size, write_signed, read_signed),
    )
} | {"FAULTS": FAULTS, "struct_error": struct.error, "ABSENT": object()}
