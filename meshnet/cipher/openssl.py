"""The default backend: OpenSSL through the `cryptography` package.

Hands out the library's bare objects, since a wrapper around each call would cost as much as the cipher
does on small cells.
"""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from meshnet.cipher.aead import Aead, Backend, Stream, nonce128

_START = nonce128(0)


class OpenSsl:
    """The `Backend` named `openssl`."""

    name = "openssl"

    def aead(self, key: bytes) -> Aead:
        """A `ChaCha20Poly1305` object."""
        return ChaCha20Poly1305(key)

    def stream(self, key: bytes) -> Stream:
        """A ChaCha20 encryptor context, at nonce 0 and block counter 1."""
        return Cipher(ChaCha20(key, _START), mode=None).encryptor()


OPENSSL: Final[Backend] = OpenSsl()
