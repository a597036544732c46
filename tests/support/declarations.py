"""Message classes that hypothesis invents, with values that they allow and values that they refuse.

`declared()` draws a class and a strategy of its objects: kinds in any order that a declaration permits,
nested to a small depth, in both profiles, with generations, skipped tails, frames, TLV streams.
`spoilt(value)` draws a copy of an object in which one field, at any depth, holds another value, mostly one
that its kind does not allow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import attrs
from hypothesis import strategies as st

from meshnet.codec import (
    SKYCOIN,
    WIRE,
    Array,
    Bool,
    Fixed,
    Framed,
    Many,
    OmitEmpty,
    Profile,
    Rest,
    SignedInt,
    Since,
    Tail,
    Tlv,
    Var,
    View,
    message,
    tlvs,
)
from meshnet.codec.fields import Float, Int, Nested, Numeral, Truncated

Field = tuple[Any, st.SearchStrategy[Any]]
"""An annotation, and values that fit it."""

_PREFIXES = [Int(1), Int(2), Int(4), Int(8), Numeral("varint"), Numeral("bigsize")]
_COUNT = st.integers(1, 4)


def _int(size: int, signed: bool) -> Field:
    bits = 8 * size
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    return Annotated[int, Int(size, signed)], st.integers(low, high)


def _float(size: int) -> Field:
    return Annotated[float, Float(size)], st.floats(allow_nan=False, width=8 * size)  # type: ignore[arg-type]


def _fixed(size: int, base: Any) -> Field:
    return Annotated[base, Fixed(size)], st.binary(min_size=size, max_size=size)


def _numeral(style: Any) -> Field:
    return Annotated[int, Numeral(style)], st.integers(0, (1 << (62 if style == "varint" else 64)) - 1)


def _octets(make: Callable[[int], Any], maximum: int, base: Any) -> Field:
    if base is str:
        return Annotated[str, make(maximum)], st.text("aé€", max_size=maximum // 3)
    return Annotated[base, make(maximum)], st.binary(max_size=maximum)


_BASES = st.sampled_from([bytes, str, View])
_NUMBERS = st.builds(_int, st.sampled_from([1, 2, 4, 8]), st.booleans())
_FIXED = (
    _NUMBERS
    | st.builds(_float, st.sampled_from([4, 8]))
    | st.just((Bool, st.booleans()))
    | st.builds(_fixed, st.integers(1, 9), st.sampled_from([bytes, View]))
)
_NUMERALS = st.builds(_numeral, st.sampled_from(["varint", "bigsize"]))


def _tuple_of(item: Any) -> Any:
    return tuple[item, ...]


@st.composite
def _var(draw: st.DrawFn, prefix: Any) -> Field:
    return _octets(lambda maximum: Var(prefix, maximum), draw(st.integers(0, 12)), draw(_BASES))


@st.composite
def _list(draw: st.DrawFn, item: Field, prefix: Any) -> Field:
    maximum = draw(_COUNT)
    hint: Any = Annotated[_tuple_of(item[0]), Many(prefix, maximum)]
    return hint, st.lists(item[1], max_size=maximum).map(tuple)


@st.composite
def _array(draw: st.DrawFn, item: Field) -> Field:
    count = draw(_COUNT)
    hint: Any = Annotated[_tuple_of(item[0]), Array(count)]
    return hint, st.lists(item[1], min_size=count, max_size=count).map(tuple)


@st.composite
def _field(draw: st.DrawFn, profile: Profile, depth: int) -> Field:
    """A field that may stand anywhere."""
    prefix = Int(4) if profile is SKYCOIN else draw(st.sampled_from(_PREFIXES))
    choices: list[st.SearchStrategy[Any]] = [_FIXED, _FIXED, _var(prefix)]
    if profile is WIRE:
        choices.append(_NUMERALS)
    if depth:
        choices += [st.just("list"), st.just("array"), st.just("message")]
        choices += [st.just("frame")] * (profile is WIRE)
    chosen = draw(st.one_of(*choices))
    if chosen == "list":
        return draw(_list(draw(_item(profile, depth - 1)), prefix))
    if chosen == "array":
        return draw(_array(draw(_item(profile, depth - 1))))
    if chosen == "message":
        return draw(_class(profile, depth - 1, closed=True))
    if chosen == "frame":
        inner, values = draw(_class(profile, depth - 1, closed=False) | _stream(depth - 1))
        return Annotated[inner, Framed(Int(2), 9_999)], values
    assert isinstance(chosen, tuple)
    return chosen


def _item(profile: Profile, depth: int) -> st.SearchStrategy[Field]:
    """A field that may stand in a list: it takes a byte at least."""
    return _field(profile, depth).filter(lambda field: _least(field[0]) > 0)


def _least(hint: Any) -> int:
    from meshnet.codec.declaration import kind_of

    return kind_of(hint, "here").least


@st.composite
def _last(draw: st.DrawFn, profile: Profile, depth: int) -> Field:
    """A field that runs to the end."""
    if profile is SKYCOIN:
        hint, values = draw(_var(Int(4)) | _list(draw(_item(profile, 0)), Int(4)))
        return Annotated[hint, OmitEmpty()], values
    rest = st.builds(_octets, st.just(Rest), st.integers(0, 9), _BASES)
    size = draw(st.sampled_from([2, 4, 8]))
    short = (Annotated[int, Truncated(size)], st.integers(0, (1 << 8 * size) - 1))
    signed = (SignedInt, st.integers(-(1 << 63), (1 << 63) - 1))
    chosen: Field = draw(rest | st.just(short) | st.just(signed) | _list(draw(_item(profile, 0)), None))
    if depth and draw(st.booleans()):
        hint, values = draw(_stream(depth - 1))
        return Annotated[hint, Tail(9_999)], values
    return chosen


@st.composite
def _stream(draw: st.DrawFn, depth: int) -> Field:
    """A TLV stream."""
    hints, given = dict[str, Any](), dict[str, Any]()
    for i, number in enumerate(
        draw(st.lists(st.sampled_from([1, 2, 3, 64, 253, 70_000]), unique=True, max_size=3))
    ):
        hint, values = draw(_field(WIRE, depth) | _last(WIRE, 0))
        base, kind = (
            (hint.__origin__, hint.__metadata__[0]) if hasattr(hint, "__metadata__") else (hint, hint)
        )
        hints[f"t{i}"] = Annotated[base | None, Tlv(number, kind)]
        given[f"t{i}"] = st.none() | values
    made: Any = tlvs(type("Stream", (), {"__annotations__": hints, **dict.fromkeys(hints)}))
    return made, st.builds(made, **given)


@st.composite
def _class(draw: st.DrawFn, profile: Profile, depth: int, *, closed: bool) -> Field:
    """A message; a `closed` one says itself where it ends."""
    fields = draw(st.lists(_field(profile, depth), min_size=0 if depth else 1, max_size=5))
    body, skip, defaults = dict[str, Any](), 0, dict[str, Any]()
    if not closed:
        ending = draw(st.sampled_from(["last", "appended", "skip"] if profile is WIRE else ["last"]))
        if ending == "last":
            fields.append(draw(_last(profile, depth)))
        if ending == "appended":
            for generation in (2, 3):
                for hint, values in draw(st.lists(_item(profile, 0), min_size=1, max_size=2)):
                    defaults[f"f{len(fields)}"] = draw(values)
                    fields.append((Annotated[hint, Since(generation)], values))
        if ending == "skip" or (ending == "appended" and draw(st.booleans())):
            skip = draw(st.integers(1, 9))
    body["__annotations__"] = {f"f{i}": hint for i, (hint, _) in enumerate(fields)}
    made: Any = message(profile=profile, skip=skip)(type("Made", (), {**body, **defaults}))
    return made, st.builds(made, **{f"f{i}": values for i, (_, values) in enumerate(fields)})


@st.composite
def declared(draw: st.DrawFn) -> tuple[type[Any], st.SearchStrategy[Any]]:
    """A message class and a strategy of its objects."""
    profile = draw(st.sampled_from([WIRE, WIRE, SKYCOIN]))
    if profile is WIRE and draw(st.integers(0, 5)) == 0:
        return draw(_stream(1))
    return draw(_class(profile, 2, closed=draw(st.booleans())))


@st.composite
def spoilt(draw: st.DrawFn, value: Any) -> Any:
    """A copy of a message with one field that holds another length or number than before, right or wrong."""
    members = value.__declaration__.members
    if not members:
        return value
    member = draw(st.sampled_from(members))
    held = getattr(value, member.name)
    if isinstance(member.kind, Nested) and held is not None and draw(st.booleans()):
        return attrs.evolve(value, **{member.name: draw(spoilt(held))})
    return attrs.evolve(value, **{member.name: draw(_other(held))})


def _other(held: Any) -> st.SearchStrategy[Any]:
    if isinstance(held, bool | None):
        return st.just(held)
    if isinstance(held, int):
        return st.sampled_from(
            [-1, -(1 << 63), -(1 << 64), 1 << 8, 1 << 16, 1 << 32, 1 << 62, 1 << 64, 0, None]
        )
    if isinstance(held, float):
        return st.sampled_from([1e300, float("inf"), "x", None])
    if isinstance(held, str):
        return st.sampled_from(["", "a" * 13, "\ud800", None, 1])
    if isinstance(held, bytes):
        return st.sampled_from([b"", held + b"\0", bytes(13), None, 1])
    if isinstance(held, tuple):
        return st.sampled_from([(), held * 2, held * 5, held[1:], None, (None,)])
    return st.just(None)
