"""From kinds to steps: how each kind of field is measured, written and read, as source text.

Fields of fixed size become `Packed` steps, so that neighbours share one `struct` call, also across a message
that stands in another one: its fields are laid in line. Every length is compared with its maximum and with
what is there before anything is made of it. This module only makes text; it runs while classes are declared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import singledispatch

from attrs import evolve, frozen

from meshnet.codec.construct import construct
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
from meshnet.codec.steps import (
    Lines,
    Names,
    Packed,
    Step,
    fixed_size,
    indent,
    measure,
    read_lines,
    single_run,
    struct_of,
    write_lines,
)

_UNSIGNED = {1: "B", 2: "H", 4: "I", 8: "Q"}
_FLOATS = {4: "f", 8: "d"}
_IN_LINE = 40
"""Messages with more steps than this are called, not laid in line, so that source stays short."""


@frozen
class Place:
    """Where a value is: the expression to write, the variable to read into, its name in errors, the variable
    that holds the end of what may be read, and the byte order."""

    value: str
    target: str
    where: str
    end: str
    order: str


@singledispatch
def lower(kind: Kind, at: Place, names: Names) -> list[Step]:
    """Steps that write the expression `at.value` and read the variable `at.target`, not beyond `at.end`."""
    raise TypeError(f"{at.where}: {kind!r} does not say how it lies on the wire")


def lower_member(
    declaration: Declaration, member: Member, value: str, target: str, end: str, names: Names
) -> list[Step]:
    """The steps of one field of a message; `value` and `target` as in `Place`."""
    at = Place(value, target, f"{declaration.name}.{member.name}", end, declaration.profile.order)
    steps = lower(member.kind, at, names)
    return [_omitted(member, at, steps, names)] if member.omit else steps


def _omitted(member: Member, at: Place, steps: Sequence[Step], names: Names) -> Step:
    """Nothing at all for an empty value."""
    empty = "()"
    if isinstance(member.kind, Var):
        empty = {"text": "''", "bytes": "b''", "view": "memoryview(b'')"}[member.kind.form]
    read = [f"if pos == {at.end}:", f"    {at.target} = {empty}", "else:"]
    read += indent(read_lines(steps, names, at.end))
    write = (f"if len({at.value}):", *indent(write_lines(steps, names)))
    return Lines(f"(({measure(steps)}) if len({at.value}) else 0)", write, tuple(read))


@lower.register
def _(kind: Int, at: Place, names: Names) -> list[Step]:
    code = _UNSIGNED[kind.size].lower() if kind.signed else _UNSIGNED[kind.size]
    return [Packed(code, kind.size, at.value, at.target, at.where, at.order)]


@lower.register
def _(kind: Float, at: Place, names: Names) -> list[Step]:
    return [Packed(_FLOATS[kind.size], kind.size, at.value, at.target, at.where, at.order)]


@lower.register
def _(kind: Flag, at: Place, names: Names) -> list[Step]:
    check = (f"if {at.target} > 1:", f"    raise bad({at.where!r}, 'is neither 0 nor 1')")
    after = (*check, f"{at.target} = {at.target} == 1")
    return [Packed("B", 1, f"bool({at.value})", at.target, at.where, at.order, after=after)]


@lower.register
def _(kind: Fixed, at: Place, names: Names) -> list[Step]:
    # `struct` would pad or cut silently, so the length is checked before.
    size, fault = kind.size, f"    raise unfit({at.where!r}, {kind.size}, len({at.value}))"
    before = (f"if len({at.value}) != {size}:", fault)
    if kind.form != "view":
        return [Packed(f"{size}s", size, at.value, at.target, at.where, at.order, before=before)]
    write = (f"buffer[pos:pos + {size}] = {at.value}", f"pos += {size}")
    read = (
        f"if {at.end} - pos < {size}:",
        f"    raise short({at.where!r}, {size}, {at.end} - pos)",
        f"{at.target} = memoryview(data)[pos:pos + {size}]",
        f"pos += {size}",
    )
    return [Lines(str(size), write, read, before)]


@lower.register
def _(kind: Numeral, at: Place, names: Names) -> list[Step]:
    read = (
        f"if pos >= {at.end}:",
        f"    raise short({at.where!r}, 1, 0)",
        f"{at.target} = data[pos]",
        f"if {at.target} < {0x40 if kind.style == 'varint' else 0xFD}:",
        "    pos += 1",
        "else:",
        f"    {at.target}, pos = read_{kind.style}(data, pos)",
        f"    if pos > {at.end}:",
        f"        raise short({at.where!r}, 1, 0)",
    )
    write = (f"pos = write_{kind.style}({at.value}, buffer, pos)",)
    return [Lines(f"{kind.style}_size({at.value})", write, read)]


@lower.register
def _(kind: Truncated, at: Place, names: Names) -> list[Step]:
    write = (f"pos = write_truncated({at.where!r}, {at.value}, {kind.size}, buffer, pos)",)
    read = (
        f"{at.target} = read_truncated({at.where!r}, data, pos, {at.end}, {kind.size})",
        f"pos = {at.end}",
    )
    return [Lines(f"truncated_size({at.value})", write, read)]


@lower.register
def _(kind: Signed, at: Place, names: Names) -> list[Step]:
    write = (f"pos = write_signed({at.where!r}, {at.value}, buffer, pos)",)
    read = (f"{at.target} = read_signed({at.where!r}, data, pos, {at.end})", f"pos = {at.end}")
    return [Lines(f"signed_size({at.value})", write, read)]


def _most(size: str, maximum: int, where: str, fault: str) -> tuple[str, str]:
    return (f"if {size} > {maximum}:", f"    raise {fault}({where!r}, {maximum}, {size})")


def _count(prefix: Prefix, maximum: int, at: Place, size: str) -> Step:
    """The step of a length or count: `at.value` is written, read into `at.target`, compared with `maximum`;
    `size` is the value as an expression that may stand in a measure."""
    (step,) = lower(prefix, at, Names())
    before = _most(at.value, maximum, at.where, "excess")
    after = _most(at.target, maximum, at.where, "long")
    if isinstance(step, Packed):
        return evolve(step, before=before, after=after)
    style = prefix.style if isinstance(prefix, Numeral) else ""
    return evolve(step, measure=f"{style}_size({size})", before=before, read=step.read + after)


def _octets(form: Form, at: Place) -> tuple[str, tuple[str, ...], str, str]:
    """For bytes or text: the expression of the bytes, lines that make it, the expression of their number, and
    source that takes `data[pos:stop]`."""
    stop = f"{at.target}_stop"
    if form == "text":
        octets = f"{at.target}_octets"
        take = f"text({at.where!r}, data, pos, {stop})"
        return octets, (f"{octets} = {at.value}.encode()",), f"len({at.value}.encode())", take
    take = f"memoryview(data)[pos:{stop}]" if form == "view" else f"bytes(data[pos:{stop}])"
    return at.value, (), f"len({at.value})", take


@lower.register
def _(kind: Var, at: Place, names: Names) -> list[Step]:
    octets, make, size, take = _octets(kind.form, at)
    place = evolve(at, value=f"len({octets})", target=f"{at.target}_size")
    count = _count(kind.prefix, kind.maximum, place, size)
    count = evolve(count, before=make + count.before)
    read = (
        f"{at.target}_stop = pos + {at.target}_size",
        f"if {at.target}_stop > {at.end}:",
        f"    raise short({at.where!r}, {at.target}_size, {at.end} - pos)",
        f"{at.target} = {take}",
        f"pos = {at.target}_stop",
    )
    write = (f"buffer[pos:pos + len({octets})] = {octets}", f"pos += len({octets})")
    return [count, Lines(size, write, read)]


@lower.register
def _(kind: Rest, at: Place, names: Names) -> list[Step]:
    octets, make, size, take = _octets(kind.form, at)
    read = (
        *_most(f"{at.end} - pos", kind.maximum, at.where, "long"),
        f"{at.target}_stop = {at.end}",
        f"{at.target} = {take}",
        f"pos = {at.end}",
    )
    write = (f"buffer[pos:pos + len({octets})] = {octets}", f"pos += len({octets})")
    return [Lines(size, write, read, make + _most(f"len({octets})", kind.maximum, at.where, "excess"))]


@lower.register
def _(kind: Nested, at: Place, names: Names) -> list[Step]:
    inner = kind.declaration
    if inner.tlv or inner.skip or len(inner.generations) > 1 or kind.maximum is not None:
        return [_call(kind, at, names)]
    steps = list[Step]()
    for i, member in enumerate(inner.members):
        steps += lower_member(inner, member, f"{at.value}.{member.name}", f"{at.target}_{i}", at.end, names)
    if len(steps) > _IN_LINE:
        return [_call(kind, at, names)]
    made = construct(inner, at.target, [f"{at.target}_{i}" for i in range(len(inner.members))], names)
    if not steps:
        return [Lines("0", (), tuple(made))]
    last = steps[-1]
    if isinstance(last, Packed):
        steps[-1] = evolve(last, after=(*last.after, *made))
    else:
        steps[-1] = evolve(last, read=(*last.read, *made))
    return steps


def _call(kind: Nested, at: Place, names: Names) -> Step:
    """Calls of the other message's functions."""
    codec = kind.declaration.cls.__codec__  # type: ignore[attr-defined]
    size, write, read = (names.bind(getattr(codec, one), one) for one in ("size", "write", "read"))
    check: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    if kind.maximum is not None:
        check = _most(f"{at.end} - pos", kind.maximum, at.where, "long")
        before = _most(f"{size}({at.value})", kind.maximum, at.where, "excess")
    reading = (*check, f"{at.target}, pos = {read}(data, pos, {at.end})")
    return Lines(f"{size}({at.value})", (f"pos = {write}({at.value}, buffer, pos)",), reading, before)


