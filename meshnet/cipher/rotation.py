"""BOLT 8 key rotation: a key serves 1,000 nonces (500 records), then the next is derived from it.

Each direction of a connection rotates on its own. Never counts nonces: the owner takes `NONCES[n]`, and
calls `rotate` and starts again at 0 when n reaches `NONCES_PER_KEY`.
"""

from __future__ import annotations

from typing import Final

from meshnet.cipher.aead import Aead, Backend, nonce96
from meshnet.cipher.hashing import hkdf2

NONCES_PER_KEY: Final = 1000
NONCES: Final = tuple(nonce96(n) for n in range(NONCES_PER_KEY))


class RotatingKey:
    """The key of one direction; `aead` is the cipher under the present key.

    `key` and `chaining_key` are the 32-byte results of the handshake (`bolt8`).
    """

    __slots__ = ("_backend", "_chaining_key", "_key", "aead")

    def __init__(self, key: bytes, chaining_key: bytes, backend: Backend) -> None:
        self._key = key
        self._chaining_key = chaining_key
        self._backend = backend
        self.aead: Aead = backend.aead(key)

    def rotate(self) -> Aead:
        """Go to the next key: ck, k = HKDF2(ck, k) (BOLT 8 "Lightning Message Key Rotation")."""
        self._chaining_key, self._key = hkdf2(self._chaining_key, self._key)
        self.aead = self._backend.aead(self._key)
        return self.aead
