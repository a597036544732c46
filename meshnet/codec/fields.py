"""The kinds of fields that messages are declared with, and their layouts on the wire.

    U8 U16 U32 U64           unsigned, big-endian                Flag     one byte, 0 or 1
    VarInt  BigSize          RFC 9000 §16; BOLT 1                Fixed    n bytes
    TU16 TU32 TU64           BOLT 1 truncated (to the end)       Signed   1, 2, 4 or 8 bytes (to the end)
    Var      length ‖ bytes                                      Rest     bytes to the end
    Many     count ‖ items, or items to the end                  Tail     a TLV stream to the end
    Tlv      places a field in a TLV stream

A kind stands in an annotation: `onion: Annotated[bytes, Fixed(1366)]`. `Var` and `Rest` of a `str` carry
UTF-8. A kind never sees a message: it only says which steps write and read it. Every length is checked
against what is declared and what is there before anything is made of it.
"""

from __future__ import annotations

from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from attrs import evolve, field, frozen

from meshnet.codec.steps import (
    Lines,
    Names,
    Packed,
    Step,
    fixed_size,
    indent,
    measure,
    read_lines,
    write_lines,
)

_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}


class Kind:
    """How one value lies on the wire. `least` is its smallest size in bytes; a `greedy` kind runs to the end
    of what surrounds it, so that it stands last (or in a TLV, whose length ends it)."""

    greedy = False
    least = 0

    def lower(self, value: str, target: str, where: str, end: str, names: Names) -> list[Step]:
        """Steps that write the expression `value` and read the variable `target`, not beyond `end`."""
        raise NotImplementedError


@frozen
class Int(Kind):
    """An unsigned big-endian integer of 1, 2, 4 or 8 bytes."""

    size: int

    @property
    def least(self) -> int:  # type: ignore[override]
        """Its size."""
        return self.size

    def lower(self, value: str, target: str, where: str, end: str, names: Names) -> list[Step]:
        """One packed step."""
        return [Packed(_CODES[self.size], self.size, value, target, where)]


@frozen
class Flag(Kind):
    """A truth value in one byte, strictly 0 or 1."""

    least = 1

    def lower(self, value: str, target: str, where: str, end: str, names: Names) -> list[Step]:
        """One packed step and a check."""
        check = (f"if {target} > 1:", f"    raise bad({where!r}, 'is neither 0 nor 1')")
        after = (*check, f"{target} = {target} == 1")
        return [Packed("B", 1, f"bool({value})", target, where, after=after)]


@frozen
class Fixed(Kind):
    """Exactly `size` bytes."""

    size: int

    @property
    def least(self) -> int:  # type: ignore[override]
        """Its size."""
        return self.size

    def lower(self, value: str, target: str, where: str, end: str, names: Names) -> list[Step]:
        """One packed step; `struct` would pad or cut silently, so the length is checked before."""
        fault = f"    raise unfit({where!r}, {self.size}, len({value}))"
        before = (f"if len({value}) != {self.size}:", fault)
        return [Packed(f"{self.size}s", self.size, value, target, where, before=before)]


@frozen
class Numeral(Kind):
    """An integer of variable length; `style` is "varint" or "bigsize"."""

    style: str
    least = 1

    def lower(self, value: str, target: str, where: str, end: str, names: Names) -> list[Step]:
        """Calls of `varint.py`; the one-byte form is read in line."""
        read = (
            f"if pos >= {end}:",
            f"    raise short({where!r}, 1, 0)",
            f"{target} = data[pos]",
            f"if {target} < {0x40 if self.style == 'varint' else 0xFD}:",
            "    pos += 1",
            "else:",
            f"    {target}, pos = read_{self.style}(data, pos)",
            f"    if pos > {end}:",
            f"        raise short({where!r}, 1, 0)",
        )
        write = (f"pos = write_{self.style}({value}, buffer, pos)",)
        return [Lines(f"{self.style}_size({value})", write, read)]


@frozen
class Truncated(Kind):
    """An unsigned integer without its leading zero bytes (BOLT 1 tu16, tu32, tu64); runs to the end."""

    size: int
    greedy = True

    def lower(self, value: str, target: str, where: str, end: str, names: Names) -> list[Step]:
        """Calls of the functions `*_truncated` of `compile.py`."""
        write = (f"pos = write_truncated({where!r}, {value}, {self.size}, buffer, pos)",)
        read = (f"{target} = read_truncated({where!r}, data, pos, {end}, {self.size})", f"pos = {end}")
        return [Lines(f"truncated_size({value})", write, read)]


@frozen
class Signed(Kind):
    """A two's complement integer in the fewest of 1, 2, 4 or 8 bytes (BOLT 1); runs to the end."""

    greedy = True
    least = 1

    def lower(self, value: str, target: str, where: str, end: str, names: Names) -> list[Step]:
        """Calls of the functions `*_signed` of `compile.py`."""
        write = (f"pos = write_signed({where!r}, {value}, buffer, pos)",)
        read = (f"{target} = read_signed({where!r}, data, pos, {end})", f"pos = {end}")
        return [Lines(f"signed_size({value})", write, read)]


