"""The frames by which neighbours compare and exchange records (docs/wire-format.md §9).

    31 OFFER    rows                                  records that the sender holds
    33 ASK      count u16 | count × name 8            send me these
    35 RECORD   a record
    37 DIGEST   level u8 | 2^level × digest u64       what the sender holds, in 2^level buckets
    39 SUMMARY  level u8 | count u16 | count × bucket u16 | more u8 | rows
                                                      all that the sender holds in these buckets; `more`: the
                                                      next SUMMARY goes on
    rows        count u16 | count × (name 8 | issued u32)

A bucket is the first `level` bits of a name; its digest the XOR of the first 8 bytes of
SHA-256(name ‖ issued) over its records. All kinds are odd, so that a node without topology skips them. Any
bytes are read or raise CodecError.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import Struct
from typing import Annotated, Final

from meshnet.cipher.aead import Buffer
from meshnet.codec import U8, U16, U64, Fixed, Many, decode, encode, message
from meshnet.errors import CodecError
from meshnet.limits import BUCKETS, OFFERS
from meshnet.topology.record import NAME_SIZE, Name

OFFER: Final = 31
ASK: Final = 33
RECORD: Final = 35
DIGEST: Final = 37
SUMMARY: Final = 39
KINDS: Final = (OFFER, ASK, RECORD, DIGEST, SUMMARY)

Row = tuple[Name, int]
"""Whose record, and when it was issued."""

_U16: Final = Struct(">H")
_ROW: Final = Struct(">8sI")


@message
class Ask:
    """ASK."""

    names: Annotated[tuple[Annotated[bytes, Fixed(NAME_SIZE)], ...], Many(U16, OFFERS)]


@message
class Digest:
    """DIGEST; `level` is 0 to 12."""

    level: U8
    digests: Annotated[tuple[U64, ...], Many(None, BUCKETS)]


@message
class _SummaryHead:
    level: U8
    buckets: Annotated[tuple[U16, ...], Many(U16, BUCKETS)]
    more: U8


def put_rows(rows: Sequence[Row]) -> bytes:
    """Rows, as OFFER has them: at most `OFFERS`."""
    return _U16.pack(len(rows)) + b"".join(_ROW.pack(name, issued) for name, issued in rows)


def read_rows(data: Buffer, start: int = 0) -> list[Row]:
    """Rows that end where `data` does; raises CodecError."""
    view = memoryview(data)[start:]
    if len(view) < 2:
        raise CodecError("a list of records has no count")
    count = _U16.unpack_from(view)[0]
    if count > OFFERS or len(view) != 2 + count * _ROW.size:
        raise CodecError(f"a list of records has at most {OFFERS} rows of 12 bytes, and nothing behind them")
    return [(Name(name), issued) for name, issued in _ROW.iter_unpack(view[2:])]


def put_ask(names: Iterable[Name]) -> bytes:
    """ASK."""
    return encode(Ask(tuple(names)))


def read_ask(data: Buffer) -> tuple[Name, ...]:
    """The names asked for; raises CodecError."""
    return tuple(Name(name) for name in decode(Ask, data).names)


def put_digest(level: int, digests: Sequence[int]) -> bytes:
    """DIGEST."""
    return encode(Digest(level, tuple(digests)))


def read_digest(data: Buffer) -> Digest:
    """DIGEST; raises CodecError."""
    digest = decode(Digest, data)
    if 1 << digest.level != len(digest.digests):
        raise CodecError(f"a DIGEST of level {digest.level} has not {len(digest.digests)} buckets")
    return digest


def put_summary(level: int, buckets: Sequence[int], more: bool, rows: Sequence[Row]) -> bytes:
    """One part of a SUMMARY."""
    return encode(_SummaryHead(level, tuple(buckets), int(more))) + put_rows(rows)


def put_summaries(level: int, buckets: Sequence[int], rows: Sequence[Row]) -> list[bytes]:
    """SUMMARY, as many as the rows need; the first names the buckets."""
    parts = [rows[start : start + OFFERS] for start in range(0, len(rows), OFFERS)] or [[]]
    bodies = []
    for number, part in enumerate(parts):
        bodies.append(put_summary(level, buckets if number == 0 else (), number < len(parts) - 1, part))
    return bodies


def read_summary(data: Buffer) -> tuple[int, tuple[int, ...], bool, list[Row]]:
    """Level, buckets (those of the first part only), whether more follows, rows; raises CodecError."""
    if len(data) < 3:
        raise CodecError("a SUMMARY has no buckets")
    view = memoryview(data)
    size = 3 + 2 * _U16.unpack_from(view, 1)[0] + 1
    head = decode(_SummaryHead, view[:size])
    if head.level > 12 or any(each >> head.level for each in head.buckets):
        raise CodecError("a SUMMARY names a bucket that its level does not have")
    return head.level, head.buckets, bool(head.more), read_rows(view, size)
