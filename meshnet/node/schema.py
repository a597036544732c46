"""Checks TOML and JSON tables against frozen attrs classes.

Each field of a class is a key of the table, its annotation what the value may be:

- `bool`, `int`, `float`, `str`, `Literal["a", "b"]`
- `Path`: text; relative paths are relative to the file's directory; `~` is the home directory
- `PublicKey`: 66 hex digits or a pet name; `Target`: also the address of a hidden service
- `tuple[X, ...]`: a list; `Mapping[str, X]`: a table with free keys; another attrs class: a table
- `X | None`, `Literal["any"] | tuple[PublicKey, ...]`: either
- `Annotated[int, Between(1, 65_535)]` limits a number, `Annotated[T, Parse(convert)]` makes T of text

A field without a default is required; a section that is left out reads like an empty one. Any mistake is a
`FieldError` that names the key, the value and the choices. Nothing here reads files.
"""

from __future__ import annotations

import difflib
import json
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import attrs
from attrs import field, frozen

from meshnet.cipher.address import Target, node_key, parse_target
from meshnet.cipher.keys import PublicKey
from meshnet.control.find import named_path
from meshnet.errors import ConfigError, UsageError

T = TypeVar("T")


class FieldError(ConfigError):
    """One wrong key or value; `field` is its dotted name, as in `link.peer.0.key`."""

    def __init__(self, text: str, field: str) -> None:
        super().__init__(text)
        self.field = field


@frozen
class Between:
    """The least and the most a number may be, both included; None: no bound."""

    least: float | None = None
    most: float | None = None

    def refusal(self, value: float) -> str:
        """Empty if the value fits, else the rest of a sentence."""
        low = self.least is not None and value < self.least
        high = self.most is not None and value > self.most
        if not (low or high):
            return ""
        if self.most is None:
            return f"is less than {self.least}"
        if self.least is None:
            return f"is more than {self.most}"
        return f"is not between {self.least} and {self.most}"

    @property
    def words(self) -> str:
        """What follows `a number`: ` from 1 to 10`, ` of 1 or more`, ` of 10 or less`."""
        if self.least is None:
            return "" if self.most is None else f" of {self.most} or less"
        return f" of {self.least} or more" if self.most is None else f" from {self.least} to {self.most}"


@frozen
class Parse:
    """Makes a value of text; `convert` raises ValueError or ConfigError with the rest of a sentence."""

    convert: Callable[[str], Any]
    wanted: str = "text"


Port = Annotated[int, Between(1, 65_535)]
"""A mesh port."""


def host_port(text: str) -> tuple[str, int]:
    """`127.0.0.1:80`, `[::1]:80`, `example.org:80` as (host, port), port 0 to 65,535; raises ValueError."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("is not host:port (an IPv6 address needs brackets, as in [::1]:80)")
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise ValueError("is not host:port, such as 127.0.0.1:8080")
    return host, int(port)


HostPort = Annotated[tuple[str, int], Parse(host_port, "host:port")]
"""An address of the old internet."""


@frozen
class Context:
    """What values mean here: the directory of relative paths, what pet names stand for, and whether
    numbers come as text (queries)."""

    base: Path = field(factory=Path)
    lookup: Callable[[str], Target] = parse_target
    text: bool = False
    source: str = ""


def read(cls: type[T], table: object, name: str = "", context: Context | None = None) -> T:
    """An instance of the attrs class `cls`; `name` is the table's dotted name in errors."""
    context = context or Context()
    if not isinstance(table, Mapping):
        raise _error(context, name, table, "is not a table")
    hints = _hints(cls)
    unknown = [key for key in table if key not in hints]
    if unknown:
        raise _unknown(context, name, str(unknown[0]), table[unknown[0]], list(hints))
    values: dict[str, Any] = {}
    for attribute in _fields(cls):
        key = attribute.name
        if key in table:
            values[key] = _convert(hints[key], table[key], _join(name, key), context)
        elif attribute.default is attrs.NOTHING:
            raise _missing(context, name, key, describe(hints[key]))
        elif attrs.has(hints[key]):
            values[key] = read(hints[key], {}, _join(name, key), context)
        elif isinstance(attribute.default, Path):
            values[key] = context.base / attribute.default
    try:
        return cls(**values)
    except ValueError as error:
        place = f"{_place(context, name)}: " if context.source or name else ""
        raise FieldError(f"{place}{error}.", name) from None


