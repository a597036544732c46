"""SHA-256, HMAC-SHA-256 and HKDF (RFC 5869 with SHA-256 and empty info), each as one call.

HKDF's first output is HMAC(prk, 01), the next HMAC(prk, previous ‖ 02) and so on, prk = HMAC(salt, ikm).
"""

from __future__ import annotations

import hashlib
import hmac

from meshnet.cipher.aead import Buffer


def sha256(data: Buffer) -> bytes:
    """SHA-256, 32 bytes."""
    return hashlib.sha256(data).digest()


def hmac256(key: bytes, data: Buffer) -> bytes:
    """HMAC-SHA-256, 32 bytes."""
    return hmac.digest(key, data, "sha256")


def same(one: Buffer, other: Buffer) -> bool:
    """Whether two secrets or tags are equal, in a time that depends on their lengths only."""
    return hmac.compare_digest(one, other)


def hkdf(salt: bytes, ikm: bytes) -> bytes:
    """The first 32 bytes of HKDF."""
    return hmac256(hmac256(salt, ikm), b"\x01")


def hkdf2(salt: bytes, ikm: bytes) -> tuple[bytes, bytes]:
    """The first 64 bytes of HKDF, split in two (BOLT 8, Noise)."""
    key = hmac256(salt, ikm)
    first = hmac256(key, b"\x01")
    return first, hmac256(key, first + b"\x02")


def hkdf3(salt: bytes, ikm: bytes) -> tuple[bytes, bytes, bytes]:
    """The first 96 bytes of HKDF, split in three (Noise with pre-shared keys)."""
    key = hmac256(salt, ikm)
    first = hmac256(key, b"\x01")
    second = hmac256(key, first + b"\x02")
    return first, second, hmac256(key, second + b"\x03")
