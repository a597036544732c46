"""The coins that a wallet may be of, and how each writes addresses and secret keys.

    skycoin  address: docs of `coin.chain.address`     secret key: 64 hex digits
    bitcoin  address: version first, double SHA-256    secret key: WIF

Only wallets of this chain's form (`skycoin`) own anything here; those of `bitcoin`, which the Go node's
files may be, are read, grown and written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attrs import frozen

from coin.chain.address import VERSION, Address, address_of, address_text
from coin.chain.bitcoin import bitcoin_address, parse_wif, wif
from coin.chain.hashing import ripemd160, sha256
from meshnet.cipher.keys import BadKeyError, SecretKey


def _hex_secret(key: SecretKey) -> str:
    return key.secret.hex()


def parse_hex_secret(text: str) -> SecretKey:
    """The key of 64 hex digits; raises BadKeyError, which shows nothing of it."""
    try:
        data = bytes.fromhex(text)
    except ValueError:
        data = b""
    if len(data) != 32 or len(text) != 64:
        raise BadKeyError("A secret key is 64 hex digits.")
    return SecretKey(data)


@frozen
class Form:
    """How a coin writes things: `address` and `text` of a public key, secret keys both ways; `number` is the
    coin's in paths of BIP 44."""

    name: str
    number: int
    address: Callable[[bytes], Address]
    text: Callable[[bytes], str]
    secret_text: Callable[[SecretKey], str]
    parse_secret: Callable[[str], SecretKey]


SKYCOIN: Final = Form(
    "skycoin",
    8_000,
    address_of,
    lambda public: address_text(address_of(public)),
    _hex_secret,
    parse_hex_secret,
)
BITCOIN: Final = Form(
    "bitcoin", 0, lambda public: Address(VERSION + ripemd160(sha256(public))), bitcoin_address, wif, parse_wif
)
_NAMES: Final = {"skycoin": SKYCOIN, "sky": SKYCOIN, "bitcoin": BITCOIN, "btc": BITCOIN}


def form_of(name: str) -> Form | None:
    """The form of a coin by its name or short name, in either case."""
    return _NAMES.get(name.lower())