U8 = Annotated[int, Int(1)]
U16 = Annotated[int, Int(2)]
U32 = Annotated[int, Int(4)]
U64 = Annotated[int, Int(8)]
Bool = Annotated[bool, Flag()]
VarInt = Annotated[int, Numeral("varint")]
BigSize = Annotated[int, Numeral("bigsize")]
TU16 = Annotated[int, Truncated(2)]
TU32 = Annotated[int, Truncated(4)]
TU64 = Annotated[int, Truncated(8)]
SignedInt = Annotated[int, Signed()]


def _prefix(given: object, maximum: int) -> Kind:
    kind = kind_of(given, "prefix")
    if isinstance(kind, Int):
        if not 0 <= maximum < 1 << 8 * kind.size:
            raise TypeError(f"a prefix of {kind.size} bytes cannot count to {maximum}")
    elif not isinstance(kind, Numeral):
        raise TypeError("a length is U8, U16, U32, U64, VarInt or BigSize")
    return kind


def _most(size: str, maximum: int, where: str, fault: str) -> tuple[str, str]:
    return (f"if {size} > {maximum}:", f"    raise {fault}({where!r}, {maximum}, {size})")


def _counted(prefix: Kind, maximum: int, value: str, target: str, where: str, end: str) -> Step:
    """The step of a length or count: `value` is written, read into `target` and compared with `maximum`."""
    (step,) = prefix.lower(value, target, where, end, Names())
    before, after = _most(value, maximum, where, "excess"), _most(target, maximum, where, "long")
    if isinstance(step, Packed):
        return evolve(step, before=before, after=after)
    return evolve(step, before=before, read=step.read + after)


def _octets(text: bool, value: str, target: str, where: str) -> tuple[str, tuple[str, ...], str]:
    """For bytes or text: expression of the bytes, lines that make it, source that reads `data[pos:stop]`."""
    if text:
        octets = f"{target}_octets"
        return octets, (f"{octets} = {value}.encode()",), f"text({where!r}, data, pos, {target}_stop)"
    return value, (), f"bytes(data[pos:{target}_stop])"


@frozen
class Var(Kind):
    """At most `maximum` bytes after their length; `prefix` is U8 … U64, VarInt or BigSize."""

    prefix: object
    maximum: int
    text: bool = False

    def __attrs_post_init__(self) -> None:
        _prefix(self.prefix, self.maximum)

    @property
    def least(self) -> int:  # type: ignore[override]
        """The length of an empty one."""
        return _prefix(self.prefix, self.maximum).least

    def lower(self, value: str, target: str, where: str, end: str, names: Names) -> list[Step]:
        """The length, joined with the packed fields before it, then the bytes."""
        prefix = _prefix(self.prefix, self.maximum)
        octets, make, take = _octets(self.text, value, target, where)
        count = _counted(prefix, self.maximum, f"len({octets})", f"{target}_size", where, end)
        count = evolve(count, before=make + count.before)
        size = f"len({value}.encode())" if self.text else f"len({value})"
        if isinstance(count, Lines):
            count = evolve(count, measure=f"{prefix.style}_size({size})")  # type: ignore[attr-defined]
        read = (
            f"if {end} - pos < {target}_size:",
            f"    raise short({where!r}, {target}_size, {end} - pos)",
            f"{target}_stop = pos + {target}_size",
            f"{target} = {take}",
            f"pos = {target}_stop",
        )
        write = (f"buffer[pos:pos + len({octets})] = {octets}", f"pos += len({octets})")
        return [count, Lines(size, write, read)]


@frozen
class Rest(Kind):
    """All bytes that are left, at most `maximum`; the last field."""

    maximum: int
    text: bool = False
    greedy = True

    def lower(self, value: str, target: str, where: str, end: str, names: Names) -> list[Step]:
        """The bytes."""
        octets, make, take = _octets(self.text, value, target, where)
        size = f"len({value}.encode())" if self.text else f"len({value})"
        read = (
            *_most(f"{end} - pos", self.maximum, where, "long"),
            f"{target}_stop = {end}",
            f"{target} = {take}",
            f"pos = {end}",
        )
        write = (f"buffer[pos:pos + len({octets})] = {octets}", f"pos += len({octets})")
        return [Lines(size, write, read, make + _most(f"len({octets})", self.maximum, where, "excess"))]


