"""How message classes are made and how their objects are built: frozen for users, quick for the codec.

A message is a slotted attrs class that refuses assignment. What costs time in a frozen class is that its own
constructor may not assign either, and attrs calls the setter of every slot instead. Here the values are
stored into a blank, an object of a class with the same slots that allows it, and then the blank becomes the
message by one assignment of `__class__`, which Python allows for equal slots. Constructors and generated
readers both do so: it halves the time that attrs' own takes. Comparing, hashing and showing are closures,
so that a declaration compiles one piece of source and not five.

A class with converters, validators or `__attrs_post_init__` keeps all that attrs makes, and is built by its
constructor when it is decoded, so that nothing of what it asks is skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any, TypeVar

import attrs

from meshnet.codec.declaration import Declaration
from meshnet.codec.steps import Names, indent

M = TypeVar("M")


def frozen_class(cls: type[M], *, kw_only: bool) -> type[M]:
    """The frozen attrs class of `cls`; its `__blank__` is the class of blanks, None where attrs builds it.

    A class with a blank gets its constructor from the source that `constructor` returns.
    """
    if not hasattr(cls, "__attrs_post_init__") and cls.__base__ is object:
        made: Any = attrs.define(
            cls, frozen=True, kw_only=kw_only, weakref_slot=False, init=False, eq=False, repr=False
        )
        fields: Sequence[Any] = attrs.fields(made)
        if all(_plain(one) for one in fields):
            _dress(made, tuple(one.name for one in fields))
            return made  # type: ignore[no-any-return]
    made = attrs.define(cls, frozen=True, kw_only=kw_only)
    made.__blank__ = None
    return made  # type: ignore[no-any-return]


def _plain(one: Any) -> bool:
    """Whether a field asks nothing of attrs but a default."""
    asks = one.converter or one.validator or getattr(one.default, "takes_self", False)
    return one.init and one.repr is True and one.eq is True and one.hash is None and not asks


def _dress(made: Any, names: tuple[str, ...]) -> None:
    """Give a class its blank, and how its objects compare, hash, show and are copied."""
    made.__blank__ = type(f"{made.__name__}Blank", (), {"__slots__": names})
    if len(names) > 1:
        values: Any = attrgetter(*names)
    else:
        values = attrgetter(names[0]) if names else lambda self: ()

    def eq(self: Any, other: Any) -> Any:
        return values(self) == values(other) if other.__class__ is made else NotImplemented

    def hashed(self: Any) -> int:
        return hash((made, values(self)))

    def shown(self: Any) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{made.__qualname__.rpartition('<locals>.')[2]}({fields})"

    def reduce(self: Any) -> tuple[Any, ...]:
        return _rebuilt, (made, tuple((name, getattr(self, name)) for name in names))

    made.__eq__, made.__hash__, made.__repr__, made.__reduce__ = eq, hashed, shown, reduce


def _rebuilt(cls: Any, values: Sequence[tuple[str, Any]]) -> Any:
    """For copy and pickle."""
    return cls(**dict(values))


def constructor(declaration: Declaration, names: Names) -> list[str]:
    """Source of `__new__`, with the parameters and defaults of the class; none where attrs builds it."""
    cls: Any = declaration.cls
    if cls.__blank__ is None:
        return []
    fields: Sequence[Any] = attrs.fields(cls)
    parameters, body = ["_cls"], list[str]()
    if any(one.kw_only for one in fields):
        parameters.append("*")
    for one in fields:
        if one.default is attrs.NOTHING:
            parameters.append(one.name)
        elif isinstance(one.default, attrs.Factory):  # type: ignore[arg-type]
            parameters.append(f"{one.name}=ABSENT")
            factory = names.bind(one.default.factory, "factory")
            body += [f"if {one.name} is ABSENT:", f"    {one.name} = {factory}()"]
        else:
            parameters.append(f"{one.name}={names.bind(one.default, 'default')}")
    body.append(f"_made = {names.bind(cls.__blank__, 'blank')}()")
    body += [f"_made.{one.name} = {one.name}" for one in fields]
    body += ["_made.__class__ = _cls", "return _made"]
    return [f"def __new__({', '.join(parameters)}):", *indent(body)]


def construct(declaration: Declaration, target: str, values: Sequence[str], names: Names) -> list[str]:
    """Source that makes the object of a declared class of the expressions `values`, as variable `target`."""
    cls: Any = declaration.cls
    members = declaration.members
    made = names.bind(cls, "cls")
    if cls.__blank__ is None:
        given = ", ".join(f"{one.name}={value}" for one, value in zip(members, values, strict=True))
        return [f"{target} = {made}({given})"]
    lines = [f"{target} = {names.bind(cls.__blank__, 'blank')}()"]
    lines += [f"{target}.{one.name} = {value}" for one, value in zip(members, values, strict=True)]
    return [*lines, f"{target}.__class__ = {made}"]
