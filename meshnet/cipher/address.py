"""Addresses of services that hide: a service's key, and the blinded tail that leads to it, as one word.

    text  = "mesh1" | base32 (RFC 4648, lower case, no padding) of
            network u32 | expiry u32 | service key 33 | path key 33
            | introduction node 33 | encrypted data 80 | (blinded id 33 | encrypted data 80) × 0–3
            | signature 64 | checksum 4
    signature = BIP 340, by the service key, of SHA-256("meshnet/address/1" | all before it)
    checksum  = SHA-256("meshnet/address/1" | all before it)[:4]              (docs/wire-format.md §6)

A `Target` is what a circuit can lead to: a node by its public key, or a service by its address. Nothing
here opens the encrypted data: only the node it is for can. `blinding.py` makes tails.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from struct import Struct
from typing import Final

from attrs import field, frozen
from coincurve import PrivateKey, PublicKeyXOnly

from meshnet.cipher.hashing import sha256
from meshnet.cipher.keys import (
    PUBLIC_KEY_SIZE,
    BadKeyError,
    PublicKey,
    SecretKey,
    parse_public_key,
    public_key,
)
from meshnet.errors import UsageError
from meshnet.limits import HIDDEN_DATA, TAIL_HOPS

PREFIX: Final = "mesh1"
"""What every address begins with; the digit is its version."""

SIGNATURE_SIZE: Final = 64
CHECKSUM_SIZE: Final = 4
DATA_SIZE: Final = HIDDEN_DATA + 16
"""The encrypted data of one hop, its tag included."""

_DOMAIN: Final = b"meshnet/address/1"
_head = Struct(">II33s33s")
_HOP: Final = PUBLIC_KEY_SIZE + DATA_SIZE
_LIKE: Final = re.compile(r"mesh[0-9][a-z2-7]{20,}")
_SIZES: Final = tuple(
    _head.size + count * _HOP + SIGNATURE_SIZE + CHECKSUM_SIZE for count in range(1, TAIL_HOPS + 1)
)


class AddressError(UsageError):
    """A text that is no address, or an address that cannot be used; the sentence says which."""


@frozen
class BlindedHop:
    """One node of a tail: the key its onion layer is made for, and data only it can read (80 bytes).

    The first hop's key is the introduction node's own, those of the others are blinded.
    """

    key: PublicKey
    data: bytes = field(repr=False)


@frozen
class Address:
    """Where a service can be reached until `expiry` (Unix seconds), and its key, which proves it.

    `tail` has 1 to 4 hops, the introduction node first, the node of the service last.
    """

    network: int
    expiry: int
    service: PublicKey
    path_key: PublicKey = field(repr=False)
    tail: tuple[BlindedHop, ...] = field(repr=False)
    signature: bytes = field(repr=False, eq=False)

    @property
    def introduction(self) -> PublicKey:
        """The node that every caller of this address must reach."""
        return self.tail[0].key

    @property
    def text(self) -> str:
        """The address as one word, 413 to 955 lower-case letters and digits."""
        data = _body(self.network, self.expiry, self.service, self.path_key, self.tail) + self.signature
        return PREFIX + _base32(data + _checksum(data))

    def refusal(self, network: int, unix: float) -> str:
        """Why this address cannot be used in that network now: a sentence, empty if it can."""
        if self.network != network:
            return (
                f"The address of {brief(self)} is of network {self.network}, and this node is of {network}."
            )
        if unix >= self.expiry:
            past = ago(unix - self.expiry)
            return f"The address of {brief(self)} expired {past} ago; ask its owner for a new one."
        return ""


Target = PublicKey | Address
"""What a circuit can lead to."""


def sign_address(
    secret: SecretKey, network: int, expiry: int, path_key: PublicKey, tail: Sequence[BlindedHop]
) -> Address:
    """The address of the service with this key; deterministic. Raises UsageError for a tail of no or more
    than 4 hops."""
    hops = tuple(tail)
    if not 1 <= len(hops) <= TAIL_HOPS or any(len(hop.data) != DATA_SIZE for hop in hops):
        raise UsageError(f"a tail has 1 to {TAIL_HOPS} hops with {DATA_SIZE} bytes of data each")
    digest = sha256(_DOMAIN + _body(network, expiry, secret.public, path_key, hops))
    signature = PrivateKey(secret.secret).sign_schnorr(digest, bytes(32))
    return Address(network, expiry, secret.public, path_key, hops, signature)


def looks_like_address(text: str) -> bool:
    """Whether somebody meant this text as an address, of this version or another."""
    return _LIKE.match(text.lower()) is not None


def parse_address(text: str) -> Address:
    """Read an address, in either case; raises `AddressError`. Whether it is of the right network and still
    valid is `Address.refusal`'s to say. Costs one check of a signature."""
    word = text.lower()
    if not word.startswith(PREFIX):
        if looks_like_address(word):
            raise AddressError(f"The address has version {word[4]}, and this node reads version {PREFIX[4]}.")
        raise AddressError(f"{text[:80]!r} is no address; those begin with {PREFIX}.")
    data = _from_base32(word[len(PREFIX) :])
    if data is None or len(data) not in _SIZES or _checksum(data[:-CHECKSUM_SIZE]) != data[-CHECKSUM_SIZE:]:
        raise AddressError(f"The address {word[:12]}… is damaged; copy it again, and whole.")
    body, signature = data[: -SIGNATURE_SIZE - CHECKSUM_SIZE], data[-SIGNATURE_SIZE - CHECKSUM_SIZE :]
    signature = signature[:SIGNATURE_SIZE]
    network, expiry, service, path_key = _head.unpack_from(body)
    parts = [body[start : start + _HOP] for start in range(_head.size, len(body), _HOP)]
    try:
        tail = tuple(BlindedHop(public_key(hop[:PUBLIC_KEY_SIZE]), hop[PUBLIC_KEY_SIZE:]) for hop in parts)
        found = Address(network, expiry, public_key(service), public_key(path_key), tail, signature)
        sound = PublicKeyXOnly(service[1:]).verify(signature, sha256(_DOMAIN + body))
    except (BadKeyError, ValueError):
        sound = False
    if not sound:
        raise AddressError(f"The address {word[:12]}… was not made by the service it names; ask for another.")
    return found