@lower.register
def _(kind: Framed, at: Place, names: Names) -> list[Step]:
    stop, size = f"{at.target}_stop", f"{at.target}_size"
    steps = lower(kind.item, evolve(at, end=stop), names)
    count = _count(kind.prefix, kind.maximum, evolve(at, value=size, target=size), measure(steps))
    count = evolve(count, before=(f"{size} = {measure(steps)}", *count.before))
    read = (
        f"{stop} = pos + {size}",
        f"if {stop} > {at.end}:",
        f"    raise short({at.where!r}, {size}, {at.end} - pos)",
        *read_lines(steps, names, stop),
        f"if pos != {stop}:",
        f"    raise bad({at.where!r}, f'is followed by {{{stop} - pos}} more bytes in its frame')",
    )
    return [count, Lines(measure(steps), tuple(write_lines(steps, names)), read)]


@lower.register
def _(kind: Many, at: Place, names: Names) -> list[Step]:
    size, put, take = _items(kind.item, at, names)
    unique = _unique(kind, at)
    done = [f"{at.target} = tuple({at.target})"]
    if unique:
        put = [f"if {unique(at.value)}:", f"    raise twice({at.where!r}, {kind.unique!r})", *put]
        done += [f"if {unique(at.target)}:", f"    raise bad({at.where!r}, 'has equal {kind.unique}')"]
    if kind.prefix is None:
        fault = f"    raise long({at.where!r}, {kind.maximum}, 'more')"
        loop = indent([f"if len({at.target}) == {kind.maximum}:", fault, *take])
        read = [f"{at.target} = []", f"while pos < {at.end}:", *loop, *done]
        return [
            Lines(size, tuple(put), tuple(read), _most(f"len({at.value})", kind.maximum, at.where, "excess"))
        ]
    count = f"{at.target}_count"
    place = evolve(at, value=f"len({at.value})", target=count)
    head = _count(kind.prefix, kind.maximum, place, f"len({at.value})")
    return [head, Lines(size, tuple(put), (*_loop(kind.item, at, count, take, names), *done))]