def read_body(cls: type[T], body: Mapping[str, Any], lookup: Callable[[str], Target] = parse_target) -> T:
    """The body of a control request as an instance of `cls`; raises FieldError (a UsageError)."""
    return read(cls, body, "", Context(lookup=lookup))


def read_query(cls: type[T], query: Mapping[str, Any], lookup: Callable[[str], Target] = parse_target) -> T:
    """The query of a GET request, whose values are text, as an instance of `cls`; raises FieldError."""
    return read(cls, query, "", Context(lookup=lookup, text=True))


def _hints(cls: Any) -> dict[str, Any]:
    hints = get_type_hints(cls, include_extras=True)
    return {attribute.name: hints[attribute.name] for attribute in _fields(cls)}


def _fields(cls: Any) -> tuple[attrs.Attribute[Any], ...]:
    return attrs.fields(cls)  # type: ignore[no-any-return]


def _join(name: str, key: str | int) -> str:
    return f"{name}.{key}" if name else str(key)


def _place(context: Context, name: str) -> str:
    return f"{context.source}: {name}" if context.source and name else context.source or name or "request"


def show(value: object) -> str:
    """A value as a person would write it, at most 80 characters."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = str(value)
    return text if len(text) <= 80 else text[:77] + "…"


def _error(context: Context, name: str, raw: object, why: str, choices: str = "") -> FieldError:
    return FieldError(f"{_place(context, name)} = {show(raw)} {why}{choices}.", name)


def _missing(context: Context, name: str, key: str, wanted: str) -> FieldError:
    return FieldError(f"{_place(context, _join(name, key))} is missing; give it {wanted}.", _join(name, key))


def _unknown(context: Context, name: str, key: str, raw: object, choices: list[str]) -> FieldError:
    known = f"choices: {', '.join(sorted(choices))}" if choices else "none is taken here"
    why = f"is not a known key{nearest(key, choices)}; {known}"
    return _error(context, _join(name, key), raw, why)


def nearest(word: str, choices: list[str]) -> str:
    """` (did you mean x?)` when one of the choices is near, else nothing."""
    found = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    return f" (did you mean {found[0]}?)" if found else ""


def describe(hint: Any) -> str:
    """What a value of this annotation is, for a person, with the bounds of a number."""
    if hint == Target:
        return _PLAIN[hint]
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        parsed = [extra.wanted for extra in args[1:] if isinstance(extra, Parse)]
        bounds = "".join(extra.words for extra in args[1:] if isinstance(extra, Between))
        return parsed[0] if parsed else describe(args[0]) + bounds
    if origin in (Union, types.UnionType):
        return " or ".join(describe(arg) for arg in args if arg is not type(None))
    if origin is Literal:
        return " or ".join(show(choice) for choice in args)
    if origin is tuple:
        return f"a list, each {describe(args[0])}"
    return _PLAIN.get(hint, "a table")


_PLAIN: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    PublicKey: "a public key (66 hex digits) or a known name",
    Target: "a public key (66 hex digits), the address of a hidden service or a known name",
}


def _convert(hint: Any, raw: object, name: str, context: Context) -> Any:
    if hint == Target:
        return _target(raw, name, context)
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _annotated(args[0], args[1:], raw, name, context)
    if origin in (Union, types.UnionType):
        return _either(hint, args, raw, name, context)
    if origin is Literal:
        if not any(raw == choice and type(raw) is type(choice) for choice in args):
            raise _choice(context, name, raw, [str(choice) for choice in args])
        return raw
    if origin is tuple:
        if not isinstance(raw, list | tuple):
            raise _error(context, name, raw, f"is not {describe(hint)}")
        return tuple(_convert(args[0], item, _join(name, i), context) for i, item in enumerate(raw))
    if origin is not None:
        if not isinstance(raw, Mapping):
            raise _error(context, name, raw, "is not a table")
        return {key: _convert(args[1], item, _join(name, key), context) for key, item in raw.items()}
    if attrs.has(hint):
        return read(hint, raw, name, context)
    return _plain(hint, raw, name, context)


def _choice(context: Context, name: str, raw: object, choices: list[str]) -> FieldError:
    meant = nearest(raw, choices) if isinstance(raw, str) else ""
    return _error(context, name, raw, f"is not a choice{meant}; choices: {', '.join(choices)}")


def _annotated(hint: Any, extras: tuple[Any, ...], raw: object, name: str, context: Context) -> Any:
    for extra in extras:
        if isinstance(extra, Parse):
            if not isinstance(raw, str):
                raise _error(context, name, raw, f"is not {extra.wanted}")
            try:
                return extra.convert(raw)
            except (ValueError, UsageError) as error:
                raise _error(context, name, raw, str(error).rstrip(".")) from None
    value = _convert(hint, raw, name, context)
    for extra in extras:
        refusal = extra.refusal(value) if isinstance(extra, Between) else ""
        if refusal:
            raise _error(context, name, raw, refusal)
    return value


def _either(hint: Any, args: tuple[Any, ...], raw: object, name: str, context: Context) -> Any:
    if raw is None and type(None) in args:
        return None
    fitting = [arg for arg in args if arg is not type(None) and _fits(arg, raw, context)]
    if not fitting:
        raise _error(context, name, raw, f"is not {describe(hint)}")
    return _convert(fitting[0], raw, name, context)


def _fits(hint: Any, raw: object, context: Context) -> bool:
    """Whether the raw value is of the kind that this annotation is written in."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return (
            isinstance(raw, str) if any(isinstance(e, Parse) for e in args) else _fits(args[0], raw, context)
        )
    if origin is Literal:
        return raw in args
    if origin is tuple:
        return isinstance(raw, list | tuple)
    if hint is bool or hint is int or hint is float:
        return isinstance(raw, bool | int | float) or (context.text and isinstance(raw, str))
    if hint is str or hint is Path or hint is PublicKey:
        return isinstance(raw, str)
    return isinstance(raw, Mapping)