def parse_target(text: str) -> Target:
    """Read a public key (66 hex digits) or an address; raises UsageError."""
    return parse_address(text) if looks_like_address(text) else parse_public_key(text)


def node_key(target: Target) -> PublicKey:
    """The key of a target that is a node; raises UsageError for an address."""
    if isinstance(target, Address):
        raise UsageError(f"{brief(target)} is a hidden service; here only a node's public key will do")
    return target


def proves(target: Target) -> PublicKey:
    """The key that the far end of a circuit to `target` proves to have: the node's or the service's."""
    return target.service if isinstance(target, Address) else target


def brief(target: Target) -> str:
    """A target in a sentence: the first digits of its key."""
    if isinstance(target, Address):
        return f"service {target.service.hex()[:8]}…"
    return f"{target.hex()[:8]}…"


def ago(seconds: float) -> str:
    """A time span for a sentence: whole minutes, hours or days."""
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        count = int(seconds // size)
        if count:
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "less than a minute"


def _body(
    network: int, expiry: int, service: PublicKey, path_key: PublicKey, tail: Sequence[BlindedHop]
) -> bytes:
    hops = b"".join(hop.key + hop.data for hop in tail)
    return _head.pack(network, expiry, service, path_key) + hops


def _checksum(data: bytes) -> bytes:
    return sha256(_DOMAIN + data)[:CHECKSUM_SIZE]


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode("ascii").rstrip("=").lower()


def _from_base32(word: str) -> bytes | None:
    """The bytes that `_base32` made this word of; None for any other word."""
    try:
        data = base64.b32decode(word.upper().encode("ascii") + b"=" * (-len(word) % 8))
    except ValueError:
        return None
    return data if _base32(data) == word else None
