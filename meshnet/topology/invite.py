"""Invites: into which network a newcomer is asked, and whom he dials first (docs/wire-format.md §9).

    text = "meshinvite1" | base32 (RFC 4648, lower case, no padding) of
           network u32 | expiry u32 | inviter 33 | count u8 | count × peer | signature 64 | checksum 4

    peer      key 33 | count u8 | count × (length u8 | address)
    signature = BIP 340, by the inviter, tag "meshnet/invite", over all before it
    checksum  = SHA-256("meshnet/invite" | all before it)[:4]

A peer whose key is 33 zeros is the inviter: his key need not be there twice. The signature says that the
inviter made this, not that the inviter is anybody in particular: who the text came from is the reader's to
know. Nothing here dials, and nothing here is secret; whoever reads an invite can use it until it expires.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from hashlib import sha256
from typing import Annotated, Final

from attrs import frozen

from meshnet.cipher.address import ago
from meshnet.cipher.keys import BadKeyError, PublicKey, SecretKey, public_key
from meshnet.cipher.signing import SIGNATURE_SIZE, sign, verify
from meshnet.codec import U8, U32, Fixed, Many, Var, decode, encode, message
from meshnet.errors import CodecError, UsageError
from meshnet.limits import INVITE_ADDRESS, INVITE_ADDRESSES, INVITE_PEERS, INVITE_TEXT

PREFIX: Final = "meshinvite1"
"""What every invite begins with; the digit is its version."""
TAG: Final = b"meshnet/invite"
CHECKSUM_SIZE: Final = 4
_THE_INVITER: Final = bytes(33)
_LIKE: Final = re.compile(r"meshinvite([0-9])")
_PRINTABLE: Final = re.compile(r"[!-~]+")


class InviteError(UsageError):
    """A text that is no invite, or one that cannot be used; the sentence says why."""


@message
class PeerRow:
    """A neighbour to dial: a key, and addresses such as `tcp:192.0.2.1:7001`."""

    key: Annotated[bytes, Fixed(33)]
    addresses: Annotated[tuple[Annotated[str, Var(U8, INVITE_ADDRESS)], ...], Many(U8, INVITE_ADDRESSES)]


@message
class Body:
    """An invite without its signature."""

    network: U32
    expiry: U32
    inviter: Annotated[bytes, Fixed(33)]
    peers: Annotated[tuple[PeerRow, ...], Many(U8, INVITE_PEERS)]


@frozen
class FirstPeer:
    """Somebody to dial: a key, and one address or more, the best first."""

    key: PublicKey
    addresses: tuple[str, ...]


@frozen
class Invite:
    """What an invite says. `expiry` is Unix seconds."""

    network: int
    expiry: int
    inviter: PublicKey
    peers: tuple[FirstPeer, ...]

    def refusal(self, unix: float) -> str:
        """Why it cannot be used now: a sentence, empty if it can."""
        if unix >= self.expiry:
            return f"The invite expired {ago(unix - self.expiry)} ago; ask {self.brief} for a new one."
        return ""

    @property
    def brief(self) -> str:
        """Who made it, in a sentence."""
        return f"node {self.inviter.hex()[:8]}…"


def make_invite(secret: SecretKey, network: int, expiry: int, peers: Sequence[FirstPeer]) -> str:
    """An invite by the node with this key; deterministic. Raises UsageError for one without peers, or one
    that would be longer than 600 characters."""
    if not peers or len(peers) > INVITE_PEERS:
        raise UsageError(f"An invite names 1 to {INVITE_PEERS} peers, and this one would name {len(peers)}.")
    rows = tuple(
        PeerRow(_THE_INVITER if peer.key == secret.public else peer.key, peer.addresses) for peer in peers
    )
    body = encode(Body(network, expiry, secret.public, rows))
    data = body + sign(secret, TAG, body)
    text = PREFIX + _base32(data + _checksum(data))
    if len(text) > INVITE_TEXT:
        raise UsageError(
            f"The invite would have {len(text)} characters, and {INVITE_TEXT} are the most; name fewer peers."
        )
    return text


def longest(
    secret: SecretKey, network: int, expiry: int, peers: Sequence[FirstPeer]
) -> tuple[str, tuple[FirstPeer, ...]]:
    """An invite with as many of these peers as fit, the first ones; and which. Raises UsageError if not even
    one does."""
    for count in range(min(len(peers), INVITE_PEERS), 1, -1):
        try:
            return make_invite(secret, network, expiry, peers[:count]), tuple(peers[:count])
        except UsageError:
            continue
    return make_invite(secret, network, expiry, peers[:1]), tuple(peers[:1])


def read_invite(text: str) -> Invite:
    """What an invite says, in either case; raises `InviteError`. Whether it is still valid is
    `Invite.refusal`'s to say. Costs one check of a signature."""
    word = text.strip().lower()
    like = _LIKE.match(word)
    if like is None:
        raise InviteError(f"{text[:40]!r} is no invite; those begin with {PREFIX}.")
    if not word.startswith(PREFIX):
        raise InviteError(f"The invite has version {like[1]}, and this program reads version {PREFIX[-1]}.")
    data = _from_base32(word[len(PREFIX) :]) if len(word) <= INVITE_TEXT else None
    if data is None or _checksum(data[:-CHECKSUM_SIZE]) != data[-CHECKSUM_SIZE:]:
        raise InviteError("The invite is damaged; copy it again, and whole.")
    signed, signature = data[: -SIGNATURE_SIZE - CHECKSUM_SIZE], data[-SIGNATURE_SIZE - CHECKSUM_SIZE :]
    try:
        body = decode(Body, signed)
        found = _invite(body)
    except (CodecError, BadKeyError):
        raise InviteError("The invite is malformed; ask for another.") from None
    if not verify(body.inviter, TAG, signed, signature[:SIGNATURE_SIZE]):
        raise InviteError("The invite was not made by the node it names; ask for another.")
    return found


def _invite(body: Body) -> Invite:
    """Raises CodecError and BadKeyError for what no node would have made."""
    inviter = public_key(body.inviter)
    peers = tuple(
        FirstPeer(inviter if row.key == _THE_INVITER else public_key(row.key), row.addresses)
        for row in body.peers
    )
    if not peers or any(not peer.addresses for peer in peers):
        raise CodecError("an invite names peers, and addresses of each")
    if len({peer.key for peer in peers}) < len(peers):
        raise CodecError("an invite names each peer once")
    if not all(_PRINTABLE.fullmatch(address) for peer in peers for address in peer.addresses):
        raise CodecError("an address is of printable ASCII without spaces")
    return Invite(body.network, body.expiry, inviter, peers)


def _checksum(data: bytes) -> bytes:
    return sha256(TAG + data).digest()[:CHECKSUM_SIZE]


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode("ascii").rstrip("=").lower()


def _from_base32(word: str) -> bytes | None:
    """The bytes that `_base32` made this word of; None for any other word."""
    try:
        data = base64.b32decode(word.upper().encode("ascii") + b"=" * (-len(word) % 8))
    except ValueError:
        return None
    return data if _base32(data) == word else None
