"""Texts as Go writes and reads them: figures from Go's own documentation and from the node's answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coin.api.golang.text import (
    duration,
    moment,
    quote,
    read_address,
    read_bool,
    read_hash,
    read_hex,
    read_int,
    read_uint,
    words,
)
from coin.chain.address import Address, address_text

ANY = st.text(max_size=80)


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1_100, "1.1µs"),
        (2_200_000, "2.2ms"),
        (3_300_000_000, "3.3s"),
        (4 * 60_000_000_000 + 5_001_000_000, "4m5.001s"),
        (5 * 3_600_000_000_000 + 6 * 60_000_000_000 + 7_001_000_000, "5h6m7.001s"),
        (8 * 60_000_000_000 + 1, "8m0.000000001s"),
        (-1_500_000_000, "-1.5s"),
    ],
)
def test_durations(nanoseconds: int, text: str) -> None:
    """Only the units that are needed, only the decimals that count."""
    assert duration(nanoseconds) == text


def test_moments() -> None:
    """RFC 3339 with the decimals that count."""
    assert moment(1_535_637_620_406_949_000) == "2018-08-30T14:00:20.406949Z"
    assert moment(0) == "1970-01-01T00:00:00Z"


def test_quotes() -> None:
    """As %q."""
    assert quote('a"b\\\n\x00é') == r'"a\"b\\\n\x00é"'


@pytest.mark.parametrize(
    ("read", "text", "why"),
    [
        (read_bool, "x", 'strconv.ParseBool: parsing "x": invalid syntax'),
        (read_uint, "-1", 'strconv.ParseUint: parsing "-1": invalid syntax'),
        (read_uint, "１", 'strconv.ParseUint: parsing "１": invalid syntax'),
        (read_uint, "1_0", 'strconv.ParseUint: parsing "1_0": invalid syntax'),
        (read_uint, "18446744073709551616", "strconv.ParseUint: parsing"),
        (read_uint, "9" * 5_000, "strconv.ParseUint: parsing"),
        (read_int, "9223372036854775808", "value out of range"),
        (read_hex, "abc", "encoding/hex: odd length hex string"),
        (read_hex, "zz", "encoding/hex: invalid byte: U+007A 'z'"),
        (read_hash, "abcd", "Invalid hex length"),
        (read_address, "abcd", "Invalid address length"),
        (read_address, "0", "Invalid base58 character"),
        (read_address, "1" * 500, "Invalid address length"),
        (read_address, "2kvLEyXwAYvHfJuFCkjnYNRTUfHPyWgVwKk", "Invalid checksum"),
    ],
)
def test_what_cannot_be_read(read: object, text: str, why: str) -> None:
    """Is told in Go's words."""
    with pytest.raises(ValueError) as told:
        read(text)  # type: ignore[operator]
    assert why in str(told.value)


@given(st.integers(0, (1 << 64) - 1))
def test_numbers(number: int) -> None:
    """All of 64 bits."""
    assert read_uint(str(number)) == number


@given(st.binary(min_size=20, max_size=20))
def test_addresses(key: bytes) -> None:
    """The text of any address."""
    assert read_address(address_text(Address(b"\0" + key))) == b"\0" + key


@given(ANY)
def test_any_text(text: str) -> None:
    """Either a value or a ValueError."""
    for read in (read_bool, read_uint, read_int, read_hex, read_hash, read_address):
        try:
            read(text)  # type: ignore[operator]
        except ValueError as error:
            assert str(error)
    assert all(words(text))
    quote(text)
