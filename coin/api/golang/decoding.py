"""Bodies of JSON, read as the Go node reads them into its structures.

The first value of the body counts, and what follows it is passed over. Names of fields match without regard
to case, unknown ones are passed over, of two that are equal the last one counts, null leaves a field as it
was. What does not fit is answered in the words of Go's decoder (`BadBodyError`), which clients may show.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from attrs import frozen

from coin.api.golang.syntax import fault

DEEPEST: Final = 64
"""Values in values; Go allows 10,000."""
_KINDS: Final[dict[type, str]] = {
    bool: "bool",
    str: "string",
    int: "number",
    float: "number",
    list: "array",
    dict: "object",
}
_DECODER: Final = json.JSONDecoder(parse_constant=lambda name: _refuse(name), strict=True)


class BadBodyError(ValueError):
    """A body that is not what it should be, in Go's words."""


@frozen
class Struct:
    """What a body holds: the name of Go's structure and its fields, each `string`, `bool`, `int`, `[]string`,
    `[]int`, or a structure, or a list of one."""

    name: str
    fields: Mapping[str, str | Struct | tuple[Struct]]

    def read(self, data: bytes) -> dict[str, Any]:
        """The fields that are given; raises BadBodyError."""
        text = data.decode("utf-8", "replace").lstrip(" \t\r\n")
        value = _value(text)
        if value is None:
            return {}
        if not isinstance(value, dict):
            # Python takes the 1 of "1.x" for a number, and Go does not.
            kind = _KINDS[type(value)]
            why = fault(text) or f"json: cannot unmarshal {kind} into Go value of type {self.name}"
            raise BadBodyError(why)
        return self._fill(value, self.name.rpartition(".")[2], "")

    def _fill(self, table: dict[str, Any], root: str, path: str) -> dict[str, Any]:
        names = {name.lower(): name for name in self.fields}
        found: dict[str, Any] = {}
        for key, value in table.items():
            name = names.get(key.lower())
            if name is not None and value is not None:
                found[name] = _fit(self.fields[name], value, root, f"{path}{name}")
        return found


def _fit(wanted: str | Struct | tuple[Struct], value: Any, root: str, path: str) -> Any:
    if isinstance(wanted, Struct):
        if not isinstance(value, dict):
            raise _misfit(value, root, path, wanted.name)
        return wanted._fill(value, root, f"{path}.")
    if isinstance(wanted, tuple):
        if not isinstance(value, list):
            raise _misfit(value, root, path, f"[]{wanted[0].name}")
        return [_fit(wanted[0], each, root, path) for each in value if each is not None]
    if wanted.startswith("[]"):
        if not isinstance(value, list):
            raise _misfit(value, root, path, wanted)
        return [_fit(wanted[2:], each, root, path) for each in value if each is not None]
    if type(value) is not {"string": str, "bool": bool, "int": int}[wanted]:
        raise _misfit(value, root, path, wanted)
    if type(value) is int and not -(1 << 63) <= value < 1 << 63:
        raise BadBodyError(
            f"json: cannot unmarshal number {value} into Go struct field {root}.{path} of type int"
        )
    return value


def _misfit(value: Any, root: str, path: str, wanted: str) -> BadBodyError:
    kind = _KINDS[type(value)]
    if type(value) is float and wanted == "int":
        kind = f"number {value:g}"
    return BadBodyError(f"json: cannot unmarshal {kind} into Go struct field {root}.{path} of type {wanted}")


def _value(text: str) -> Any:
    try:
        value, _ = _DECODER.raw_decode(text)
    except RecursionError:
        raise BadBodyError("exceeded max depth") from None
    except ValueError:
        # Without a fault it is a number with more digits than Python reads.
        raise BadBodyError(fault(text) or "json: a number is too long") from None
    if _depth(value) > DEEPEST:
        raise BadBodyError("exceeded max depth")
    return value


def _depth(value: Any) -> int:
    deep, level = 0, [value]
    while level and deep <= DEEPEST:
        deep += 1
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
    return deep


def _refuse(name: str) -> Any:
    raise ValueError(name)
