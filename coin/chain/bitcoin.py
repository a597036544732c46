"""Bitcoin's forms of a key, by which wallets of this family of coins exchange keys with others.

    address  base58(version 0 ‖ RIPEMD-160(SHA-256(public key)) ‖ checksum 4)
    WIF      base58(0x80 ‖ secret 32 ‖ 0x01 ‖ checksum 4)            the 0x01 says: compressed public key

The checksum is the first 4 bytes of the double SHA-256 of what stands before it.
"""

from __future__ import annotations

from coin.chain import base58
from coin.chain.hashing import double_sha256, ripemd160, sha256
from meshnet.cipher.keys import BadKeyError, SecretKey

_WIF_SIZE = 34  # without the checksum


def with_checksum(data: bytes) -> str:
    """`data` and its checksum, as base58."""
    return base58.encode(data + double_sha256(data)[:4])


def without_checksum(text: str) -> bytes:
    """What `with_checksum` made text of; raises UsageError."""
    data = base58.decode(text)
    if len(data) < 5 or double_sha256(data[:-4])[:4] != data[-4:]:
        raise BadKeyError("The text's checksum is wrong, so it was mistyped or cut.")
    return data[:-4]


def bitcoin_address(public: bytes) -> str:
    """The Bitcoin address of a compressed public key."""
    return with_checksum(b"\0" + ripemd160(sha256(public)))


def wif(secret: SecretKey) -> str:
    """The secret as wallets import it. It is a secret."""
    return with_checksum(b"\x80" + secret.secret + b"\x01")


def parse_wif(text: str) -> SecretKey:
    """The secret of a WIF; raises UsageError, which shows nothing of it."""
    data = without_checksum(text)
    if len(data) != _WIF_SIZE or data[0] != 0x80 or data[-1] != 1:
        raise BadKeyError("The text is no private key of a compressed public key (WIF).")
    return SecretKey(data[1:-1])
