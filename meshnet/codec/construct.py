"""How message classes are made and how their objects are built: frozen for users, quick for the codec.

A message is a slotted attrs class that refuses assignment. What costs time in a frozen class is that its own
constructor may not assign either, and attrs calls the setter of every slot instead. Here the values are
stored into a blank, an object of a class with the same slots that allows it, and then the blank becomes the
message by one assignment of `__class__`, which Python allows for equal slots. Constructors and generated
readers both do so: it halves the time that attrs' own takes.

A class with converters, validators or `__attrs_post_init__` keeps the constructor of attrs, and is built by
it when it is decoded, so that nothing of what it asks is skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import attrs

from meshnet.codec.declaration import Declaration
from meshnet.codec.steps import Names, compiled, indent

M = TypeVar("M")


def frozen_class(cls: type[M], *, kw_only: bool) -> type[M]:
    """The frozen attrs class of `cls`; its `__blank__` is the class of blanks, None where attrs builds it."""
    made: type[M] = attrs.define(cls, frozen=True, slots=True, kw_only=kw_only, weakref_slot=False)
    fields: Sequence[Any] = attrs.fields(made)  # type: ignore[arg-type]
    plain = not hasattr(made, "__attrs_post_init__") and made.__base__ is object
    plain = plain and all(one.init and not (one.converter or one.validator) for one in fields)
    plain = plain and not any(getattr(one.default, "takes_self", False) for one in fields)
    made.__blank__ = None  # type: ignore[attr-defined]
    if plain:
        slots = tuple(one.name for one in fields)
        made.__blank__ = type(f"{cls.__name__}Blank", (), {"__slots__": slots})  # type: ignore[attr-defined]
        made.__new__ = _constructor(made, fields)  # type: ignore[method-assign]
        made.__init__ = object.__init__  # type: ignore[method-assign]
        made.__reduce__ = _reduce  # type: ignore[method-assign]
    return made


def _reduce(self: Any) -> tuple[Any, ...]:
    """For copy and pickle: by the fields, through `evolve`-like keywords."""
    names = tuple(one.name for one in attrs.fields(type(self)))
    return _rebuilt, (type(self), names, tuple(getattr(self, name) for name in names))


def _rebuilt(cls: Any, names: Sequence[str], values: Sequence[Any]) -> Any:
    return cls(**dict(zip(names, values, strict=True)))


def _constructor(made: type, fields: Sequence[Any]) -> Any:
    """`__new__` of a message class, with its parameters and defaults."""
    names = Names({"blank": made.__blank__, "absent": object()})  # type: ignore[attr-defined]
    parameters, body = list[str](), list[str]()
    if any(one.kw_only for one in fields):
        parameters.append("*")
    for one in fields:
        default = one.default
        if default is attrs.NOTHING:
            parameters.append(one.name)
        elif isinstance(default, attrs.Factory):  # type: ignore[arg-type]
            factory = names.bind(default.factory, "factory")
            parameters.append(f"{one.name}=absent")
            body += [f"if {one.name} is absent:", f"    {one.name} = {factory}()"]
        else:
            parameters.append(f"{one.name}={names.bind(default, 'default')}")
    body.append("_made = blank()")
    body += [f"_made.{one.name} = {one.name}" for one in fields]
    body += ["_made.__class__ = _cls", "return _made"]
    lines = [f"def __new__({', '.join(['_cls', *parameters])}):", *indent(body)]
    return compiled(f"{made.__module__}.{made.__qualname__}.__new__", lines, names)["__new__"]


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
