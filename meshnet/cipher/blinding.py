"""Route blinding of BOLT 4: a receiver hides the nodes before it, and itself, behind keys made for one path.

    ss = ECDH(e, N)                    e the path's secret at this hop, E = e·G its path key, N the node's key
    blinded id  B = HMAC("blinded_node_id", ss) · N
    data        = ChaCha20-Poly1305(HMAC("rho", ss), nonce 0, no associated data)
    next path   E' = SHA-256(E | ss) · E

The sender of an onion seals its layers to the blinded ids; a node that is given the path key tweaks its own
key, peels, opens the data, and passes the next path key on. What stands in the data belongs to its user:
for circuits that is `meshnet/circuit/tail.py`. Nothing here draws randomness.

Source: lightning/bolts 04-onion-routing.md, "Route Blinding".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attrs import field, frozen
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from meshnet.cipher.address import BlindedHop
from meshnet.cipher.aead import TAG_SIZE, Buffer, nonce96
from meshnet.cipher.keys import BadKeyError, PublicKey, SecretKey, multiply
from meshnet.cipher.sphinx import BadOnion, blinding, derive

_NONCE: Final = nonce96(0)


@frozen
class BlindedPath:
    """A path as its receiver makes it: the first path key, and per hop its blinded id and encrypted data.

    `shared_secrets` stay with the receiver. A sender who reaches the first node by its own key needs the
    data of the first hop, not its blinded id.
    """

    path_key: PublicKey
    hops: tuple[BlindedHop, ...]
    shared_secrets: tuple[bytes, ...] = field(repr=False)


@frozen
class Step:
    """What a node of a blinded path computes of the path key it was given."""

    path_key: PublicKey
    shared_secret: bytes = field(repr=False)

    def tweaked(self, secret: SecretKey) -> SecretKey:
        """The node's key as the blinded id stands for it: the key to peel with. Raises `BadOnion`."""
        try:
            return secret.multiply(derive(b"blinded_node_id", self.shared_secret))
        except BadKeyError:  # HMAC gave zero or more than the order: 2⁻¹²⁸
            raise BadOnion("the path key gives no key") from None

    def open(self, data: Buffer) -> bytes:
        """What the receiver wrote for this node; raises `BadOnion` if it was not for it, or was changed."""
        if len(data) < TAG_SIZE:
            raise BadOnion("the encrypted data is too short")
        try:
            return ChaCha20Poly1305(derive(b"rho", self.shared_secret)).decrypt(_NONCE, bytes(data), None)
        except InvalidTag:
            raise BadOnion("the encrypted data is not for this key and path key") from None

    @property
    def next_path_key(self) -> PublicKey:
        """For the next node, unless the data names another. Raises `BadOnion`."""
        try:
            return multiply(self.path_key, blinding(self.path_key, self.shared_secret))
        except BadKeyError:
            raise BadOnion("the path key cannot be blinded") from None


def enter(secret: SecretKey, path_key: Buffer) -> Step:
    """What the node with this key makes of a path key; raises `BadOnion` if that is no point."""
    try:
        return Step(PublicKey(bytes(path_key)), secret.ecdh(path_key))
    except BadKeyError:
        raise BadOnion("the path key is not a point of the curve") from None


def blind(session_key: SecretKey, route: Sequence[tuple[PublicKey, bytes]]) -> BlindedPath:
    """A path over `route`: each node's key and what it is told, first node first, the receiver last.

    `session_key` must be fresh. Who looks at the data sees their lengths: make them equal. Raises
    `BadKeyError` for a public key off the curve.
    """
    secret, hops, shared = session_key, [], []
    for key, told in route:
        ss = secret.ecdh(key)
        data = ChaCha20Poly1305(derive(b"rho", ss)).encrypt(_NONCE, told, None)
        hops.append(BlindedHop(multiply(key, derive(b"blinded_node_id", ss)), data))
        shared.append(ss)
        secret = secret.multiply(blinding(secret.public, ss))
    return BlindedPath(session_key.public, tuple(hops), tuple(shared))
