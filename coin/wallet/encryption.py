"""Secrets of a wallet under a password, as the Go node keeps them.

    scrypt-chacha20poly1305   base64( size of meta u16 little-endian ‖ meta ‖ ciphertext ‖ tag 16 )
                              meta = {"n":…,"r":…,"p":…,"keyLen":32,"salt":"base64","nonce":"base64"}
                              key = scrypt(password, salt, n, r, p); ChaCha20-Poly1305 over all before it
    …-insecure                the same, n = 2¹⁵ instead of 2²⁰: for tests
    sha256-xor                base64( hash ‖ nonce 32 ‖ blocks of 32 ); hash = SHA-256(nonce ‖ blocks)
                              mask of block i: SHA-256(key ‖ SHA-256(i as a varint, padded ‖ SHA-256(nonce)))
                              plain = SHA-256(rest) ‖ rest; rest = size u32 ‖ secrets ‖ zeros to 32 bytes

What stands in `meta` is checked before any work is done: a file must not make us use any memory it likes.
`sha256-xor` is only read: its key costs an attacker nothing, so what is written again is under scrypt.
Nothing here knows what the secrets are.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable
from struct import Struct
from typing import Any, Final

from attrs import field, frozen
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from coin.chain.hashing import sha256
from coin.chain.seeds import point_hash
from coin.wallet.document import go_json
from coin.wallet.errors import DamagedWalletError, PasswordError, WalletError
from meshnet.errors import LocalError

SCRYPT: Final = "scrypt-chacha20poly1305"
SCRYPT_INSECURE: Final = "scrypt-chacha20poly1305-insecure"
XOR: Final = "sha256-xor"
KINDS: Final = (SCRYPT, SCRYPT_INSECURE, XOR)

SCRYPT_MEMORY: Final = 1 << 30
"""Bytes that scrypt may use for a wallet: 128 · n · r, which is what the Go node's own files take."""
SCRYPT_PASSES: Final = 4
"""The largest p: scrypt's work goes with it."""
MOST_SEALED: Final = 64 << 20
"""Characters of encrypted secrets."""
SALT_SIZE: Final = 32
NONCE_SIZE: Final = 12
KEY_SIZE: Final = 32

_COSTS: Final = {SCRYPT: 1 << 20, SCRYPT_INSECURE: 1 << 15}
_LONGEST_META: Final = 1_024
_LONGEST_SALT: Final = 256
_SIZE = Struct("<H")
_LENGTH = Struct("<I")
_WRONG: Final = "The password is wrong."

Random = Callable[[int], bytes]


@frozen
class Sealing:
    """A password that scrypt has been through: seals without the wait. The key never shows."""

    kind: str
    n: int
    r: int
    p: int
    salt: bytes = field(repr=False)
    key: bytes = field(repr=False)

    def seal(self, data: bytes, nonce: bytes) -> str:
        """`data` as text. The nonce is 12 bytes and never the same twice."""
        meta = self._meta(nonce)
        return base64.b64encode(meta + ChaCha20Poly1305(self.key).encrypt(nonce, data, meta)).decode()

    def _meta(self, nonce: bytes) -> bytes:
        table = {
            "n": self.n,
            "r": self.r,
            "p": self.p,
            "keyLen": KEY_SIZE,
            "salt": base64.b64encode(self.salt).decode(),
            "nonce": base64.b64encode(nonce).decode(),
        }
        text = go_json(table).encode()
        return _SIZE.pack(len(text)) + text


def new_sealing(password: str, random: Random, kind: str = SCRYPT) -> Sealing:
    """A fresh salt, and the key of the password; about 3 s and 1 GiB for the usual kind. Raises WalletError
    for an empty password or a kind that is not written."""
    if not password:
        raise PasswordError("The password must not be empty.")
    if kind not in _COSTS:
        raise WalletError(f"Nothing is encrypted by {kind[:40]!r}; take {SCRYPT}.")
    n, salt = _COSTS[kind], random(SALT_SIZE)
    return Sealing(kind, n, 8, 1, salt, _scrypt(password, salt, n, 8, 1))


