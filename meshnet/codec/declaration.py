"""What a message class declares, read from its annotations and checked: profile, fields, generations.

A `Declaration` is all that the generator, the reflective coder and the schema know of a class. A mistake
raises `TypeError` here, while the module of the class is imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import attrs
from attrs import evolve, frozen

from meshnet.codec.fields import (
    Array,
    Fixed,
    Flag,
    Float,
    Framed,
    Int,
    Kind,
    Many,
    Nested,
    OmitEmpty,
    Rest,
    Since,
    Tail,
    Var,
)


@frozen
class Profile:
    """The rules a class follows: `order` is the byte order as `struct` writes it, ">" or "<"."""

    name: str
    order: str


WIRE = Profile("wire", ">")
"""Big-endian, all kinds. What nodes of this project say to each other."""

SKYCOIN = Profile("skycoin", "<")
"""Skycoin's `cipher/encoder`: little-endian, counts and lengths as u32, only the kinds that it has."""


@frozen
class Member:
    """One field: its name and kind; TLV number or -1; whether it must be there; whether an empty one is
    omitted; the generation that appended it (1 is the first); its default (`attrs.NOTHING` if none)."""

    name: str
    kind: Kind
    number: int = -1
    required: bool = True
    omit: bool = False
    generation: int = 1
    default: Any = None

    def absent(self) -> Any:
        """The value of the field when an older writer left it out."""
        if isinstance(self.default, attrs.Factory):  # type: ignore[arg-type]
            return self.default.factory()
        return self.default


@frozen(eq=False)
class Declaration:
    """A message class: its profile, its fields in the order of writing, whether it is a TLV stream, and how
    many bytes of a newer writer's it skips at its end."""

    cls: type
    profile: Profile
    members: tuple[Member, ...]
    tlv: bool = False
    skip: int = 0

    @property
    def name(self) -> str:
        """The class, as errors call it."""
        return self.cls.__qualname__

    @property
    def greedy(self) -> bool:
        """Whether the end of what surrounds the message says where it ends."""
        if self.tlv or self.skip:
            return True
        return any(one.kind.greedy or one.omit or one.generation > 1 for one in self.members)

    @property
    def least(self) -> int:
        """The smallest size in bytes."""
        if self.tlv:
            return 0
        return sum(one.kind.least for one in self.members if one.generation == 1 and not one.omit)

    @property
    def generations(self) -> tuple[int, ...]:
        """The generations of its fields, ascending: (1,) if nothing was appended."""
        return tuple(sorted({1, *(one.generation for one in self.members)}))


def check(declaration: Declaration) -> Declaration:
    """The declaration itself; `TypeError` if it cannot be a message."""
    members = declaration.members
    for member in members[:-1]:
        if member.kind.greedy or member.omit:
            raise TypeError(f"{declaration.name}.{member.name} runs to the end and must be the last field")
    if members and members[-1].kind.greedy and declaration.skip:
        raise TypeError(f"{declaration.name}: where the last field takes all, nothing is left to skip")
    for member in members:
        _check_kind(declaration, member.kind, f"{declaration.name}.{member.name}")
        if member.omit and not isinstance(member.kind, Var | Many):
            raise TypeError(f"{declaration.name}.{member.name}: only bytes, text and lists can be empty")
    _check_generations(declaration)
    return declaration


def _check_generations(declaration: Declaration) -> None:
    appended = [one for one in declaration.members if one.generation != 1]
    if appended and declaration.profile is SKYCOIN:
        raise TypeError(f"{declaration.name}: Skycoin's encoder knows no generations")
    order = [one.generation for one in declaration.members]
    if appended and order[-1] == 1 and declaration.members[-1].kind.greedy:
        order.pop()  # it keeps what newer writers append
    if order != sorted(order):
        raise TypeError(f"{declaration.name}: fields are appended in the order of their generations")
    for generation in declaration.generations[1:]:
        group = [one for one in appended if one.generation == generation]
        for one in group:
            if one.default is attrs.NOTHING or getattr(one.default, "takes_self", False):
                raise TypeError(f"{declaration.name}.{one.name}: an appended field needs a default")
        if generation < 2 or sum(one.kind.least for one in group if not one.omit) < 1:
            raise TypeError(f"{declaration.name}: generation {generation} must be 2 or more and take bytes")


