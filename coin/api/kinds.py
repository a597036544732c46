"""What parameters of the API may be, and those that many endpoints have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from coin.api.endpoint import Kind, Parameter, Take, Texts
from coin.api.golang.text import quote, read_address, read_bool, read_hash, read_int, read_uint, words
from coin.api.refusals import bad
from meshnet.limits import COIN_API_NAMES

T = TypeVar("T")


def _each(read: Callable[[str], T], what: str) -> Callable[[str], list[T]]:
    def read_all(text: str) -> list[T]:
        found = words(text)
        if len(found) > COIN_API_NAMES:
            raise ValueError(f"at most {COIN_API_NAMES} are asked about at once")
        values = []
        for word in found:
            try:
                values.append(read(word))
            except ValueError as error:
                raise ValueError(f"{what} {quote(word)} is invalid: {error}") from None
        return values

    return read_all


def _numbers(text: str) -> list[int]:
    found: dict[int, None] = {}
    parts = text.split(",")
    if len(parts) > COIN_API_NAMES:
        raise ValueError(f"at most {COIN_API_NAMES} are asked about at once")
    for index, part in enumerate(parts):
        try:
            number = read_uint(part)
        except ValueError:
            raise ValueError(f"Invalid sequence {quote(part)} at seqs[{index}]") from None
        if number in found:
            raise ValueError(f"Duplicate sequence {number} at seqs[{index}]")
        found[number] = None
    return list(found)


TEXT: Final = Kind(str, "string")
BOOL: Final = Kind(read_bool, "boolean")
UINT: Final = Kind(read_uint, "integer", "uint64")
INT: Final = Kind(read_int, "integer", "int64")
HASH: Final = Kind(read_hash, "string", "hash")
ADDRESS: Final = Kind(read_address, "string", "address")
ADDRESSES: Final = Kind(_each(read_address, "address"), "string", "addresses")
HASHES: Final = Kind(_each(read_hash, "SHA256 hash"), "string", "hashes")
NUMBERS: Final = Kind(_numbers, "string", "numbers")

VERBOSE: Final = Parameter("verbose", BOOL, "Invalid value for verbose", default=False)
TXID: Final = Parameter("txid", HASH, missing="txid is empty")


def one_of(first: str, second: str, none: str, both: str) -> Take:
    """Exactly one of two parameters is given; else `none` or `both` is told."""

    def check(texts: Texts, given: dict[str, Any]) -> None:
        there = [name for name in (first, second) if texts.get(name)]
        if len(there) != 1:
            raise bad(both if there else none)

    return check


def not_both(first: str, second: str, text: str) -> Take:
    """Of two parameters at most one is given."""

    def check(texts: Texts, given: dict[str, Any]) -> None:
        if texts.get(first) and texts.get(second):
            raise bad(text)

    return check