@lower.register
def _(kind: Array, at: Place, names: Names) -> list[Step]:
    size, put, take = _items(kind.item, at, names)
    before = (
        f"if len({at.value}) != {kind.count}:",
        f"    raise miscounted({at.where!r}, {kind.count}, len({at.value}))",
    )
    read = [*_loop(kind.item, at, str(kind.count), take, names), f"{at.target} = tuple({at.target})"]
    return [Lines(size, tuple(put), tuple(read), before)]


def _item_steps(item: Kind, at: Place, names: Names) -> tuple[str, list[Step]]:
    one = f"{at.target}_item"
    return one, lower(item, evolve(at, value=one, target=one), names)


def _items(item: Kind, at: Place, names: Names) -> tuple[str, list[str], list[str]]:
    """The size of all items as an expression; source that writes them; source that reads and appends one."""
    one, steps = _item_steps(item, at, names)
    fixed = fixed_size(steps)
    size = (
        f"sum([{measure(steps)} for {one} in {at.value}])" if fixed is None else f"{fixed} * len({at.value})"
    )
    take = [*read_lines(steps, names, at.end), f"{at.target}.append({one})"]
    if isinstance(item, Fixed) and item.form == "bytes":
        packed = single_run(steps) or []
        check = [f"for {one} in {at.value}:", *indent([line for step in packed for line in step.before])]
        joined = f"{at.target}_joined"
        put = [f"{joined} = b''.join({at.value})", f"buffer[pos:pos + len({joined})] = {joined}"]
        return size, [*check, *put, f"pos += len({joined})"], take
    return size, [f"for {one} in {at.value}:", *indent(write_lines(steps, names))], take


def _loop(item: Kind, at: Place, count: str, take: list[str], names: Names) -> list[str]:
    """Source that reads `count` items into a list; a count that cannot fit is refused before the first."""
    least = item.least
    need = f"{count} * {least}"
    start = [f"if {at.end} - pos < {need}:", f"    raise short({at.where!r}, {need}, {at.end} - pos)"]
    one, steps = _item_steps(item, at, names)
    packed = single_run(steps)
    if packed is None:
        return [*start, f"{at.target} = []", f"for _ in range({count}):", *indent(take)]
    rows = names.bind(struct_of(packed).iter_unpack, "iter_unpack")
    after = [line for step in packed for line in step.after]
    start += [f"{at.target}_stop = pos + {need}"]
    slices = f"{rows}(data[pos:{at.target}_stop])"
    targets = ", ".join(step.target for step in packed) + ","
    if not after and len(packed) == 1:
        loop = [f"{at.target} = [{one} for {one}, in {slices}]"]
    else:
        loop = [f"{at.target} = []", f"for {targets} in {slices}:"]
        loop += indent([*after, f"{at.target}.append({one})"])
    return [*start, *loop, f"pos = {at.target}_stop"]


def _unique(kind: Many, at: Place) -> Callable[[str], str] | None:
    """What says in source that two items of an expression have the same `kind.unique`."""
    if not kind.unique:
        return None
    one = f"{at.target}_item"
    return lambda items: f"len({{{one}.{kind.unique} for {one} in {items}}}) != len({items})"
