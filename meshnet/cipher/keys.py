"""Identity: secp256k1 key pairs, their ECDH, and the names derived from a public key.

A public key is 33 bytes compressed; its text is 66 lower-case hex digits (docs/wire-format.md §0). ECDH is
SHA-256 of the compressed shared point, as in BOLT 4 and BOLT 8. Nothing here signs, stores or reads keys,
and no secret shows in a repr. `SecretKey.generate` is the one place of this floor that draws randomness.

libsecp256k1 is called through coincurve's bindings directly: `coincurve.PrivateKey` computes two public
keys at each construction, which is more than half of an ECDH, and onions make many keys.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Any, Final, NewType

from coincurve import GLOBAL_CONTEXT
from coincurve._libsecp256k1 import ffi as _ffi  # type: ignore[import-not-found]  # C module without stubs
from coincurve._libsecp256k1 import lib as _lib

from meshnet.cipher.aead import Buffer
from meshnet.errors import UsageError

PublicKey = NewType("PublicKey", bytes)
"""A compressed secp256k1 point, 33 bytes, known to lie on the curve."""

PUBLIC_KEY_SIZE: Final = 33
SECRET_KEY_SIZE: Final = 32
ORDER: Final = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
"""The order of the group (SEC 2, secp256k1); secrets lie in 1 … ORDER − 1."""

_CONTEXT: Final[Any] = GLOBAL_CONTEXT.ctx
_COMPRESSED: Final = 258  # SECP256K1_EC_COMPRESSED
_HEX = re.compile(r"[0-9a-fA-F]{66}")
_LABEL_SIZE: Final = 53  # ceil(33 * 8 / 5)


class BadKeyError(UsageError):
    """Bytes or text that are not a key."""


def public_key(data: Buffer) -> PublicKey:
    """Check that `data` is a compressed point of the curve (33 bytes, first 02 or 03) and return it.

    Raises `BadKeyError`. Costs about 5 µs (one square root).
    """
    key = bytes(data)
    _parse(key)
    return PublicKey(key)


def parse_public_key(text: str) -> PublicKey:
    """Read a public key from 66 hex digits of either case; raises `BadKeyError`."""
    if not _HEX.fullmatch(text):
        raise BadKeyError(f"a public key is 66 hex digits, not {text[:80]!r}")
    return public_key(bytes.fromhex(text))


class SecretKey:
    """A secp256k1 key pair. `secret` is 32 bytes, `public` the compressed point; neither ever changes.

    Raises `BadKeyError` unless `secret` is 32 bytes, big-endian, in 1 … ORDER − 1. Construction costs one
    multiplication of the base point (about 20 µs). Equality takes constant time.
    """

    __slots__ = ("public", "secret")

    secret: bytes
    public: PublicKey

    def __init__(self, secret: Buffer) -> None:
        self.secret = bytes(secret)
        point = _ffi.new("secp256k1_pubkey *")
        if len(self.secret) != SECRET_KEY_SIZE:
            raise BadKeyError(f"a secret key is 32 bytes, not {len(self.secret)}")
        if not _lib.secp256k1_ec_pubkey_create(_CONTEXT, point, self.secret):
            raise BadKeyError("a secret key must not be zero or beyond the order of the curve")
        self.public = _serialize(point)

    @classmethod
    def generate(cls) -> SecretKey:
        """A fresh key from the operating system's randomness."""
        return cls.draw(secrets.token_bytes)

    @classmethod
    def draw(cls, random: Callable[[int], bytes]) -> SecretKey:
        """A fresh key from `random`, which is asked for 32 bytes.

        One draw in 2¹²⁸ is no key and raises `BadKeyError`.
        """
        return cls(random(SECRET_KEY_SIZE))

    def ecdh(self, public: Buffer) -> bytes:
        """32 bytes: SHA-256 of the compressed point secret · public, in constant time.

        Raises `BadKeyError` if `public` is not a compressed point.
        """
        shared = _ffi.new("unsigned char [32]")
        point = _parse(bytes(public))
        # The default hash function of secp256k1_ecdh is SHA-256 of the compressed point.
        if not _lib.secp256k1_ecdh(_CONTEXT, shared, point, self.secret, _ffi.NULL, _ffi.NULL):
            raise BadKeyError("the two keys have no shared secret")
        return bytes(_ffi.buffer(shared))

    def multiply(self, scalar: bytes) -> SecretKey:
        """The key secret · scalar mod ORDER; `scalar` is 32 bytes. Raises `BadKeyError`."""
        product = _ffi.new("unsigned char [32]", self.secret)
        if len(scalar) != SECRET_KEY_SIZE or not _lib.secp256k1_ec_seckey_tweak_mul(
            _CONTEXT, product, scalar
        ):
            raise BadKeyError("a scalar is 32 bytes, not zero, below the order of the curve")
        return SecretKey(bytes(_ffi.buffer(product)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SecretKey):
            return NotImplemented
        return hmac.compare_digest(self.secret, other.secret)

    def __hash__(self) -> int:
        return hash(self.public)

    def __repr__(self) -> str:
        return f"<SecretKey of {self.public.hex()}>"


def multiply(public: Buffer, scalar: bytes) -> PublicKey:
    """The point scalar · public. `scalar` is 32 bytes and not secret: the time depends on it.

    Raises `BadKeyError` if `public` is no compressed point or `scalar` is zero or beyond the order.
    """
    point = _parse(bytes(public))
    if len(scalar) != SECRET_KEY_SIZE or not _lib.secp256k1_ec_pubkey_tweak_mul(_CONTEXT, point, scalar):
        raise BadKeyError("a scalar is 32 bytes, not zero, below the order of the curve")
    return _serialize(point)


def dns_label(public: PublicKey) -> str:
    """The key as a DNS label under `.mesh`: base32, lower case, no padding, 53 characters (§0)."""
    return base64.b32encode(public).decode("ascii").rstrip("=").lower()


def parse_dns_label(label: str) -> PublicKey:
    """Read what `dns_label` writes, in either case; raises `BadKeyError`."""
    try:
        data = base64.b32decode(label.upper().encode("ascii") + b"===")
    except ValueError:
        data = b""
    if len(label) != _LABEL_SIZE or len(data) != PUBLIC_KEY_SIZE:
        raise BadKeyError(f"a key as a DNS label is 53 base32 characters, not {label[:80]!r}")
    key = public_key(data)
    if dns_label(key) != label.lower():  # the last character carries one unused bit
        raise BadKeyError(f"{label!r} is not the canonical DNS label of a key")
    return key


def mesh_ipv6(public: PublicKey) -> IPv6Address:
    """The key's IPv6 address: `fc`, then the first 120 bits of SHA-256(public) (§0). One-way."""
    return IPv6Address(b"\xfc" + hashlib.sha256(public).digest()[:15])


def _parse(data: bytes) -> Any:
    """The library's form of a compressed point; the library itself would take 65 bytes too."""
    point = _ffi.new("secp256k1_pubkey *")
    if len(data) != PUBLIC_KEY_SIZE:
        raise BadKeyError(f"a public key is 33 bytes, not {len(data)}")
    if not _lib.secp256k1_ec_pubkey_parse(_CONTEXT, point, data, PUBLIC_KEY_SIZE):
        raise BadKeyError("a public key must be a point of secp256k1 with first byte 02 or 03")
    return point


def _serialize(point: Any) -> PublicKey:
    data = _ffi.new("unsigned char [33]")
    size = _ffi.new("size_t *", PUBLIC_KEY_SIZE)
    _lib.secp256k1_ec_pubkey_serialize(_CONTEXT, data, size, point, _COMPRESSED)
    return PublicKey(bytes(_ffi.buffer(data)))
