"""Recoverable ECDSA signatures as the chain wants them: R 32 ‖ S 32 ‖ recovery id 1, 65 bytes.

A signature is accepted if R and S lie in 1 … order − 1, a public key can be recovered from it, the top bit of
S is 0 and the recovery id is below 4. The top bit is the rule of the chain, not S ≤ order/2. Signing uses the
nonce of RFC 6979, so signatures of the same hash are equal; those of other software are not, so they must be
verified and never compared. 65 zero bytes stand for a signature still to be made.
"""

from __future__ import annotations

from typing import Any, Final

from coincurve import GLOBAL_CONTEXT
from coincurve._libsecp256k1 import ffi as _ffi  # type: ignore[import-not-found]  # C module without stubs
from coincurve._libsecp256k1 import lib as _lib

from meshnet.cipher.keys import PublicKey, SecretKey
from meshnet.errors import UsageError

SIGNATURE_SIZE: Final = 65
UNSIGNED: Final = bytes(SIGNATURE_SIZE)
"""The place of a signature that is still to be made."""

_CONTEXT: Final[Any] = GLOBAL_CONTEXT.ctx
_COMPRESSED: Final = 258  # SECP256K1_EC_COMPRESSED
_parse = _lib.secp256k1_ecdsa_recoverable_signature_parse_compact
_recover = _lib.secp256k1_ecdsa_recover
_serialize = _lib.secp256k1_ec_pubkey_serialize
_new = _ffi.new
_buffer = _ffi.buffer


class BadSignatureError(UsageError):
    """Bytes that are not a signature of this hash."""


def recover(signature: bytes, digest: bytes) -> PublicKey:
    """The public key whose owner signed `digest` (32 bytes); raises `BadSignatureError`. About 45 µs."""
    if len(signature) != SIGNATURE_SIZE or len(digest) != 32:
        raise BadSignatureError("a signature has 65 bytes and signs 32")
    if signature[32] >> 7:
        raise BadSignatureError("the signature's S has its top bit set")
    if signature[64] >= 4:
        raise BadSignatureError("the signature's recovery id is above 3")
    parsed = _new("secp256k1_ecdsa_recoverable_signature *")
    point = _new("secp256k1_pubkey *")
    # R and S of zero parse, and are refused by the recovery.
    if not _parse(_CONTEXT, parsed, signature[:64], signature[64]):
        raise BadSignatureError("the signature's numbers are beyond the order of the curve")
    if not _recover(_CONTEXT, point, parsed, digest):
        raise BadSignatureError("no key can have made the signature")
    data = _new("unsigned char [33]")
    _serialize(_CONTEXT, data, _new("size_t *", 33), point, _COMPRESSED)
    return PublicKey(bytes(_buffer(data)))


def sign(secret: SecretKey, digest: bytes) -> bytes:
    """The signature of `digest` (32 bytes, not all zero), 65 bytes. Raises `BadSignatureError`."""
    if len(digest) != 32 or not any(digest):
        raise BadSignatureError("what is signed has 32 bytes that are not all zero")
    made = _new("secp256k1_ecdsa_recoverable_signature *")
    if not _lib.secp256k1_ecdsa_sign_recoverable(_CONTEXT, made, digest, secret.secret, _ffi.NULL, _ffi.NULL):
        raise BadSignatureError("the hash could not be signed")
    data, number = _new("unsigned char [64]"), _new("int *")
    _lib.secp256k1_ecdsa_recoverable_signature_serialize_compact(_CONTEXT, data, number, made)
    return bytes(_buffer(data)) + bytes((number[0],))
