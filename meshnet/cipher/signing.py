"""Signatures by a node's key: Schnorr over secp256k1 as in BIP 340, 64 bytes.

    message = SHA-256(SHA-256(tag) ‖ SHA-256(tag) ‖ data)      a tag for each use, so that none serves another

BIP 340 signs under the x coordinate alone. Whoever signs data about a key therefore puts the key into the
data. Signing is deterministic: the auxiliary randomness is what the caller gives, zeros if nothing.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from typing import Any, Final

from coincurve import GLOBAL_CONTEXT
from coincurve._libsecp256k1 import ffi as _ffi  # type: ignore[import-not-found]  # C module without stubs
from coincurve._libsecp256k1 import lib as _lib

from meshnet.cipher.aead import Buffer
from meshnet.cipher.keys import BadKeyError, SecretKey

SIGNATURE_SIZE: Final = 64
_CONTEXT: Final[Any] = GLOBAL_CONTEXT.ctx


@lru_cache(maxsize=64)
def _prefix(tag: bytes) -> bytes:
    return sha256(tag).digest() * 2


def tagged(tag: bytes, data: Buffer) -> bytes:
    """The 32 bytes that are signed: the tagged hash of BIP 340."""
    digest = sha256(_prefix(tag))
    digest.update(data)
    return digest.digest()


def sign(key: SecretKey, tag: bytes, data: Buffer, auxiliary: bytes = bytes(32)) -> bytes:
    """64 bytes over `data` for the use that `tag` names; `auxiliary` is 32 bytes, random or not."""
    return sign_digest(key, tagged(tag, data), auxiliary)


def sign_digest(key: SecretKey, digest: bytes, auxiliary: bytes = bytes(32)) -> bytes:
    """64 bytes over 32."""
    if len(digest) != 32 or len(auxiliary) != 32:
        raise BadKeyError("a digest and its auxiliary randomness are 32 bytes each")
    pair = _ffi.new("secp256k1_keypair *")
    signature = _ffi.new("unsigned char [64]")
    _lib.secp256k1_keypair_create(_CONTEXT, pair, key.secret)
    _lib.secp256k1_schnorrsig_sign32(_CONTEXT, signature, digest, pair, auxiliary)
    return bytes(_ffi.buffer(signature))


def verify(key: bytes, tag: bytes, data: Buffer, signature: bytes) -> bool:
    """Whether `signature` is one over `data` by `key` (33 bytes compressed); false for anything malformed."""
    return len(key) == 33 and verify_digest(key[1:], tagged(tag, data), signature)


def verify_digest(x: bytes, digest: bytes, signature: bytes) -> bool:
    """The same of 32 bytes, under the x coordinate alone."""
    if len(x) != 32 or len(digest) != 32 or len(signature) != SIGNATURE_SIZE:
        return False
    point = _ffi.new("secp256k1_xonly_pubkey *")
    if not _lib.secp256k1_xonly_pubkey_parse(_CONTEXT, point, x):
        return False
    return bool(_lib.secp256k1_schnorrsig_verify(_CONTEXT, signature, digest, 32, point))
