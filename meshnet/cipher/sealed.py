"""A secret key under a password: Argon2id makes the key, XChaCha20-Poly1305 seals (PyNaCl both).

    meshnet-key 1 argon2id PASSES MEMORY SALT NONCE PUBLIC
    SEALED

One file of two lines: numbers in decimal digits, MEMORY in bytes, SALT 16, NONCE 24, PUBLIC 33 and SEALED
32 + 16 bytes in hex digits. The whole first line is the associated data, so that nobody changes a word of it
unseen; the public key stands in the clear, so that a node's address can be read without the password. The
costs travel with the file, below fixed maxima: a file cannot make its reader work for an hour.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attrs import frozen
from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
    crypto_pwhash_alg,
    crypto_pwhash_ALG_ARGON2ID13,
)
from nacl.exceptions import CryptoError

from meshnet.cipher.keys import PublicKey, SecretKey
from meshnet.errors import CodecError, UsageError
from meshnet.limits import PASSWORD, PASSWORD_MEMORY, PASSWORD_PASSES

MAGIC: Final = b"meshnet-key "
LARGEST: Final = 512  # bytes of a sealed key
_LEAST_MEMORY: Final = 8_192  # libsodium's own
_SALT, _NONCE, _PUBLIC, _SEALED = 16, 24, 33, 48


class PasswordError(UsageError):
    """The password is wrong, or the file was changed: which of both, nobody can know."""


@frozen
class Cost:
    """What one guess costs: passes over so many bytes of memory."""

    passes: int = 3
    memory: int = 64 << 20


@frozen
class SealedKey:
    """A sealed key as it lies in its file."""

    public: PublicKey
    cost: Cost
    salt: bytes
    nonce: bytes
    sealed: bytes

    @property
    def head(self) -> bytes:
        """The first line, which is authenticated."""
        words = ("1", "argon2id", str(self.cost.passes), str(self.cost.memory), self.salt.hex())
        return MAGIC + " ".join((*words, self.nonce.hex(), self.public.hex())).encode()

    def encode(self) -> bytes:
        """The file's content."""
        return self.head + b"\n" + self.sealed.hex().encode() + b"\n"

    def open(self, password: bytes) -> SecretKey:
        """The key pair; raises PasswordError. Takes the time and the memory of `cost`."""
        key = _stretch(password, self.salt, self.cost)
        try:
            secret = crypto_aead_xchacha20poly1305_ietf_decrypt(self.sealed, self.head, self.nonce, key)
            opened = SecretKey(secret)
        except (CryptoError, UsageError):
            raise PasswordError("The password is wrong, or the key file was changed.") from None
        if opened.public != self.public:
            raise PasswordError("The key file holds another key than it says.")
        return opened


def is_sealed(data: bytes) -> bool:
    """Whether a key file's content is a sealed key (perhaps a damaged one)."""
    return data.startswith(MAGIC)


def seal(
    secret: SecretKey, password: bytes, random: Callable[[int], bytes], cost: Cost | None = None
) -> SealedKey:
    """Seals a key; `random` is asked for salt and nonce. Raises UsageError for a password of no or more than
    `PASSWORD` bytes."""
    check_password(password)
    cost = cost or Cost()
    empty = SealedKey(secret.public, cost, random(_SALT), random(_NONCE), b"")
    key = _stretch(password, empty.salt, cost)
    sealed = crypto_aead_xchacha20poly1305_ietf_encrypt(secret.secret, empty.head, empty.nonce, key)
    return SealedKey(secret.public, cost, empty.salt, empty.nonce, sealed)


def decode(data: bytes) -> SealedKey:
    """Reads what `SealedKey.encode` wrote; raises CodecError."""
    try:
        head, sealed, rest = data.decode("ascii").split("\n")
        magic, version, kind, passes, memory, salt, nonce, public = head.split(" ")
        found = SealedKey(
            PublicKey(bytes.fromhex(public)),
            Cost(_number(passes, 1, PASSWORD_PASSES), _number(memory, _LEAST_MEMORY, PASSWORD_MEMORY)),
            bytes.fromhex(salt),
            bytes.fromhex(nonce),
            bytes.fromhex(sealed),
        )
    except (ValueError, UsageError):
        raise CodecError("no sealed key") from None
    sizes = (len(found.salt), len(found.nonce), len(found.sealed))
    if (magic, version, kind, rest) != ("meshnet-key", "1", "argon2id", "") or sizes != (
        _SALT,
        _NONCE,
        _SEALED,
    ):
        raise CodecError("no sealed key of a kind that is known here")
    if found.encode() != data:
        raise CodecError("a sealed key that is not written as it should be")
    return found


def check_password(password: bytes) -> None:
    """Raises UsageError unless it is one that can be used."""
    if not password:
        raise UsageError("The password is empty; choose a long one.")
    if len(password) > PASSWORD:
        raise UsageError(f"The password is longer than {PASSWORD} bytes.")


def _number(text: str, least: int, most: int) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 12 or not least <= int(text) <= most:
        raise ValueError(text)
    return int(text)


def _stretch(password: bytes, salt: bytes, cost: Cost) -> bytes:
    check_password(password)
    return crypto_pwhash_alg(32, password, salt, cost.passes, cost.memory, crypto_pwhash_ALG_ARGON2ID13)
