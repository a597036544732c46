"""Declares messages and turns them into bytes and back.

A class under `@message` or `@tlvs` becomes a frozen, slotted attrs class with a generated codec. `decode`
raises only `CodecError`, whatever the bytes, and holds nothing of the buffer it was given: all bytes in a
message are copies. `encode` raises only `EncodeError`, for a message that its declaration does not allow.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any, TypeVar, dataclass_transform, get_args, get_origin, get_type_hints

import attrs

from meshnet.codec.compile import Codec, Member, compile_message, compile_tlvs
from meshnet.codec.fields import Kind, Tlv, kind_of
from meshnet.codec.parts import FAULTS, Buffer
from meshnet.errors import EncodeError

M = TypeVar("M")


@dataclass_transform(frozen_default=True, field_specifiers=(attrs.field,))
def message(cls: type[M]) -> type[M]:
    """Make `cls` a message: its annotated fields follow one another in the order of declaration.

    Each field is a kind (`label: U32`), an `Annotated` type with a kind, or another message class. A mistake
    in the declaration raises `TypeError` here.
    """
    made, hints = _attrs_class(cls, kw_only=False)
    members = [Member(name, kind_of(hint, f"{cls.__qualname__}.{name}")) for name, hint in hints.items()]
    made.__codec__ = compile_message(made, members)  # type: ignore[attr-defined]
    return made


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(attrs.field,))
def tlvs(cls: type[M]) -> type[M]:
    """Make `cls` a TLV stream (BOLT 1): each field is `Annotated[T | None, Tlv(number, kind)] = None`.

    None means absent. A field without a default must be there. On reading, types must rise strictly; an
    unknown even type is refused, an unknown odd one skipped. Fields are given by keyword.
    """
    made, hints = _attrs_class(cls, kw_only=True)
    defaults = {one.name: one.default for one in attrs.fields(made)}  # type: ignore[arg-type]
    members = []
    for name, hint in hints.items():
        where = f"{cls.__qualname__}.{name}"
        marks = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
        mark = next((one for one in marks if isinstance(one, Tlv)), None)
        if mark is None:
            raise TypeError(f"{where}: fields of a TLV stream are Annotated[…, Tlv(number, kind)]")
        if defaults[name] not in (None, attrs.NOTHING):
            raise TypeError(f"{where}: the only default is None, which means absent")
        given = mark.kind
        kind = kind_of(Annotated[get_args(hint)[0], given] if isinstance(given, Kind) else given, where)
        members.append(Member(name, kind, mark.number, defaults[name] is attrs.NOTHING))
    members.sort(key=lambda member: member.number)
    numbers = [member.number for member in members]
    if len(set(numbers)) != len(numbers):
        raise TypeError(f"{cls.__qualname__} uses a type number twice")
    made.__codec__ = compile_tlvs(made, members)  # type: ignore[attr-defined]
    return made


def _attrs_class(cls: type[M], *, kw_only: bool) -> tuple[type[M], dict[str, Any]]:
    """The frozen attrs class and the annotations of its fields, resolved where the decorator stands."""
    made: type[M] = attrs.define(cls, frozen=True, slots=True, kw_only=kw_only)
    frame = sys._getframe(2)
    hints = get_type_hints(made, frame.f_globals, frame.f_locals, include_extras=True)
    names = [one.name for one in attrs.fields(made)]  # type: ignore[arg-type]
    for name in names:
        if name.startswith("_"):
            raise TypeError(f"{cls.__qualname__}.{name}: fields of messages have no underscore in front")
    return made, {name: hints[name] for name in names}


def decode(cls: type[M], data: Buffer) -> M:
    """The message of class `cls` that `data` is, all of it; `CodecError` if it is none.

    `data` is a flat buffer of bytes. What is returned refers to none of it.
    """
    codec: Codec = cls.__codec__  # type: ignore[attr-defined]
    made: M = codec.parse(data)
    return made


def encode(value: object) -> bytes:
    """The bytes of a message; `EncodeError` if it holds what its declaration does not allow."""
    codec: Codec = value.__codec__  # type: ignore[attr-defined]
    return codec.build(value)


def size_of(value: object) -> int:
    """How many bytes `encode` makes of a message."""
    codec: Codec = value.__codec__  # type: ignore[attr-defined]
    try:
        return codec.size(value)
    except EncodeError:
        raise
    except FAULTS as fault:
        raise EncodeError(f"{codec.name}: {fault}") from fault


def encode_into(value: object, buffer: bytearray | memoryview) -> int:
    """Write a message at the start of `buffer`; its size.

    Raises `EncodeError` as `encode` does, or if the buffer is too small; after an error
    the start of `buffer` is undefined.
    """
    codec: Codec = value.__codec__  # type: ignore[attr-defined]
    size = size_of(value)
    if size > len(buffer):
        raise EncodeError(f"{codec.name} takes {size} bytes, the buffer has {len(buffer)}")
    try:
        return codec.write(value, buffer, 0)
    except EncodeError:
        raise
    except FAULTS as fault:
        raise EncodeError(f"{codec.name}: {fault}") from fault
