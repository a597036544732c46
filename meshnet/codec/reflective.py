"""A second codec that reads the declaration of a class each time, field by field: slow, and easy to believe.

It is the oracle of the generated one. Both start from a `Declaration` and share nothing after it: no
structs of several fields, no generated source, no varint of `varint.py`. Property tests hold them against
each other for declarations and values that nobody thought of, and `./mesh bench codec` says what the
generator gains. `encode` and `decode` promise what those of `message.py` promise; no program needs them.
"""

from __future__ import annotations

import operator
import struct
from functools import singledispatch
from typing import Any, Literal, TypeVar

import attrs

from meshnet.codec.declaration import Declaration, Member
from meshnet.codec.fields import (
    Array,
    Fixed,
    Flag,
    Float,
    Form,
    Framed,
    Int,
    Kind,
    Many,
    Nested,
    Numeral,
    Prefix,
    Rest,
    Signed,
    Truncated,
    Var,
    View,
)
from meshnet.errors import CodecError, EncodeError

M = TypeVar("M")
Order = Literal["little", "big"]


def encode(value: object) -> bytes:
    """The bytes of a message; `EncodeError` if it holds what its declaration does not allow."""
    declaration: Declaration = value.__declaration__  # type: ignore[attr-defined]
    try:
        return _put_message(declaration, value)
    except (struct.error, TypeError, ValueError, AttributeError, OverflowError) as fault:
        raise EncodeError(f"{declaration.name}: {fault}") from fault


def decode(cls: type[M], data: View) -> M:
    """The message of class `cls` that `data` is, all of it; `CodecError` if it is none."""
    declaration: Declaration = cls.__declaration__  # type: ignore[attr-defined]
    source = _Source(memoryview(data), 0, len(data), _order(declaration))
    made: M = _take_message(declaration, source)
    source.finish(declaration.name)
    return made


def _order(declaration: Declaration) -> Order:
    return "little" if declaration.profile.order == "<" else "big"


@attrs.define
class _Source:
    """Bytes from `pos` to `end`, taken from the front."""

    data: memoryview
    pos: int
    end: int
    order: Order

    def left(self) -> int:
        return self.end - self.pos

    def take(self, size: int, where: str) -> memoryview:
        if size > self.left():
            raise CodecError(f"{where}: {size} bytes are needed, {self.left()} are left")
        self.pos += size
        return self.data[self.pos - size : self.pos]

    def number(self, size: int, where: str) -> int:
        return int.from_bytes(self.take(size, where), self.order)

    def part(self, size: int, where: str) -> _Source:
        """The next `size` bytes as a source of their own."""
        self.take(size, where)
        return _Source(self.data, self.pos - size, self.pos, self.order)

    def finish(self, where: str) -> None:
        if self.left():
            raise CodecError(f"{where} is followed by {self.left()} more bytes")


def _put_message(declaration: Declaration, value: Any) -> bytes:
    order, parts = _order(declaration), []
    for member in declaration.members:
        held, where = getattr(value, member.name), f"{declaration.name}.{member.name}"
        if declaration.tlv:
            if held is None and member.required:
                raise EncodeError(f"{where} is missing")
            if held is not None:
                octets = _put(member.kind, held, where, order)
                parts += [_bigsize(member.number), _bigsize(len(octets)), octets]
        elif not (member.omit and len(held) == 0):
            parts.append(_put(member.kind, held, where, order))
    return b"".join(parts)


def _take_message(declaration: Declaration, source: _Source) -> Any:
    if declaration.tlv:
        return declaration.cls(**_take_tlvs(declaration, source))
    values: dict[str, Any] = {}
    generation, absent = 1, False
    for member in declaration.members:
        if member.generation > generation:
            generation, absent = member.generation, source.left() == 0
        if member.generation > 1 and absent:
            values[member.name] = member.absent()
        elif member.omit and source.left() == 0:
            values[member.name] = _nothing(member)
        else:
            values[member.name] = _take(member.kind, source, f"{declaration.name}.{member.name}")
    if declaration.skip:
        if source.left() > declaration.skip:
            raise CodecError(f"{declaration.name}: {source.left()} unknown bytes are too many")
        source.pos = source.end
    return declaration.cls(**values)


def _nothing(member: Member) -> Any:
    if isinstance(member.kind, Var):
        return {"bytes": b"", "text": "", "view": memoryview(b"")}[member.kind.form]
    return ()


def _take_tlvs(declaration: Declaration, source: _Source) -> dict[str, Any]:
    values: dict[str, Any] = {member.name: None for member in declaration.members}
    known = {member.number: member for member in declaration.members}
    last = -1
    while source.left():
        number = _take_bigsize(source, declaration.name)
        part = source.part(_take_bigsize(source, declaration.name), declaration.name)
        if number <= last:
            raise CodecError(f"{declaration.name} has type {number} after {last}")
        last = number
        if number in known:
            where = f"{declaration.name}.{known[number].name}"
            values[known[number].name] = _take(known[number].kind, part, where)
            part.finish(where)
        elif number % 2 == 0:
            raise CodecError(f"{declaration.name} has the unknown even type {number}")
    for member in declaration.members:
        if member.required and values[member.name] is None:
            raise CodecError(f"{declaration.name} lacks {member.name}")
    return values