def open_sealed(text: str, kind: str, password: str) -> tuple[bytes, Sealing | None]:
    """The secrets, and with what to seal them again (None: only a new sealing may). Raises PasswordError, and
    DamagedWalletError for what no password opens."""
    if not password:
        raise PasswordError("The wallet is encrypted; its password is needed, and it is not empty.")
    if len(text) > MOST_SEALED:
        raise DamagedWalletError(f"The encrypted secrets have more than {MOST_SEALED} characters.")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _damaged() from None
    if kind == XOR:
        return _open_xor(data, password), None
    if kind not in _COSTS:
        raise DamagedWalletError(f"The wallet is encrypted by {kind[:40]!r}, which is not known here.")
    return _open_scrypt(data, kind, password)


def _damaged() -> DamagedWalletError:
    return DamagedWalletError("The encrypted secrets are damaged; take a backup of the wallet.")


def _open_scrypt(data: bytes, kind: str, password: str) -> tuple[bytes, Sealing]:
    if len(data) < _SIZE.size:
        raise _damaged()
    end = _SIZE.size + _SIZE.unpack_from(data)[0]
    if end > min(len(data), _LONGEST_META):
        raise _damaged()
    n, r, p, salt, nonce = _cost(data[_SIZE.size : end])
    key = _scrypt(password, salt, n, r, p)
    try:
        plain = ChaCha20Poly1305(key).decrypt(nonce, data[end:], data[:end])
    except InvalidTag:
        raise PasswordError(_WRONG) from None
    return plain, Sealing(kind, n, r, p, salt, key)


def _cost(text: bytes) -> tuple[int, int, int, bytes, bytes]:
    """What the meta asks for, if it may: n, r, p, salt, nonce."""
    try:
        table: dict[str, Any] = json.loads(text)
        n, r, p, size = (table[name] for name in ("n", "r", "p", "keyLen"))
        salt, nonce = (base64.b64decode(table[name], validate=True) for name in ("salt", "nonce"))
        whole = all(type(each) is int and each > 0 for each in (n, r, p, size))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _damaged() from None
    if not whole or size != KEY_SIZE or len(nonce) != NONCE_SIZE or len(salt) > _LONGEST_SALT:
        raise _damaged()
    if n < 2 or n & (n - 1):
        raise _damaged()
    if 128 * n * r > SCRYPT_MEMORY or p > SCRYPT_PASSES:
        raise DamagedWalletError(
            f"The wallet asks for {128 * n * r * p >> 20} MiB of scrypt, more than any node wrote; "
            "it is not opened."
        )
    return n, r, p, salt, nonce


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    memory = 128 * r * (n + p + 2) + (1 << 16)
    try:
        return hashlib.scrypt(
            _bytes_of(password),
            salt=salt,
            n=n,
            r=r,
            p=p,
            maxmem=memory,
            dklen=KEY_SIZE,
        )
    except (ValueError, MemoryError):
        needed = f"{memory >> 20} MiB of memory"
        raise LocalError(f"The key of the password needs {needed}, which is not free.") from None


def _bytes_of(password: str) -> bytes:
    """As a terminal sent it, also where that is no UTF-8."""
    try:
        return password.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise PasswordError("The password is no text: it has half of a character.") from None


def _open_xor(data: bytes, password: str) -> bytes:
    if len(data) < 128 or len(data) % 32:
        raise _damaged()
    check, nonce, sealed = data[:32], data[32:64], data[64:]
    if sha256(data[32:]) != check:
        raise _damaged()
    key, spread = point_hash(_bytes_of(password)), sha256(nonce)
    blocks = []
    for number in range(len(sealed) // 32):
        mask = sha256(key + sha256(_varint(number).ljust(32, b"\0") + spread))
        block = int.from_bytes(sealed[number * 32 : number * 32 + 32], "big") ^ int.from_bytes(mask, "big")
        blocks.append(block.to_bytes(32, "big"))
    plain = b"".join(blocks[1:])
    if sha256(plain) != blocks[0]:
        raise PasswordError(_WRONG)
    size = _LENGTH.unpack_from(plain)[0]
    if size > len(plain) - _LENGTH.size:
        raise _damaged()
    return plain[_LENGTH.size : _LENGTH.size + size]


def _varint(number: int) -> bytes:
    """A number as Go's signed varint: zig-zag, seven bits a byte, the lowest first."""
    number <<= 1
    made = bytearray()
    while number >= 0x80:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)