def _check_kind(declaration: Declaration, kind: Kind, where: str) -> None:
    """A kind that stands in `declaration`, and the items in it."""
    if declaration.profile is SKYCOIN:
        _check_skycoin(kind, where)
    if isinstance(kind, Fixed | Array) and (kind.size if isinstance(kind, Fixed) else kind.count) < 1:
        raise TypeError(f"{where}: nothing at all is no field")
    if isinstance(kind, Many | Array):
        if kind.item.greedy or kind.item.least < 1:
            raise TypeError(f"{where}: the items need a known end and at least one byte each")
        _check_kind(declaration, kind.item, where)
    if isinstance(kind, Many) and kind.unique:
        item = kind.item
        names = {one.name for one in item.declaration.members} if isinstance(item, Nested) else set()
        if kind.unique not in names:
            raise TypeError(f"{where}: the items have no field {kind.unique!r}")


def _check_skycoin(kind: Kind, where: str) -> None:
    if isinstance(kind, Nested):
        if kind.declaration.profile is not SKYCOIN:
            raise TypeError(f"{where}: a message of Skycoin's profile holds only such messages")
    elif not isinstance(kind, Int | Float | Flag | Fixed | Var | Many | Array):
        raise TypeError(f"{where}: Skycoin's encoder does not know this kind")
    elif isinstance(kind, Var | Many) and kind.prefix != Int(4):
        raise TypeError(f"{where}: Skycoin's lengths and counts are U32")


def member_of(name: str, hint: Any, default: Any, where: str) -> Member:
    """The member that an annotated field declares."""
    marks = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    generation = next((one.generation for one in marks if isinstance(one, Since)), 1)
    omit = any(isinstance(one, OmitEmpty) for one in marks)
    return Member(name, kind_of(hint, where), omit=omit, generation=generation, default=default)


def kind_of(annotation: Any, where: str) -> Kind:
    """The kind that an annotation names; `TypeError`, at declaration, if it names none."""
    if isinstance(annotation, Kind):
        return annotation
    declaration = getattr(annotation, "__declaration__", None)
    if declaration is not None:
        return Nested(declaration)
    if get_origin(annotation) is Annotated:
        base, *marks = get_args(annotation)
        for mark in marks:
            if isinstance(mark, Tail):
                return evolve(_nested(base, where), maximum=mark.maximum)
            if isinstance(mark, Kind):
                return _fitted(mark, base, where)
        if getattr(base, "__declaration__", None) is not None:
            return _nested(base, where)
    raise TypeError(f"{where}: {annotation!r} does not say how it lies on the wire")


def _nested(base: Any, where: str) -> Nested:
    kind = kind_of(base, where)
    if not isinstance(kind, Nested):
        raise TypeError(f"{where}: {base!r} is no message class")
    return kind


def _fitted(kind: Kind, base: Any, where: str) -> Kind:
    """The kind with what its Python type adds: the form of bytes, the items of a `tuple[X, ...]`."""
    types: Sequence[Any] = (base,)
    if get_origin(base) in (Union, UnionType):
        types = [one for one in get_args(base) if one is not type(None)]
    if isinstance(kind, Var | Rest | Fixed):
        if memoryview in types:
            return evolve(kind, form="view")
        if types[0] is str and isinstance(kind, Fixed):
            raise TypeError(f"{where}: text has no fixed size in bytes")
        return evolve(kind, form="text") if types[0] is str else kind
    if isinstance(kind, Framed):
        return evolve(kind, item=_nested(types[0], where))
    if isinstance(kind, Many | Array):
        if get_origin(types[0]) is not tuple or get_args(types[0])[1:] != (Ellipsis,):
            raise TypeError(f"{where}: {type(kind).__name__} goes with tuple[X, ...]")
        return evolve(kind, item=kind_of(get_args(types[0])[0], where))
    return kind
