"""Declares messages and turns them into bytes and back.

A class under `@message` or `@tlvs` becomes a frozen, slotted attrs class with a generated codec. `decode`
raises only `CodecError`, whatever the bytes; but for fields of type `View` what it returns holds nothing of
the buffer it was given. `encode` raises only `EncodeError`, for a message that its declaration refuses.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import (
    Annotated,
    Any,
    TypeVar,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)

import attrs

from meshnet.codec.compile import Codec, compile_message, compile_tlvs
from meshnet.codec.construct import frozen_class
from meshnet.codec.declaration import WIRE, Declaration, Member, Profile, check, kind_of, member_of
from meshnet.codec.fields import Kind, Tlv
from meshnet.codec.parts import FAULTS, Buffer
from meshnet.errors import CodecError, EncodeError

M = TypeVar("M")


@overload
@dataclass_transform(frozen_default=True, field_specifiers=(attrs.field,))
def message(cls: type[M], /) -> type[M]: ...


@overload
@dataclass_transform(frozen_default=True, field_specifiers=(attrs.field,))
def message(*, profile: Profile = WIRE, skip: int = 0) -> Callable[[type[M]], type[M]]: ...


def message(cls: Any = None, /, *, profile: Profile = WIRE, skip: int = 0) -> Any:
    """Make a class a message: its annotated fields follow one another in the order of declaration.

    Each field is a kind (`label: U32`), an `Annotated` type with a kind, or another message class. `profile`
    is `WIRE` (big-endian) or `SKYCOIN` (little-endian, Skycoin's rules). With `skip`, up to so many bytes
    behind the last field are ignored: they are what a newer writer appended. A mistake in the declaration
    raises `TypeError` here.
    """
    where = sys._getframe(1)

    def declare(cls: type[M]) -> type[M]:
        made, hints = _attrs_class(cls, where, kw_only=False)
        fields = attrs.fields_dict(made)  # type: ignore[arg-type]
        members = tuple(
            member_of(name, hint, fields[name].default, f"{cls.__qualname__}.{name}")
            for name, hint in hints.items()
        )
        return _with_codec(made, Declaration(made, profile, members, skip=skip))

    return declare if cls is None else declare(cls)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(attrs.field,))
def tlvs(cls: type[M]) -> type[M]:
    """Make `cls` a TLV stream (BOLT 1): each field is `Annotated[T | None, Tlv(number, kind)] = None`.

    None means absent. A field without a default must be there. On reading, types must rise strictly; an
    unknown even type is refused, an unknown odd one skipped. Fields are given by keyword.
    """
    made, hints = _attrs_class(cls, sys._getframe(1), kw_only=True)
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
    return _with_codec(made, Declaration(made, WIRE, tuple(members), tlv=True))


def _attrs_class(cls: type[M], frame: Any, *, kw_only: bool) -> tuple[type[M], dict[str, Any]]:
    """The frozen attrs class and the annotations of its fields, resolved where the decorator stands."""
    made = frozen_class(cls, kw_only=kw_only)
    hints = get_type_hints(made, frame.f_globals, frame.f_locals, include_extras=True)
    names = [one.name for one in attrs.fields(made)]  # type: ignore[arg-type]
    for name in names:
        if name.startswith("_"):
            raise TypeError(f"{cls.__qualname__}.{name}: fields of messages have no underscore in front")
    return made, {name: hints[name] for name in names}


def _with_codec(cls: type[M], declaration: Declaration) -> type[M]:
    made: Any = cls
    made.__declaration__ = declaration if declaration.tlv else check(declaration)
    made.__codec__ = codec = compile_tlvs(declaration) if declaration.tlv else compile_message(declaration)
    # As methods of the class they cost one look-up less.
    made.__encode__, made.__decode__ = codec.build, staticmethod(codec.parse)
    return cls


def decode(cls: type[M], data: Buffer) -> M:
    """The message of class `cls` that `data` is, all of it; `CodecError` if it is none.

    `data` is a flat buffer of bytes. What is returned refers to none of it, except in fields of type `View`.
    """
    made: M = cls.__decode__(data)  # type: ignore[attr-defined]
    return made


def decode_from(cls: type[M], data: Buffer, pos: int = 0, end: int | None = None) -> tuple[M, int]:
    """The message of class `cls` that starts at `pos`, and the position after it; `CodecError` if none does.

    It does not reach beyond `end` (the end of the buffer if None); a class that runs to the end of what
    surrounds it takes all until there.
    """
    codec: Codec = cls.__codec__  # type: ignore[attr-defined]
    end = len(data) if end is None else end
    if not 0 <= pos <= end <= len(data):
        raise CodecError(f"{codec.name}: no message lies from {pos} to {end} of {len(data)} bytes")
    made: tuple[M, int] = codec.read(data, pos, end)
    return made


def encode(value: object) -> bytes:
    """The bytes of a message; `EncodeError` if it holds what its declaration does not allow."""
    made: bytes = value.__encode__()  # type: ignore[attr-defined]
    return made


def size_of(value: object) -> int:
    """How many bytes `encode` makes of a message."""
    codec: Codec = value.__codec__  # type: ignore[attr-defined]
    try:
        return codec.size(value)
    except EncodeError:
        raise
    except FAULTS as fault:
        raise EncodeError(f"{codec.name}: {fault}") from fault


def encode_into(value: object, buffer: bytearray | memoryview, pos: int = 0) -> int:
    """Write a message into `buffer` from `pos` on; the position after it.

    Raises `EncodeError` as `encode` does, or if the buffer is too small; after an error what lies behind
    `pos` is undefined. The buffer keeps its size.
    """
    codec: Codec = value.__codec__  # type: ignore[attr-defined]
    try:
        size = codec.size(value)
        if pos < 0 or size > len(buffer) - pos:
            raise EncodeError(f"{codec.name} takes {size} bytes, the buffer has {max(0, len(buffer) - pos)}")
        return codec.write(value, buffer, pos)
    except EncodeError:
        raise
    except FAULTS as fault:
        raise EncodeError(f"{codec.name}: {fault}") from fault


def encoder(cls: type[M]) -> Callable[[M], bytes]:
    """`encode` for one class, without looking at what it is given: for loops over many messages of it."""
    codec: Codec = cls.__codec__  # type: ignore[attr-defined]
    return codec.build


def decoder(cls: type[M]) -> Callable[[Buffer], M]:
    """`decode` for one class, as a function of the bytes alone."""
    codec: Codec = cls.__codec__  # type: ignore[attr-defined]
    return codec.parse


def codec_of(it: object) -> Codec:
    """The generated functions for a message class, or for the class of a message; `TypeError` for others.

    For code that puts messages between other bytes of one buffer: `size` and `write` check less than
    `size_of` and `encode_into`, and raise any of `FAULTS` for a message that cannot be written.
    """
    try:
        codec: Codec = it.__codec__  # type: ignore[attr-defined]
    except AttributeError:
        raise TypeError(f"{it!r} is no message; declare it with @message") from None
    return codec


def has_views(cls: type) -> bool:
    """Whether what is decoded may refer to the buffer it was decoded from: it has a field of type `View`,
    or a message in it has."""
    declaration: Declaration = cls.__declaration__  # type: ignore[attr-defined]
    return any(_refers(member.kind) for member in declaration.members)


def _refers(kind: Any) -> bool:
    inside, item = getattr(kind, "declaration", None), getattr(kind, "item", None)
    return (
        getattr(kind, "form", "") == "view"
        or (item is not None and _refers(item))
        or (inside is not None and any(_refers(member.kind) for member in inside.members))
    )


def source_of(cls: type) -> str:
    """The Python source that was generated for a message class: what it does per message, to read."""
    codec: Codec = cls.__codec__  # type: ignore[attr-defined]
    return codec.source
