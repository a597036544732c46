"""Deterministic keys: from a seed any number of key pairs, the same ones on every machine.

    step(seed)       repeat seed = SHA-256(seed) until it is a secret key
    point_hash(seed) SHA-256(h ‖ compressed(step(h) · public(step(SHA-256(h)))))  with h = SHA-256(seed)
    next(seed)       following = point_hash(seed); key = step(SHA-256(seed ‖ following))

Each key costs about 0.25 ms. A seed is any bytes, not none; a wallet's first seed is the text of its words.
"""

from __future__ import annotations

from collections.abc import Iterator

from coin.chain.hashing import sha256
from meshnet.cipher.keys import ORDER, PublicKey, SecretKey, multiply
from meshnet.errors import UsageError


def _step(seed: bytes) -> bytes:
    while True:
        seed = sha256(seed)
        if 0 < int.from_bytes(seed, "big") < ORDER:
            return seed


def point_hash(seed: bytes) -> bytes:
    """The hash that the next seed is, 32 bytes; costs two multiplications on the curve."""
    first = sha256(seed)
    public = SecretKey(_step(sha256(first))).public
    point: PublicKey = multiply(public, _step(first))
    return sha256(first + point)


def next_key(seed: bytes) -> tuple[bytes, SecretKey]:
    """The seed of the key after this one (32 bytes), and this one's keys. Raises UsageError for no seed."""
    if not seed:
        raise UsageError("A seed must not be empty.")
    following = point_hash(seed)
    return following, SecretKey(_step(sha256(seed + following)))


def keys(seed: bytes) -> Iterator[tuple[bytes, SecretKey]]:
    """Without end: the seed to go on from, and the key."""
    while True:
        seed, key = next_key(seed)
        yield seed, key
