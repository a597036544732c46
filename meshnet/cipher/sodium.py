"""The second backend: libsodium through PyNaCl's public bindings; byte-equal with `openssl`, but slower.

The bindings take and return `bytes` only, so every call copies. They have no bare ChaCha20; but the AEAD's
ciphertext without its tag is ChaCha20 from block counter 1 on (RFC 8439 §2.8), which is all a circuit
needs. Another counter raises ValueError.
"""

from __future__ import annotations

from typing import Final

from nacl.bindings import (
    crypto_aead_chacha20poly1305_ietf_decrypt as _open,
)
from nacl.bindings import (
    crypto_aead_chacha20poly1305_ietf_encrypt as _seal,
)
from nacl.exceptions import CryptoError

from meshnet.cipher.aead import KEY_SIZE, NONCE_SIZE, TAG_SIZE, Aead, Backend, BadTag, Buffer, Stream, nonce96

_COUNTER_ONE = b"\x01\x00\x00\x00"


class SodiumAead:
    """`Aead` over PyNaCl."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = _checked(key)

    def encrypt(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None, /) -> bytes:
        """See `Aead.encrypt`."""
        return _seal(bytes(data), _optional(associated_data), _nonce(nonce), self._key)

    def encrypt_into(
        self, nonce: Buffer, data: Buffer, associated_data: Buffer | None, buf: Buffer, /
    ) -> int:
        """See `Aead.encrypt_into`."""
        _room(buf, len(data) + TAG_SIZE)
        return _fill(buf, self.encrypt(nonce, data, associated_data))

    def decrypt(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None, /) -> bytes:
        """See `Aead.decrypt`."""
        if len(data) < TAG_SIZE:
            raise BadTag
        try:
            return _open(bytes(data), _optional(associated_data), _nonce(nonce), self._key)
        except CryptoError:
            raise BadTag from None

    def decrypt_into(
        self, nonce: Buffer, data: Buffer, associated_data: Buffer | None, buf: Buffer, /
    ) -> int:
        """See `Aead.decrypt_into`."""
        if len(data) < TAG_SIZE:
            raise BadTag
        _room(buf, len(data) - TAG_SIZE)
        return _fill(buf, self.decrypt(nonce, data, associated_data))


class SodiumStream:
    """`Stream` over PyNaCl's AEAD, block counter 1 only."""

    __slots__ = ("_key", "_nonce", "_used")

    def __init__(self, key: bytes) -> None:
        self._key = _checked(key)
        self._nonce = nonce96(0)
        self._used = 0  # key bytes consumed since the last reset

    def reset_nonce(self, nonce: bytes, /) -> None:
        """See `Stream.reset_nonce`; raises ValueError unless the block counter is 1."""
        if len(nonce) != NONCE_SIZE + 4 or nonce[:4] != _COUNTER_ONE:
            raise ValueError("the sodium backend has streams with 16-byte nonces of block counter 1 only")
        self._nonce = bytes(nonce[4:])
        self._used = 0

    def update_into(self, data: Buffer, buf: Buffer, /) -> int:
        """See `Stream.update_into`. Continuing a stream computes it again from its start."""
        size = len(data)
        if len(buf) < size:
            raise ValueError(f"buffer must be at least {size} bytes for this payload")
        skipped = self._used
        text = _seal(bytes(skipped) + data, None, self._nonce, self._key)
        self._used += size
        return _fill(buf, text[skipped:-TAG_SIZE])


class Sodium:
    """The `Backend` named `sodium`."""

    name = "sodium"

    def aead(self, key: bytes) -> Aead:
        """A `SodiumAead`."""
        return SodiumAead(key)

    def stream(self, key: bytes) -> Stream:
        """A `SodiumStream`, at nonce 0 and block counter 1."""
        return SodiumStream(key)


def _checked(key: bytes) -> bytes:
    if len(key) != KEY_SIZE:
        raise ValueError("ChaCha20 keys are 32 bytes")
    return bytes(key)


def _nonce(nonce: Buffer) -> bytes:
    if len(nonce) != NONCE_SIZE:
        raise ValueError("nonces are 12 bytes")
    return bytes(nonce)


def _optional(data: Buffer | None) -> bytes | None:
    return None if data is None else bytes(data)


def _room(buf: Buffer, size: int) -> None:
    """The rule of `cryptography`: the output has exactly the size of the result."""
    if len(buf) != size:
        raise ValueError(f"buffer must be {size} bytes")


def _fill(buf: Buffer, data: bytes) -> int:
    size = len(data)
    memoryview(buf)[:size] = data
    return size


SODIUM: Final[Backend] = Sodium()