def _bigsize(value: int) -> bytes:
    for limit, tag, size in (
        (0xFD, b"", 1),
        (1 << 16, b"\xfd", 2),
        (1 << 32, b"\xfe", 4),
        (1 << 64, b"\xff", 8),
    ):
        if 0 <= value < limit:
            return tag + value.to_bytes(size, "big")
    raise EncodeError(f"a BigSize holds 0 to 2^64 - 1, not {value}")


def _take_bigsize(source: _Source, where: str) -> int:
    first = source.take(1, where)[0]
    if first < 0xFD:
        return first
    size = {0xFD: 2, 0xFE: 4, 0xFF: 8}[first]
    value = int.from_bytes(source.take(size, where), "big")
    if len(_bigsize(value)) != 1 + size:
        raise CodecError(f"{where}: the BigSize of {value} is not in its shortest form")
    return value


def _varint(value: int) -> bytes:
    for log, bits in enumerate((6, 14, 30, 62)):
        if 0 <= value < 1 << bits:
            return (value + (log << bits)).to_bytes(1 << log, "big")
    raise EncodeError(f"a varint holds 0 to 2^62 - 1, not {value}")


def _take_varint(source: _Source, where: str) -> int:
    first = source.take(1, where)[0]
    size = 1 << (first >> 6)
    tail = bytes(source.take(size - 1, where))
    return int.from_bytes(bytes([first & 0x3F]) + tail, "big")


def _put_count(prefix: Prefix, count: int, maximum: int, where: str, order: Order) -> bytes:
    if count > maximum:
        raise EncodeError(f"{where} holds at most {maximum}, not {count}")
    return _put(prefix, count, where, order)


def _take_count(prefix: Prefix, maximum: int, source: _Source, where: str) -> int:
    count: int = _take(prefix, source, where)
    if count > maximum:
        raise CodecError(f"{where}: at most {maximum} are allowed, not {count}")
    return count


def _octets(form: Form, value: Any) -> bytes:
    if form == "text":
        text: bytes = value.encode("utf-8")
        return text
    return bytes(memoryview(value))


def _formed(form: Form, octets: memoryview, where: str) -> Any:
    if form == "view":
        return octets
    if form == "bytes":
        return bytes(octets)
    try:
        return bytes(octets).decode("utf-8")
    except UnicodeDecodeError:
        raise CodecError(f"{where} is not UTF-8") from None


@singledispatch
def _put(kind: Kind, value: Any, where: str, order: Order) -> bytes:
    raise TypeError(f"{where}: {kind!r} is no kind that can be written")


@singledispatch
def _take(kind: Kind, source: _Source, where: str) -> Any:
    raise TypeError(f"{where}: {kind!r} is no kind that can be read")


@_put.register
def _(kind: Int, value: Any, where: str, order: Order) -> bytes:
    return operator.index(value).to_bytes(kind.size, order, signed=kind.signed)


@_take.register
def _(kind: Int, source: _Source, where: str) -> int:
    return int.from_bytes(source.take(kind.size, where), source.order, signed=kind.signed)


@_put.register
def _(kind: Float, value: Any, where: str, order: Order) -> bytes:
    return struct.pack(("<" if order == "little" else ">") + ("f" if kind.size == 4 else "d"), value)


@_take.register
def _(kind: Float, source: _Source, where: str) -> float:
    code = ("<" if source.order == "little" else ">") + ("f" if kind.size == 4 else "d")
    (value,) = struct.unpack(code, source.take(kind.size, where))
    return float(value)


@_put.register
def _(kind: Flag, value: Any, where: str, order: Order) -> bytes:
    return b"\1" if value else b"\0"


@_take.register
def _(kind: Flag, source: _Source, where: str) -> bool:
    value = source.number(1, where)
    if value > 1:
        raise CodecError(f"{where} is neither 0 nor 1")
    return value == 1


@_put.register
def _(kind: Fixed, value: Any, where: str, order: Order) -> bytes:
    octets = _octets(kind.form, value)
    if len(octets) != kind.size:
        raise EncodeError(f"{where} takes exactly {kind.size} bytes, not {len(octets)}")
    return octets


@_take.register
def _(kind: Fixed, source: _Source, where: str) -> Any:
    return _formed(kind.form, source.take(kind.size, where), where)


@_put.register
def _(kind: Numeral, value: Any, where: str, order: Order) -> bytes:
    return _varint(operator.index(value)) if kind.style == "varint" else _bigsize(operator.index(value))


@_take.register
def _(kind: Numeral, source: _Source, where: str) -> int:
    return _take_varint(source, where) if kind.style == "varint" else _take_bigsize(source, where)


