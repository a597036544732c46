"""The keys and offsets of a circuit (docs/wire-format.md §3–5).

    ck        HKDF(salt = ss, ikm = ECDH(r_i, E_i))      the hop's r_i, the onion's ephemeral key E_i
    layer     HMAC(ck, "cell" ‖ d)                       ChaCha20 key of direction d
    offset    BE64(HMAC(ck, "off" ‖ d))                  added to seq by the relay
    start     BE64(HMAC(ck_last, "seq" ‖ d))             packet number 0 at the last hop

d is `f`, away from the origin, or `b`, towards it. All sums are mod 2⁶⁴.
"""

from __future__ import annotations

from typing import Final

from meshnet.cipher.aead import Buffer
from meshnet.cipher.hashing import hkdf, hmac256
from meshnet.cipher.keys import SecretKey

FORWARD: Final = b"f"
BACKWARD: Final = b"b"

MASK: Final = (1 << 64) - 1
"""Sequence numbers are counted modulo 2⁶⁴."""


def circuit_key(shared_secret: bytes, own: SecretKey, other: Buffer) -> bytes:
    """ck, 32 bytes: the hop gives (ss, r_i, E_i), the origin (ss, e_i, R_i).

    Raises `BadKeyError` if `other` is no point of the curve.
    """
    return hkdf(shared_secret, own.ecdh(other))


def layer_key(ck: bytes, direction: bytes) -> bytes:
    """The ChaCha20 key, 32 bytes, of a relay's layer."""
    return hmac256(ck, b"cell" + direction)


def offset(ck: bytes, direction: bytes) -> int:
    """What the relay adds to a cell's seq, 0 … 2⁶⁴ − 1."""
    return int.from_bytes(hmac256(ck, b"off" + direction)[:8], "big")


def sequence_start(ck: bytes, direction: bytes) -> int:
    """The seq, at the last hop, of packet number 0."""
    return int.from_bytes(hmac256(ck, b"seq" + direction)[:8], "big")
