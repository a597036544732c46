"""Addresses: who owns an output.

    binary (in transactions)  version 1 ‖ key hash 20
    text                      base58(key hash 20 ‖ version 1 ‖ checksum 4); checksum = SHA-256(first 21)[:4]

The key hash is RIPEMD-160(SHA-256(SHA-256(public key))). The version is 0; in text it stands behind the hash,
in binary before it. The null address, all zero, decodes and is legal in old blocks; nobody can spend from
it. An address is kept as its 21 binary bytes everywhere; the text is for people.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Final, NewType

from coin.chain import base58
from coin.chain.hashing import ripemd160, sha256
from meshnet.errors import UsageError

Address = NewType("Address", bytes)
"""Version and key hash, 21 bytes."""

ADDRESS_SIZE: Final = 21
VERSION: Final = b"\0"
NULL: Final = Address(bytes(ADDRESS_SIZE))
"""The address of nobody."""
_CACHED: Final = 1 << 14

_sha = hashlib.sha256


class BadAddressError(UsageError):
    """Text or bytes that are not an address."""


def address_of(public: bytes) -> Address:
    """The address of a compressed public key."""
    return Address(VERSION + ripemd160(_sha(_sha(public).digest()).digest()))


@lru_cache(maxsize=_CACHED)
def address_text(address: Address) -> str:
    """As people write it, about 34 characters."""
    body = address[1:] + address[:1]
    return base58.encode(body + sha256(body)[:4])


def text_order(address: Address) -> bytes:
    """The 25 bytes below the text, by which addresses are sorted and old databases indexed."""
    body = address[1:] + address[:1]
    return body + sha256(body)[:4]


def parse_address(text: str) -> Address:
    """Reads the text of an address; raises `BadAddressError` that says what is wrong with it."""
    try:
        data = base58.decode(text)
    except base58.Base58Error as error:
        raise BadAddressError(f"{text[:60]!r} is no address: {error}") from None
    return from_text_order(data, text)


def from_text_order(data: bytes, shown: str = "") -> Address:
    """The same of the 25 bytes."""
    name = f"{shown[:60]!r}" if shown else f"{data.hex()[:60]!r}"
    if len(data) != ADDRESS_SIZE + 4:
        raise BadAddressError(f"{name} is no address: it has {len(data)} bytes instead of 25.")
    body = data[:ADDRESS_SIZE]
    if sha256(body)[:4] != data[ADDRESS_SIZE:]:
        raise BadAddressError(f"{name} is no address: its checksum is wrong, so it was mistyped or cut.")
    if body[20:] != VERSION:
        raise BadAddressError(f"{name} is an address of version {body[20]}; only version 0 is known.")
    return Address(body[20:] + body[:20])
