"""What a message class is, as text and as a hash: whether two programs mean the same by it.

The text has one line per field, in the order of writing, with all that changes which bytes are written or
read, and nothing else: no docstrings, defaults, Python types, modules.

    message Offer wire
      price u64
      note text u8..100
      hops list u8..4 of {
        message Hop wire
          key bytes[33]
      }
      colour u8 since 2

The id of a schema is the SHA-256 of that text in UTF-8, without a newline at the end. Field and class names
are part of it, for they say what the bytes mean.
"""

from __future__ import annotations

import hashlib
from functools import singledispatch

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
)


def schema_text(cls: type, generation: int | None = None) -> str:
    """The schema of a message class, as it was at `generation` (None for today's)."""
    return "\n".join(_lines(_declaration(cls), generation))


def schema_id(cls: type, generation: int | None = None) -> bytes:
    """The SHA-256 (32 bytes) of a class's schema, as it was at `generation` (None for today's)."""
    return hashlib.sha256(schema_text(cls, generation).encode()).digest()


def schema_history(cls: type) -> dict[bytes, int]:
    """The id of the schema at each generation, oldest first: what older programs say of the same class.

    Only fields of the class itself have generations here; messages inside it count as they are today.
    """
    return {schema_id(cls, generation): generation for generation in _declaration(cls).generations}


def _declaration(cls: type) -> Declaration:
    declaration: Declaration = cls.__declaration__  # type: ignore[attr-defined]
    return declaration


def _lines(declaration: Declaration, generation: int | None = None) -> list[str]:
    head = f"{'tlvs' if declaration.tlv else 'message'} {declaration.cls.__name__} {declaration.profile.name}"
    members = [one for one in declaration.members if generation is None or one.generation <= generation]
    return [head, *(f"  {line}" for member in members for line in _member(member))]


def _member(member: Member) -> list[str]:
    first, *more = _text(member.kind)
    number = "" if member.number < 0 else f"{member.number} {'' if member.required else 'optional '}"
    marks = " omitempty" * member.omit + f" since {member.generation}" * (member.generation > 1)
    lines = [f"{number}{member.name} {first}", *more]
    lines[-1] += marks
    return lines


@singledispatch
def _text(kind: Kind) -> list[str]:
    raise TypeError(f"{kind!r} has no place in a schema")


def _form(form: Form) -> str:
    return "text" if form == "text" else "bytes"


def _prefix(prefix: Prefix) -> str:
    return prefix.style if isinstance(prefix, Numeral) else f"u{8 * prefix.size}"


def _of(head: str, item: Kind) -> list[str]:
    first, *more = _text(item)
    return [f"{head} of {first}", *more]


@_text.register
def _(kind: Int) -> list[str]:
    return [f"{'i' if kind.signed else 'u'}{8 * kind.size}"]


@_text.register
def _(kind: Float) -> list[str]:
    return [f"f{8 * kind.size}"]


@_text.register
def _(kind: Flag) -> list[str]:
    return ["bool"]


@_text.register
def _(kind: Fixed) -> list[str]:
    return [f"bytes[{kind.size}]"]


@_text.register
def _(kind: Numeral) -> list[str]:
    return [kind.style]


@_text.register
def _(kind: Truncated) -> list[str]:
    return [f"tu{8 * kind.size}"]


@_text.register
def _(kind: Signed) -> list[str]:
    return ["signed"]


@_text.register
def _(kind: Var) -> list[str]:
    return [f"{_form(kind.form)} {_prefix(kind.prefix)}..{kind.maximum}"]


@_text.register
def _(kind: Rest) -> list[str]:
    return [f"{_form(kind.form)} rest..{kind.maximum}"]


@_text.register
def _(kind: Nested) -> list[str]:
    limit = "" if kind.maximum is None else f"rest..{kind.maximum} "
    return [f"{limit}{{", *(f"  {line}" for line in _lines(kind.declaration)), "}"]


@_text.register
def _(kind: Framed) -> list[str]:
    return _of(f"frame {_prefix(kind.prefix)}..{kind.maximum}", kind.item)


@_text.register
def _(kind: Many) -> list[str]:
    count = "rest" if kind.prefix is None else _prefix(kind.prefix)
    unique = f" unique {kind.unique}" if kind.unique else ""
    return _of(f"list {count}..{kind.maximum}{unique}", kind.item)


@_text.register
def _(kind: Array) -> list[str]:
    return _of(f"array {kind.count}", kind.item)
