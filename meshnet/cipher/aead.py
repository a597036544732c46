"""The interface of the two cipher backends, and the nonces they take.

An `Aead` is ChaCha20-Poly1305 (RFC 8439) under one key, a `Stream` bare ChaCha20 under one key. Their
methods are those of the `cryptography` package, so that under `openssl` the hot path calls the library's
own objects, without a wrapper. Both backends give equal bytes and raise `BadTag` alike.

A nonce is 12 bytes, `0⁴ ‖ LE64(n)`; that of a stream has the little-endian 32-bit block counter in front.
"""

from __future__ import annotations

import struct
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag

from meshnet.errors import UsageError

Buffer = bytes | bytearray | memoryview
"""What every function here takes for input bytes; outputs need a bytearray or a writable memoryview."""

BadTag = InvalidTag
"""Raised by `decrypt` and `decrypt_into` when the tag does not fit; the output is then undefined."""

TAG_SIZE: Final = 16
KEY_SIZE: Final = 32
NONCE_SIZE: Final = 12

BACKENDS: Final = ("openssl", "sodium")

_NONCE96 = struct.Struct("<4xQ")
_NONCE128 = struct.Struct("<I4xQ")


class Aead(Protocol):
    """ChaCha20-Poly1305 under one 32-byte key; in place (data within buf, same start) is allowed."""

    def encrypt(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None, /) -> bytes:
        """Ciphertext and tag, len(data) + 16 bytes."""

    def encrypt_into(
        self, nonce: Buffer, data: Buffer, associated_data: Buffer | None, buf: Buffer, /
    ) -> int:
        """The same into `buf`, whose length must be exactly len(data) + 16; returns that length."""

    def decrypt(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None, /) -> bytes:
        """The plaintext, len(data) − 16 bytes; raises `BadTag`."""

    def decrypt_into(
        self, nonce: Buffer, data: Buffer, associated_data: Buffer | None, buf: Buffer, /
    ) -> int:
        """The same into `buf`, whose length must be exactly len(data) − 16; returns that length."""


class Stream(Protocol):
    """ChaCha20 under one 32-byte key; a fresh one stands at nonce 0, block counter 1."""

    def reset_nonce(self, nonce: bytes, /) -> None:
        """Go to `LE32(block counter) ‖ 12-byte nonce`; the sodium backend knows counter 1 only."""

    def update_into(self, data: Buffer, buf: Buffer, /) -> int:
        """XOR `data` with the next key bytes into `buf` (at least as long); returns len(data)."""


class Backend(Protocol):
    """A library that offers both ciphers."""

    @property
    def name(self) -> str:
        """As in config: `openssl` or `sodium`."""

    def aead(self, key: bytes) -> Aead:
        """ChaCha20-Poly1305 under `key` (32 bytes, else ValueError)."""

    def stream(self, key: bytes) -> Stream:
        """ChaCha20 under `key` (32 bytes, else ValueError)."""


def nonce96(n: int) -> bytes:
    """The 12-byte nonce number `n` (0 ≤ n < 2⁶⁴): `0⁴ ‖ LE64(n)`."""
    return _NONCE96.pack(n)


def nonce128(n: int, counter: int = 1) -> bytes:
    """The 16-byte nonce of a `Stream`: `LE32(counter) ‖ 0⁴ ‖ LE64(n)`."""
    return _NONCE128.pack(counter, n)


def backend(name: str = "openssl") -> Backend:
    """The backend of that name; raises `UsageError` for any but `openssl` and `sodium`."""
    if name == "openssl":
        from meshnet.cipher.openssl import OPENSSL

        return OPENSSL
    if name == "sodium":
        from meshnet.cipher.sodium import SODIUM

        return SODIUM
    raise UsageError(f"cipher backend {name!r} is unknown; the choices are {', '.join(BACKENDS)}")
