"""The small steps that fields are lowered to, and the joining of neighbours into one `struct.Struct`.

A field becomes one or more steps. `Packed` is a value of fixed size that `struct` can move; a run of them is
packed or unpacked by one call. `Lines` is anything else, given as Python source that works on the variables
`data`, `pos`, `end` (reading) and `buffer`, `pos` (writing). This module only makes source text; it never
sees a message.
"""

from __future__ import annotations

import linecache
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from struct import Struct
from typing import Any

from attrs import define, field, frozen


@frozen
class Packed:
    """A value of fixed size: struct code, size in bytes, the expression to write, the variable to read into.

    `order` is the byte order as `struct` writes it. `before` are source lines run before writing (checks),
    `after` those run after reading.
    """

    code: str
    size: int
    value: str
    target: str
    where: str
    order: str = ">"
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


@frozen
class Lines:
    """Source to write and read a value, and an expression for its size in bytes."""

    measure: str
    write: tuple[str, ...]
    read: tuple[str, ...]
    before: tuple[str, ...] = ()


Step = Packed | Lines


@define
class Names:
    """The global names of one generated module; `bind` adds an object and returns its name."""

    names: dict[str, Any] = field(factory=dict)

    def bind(self, thing: object, hint: str) -> str:
        """A name for `thing`, made from `hint` and a number."""
        name = f"{hint}{len(self.names)}"
        self.names[name] = thing
        return name


def compiled(name: str, lines: Iterable[str], names: Names) -> dict[str, Any]:
    """Run generated source; what it defined. `linecache` keeps the text, so that tracebacks show it."""
    source, filename = "\n".join(lines) + "\n", f"<codec {name}>"
    exec(compile(source, filename, "exec"), names.names)  # noqa: S102  (our own text, made at declaration)
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    return names.names


def indent(lines: Iterable[str], levels: int = 1) -> list[str]:
    """The lines moved in by `levels` × 4 blanks."""
    return ["    " * levels + line for line in lines]


def _runs(steps: Sequence[Step]) -> Iterator[list[Packed] | Lines]:
    for order, group in groupby(steps, lambda step: step.order if isinstance(step, Packed) else None):
        if order is not None:
            yield [step for step in group if isinstance(step, Packed)]
        else:
            yield from (step for step in group if isinstance(step, Lines))


def struct_of(run: Sequence[Packed]) -> Struct:
    """One struct for adjacent packed steps of one byte order."""
    return Struct(run[0].order + "".join(step.code for step in run))


def single_run(steps: Sequence[Step]) -> list[Packed] | None:
    """The steps, if one struct moves them all and there is one at least; else None."""
    runs = list(_runs(steps))
    return runs[0] if len(runs) == 1 and isinstance(runs[0], list) else None


def fixed_size(steps: Sequence[Step]) -> int | None:
    """The size in bytes when every step is packed, else None."""
    total = 0
    for step in steps:
        if isinstance(step, Lines):
            return None
        total += step.size
    return total


def measure(steps: Sequence[Step]) -> str:
    """An expression for the size in bytes of what the steps write."""
    constant = sum(step.size for step in steps if isinstance(step, Packed))
    parts = [step.measure for step in steps if isinstance(step, Lines)]
    return " + ".join(([str(constant)] if constant or not parts else []) + parts)


def write_lines(steps: Sequence[Step], names: Names) -> list[str]:
    """Source that writes the steps into `buffer` from `pos` on and moves `pos`."""
    lines: list[str] = []
    for run in _runs(steps):
        if isinstance(run, Lines):
            lines += run.before + run.write
            continue
        packing = struct_of(run)
        name = names.bind(packing.pack_into, "pack_into")
        for step in run:
            lines += step.before
        lines.append(f"{name}(buffer, pos, {', '.join(step.value for step in run)})")
        lines.append(f"pos += {packing.size}")
    return lines


def read_lines(steps: Sequence[Step], names: Names, end: str) -> list[str]:
    """Source that reads the steps from `data` at `pos`, not beyond the variable `end`, and moves `pos`."""
    lines: list[str] = []
    for run in _runs(steps):
        if isinstance(run, Lines):
            lines += run.read
            continue
        packing = struct_of(run)
        name = names.bind(packing.unpack_from, "unpack_from")
        lines.append(f"if {end} - pos < {packing.size}:")
        lines.append(f"    raise short({run[0].where!r}, {packing.size}, {end} - pos)")
        lines.append(f"{', '.join(step.target for step in run)}, = {name}(data, pos)")
        lines.append(f"pos += {packing.size}")
        for step in run:
            lines += step.after
    return lines
