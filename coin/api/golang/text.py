"""Texts as the Go node makes and takes them: quoted strings, numbers, truths, hashes, durations, times.

What cannot be read raises ValueError with the words that Go's own libraries have for it, since they are part
of the node's answers. Python takes more as a number than Go does (underscores, other digits, signs, spaces);
here nothing but Go's is taken.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from coin.chain.address import Address, BadAddressError, from_text_order
from coin.chain.base58 import ALPHABET, LONGEST, decode

_NANO: Final = 1_000_000_000
_MOST: Final = (1 << 64) - 1
_MOST_SIGNED: Final = (1 << 63) - 1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
NO_TIME: Final = "0001-01-01T00:00:00Z"
"""The time of what has not happened."""
_TRUTHS: Final = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}
_ESCAPES: Final = {
    ord(plain): escaped for plain, escaped in zip('"\\\a\b\f\n\r\t\v', '"\\abfnrtv', strict=True)
}
_DIGITS: Final = re.compile(r"[0-9]+")
_SIGNED: Final = re.compile(r"[+-]?[0-9]+")
_BASE58: Final = frozenset(ALPHABET)
_HEX: Final = re.compile(r"[0-9a-fA-F]*")


def quote(text: str) -> str:
    """As `%q` writes it."""
    found = ['"']
    for letter in text:
        code = ord(letter)
        if code in _ESCAPES:
            found.append("\\" + _ESCAPES[code])
        elif letter.isprintable():
            found.append(letter)
        elif code < 0x80:
            found.append(f"\\x{code:02x}")
        else:
            found.append(f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    return "".join(found) + '"'


def read_bool(text: str) -> bool:
    """A truth."""
    truth = _TRUTHS.get(text)
    if truth is None:
        raise ValueError(f"strconv.ParseBool: parsing {quote(text)}: invalid syntax")
    return truth


def read_uint(text: str) -> int:
    """A number of 64 bits without a sign."""
    if not _DIGITS.fullmatch(text):
        raise ValueError(f"strconv.ParseUint: parsing {quote(text)}: invalid syntax")
    number = int(text) if len(text) <= 400 else _MOST + 1
    if number > _MOST:
        raise ValueError(f"strconv.ParseUint: parsing {quote(text)}: value out of range")
    return number


def read_int(text: str) -> int:
    """A number of 64 bits with one."""
    if not _SIGNED.fullmatch(text):
        raise ValueError(f"strconv.Atoi: parsing {quote(text)}: invalid syntax")
    number = int(text) if len(text) <= 400 else _MOST_SIGNED + 1
    if not -_MOST_SIGNED - 1 <= number <= _MOST_SIGNED:
        raise ValueError(f"strconv.Atoi: parsing {quote(text)}: value out of range")
    return number


def read_hex(text: str) -> bytes:
    """Bytes in hex."""
    if not _HEX.fullmatch(text):
        wrong = next(letter for letter in text if not _HEX.fullmatch(letter))
        shown = quote(wrong)[1:-1].replace('\\"', '"').replace("'", "\\'")
        raise ValueError(f"encoding/hex: invalid byte: U+{ord(wrong):04X} '{shown}'")
    if len(text) % 2:
        raise ValueError("encoding/hex: odd length hex string")
    return bytes.fromhex(text)


def read_hash(text: str) -> bytes:
    """A hash of 32 bytes in hex."""
    data = read_hex(text)
    if len(data) != 32:
        raise ValueError("Invalid hex length")
    return data


def read_address(text: str) -> Address:
    """An address."""
    if not _BASE58.issuperset(text):
        raise ValueError("Invalid base58 character")
    data = decode(text) if 0 < len(text) <= LONGEST else b""
    if len(data) != 25:
        raise ValueError("Invalid address length" if text else "Invalid base58 string")
    try:
        return from_text_order(data)
    except BadAddressError as error:
        wrong = "Invalid checksum" if "checksum" in str(error) else "Address version invalid"
        raise ValueError(wrong) from None


def words(text: str) -> list[str]:
    """The words of a list with commas or spaces between, each once."""
    return list(dict.fromkeys(text.replace(",", " ").split()))


def duration(nanoseconds: int) -> str:
    """A length of time, as in `1h2m3.5s`."""
    if nanoseconds == 0:
        return "0s"
    sign, left = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if left < _NANO:
        for size, unit in ((1_000_000, "ms"), (1_000, "µs"), (1, "ns")):
            if left >= size:
                return f"{sign}{_decimal(left, size)}{unit}"
    minutes, rest = divmod(left, 60 * _NANO)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{_decimal(rest, _NANO)}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{seconds}"
    return f"{sign}{minutes}m{seconds}" if minutes else f"{sign}{seconds}"


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    digits = str(unit + rest)[1:].rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)


def moment(nanoseconds: int) -> str:
    """A time since 1970, 64 bits, as RFC 3339 with as many decimals as it needs."""
    seconds, rest = divmod(nanoseconds, _NANO)
    digits = f"{rest:09d}".rstrip("0")
    day = (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{day}.{digits}Z" if digits else f"{day}Z"
