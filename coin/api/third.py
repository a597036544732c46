"""What the endpoints of version 3 have in common: their parameters are all known, and errors are sentences.

The Go node has no version 3. Amounts are decimal texts: coins with six decimals, hours whole. What is not a
parameter of an endpoint is refused, since a misspelled filter would be one that lets everything through.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from attrs import frozen

from coin.api.endpoint import Endpoint, Kind, Parameter, Texts
from coin.api.refusals import bad
from coin.chain.address import Address, parse_address
from meshnet.errors import UsageError

T = TypeVar("T")


@frozen
class Only:
    """A `Take` that refuses all parameters but these."""

    names: tuple[str, ...]

    def __call__(self, texts: Texts, given: dict[str, Any]) -> None:
        """See `Take`."""
        for name in texts:
            if name not in self.names:
                known = ", ".join(self.names) or "none"
                raise bad(f"There is no parameter {name[:60]!r} here; there are: {known}.", name[:60])


def endpoint(method: str, path: str, *takes: Parameter, scope: str = "read", **how: Any) -> Endpoint:
    """An endpoint of version 3; `how` is its `look`, `act` or `take`."""
    only = Only(tuple(each.name for each in takes))
    return Endpoint(method, path, frozenset(), takes=(only, *takes), scope=scope, **how)


def number(least: int, most: int) -> Kind:
    """A whole number."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= 18 and least <= int(text) <= most):
            raise ValueError(f"It is a whole number, {least} to {most}, not {text[:60]!r}.")
        return int(text)

    return Kind(read, "integer", "int64")


def choice(**values: T) -> Kind:
    """One of some words, and what each stands for."""

    def read(text: str) -> T:
        if text not in values:
            raise ValueError(f"It is one of {', '.join(values)}, not {text[:60]!r}.")
        return values[text]

    return Kind(read, "string", "|".join(values))


LARGEST_PAGE: Final = 100
PAGE: Final = (
    Parameter("limit", number(1, LARGEST_PAGE), default=25),
    Parameter("order", choice(newest=True, oldest=False), default=True),
)
"""A page: how many entries, and which come first."""


def listed(read: Callable[[str], T], most: int) -> Callable[[str], list[T]]:
    """Reads words with commas between."""

    def read_all(text: str) -> list[T]:
        words = text.split(",", most)
        if len(words) > most:
            raise ValueError(f"There may be at most {most} of them.")
        return [read(word.strip()) for word in words]

    return read_all


def read_address(text: str) -> Address:
    """An address; raises ValueError."""
    try:
        return parse_address(text)
    except UsageError as error:
        raise ValueError(str(error)) from None


def read_hash(text: str) -> bytes:
    """An id of 64 hex digits; raises ValueError."""
    try:
        data = bytes.fromhex(text) if text.isalnum() else b""
    except ValueError:
        data = b""
    if len(data) != 32:
        raise ValueError(f"It is an id of 64 hex digits, not {text[:70]!r}.")
    return data


ADDRESS: Final = Parameter(
    "address", Kind(read_address, "string", "address"), missing="An address is missing."
)
TXID: Final = Parameter("txid", Kind(read_hash, "string", "hash"), missing="Which transaction?")
