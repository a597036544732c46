"""Makes the functions of a message class: straight-line Python source, compiled once at declaration.

For each class five functions: `size(m)`, `write(m, buffer, pos) -> pos`, `read(data, pos, end) -> (m, pos)`,
`parse(data) -> m` (the whole buffer is the message) and `build(m) -> bytes`; and its constructor. The source
is kept in `linecache`, so that tracebacks show it. Nothing here runs per message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from attrs import frozen

from meshnet.codec.construct import construct, constructor
from meshnet.codec.declaration import Declaration
from meshnet.codec.fields import Int
from meshnet.codec.lower import Place, lower, lower_member
from meshnet.codec.parts import NAMES
from meshnet.codec.steps import (
    Names,
    Packed,
    Step,
    compiled,
    fixed_size,
    indent,
    measure,
    read_lines,
    single_run,
    struct_of,
    write_lines,
)
from meshnet.codec.varint import bigsize_size, write_bigsize
from meshnet.errors import EncodeError


@frozen(eq=False)
class Codec:
    """The generated functions of one class, and their source."""

    name: str
    size: Callable[[Any], int]
    write: Callable[[Any, Any, int], int]
    read: Callable[[Any, int, int], tuple[Any, int]]
    parse: Callable[[Any], Any]
    build: Callable[[Any], bytes]
    source: str


def compile_message(declaration: Declaration) -> Codec:
    """The codec of a class whose fields lie one after another."""
    names, members = _names(declaration), declaration.members
    steps = [
        lower_member(declaration, member, f"m.{member.name}", f"v{i}", "end", names)
        for i, member in enumerate(members)
    ]
    flat = [step for one in steps for step in one]
    made = construct(declaration, "made", [f"v{i}" for i in range(len(members))], names)
    reading = [*_read_generations(declaration, steps, names), *made]
    lines = ["def size(m):", f"    return {measure(flat)}"]
    lines += ["def write(m, buffer, pos):", *indent(write_lines(flat, names)), "    return pos"]
    lines += ["def read(data, pos, end):", *indent(reading), "    return made, pos"]
    packed = None if declaration.greedy else single_run(flat)
    if packed is None:
        lines += _parse_general(declaration) + _build_general()
    else:
        lines += _parse_fixed(declaration, packed, made, names) + _build_fixed(packed, names)
    return _finish(declaration, names, lines)


def _read_generations(declaration: Declaration, steps: Sequence[list[Step]], names: Names) -> list[str]:
    """Source that reads all fields: those of later generations only if the message goes on."""

    def of(generation: int, members: Sequence[int]) -> list[Step]:
        return [step for i in members if declaration.members[i].generation == generation for step in steps[i]]

    numbers = list(range(len(steps)))
    kept: list[int] = []
    if len(declaration.generations) > 1 and declaration.members[-1].generation == 1:
        kept = [numbers.pop()]  # the rest, after what is known
    lines = []
    for i in numbers:
        member = declaration.members[i]
        if member.generation > 1:
            lines.append(f"v{i} = {names.bind(member.absent, 'absent')}()")
    lines += read_lines(of(1, numbers), names, "end")
    for generation in declaration.generations[1:]:
        lines += ["if pos < end:", *indent(read_lines(of(generation, numbers), names, "end"))]
    lines += read_lines(of(1, kept), names, "end")
    if declaration.skip:
        lines += [f"if end - pos > {declaration.skip}:"]
        lines += [
            f"    raise long({declaration.name!r}, '{declaration.skip} unknown bytes', end - pos)",
            "pos = end",
        ]
    return lines


def compile_tlvs(declaration: Declaration) -> Codec:
    """The codec of a TLV stream; the members stand in the order of their numbers."""
    names = _names(declaration)
    sizes, writing, branches = ["0"], list[str](), list[str]()
    for i, member in enumerate(declaration.members):
        where, value = f"{declaration.name}.{member.name}", f"m.{member.name}"
        steps = lower(member.kind, Place(value, f"v{i}", where, "stop", declaration.profile.order), names)
        head = bytearray(9)
        head = head[: write_bigsize(member.number, head, 0)]
        size = fixed_size(steps)
        if size is None:
            sizes.append(f"(0 if {value} is None else {len(head)} + framed({measure(steps)}))")
            put = write_lines([_literal(bytes(head), where)], names)
            put.append(f"pos = write_bigsize({measure(steps)}, buffer, pos)")
            put += write_lines(steps, names)
        else:
            head += bytes(bigsize_size(size))
            write_bigsize(size, head, len(head) - bigsize_size(size))
            sizes.append(f"(0 if {value} is None else {len(head) + size})")
            put = write_lines([_literal(bytes(head), where), *steps], names)
        writing += [f"if {value} is not None:", *indent(put)]
        if member.required:
            writing += ["else:", f"    raise EncodeError({where + ' is missing'!r})"]
        branches.append(f"{'if' if i == 0 else 'elif'} number == {member.number}:")
        branches += indent(read_lines(steps, names, "stop"))
    lines = ["def size(m):", f"    return {' + '.join(sizes)}"]
    lines += ["def write(m, buffer, pos):", *indent(writing), "    return pos"]
    made = construct(declaration, "made", [f"v{i}" for i in range(len(declaration.members))], names)
    reading = [*_tlv_loop(declaration, branches), *made]
    lines += ["def read(data, pos, end):", *indent(reading), "    return made, pos"]
    return _finish(declaration, names, lines + _parse_general(declaration) + _build_general())


def _literal(octets: bytes, where: str) -> Packed:
    return Packed(f"{len(octets)}s", len(octets), repr(octets), "_", where)


def _tlv_loop(declaration: Declaration, branches: list[str]) -> list[str]:
    """Source of the loop over types: strictly increasing, unknown even ones refused, unknown odd skipped."""
    name = declaration.name
    lines = [f"v{i} = None" for i in range(len(declaration.members))]
    lines += ["last = -1", "while pos < end:"]
    body = [
        "number = data[pos]",
        "if number < 253:",
        "    pos += 1",
        "else:",
        "    number, pos = read_bigsize(data, pos)",
        "if number <= last:",
        f"    raise bad({name!r}, f'has type {{number}} after {{last}}')",
        "last = number",
        "if pos >= end:",
        f"    raise short({name!r}, 1, 0)",
        "length = data[pos]",
        "if length < 253:",
        "    pos += 1",
        "else:",
        "    length, pos = read_bigsize(data, pos)",
        "stop = pos + length",
        "if stop > end:",
        f"    raise short({name!r}, length, max(0, end - pos))",
        *branches,
        f"{'elif' if branches else 'if'} not number & 1:",
        f"    raise bad({name!r}, f'has the unknown even type {{number}}')",
        "else:",
        "    pos = stop",
        "if pos != stop:",
        f"    raise bad({name!r}, f'has {{stop - pos}} bytes too many in type {{number}}')",
    ]
    lines += indent(body)
    for i, member in enumerate(declaration.members):
        if member.required:
            lines += [f"if v{i} is None:", f"    raise bad({name!r}, {f'lacks {member.name}'!r})"]
    return lines


def _parse_general(declaration: Declaration) -> list[str]:
    name = declaration.name
    body = ["end = len(data)", "made, pos = read(data, 0, end)"]
    body += ["if pos != end:", f"    raise bad({name!r}, f'is followed by {{end - pos}} more bytes')"]
    return ["def parse(data):", *indent(body), "    return made"]


def _parse_fixed(
    declaration: Declaration, packed: Sequence[Packed], made: Sequence[str], names: Names
) -> list[str]:
    """All in one `unpack`, which also says whether the size is right."""
    packing = struct_of(packed)
    unpack = names.bind(packing.unpack, "unpack")
    body = [
        "try:",
        f"    {', '.join(step.target for step in packed)}, = {unpack}(data)",
        "except struct_error:",
    ]
    body.append(f"    raise wrong_size({declaration.name!r}, {packing.size}, len(data)) from None")
    body += [line for step in packed for line in step.after]
    return ["def parse(data):", *indent([*body, *made]), "    return made"]


def _build_fixed(packed: Sequence[Packed], names: Names) -> list[str]:
    pack = names.bind(struct_of(packed).pack, "pack")
    body = [line for step in packed for line in step.before]
    body.append(f"return {pack}({', '.join(step.value for step in packed)})")
    return ["def build(m):", "    try:", *indent(body, 2), *_except("m")]


def _build_general() -> list[str]:
    body = ["buffer = bytearray(size(m))", "write(m, buffer, 0)", "return bytes(buffer)"]
    return ["def build(m):", "    try:", *indent(body, 2), *_except("m")]


def _except(value: str) -> list[str]:
    lines = ["except EncodeError:", "    raise", "except FAULTS as fault:", f"    refuse({value}, fault)"]
    return indent(lines)


def _names(declaration: Declaration) -> Names:
    """The globals of one class's source."""

    def refuse(value: object, fault: Exception) -> NoReturn:
        explain(declaration, value, fault)

    return Names({**NAMES, "refuse": refuse})


def explain(declaration: Declaration, value: object, fault: Exception) -> NoReturn:
    """Raise `EncodeError` for what a generated function stumbled over, naming the field where it can."""
    for member in declaration.members:
        held, kind = getattr(value, member.name, None), member.kind
        if not isinstance(kind, Int) or held is None:
            continue
        bits = 8 * kind.size
        low, high = (-(1 << bits - 1), 1 << bits - 1) if kind.signed else (0, 1 << bits)
        if not isinstance(held, int) or not low <= held < high:
            raise EncodeError(f"{declaration.name}.{member.name} cannot be {held!r}") from fault
    raise EncodeError(f"{declaration.name}: {fault}") from fault


def _finish(declaration: Declaration, names: Names, lines: list[str]) -> Codec:
    name = f"{declaration.cls.__module__}.{declaration.cls.__qualname__}"
    lines = [*constructor(declaration, names), *lines]
    made = compiled(name, lines, names)
    if "__new__" in made:
        declaration.cls.__new__ = made["__new__"]  # type: ignore[method-assign]
    functions = {one: made[one] for one in ("size", "write", "read", "parse", "build")}
    return Codec(name=name, source="\n".join(lines) + "\n", **functions)