@frozen
class Nested(Kind):
    """Another message in place; made from the annotation, not written by hand."""

    codec: Any
    maximum: int | None = None

    @property
    def greedy(self) -> bool:  # type: ignore[override]
        """As the message inside."""
        return bool(self.codec.greedy)

    @property
    def least(self) -> int:  # type: ignore[override]
        """As the message inside."""
        return int(self.codec.least)

    def lower(self, value: str, target: str, where: str, end: str, names: Names) -> list[Step]:
        """Calls of the other message's functions."""
        size, write = names.bind(self.codec.size, "size"), names.bind(self.codec.write, "write")
        read = names.bind(self.codec.read, "read")
        check: tuple[str, ...] = ()
        before: tuple[str, ...] = ()
        if self.maximum is not None:
            check = _most(f"{end} - pos", self.maximum, where, "long")
            before = _most(f"{size}({value})", self.maximum, where, "excess")
        return [
            Lines(
                f"{size}({value})",
                (f"pos = {write}({value}, buffer, pos)",),
                (*check, f"{target}, pos = {read}(data, pos, {end})"),
                before,
            )
        ]


@frozen
class Many(Kind):
    """At most `maximum` items of a `tuple[X, …]` after their count; with `prefix` None they run to the end.

    X is a message or a kind: `Annotated[tuple[Hop, ...], Many(U8, 8)]`, `tuple[U16, ...]`.
    """

    prefix: object
    maximum: int
    item: Kind | None = field(default=None, kw_only=True)

    @property
    def greedy(self) -> bool:  # type: ignore[override]
        """True without a count."""
        return self.prefix is None

    @property
    def least(self) -> int:  # type: ignore[override]
        """The size of none."""
        return 0 if self.prefix is None else _prefix(self.prefix, self.maximum).least

    def lower(self, value: str, target: str, where: str, end: str, names: Names) -> list[Step]:
        """The count and a loop; a count that cannot fit into what is left is refused before the loop."""
        if self.item is None or self.item.greedy or self.item.least < 1:
            raise TypeError(f"{where}: the items need a known end and at least one byte each")
        one = f"{target}_item"
        steps = self.item.lower(one, one, where, end, names)
        put = [f"for {one} in {value}:", *indent(write_lines(steps, names))]
        fixed = fixed_size(steps)
        size = f"sum([{measure(steps)} for {one} in {value}])" if fixed is None else f"{fixed} * len({value})"
        take = [*read_lines(steps, names, end), f"{target}.append({one})"]
        done = f"{target} = tuple({target})"
        if self.prefix is None:
            fault = f"    raise long({where!r}, {self.maximum}, 'more')"
            loop = indent([f"if len({target}) == {self.maximum}:", fault, *take])
            read = [f"{target} = []", f"while pos < {end}:", *loop, done]
            before = _most(f"len({value})", self.maximum, where, "excess")
            return [Lines(size, tuple(put), tuple(read), before)]
        count, prefix = f"{target}_count", _prefix(self.prefix, self.maximum)
        read = [
            f"if {end} - pos < {count} * {self.item.least}:",
            f"    raise short({where!r}, {count} * {self.item.least}, {end} - pos)",
            f"{target} = []",
            f"for _ in range({count}):",
            *indent(take),
            done,
        ]
        head = _counted(prefix, self.maximum, f"len({value})", count, where, end)
        return [head, Lines(size, tuple(put), tuple(read))]


@frozen
class Tail:
    """Marks a `@tlvs` class that takes the rest of a message, at most `maximum` bytes; the last field."""

    maximum: int = 65_535


@frozen
class Tlv:
    """Places a field of a `@tlvs` class: its type number and the kind (or message class) of its value."""

    number: int
    kind: object


def kind_of(annotation: Any, where: str) -> Kind:
    """The kind that an annotation names; `TypeError`, at declaration, if it names none."""
    if isinstance(annotation, Kind):
        return annotation
    codec = getattr(annotation, "__codec__", None)
    if codec is not None:
        return Nested(codec)
    if get_origin(annotation) is Annotated:
        base, *marks = get_args(annotation)
        for mark in marks:
            if isinstance(mark, Tail):
                return Nested(kind_of(base, where).codec, mark.maximum)  # type: ignore[attr-defined]
            if isinstance(mark, Kind):
                return _fitted(mark, base, where)
    raise TypeError(f"{where}: {annotation!r} does not say how it lies on the wire")


def _fitted(kind: Kind, base: Any, where: str) -> Kind:
    """The kind with what its Python type adds: text for `str`, the items for `tuple[X, ...]`."""
    if get_origin(base) in (Union, UnionType):
        base = next(one for one in get_args(base) if one is not type(None))
    if isinstance(kind, Var | Rest) and base is str:
        return evolve(kind, text=True)
    if isinstance(kind, Many):
        if get_origin(base) is not tuple or len(get_args(base)) != 2 or get_args(base)[1] is not Ellipsis:
            raise TypeError(f"{where}: Many goes with tuple[X, ...]")
        return evolve(kind, item=kind_of(get_args(base)[0], where))
    return kind
