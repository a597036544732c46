"""The two Diffie-Hellman groups Noise runs over: secp256k1 (ours, BOLT 8) and X25519 (the public vectors).

The mesh uses secp256k1 only. X25519 is here so that the published Noise vectors test `noise.py`.
"""

from __future__ import annotations

from typing import Final, Protocol

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from meshnet.cipher import keys
from meshnet.cipher.aead import Buffer
from meshnet.cipher.keys import BadKeyError


class KeyPair(Protocol):
    """A secret key as a handshake uses it; `keys.SecretKey` is one."""

    @property
    def public(self) -> bytes:
        """The public key in the form that goes on the wire."""

    def ecdh(self, public: Buffer, /) -> bytes:
        """The 32-byte secret shared with `public`; raises `BadKeyError`."""


class DhFunction(Protocol):
    """A group: its name in Noise protocol names, and the size of its public keys in bytes."""

    @property
    def name(self) -> str:
        """As in a Noise protocol name."""

    @property
    def size(self) -> int:
        """Bytes of a public key."""

    def check(self, public: bytes, /) -> bytes:
        """`public` itself if it can be one; raises `BadKeyError`."""


class Secp256k1:
    """secp256k1 with 33-byte keys and SHA-256 of the compressed point as the shared secret (BOLT 8)."""

    name = "secp256k1"
    size = keys.PUBLIC_KEY_SIZE

    def check(self, public: bytes, /) -> bytes:
        """Checks that the point lies on the curve."""
        return keys.public_key(public)


class X25519:
    """Curve25519 (RFC 7748); every 32 bytes are a public key, but those of small order have no secret."""

    name = "25519"
    size = 32

    def check(self, public: bytes, /) -> bytes:
        """Checks the length."""
        if len(public) != self.size:
            raise BadKeyError(f"an X25519 public key is 32 bytes, not {len(public)}")
        return public


class X25519Key:
    """An X25519 key pair from its 32 secret bytes."""

    __slots__ = ("_secret", "public")

    def __init__(self, secret: bytes) -> None:
        try:
            self._secret = X25519PrivateKey.from_private_bytes(secret)
        except ValueError:
            raise BadKeyError(f"an X25519 secret key is 32 bytes, not {len(secret)}") from None
        self.public = self._secret.public_key().public_bytes_raw()

    def ecdh(self, public: Buffer) -> bytes:
        """The shared u-coordinate, 32 bytes; raises `BadKeyError` when it is zero or the key too short."""
        try:
            return self._secret.exchange(X25519PublicKey.from_public_bytes(bytes(public)))
        except ValueError:
            raise BadKeyError("the X25519 public key is short or of small order") from None

    def __repr__(self) -> str:
        return f"<X25519Key of {self.public.hex()}>"


SECP256K1: Final[DhFunction] = Secp256k1()
