"""Makes the functions of a message class: straight-line Python source, compiled once at declaration.

For each class five functions: `size(m)`, `write(m, buffer, pos) -> pos`, `read(data, pos, end) -> (m, pos)`,
`parse(data) -> m` (the whole buffer is the message) and `build(m) -> bytes`. The source is kept in
`linecache`, so that tracebacks show it. Nothing here runs per message.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from attrs import frozen

from meshnet.codec.fields import Int, Kind
from meshnet.codec.parts import NAMES
from meshnet.codec.steps import (
    Names,
    Packed,
    Step,
    fixed_size,
    indent,
    measure,
    read_lines,
    struct_of,
    write_lines,
)
from meshnet.codec.varint import bigsize_size, write_bigsize
from meshnet.errors import EncodeError


@frozen(eq=False)
class Codec:
    """The generated functions of one class, and what others need to know of it.

    `least` is the smallest size in bytes, `greedy` says that the message runs to the end of its surroundings,
    `source` is the generated text.
    """

    name: str
    size: Callable[[Any], int]
    write: Callable[[Any, Any, int], int]
    read: Callable[[Any, int, int], tuple[Any, int]]
    parse: Callable[[Any], Any]
    build: Callable[[Any], bytes]
    least: int
    greedy: bool
    source: str


@frozen
class Member:
    """One field of a class: its name, kind, TLV number if it has one, and whether it must be there."""

    name: str
    kind: Kind
    number: int = -1
    required: bool = True


def compile_message(cls: type, members: Sequence[Member]) -> Codec:
    """The codec of a class whose fields lie one after another."""
    for member in members[:-1]:
        if member.kind.greedy:
            raise TypeError(f"{cls.__qualname__}.{member.name} runs to the end and must be the last field")
    names, steps = _names(cls, members), list[Step]()
    for i, member in enumerate(members):
        where = f"{cls.__qualname__}.{member.name}"
        steps += member.kind.lower(f"m.{member.name}", f"v{i}", where, "end", names)
    made = f"cls({', '.join(f'v{i}' for i in range(len(members)))})"
    size, reading = fixed_size(steps), read_lines(steps, names, "end")
    lines = ["def size(m):", f"    return {measure(steps)}"]
    lines += ["def write(m, buffer, pos):", *indent(write_lines(steps, names)), "    return pos"]
    lines += ["def read(data, pos, end):", *indent(reading), f"    return {made}, pos"]
    if size is None:
        lines += _parse_general(cls, reading, made) + _build_general()
    else:
        packed = [step for step in steps if isinstance(step, Packed)]
        lines += _parse_fixed(cls, packed, made, names) + _build_fixed(packed, names)
    least = sum(member.kind.least for member in members)
    return _finish(cls, names, lines, least, greedy=bool(members) and members[-1].kind.greedy)


def compile_tlvs(cls: type, members: Sequence[Member]) -> Codec:
    """The codec of a TLV stream; `members` in the order of their numbers."""
    names = _names(cls, members)
    sizes, writing, branches = ["0"], list[str](), list[str]()
    for i, member in enumerate(members):
        where, value = f"{cls.__qualname__}.{member.name}", f"m.{member.name}"
        steps = member.kind.lower(value, f"v{i}", where, "stop", names)
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
    reading = _tlv_loop(cls, members, branches)
    made = f"cls({', '.join(f'{member.name}=v{i}' for i, member in enumerate(members))})"
    lines += ["def read(data, pos, end):", *indent(reading), f"    return {made}, pos"]
    lines += _parse_general(cls, reading, made) + _build_general()
    return _finish(cls, names, lines, 0, greedy=True)


def _literal(octets: bytes, where: str) -> Packed:
    return Packed(f"{len(octets)}s", len(octets), repr(octets), "_", where)


def _tlv_loop(cls: type, members: Sequence[Member], branches: list[str]) -> list[str]:
    """Source of the loop over types: strictly increasing, unknown even ones refused, unknown odd skipped."""
    name = cls.__qualname__
    lines = [f"v{i} = None" for i in range(len(members))]
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
    for i, member in enumerate(members):
        if member.required:
            lines += [f"if v{i} is None:", f"    raise bad({name!r}, {f'lacks {member.name}'!r})"]
    return lines


def _parse_general(cls: type, reading: list[str], made: str) -> list[str]:
    name = cls.__qualname__
    body = ["pos = 0", "end = len(data)", *reading]
    body += ["if pos != end:", f"    raise bad({name!r}, f'is followed by {{end - pos}} more bytes')"]
    return ["def parse(data):", *indent(body), f"    return {made}"]


def _parse_fixed(cls: type, packed: Sequence[Packed], made: str, names: Names) -> list[str]:
    packing = struct_of(packed)
    unpack = names.bind(packing.unpack_from, "unpack_from")
    body = [f"if len(data) != {packing.size}:"]
    body += [f"    raise wrong_size({cls.__qualname__!r}, {packing.size}, len(data))"]
    after = [line for step in packed for line in step.after]
    if not after:
        return ["def parse(data):", *indent([*body, f"return cls(*{unpack}(data))"])]
    body += [f"{', '.join(step.target for step in packed)}, = {unpack}(data)", *after, f"return {made}"]
    return ["def parse(data):", *indent(body)]


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


def _names(cls: type, members: Sequence[Member]) -> Names:
    """The globals of one class's source."""

    def refuse(value: object, fault: Exception) -> NoReturn:
        explain(cls, members, value, fault)

    return Names({**NAMES, "cls": cls, "refuse": refuse})


def explain(cls: type, members: Sequence[Member], value: object, fault: Exception) -> NoReturn:
    """Raise `EncodeError` for what a generated function stumbled over, naming the field where it can."""
    for member in members:
        held, kind = getattr(value, member.name, None), member.kind
        if not isinstance(kind, Int) or held is None:
            continue
        if not isinstance(held, int) or not 0 <= held < 1 << 8 * kind.size:
            raise EncodeError(f"{cls.__qualname__}.{member.name} cannot be {held!r}") from fault
    raise EncodeError(f"{cls.__qualname__}: {fault}") from fault


def _finish(cls: type, names: Names, lines: list[str], least: int, *, greedy: bool) -> Codec:
    name = f"{cls.__module__}.{cls.__qualname__}"
    source = "\n".join(lines) + "\n"
    filename = f"<codec {name}>"
    made = names.names
    exec(compile(source, filename, "exec"), made)  # noqa: S102  (our own text, made at declaration)
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    return Codec(
        name=name,
        size=made["size"],
        write=made["write"],
        read=made["read"],
        parse=made["parse"],
        build=made["build"],
        least=least,
        greedy=greedy,
        source=source,
    )
