"""Base58 as Bitcoin and Skycoin write it: big-endian, a leading zero byte is a leading `1`."""

from __future__ import annotations

from typing import Final

from meshnet.errors import UsageError

ALPHABET: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
LONGEST: Final = 128
"""Characters that are read at most: the work grows with their square."""
_VALUES = {character: value for value, character in enumerate(ALPHABET)}


class Base58Error(UsageError):
    """Text that is not base58."""


def encode(data: bytes) -> str:
    """`data` as text."""
    number = int.from_bytes(data, "big")
    digits = []
    while number:
        number, digit = divmod(number, 58)
        digits.append(ALPHABET[digit])
    zeros = len(data) - len(data.lstrip(b"\0"))
    return ALPHABET[0] * zeros + "".join(reversed(digits))


def decode(text: str) -> bytes:
    """The bytes that `text` stands for. Raises `Base58Error` for other characters, none, or too many."""
    if not text:
        raise Base58Error("Base58 text must not be empty.")
    if len(text) > LONGEST:
        raise Base58Error(f"Base58 text has at most {LONGEST} characters here, not {len(text)}.")
    number = 0
    for character in text:
        value = _VALUES.get(character)
        if value is None:
            raise Base58Error(f"{character!r} is no base58 character.")
        number = number * 58 + value
    zeros = len(text) - len(text.lstrip(ALPHABET[0]))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")
