"""Trees of keys from one seed (BIP 32), as wallets with accounts use them.

    extended key  version 4 ‖ depth 1 ‖ parent's fingerprint 4 ‖ child number 4 ‖ chain code 32 ‖ key 33,
                  base58 with a checksum; versions 0488ADE4 (xprv, key = 00 ‖ secret), 0488B21E (xpub)
    child i       HMAC-SHA-512(chain code, parent ‖ i u32) = tweak 32 ‖ chain code 32; parent is the public
                  key, or for i ≥ 2³¹ (hardened, written i') 00 ‖ secret; the child's key is parent's + tweak

Integers are big-endian. One child in 2¹²⁷ does not exist: DerivationError, and the caller takes the next.
"""

from __future__ import annotations

import hmac
import re
from struct import Struct
from typing import Any, Final

from attrs import field, frozen
from coincurve import GLOBAL_CONTEXT
from coincurve import PublicKey as Point
from coincurve._libsecp256k1 import ffi as _ffi  # type: ignore[import-not-found]  # C module without stubs
from coincurve._libsecp256k1 import lib as _lib

from coin.chain.bitcoin import with_checksum, without_checksum
from coin.chain.hashing import ripemd160, sha256
from meshnet.cipher.keys import BadKeyError, PublicKey, SecretKey, public_key
from meshnet.errors import UsageError

HARDENED: Final = 1 << 31
DEEPEST: Final = 255
SEED_LEAST: Final = 16
SEED_MOST: Final = 64
_PRIVATE: Final = bytes.fromhex("0488ADE4")
_PUBLIC: Final = bytes.fromhex("0488B21E")
_EXTENDED = Struct(">4sB4sI32s33s")
_STEP = re.compile(r"(0|[1-9][0-9]{0,9})('?)")
_CONTEXT: Final[Any] = GLOBAL_CONTEXT.ctx


class DerivationError(UsageError):
    """There is no such child, or text is no extended key or path."""


@frozen
class ExtendedKey:
    """A key of a tree, with what its children are made of. `secret` is None where only the public half is
    known: then it has no hardened children. `parent` is the parent's fingerprint, zero for a root."""

    public: PublicKey
    code: bytes = field(repr=False)
    secret: SecretKey | None = field(default=None, repr=False)
    depth: int = 0
    parent: bytes = bytes(4)
    number: int = 0

    @property
    def identifier(self) -> bytes:
        """20 bytes that name the key; the first 4 are its fingerprint."""
        return ripemd160(sha256(self.public))

    @property
    def xpub(self) -> str:
        """The public half as text."""
        return self._text(_PUBLIC, self.public)

    @property
    def xprv(self) -> str:
        """The private half as text, a secret; raises DerivationError where it is not known."""
        if self.secret is None:
            raise DerivationError("Only the public half of this key is known.")
        return self._text(_PRIVATE, b"\0" + self.secret.secret)

    def _text(self, version: bytes, key: bytes) -> str:
        data = _EXTENDED.pack(version, self.depth, self.parent, self.number, self.code, key)
        return with_checksum(data)

    def public_half(self) -> ExtendedKey:
        """The same without the secret."""
        return ExtendedKey(self.public, self.code, None, self.depth, self.parent, self.number)

    def child(self, number: int) -> ExtendedKey:
        """Child `number` (0 to 2³² − 1; hardened from 2³¹ on). Raises DerivationError."""
        if not 0 <= number < 1 << 32:
            raise DerivationError(f"A child's number is 0 to 4294967295, not {number}.")
        if self.depth == DEEPEST:
            raise DerivationError(f"Keys are derived {DEEPEST} times at most.")
        if number < HARDENED:
            base = bytes(self.public)
        elif self.secret is None:
            raise DerivationError("A hardened child needs the private half of its parent.")
        else:
            base = b"\0" + self.secret.secret
        made = hmac.digest(self.code, base + number.to_bytes(4, "big"), "sha512")
        tweak, code, depth, parent = made[:32], made[32:], self.depth + 1, self.identifier[:4]
        if self.secret is not None:
            secret = _add(self.secret, tweak)
            return ExtendedKey(secret.public, code, secret, depth, parent, number)
        try:
            public = PublicKey(Point(self.public).add(tweak).format())
        except ValueError:
            raise DerivationError(f"There is no child {number}; take the next.") from None
        return ExtendedKey(public, code, None, depth, parent, number)

    def at(self, path: str) -> ExtendedKey:
        """The key at a path such as `m/44'/8000'/0'/0`, which begins at this key. Raises DerivationError."""
        root, *steps = path.split("/")
        if root != "m":
            raise DerivationError(f"A path begins with m, not {root[:20]!r}.")
        key = self
        for step in steps:
            match = _STEP.fullmatch(step)
            if match is None or int(match[1]) >= HARDENED:
                raise DerivationError(f"{step[:20]!r} is no step of a path; write it like 44' or 0.")
            key = key.child(int(match[1]) + (HARDENED if match[2] else 0))
        return key


def root_key(seed: bytes) -> ExtendedKey:
    """The root of the tree of a seed, 16 to 64 bytes. Raises DerivationError."""
    if not SEED_LEAST <= len(seed) <= SEED_MOST:
        raise DerivationError(f"A seed has {SEED_LEAST} to {SEED_MOST} bytes, not {len(seed)}.")
    made = hmac.digest(b"Bitcoin seed", seed, "sha512")
    try:
        secret = SecretKey(made[:32])
    except BadKeyError:
        raise DerivationError("This seed has no tree; take another.") from None
    return ExtendedKey(secret.public, made[32:], secret)


def parse_extended(text: str) -> ExtendedKey:
    """Reads an xprv or xpub; raises UsageError, which shows nothing of it."""
    data = without_checksum(text)
    if len(data) != _EXTENDED.size:
        raise DerivationError("The text is no extended key: it has another length.")
    version, depth, parent, number, code, key = _EXTENDED.unpack(data)
    if depth == 0 and (any(parent) or number):
        raise DerivationError("The extended key is wrong: a root has no parent and no number.")
    if version == _PRIVATE and key[0] == 0:
        secret = SecretKey(key[1:])
        return ExtendedKey(secret.public, code, secret, depth, parent, number)
    if version == _PUBLIC:
        return ExtendedKey(public_key(key), code, None, depth, parent, number)
    raise DerivationError("The text is no extended key of this kind: it begins otherwise than xprv and xpub.")


def _add(secret: SecretKey, tweak: bytes) -> SecretKey:
    """secret + tweak mod the order."""
    made = _ffi.new("unsigned char [32]", secret.secret)
    if not _lib.secp256k1_ec_seckey_tweak_add(_CONTEXT, made, tweak):
        raise DerivationError("There is no such child; take the next.")
    return SecretKey(bytes(_ffi.buffer(made)))