def _plain(hint: Any, raw: object, name: str, context: Context) -> Any:
    if context.text and isinstance(raw, str) and hint in (bool, int, float):
        raw = _from_text(raw)
    if hint is bool and isinstance(raw, bool):
        return raw
    if hint is int and isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    if hint is float and isinstance(raw, int | float) and not isinstance(raw, bool):
        return float(raw)
    if isinstance(raw, str):
        if hint is str:
            return raw
        if hint is Path and raw:
            return context.base / _path(raw, name, context)
        if hint is PublicKey:
            return _key(raw, name, context)
    raise _error(context, name, raw, f"is not {_PLAIN.get(hint, str(hint))}")


def _path(raw: str, name: str, context: Context) -> Path:
    try:
        return named_path(raw)
    except UsageError as problem:
        raise _error(context, name, raw, f"is no path: {problem}".rstrip(".")) from None


def _from_text(raw: str) -> object:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return raw


def _target(raw: object, name: str, context: Context) -> Target:
    if not isinstance(raw, str):
        raise _error(context, name, raw, f"is not {_PLAIN[Target]}")
    try:
        return context.lookup(raw)
    except UsageError as error:
        raise _error(context, name, raw, f"leads nowhere: {str(error).rstrip('.')}") from None


def _key(raw: str, name: str, context: Context) -> PublicKey:
    try:
        return node_key(context.lookup(raw))
    except UsageError as error:
        raise _error(context, name, raw, f"is no public key: {str(error).rstrip('.')}") from None