@_put.register
def _(kind: Truncated, value: Any, where: str, order: Order) -> bytes:
    return operator.index(value).to_bytes(kind.size, "big").lstrip(b"\0")


@_take.register
def _(kind: Truncated, source: _Source, where: str) -> int:
    octets = bytes(source.take(source.left(), where))
    if len(octets) > kind.size or octets[:1] == b"\0":
        raise CodecError(f"{where} is too long or has leading zero bytes")
    return int.from_bytes(octets, "big")


@_put.register
def _(kind: Signed, value: Any, where: str, order: Order) -> bytes:
    number = operator.index(value)
    for size in (1, 2, 4):
        if -(1 << 8 * size - 1) <= number < 1 << 8 * size - 1:
            return number.to_bytes(size, "big", signed=True)
    return number.to_bytes(8, "big", signed=True)


@_take.register
def _(kind: Signed, source: _Source, where: str) -> int:
    octets = bytes(source.take(source.left(), where))
    value = int.from_bytes(octets, "big", signed=True)
    if len(octets) not in (1, 2, 4, 8) or _put(kind, value, where, source.order) != octets:
        raise CodecError(f"{where} is not an integer in its shortest form")
    return value


@_put.register
def _(kind: Var, value: Any, where: str, order: Order) -> bytes:
    octets = _octets(kind.form, value)
    return _put_count(kind.prefix, len(octets), kind.maximum, where, order) + octets


@_take.register
def _(kind: Var, source: _Source, where: str) -> Any:
    size = _take_count(kind.prefix, kind.maximum, source, where)
    return _formed(kind.form, source.take(size, where), where)


@_put.register
def _(kind: Rest, value: Any, where: str, order: Order) -> bytes:
    octets = _octets(kind.form, value)
    if len(octets) > kind.maximum:
        raise EncodeError(f"{where} holds at most {kind.maximum}, not {len(octets)}")
    return octets


@_take.register
def _(kind: Rest, source: _Source, where: str) -> Any:
    if source.left() > kind.maximum:
        raise CodecError(f"{where}: at most {kind.maximum} are allowed, not {source.left()}")
    return _formed(kind.form, source.take(source.left(), where), where)


@_put.register
def _(kind: Nested, value: Any, where: str, order: Order) -> bytes:
    octets = _put_message(kind.declaration, value)
    if kind.maximum is not None and len(octets) > kind.maximum:
        raise EncodeError(f"{where} holds at most {kind.maximum}, not {len(octets)}")
    return octets


@_take.register
def _(kind: Nested, source: _Source, where: str) -> Any:
    if kind.maximum is not None and source.left() > kind.maximum:
        raise CodecError(f"{where}: at most {kind.maximum} are allowed, not {source.left()}")
    outer, source.order = source.order, _order(kind.declaration)
    made = _take_message(kind.declaration, source)
    source.order = outer
    return made


@_put.register
def _(kind: Framed, value: Any, where: str, order: Order) -> bytes:
    octets = _put(kind.item, value, where, order)
    return _put_count(kind.prefix, len(octets), kind.maximum, where, order) + octets


@_take.register
def _(kind: Framed, source: _Source, where: str) -> Any:
    part = source.part(_take_count(kind.prefix, kind.maximum, source, where), where)
    made = _take(kind.item, part, where)
    part.finish(where)
    return made


@_put.register
def _(kind: Many, value: Any, where: str, order: Order) -> bytes:
    head = b""
    if kind.prefix is not None:
        head = _put_count(kind.prefix, len(value), kind.maximum, where, order)
    elif len(value) > kind.maximum:
        raise EncodeError(f"{where} holds at most {kind.maximum}, not {len(value)}")
    if _repeats(kind, value):
        raise EncodeError(f"{where} has items with equal {kind.unique}")
    return head + b"".join(_put(kind.item, one, where, order) for one in value)


@_take.register
def _(kind: Many, source: _Source, where: str) -> Any:
    items = []
    if kind.prefix is None:
        while source.left():
            items.append(_take(kind.item, source, where))
            if len(items) > kind.maximum:
                raise CodecError(f"{where}: at most {kind.maximum} are allowed, not more")
    else:
        for _ in range(_take_count(kind.prefix, kind.maximum, source, where)):
            items.append(_take(kind.item, source, where))
    if _repeats(kind, items):
        raise CodecError(f"{where} has items with equal {kind.unique}")
    return tuple(items)


def _repeats(kind: Many, items: Any) -> bool:
    return bool(kind.unique) and len({getattr(one, kind.unique) for one in items}) < len(items)


@_put.register
def _(kind: Array, value: Any, where: str, order: Order) -> bytes:
    if len(value) != kind.count:
        raise EncodeError(f"{where} takes exactly {kind.count} items, not {len(value)}")
    return b"".join(_put(kind.item, one, where, order) for one in value)


@_take.register
def _(kind: Array, source: _Source, where: str) -> Any:
    return tuple(_take(kind.item, source, where) for _ in range(kind.count))
