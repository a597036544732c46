"""The Sphinx onion of BOLT 4: one sealed packet of constant size that each hop of a route peels once.

    packet = version 00 | ephemeral key E 33 | hop payloads 1,300 | hmac 32       (1,366 bytes)
    per hop = BigSize length | payload | hmac of the next packet 32 (zeros: last hop)

What a hop may read stands in its payload; the meaning of payloads belongs to the circuit. Never remembers
packets: refusing replays is the owner's part. The associated data is bound by every hmac, but not carried.
Streams here start at block counter 0 and come from `cryptography` under either backend.

Source: lightning/bolts 04-onion-routing.md, "Packet Construction" and "Onion Decryption".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attrs import field, frozen
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from meshnet.cipher.aead import Buffer, nonce128
from meshnet.cipher.hashing import hmac256, same, sha256
from meshnet.cipher.keys import PUBLIC_KEY_SIZE, BadKeyError, PublicKey, SecretKey, multiply
from meshnet.errors import RemoteError, UsageError

VERSION: Final = 0
HMAC_SIZE: Final = 32
PAYLOADS_SIZE: Final = 1300
ONION_SIZE: Final = 1 + PUBLIC_KEY_SIZE + PAYLOADS_SIZE + HMAC_SIZE
SMALLEST_PAYLOAD: Final = 2  # lengths 0 and 1 are reserved in BOLT 4

_LAST = bytes(HMAC_SIZE)
_ZEROS = bytes(PAYLOADS_SIZE)
_START = nonce128(0, counter=0)


class BadOnion(RemoteError):  # noqa: N818  # named as the fault is in BOLT 4
    """An onion that is not for us, was changed on its way, or breaks the format."""


@frozen
class BuiltOnion:
    """An onion for its first hop, and what its maker keeps: per hop, in path order.

    `shared_secrets[i]` is the ECDH of `ephemerals[i]` with hop i's key, `ephemerals[i].public` the key E
    that hop i sees.
    """

    packet: bytes
    shared_secrets: tuple[bytes, ...] = field(repr=False)
    ephemerals: tuple[SecretKey, ...]


@frozen
class Peeled:
    """What a hop learns: its payload, the packet for the next hop (None: it is the last), its shared secret
    and the ephemeral key E of the packet it peeled.
    """

    payload: bytes
    next_packet: bytes | None
    shared_secret: bytes = field(repr=False)
    ephemeral: PublicKey


def derive(name: bytes, shared_secret: bytes) -> bytes:
    """The 32-byte key called `name` (`b"rho"`, `b"mu"`, `b"um"`, `b"ammag"` …): HMAC(name, ss)."""
    return hmac256(name, shared_secret)


def keystream(key: bytes, size: int) -> bytes:
    """`size` bytes of ChaCha20 under `key`, nonce 0, from block counter 0."""
    return xor_stream(key, bytes(size))


def xor_stream(key: bytes, data: Buffer) -> bytes:
    """`data` XORed with the key stream of `keystream`."""
    return Cipher(ChaCha20(key, _START), mode=None).encryptor().update(data)


def build(session_key: SecretKey, route: Sequence[tuple[PublicKey, bytes]], associated: bytes) -> BuiltOnion:
    """Seal the payloads of `route` (public key and payload per hop, without its length), first hop first.

    `session_key` must be fresh. Raises `UsageError` for an empty route, a payload below 2 bytes or payloads
    that need more than 1,300 bytes with their overhead of 33 to 35 bytes each, and `BadKeyError` for a
    public key off the curve.
    """
    payloads = [_framed(payload) for _, payload in route]
    used = sum(len(payload) + HMAC_SIZE for payload in payloads)
    if not payloads or used > PAYLOADS_SIZE:
        raise UsageError(f"an onion holds 1 to {PAYLOADS_SIZE} bytes of payloads, not {used}")
    ephemerals, secrets = _chain(session_key, [key for key, _ in route])
    rhos = [derive(b"rho", secret) for secret in secrets]
    filler = _filler(rhos, [len(payload) + HMAC_SIZE for payload in payloads])
    area = keystream(derive(b"pad", session_key.secret), PAYLOADS_SIZE)
    hmac = _LAST
    for index in reversed(range(len(payloads))):
        shifted = payloads[index] + hmac + area
        area = xor_stream(rhos[index], shifted[:PAYLOADS_SIZE])
        if index == len(payloads) - 1 and filler:
            area = area[: -len(filler)] + filler
        hmac = hmac256(derive(b"mu", secrets[index]), area + associated)
    packet = _packet(session_key.public, area, hmac)
    return BuiltOnion(packet, tuple(secrets), tuple(ephemerals))


def peel(secret: SecretKey, packet: Buffer, associated: bytes) -> Peeled:
    """Open our layer of a packet. Raises `BadOnion`, and nothing else, for any packet not made for us."""
    if len(packet) != ONION_SIZE:
        raise BadOnion(f"an onion has {ONION_SIZE} bytes, not {len(packet)}")
    data = bytes(packet)
    if data[0] != VERSION:
        raise BadOnion(f"onions of version {data[0]} are unknown")
    ephemeral = data[1 : 1 + PUBLIC_KEY_SIZE]
    area, hmac = data[1 + PUBLIC_KEY_SIZE : -HMAC_SIZE], data[-HMAC_SIZE:]
    try:
        shared = secret.ecdh(ephemeral)
    except BadKeyError:
        raise BadOnion("the onion's ephemeral key is not a point of the curve") from None
    if not same(hmac256(derive(b"mu", shared), area + associated), hmac):
        raise BadOnion("the onion's hmac does not fit: it is not for this key, or was changed")
    clear = xor_stream(derive(b"rho", shared), area + _ZEROS)
    start, end = _payload_bounds(clear)
    shift = end + HMAC_SIZE
    following = clear[end:shift]
    onward = None
    if following != _LAST:
        onward = _packet(_blinded(ephemeral, shared), clear[shift : shift + PAYLOADS_SIZE], following)
    return Peeled(clear[start:end], onward, shared, PublicKey(ephemeral))


def blinding(ephemeral: bytes, shared_secret: bytes) -> bytes:
    """The factor b that turns a hop's ephemeral key into the next one's: SHA-256(E ‖ ss)."""
    return sha256(ephemeral + shared_secret)


def _chain(session_key: SecretKey, route: Sequence[PublicKey]) -> tuple[list[SecretKey], list[bytes]]:
    """Each hop's ephemeral key pair and shared secret."""
    ephemerals = [session_key]
    secrets: list[bytes] = []
    for index, key in enumerate(route):
        if index:
            last = ephemerals[-1]
            ephemerals.append(last.multiply(blinding(last.public, secrets[-1])))
        secrets.append(ephemerals[-1].ecdh(key))
    return ephemerals, secrets


def _filler(rhos: Sequence[bytes], shifts: Sequence[int]) -> bytes:
    """What the tail of the area will be at the last hop, after all before it have shifted in zeros."""
    filler = b""
    for rho, shift in zip(rhos[:-1], shifts[:-1], strict=True):
        filler += bytes(shift)
        stream = keystream(rho, PAYLOADS_SIZE + shift)
        filler = _xor(filler, stream[-len(filler) :])
    return filler


def _xor(one: bytes, other: bytes) -> bytes:
    size = len(one)
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).to_bytes(size, "big")


def _framed(payload: bytes) -> bytes:
    """The payload behind its length as BigSize; longer ones do not fit an onion anyway."""
    size = len(payload)
    if not SMALLEST_PAYLOAD <= size <= PAYLOADS_SIZE:
        raise UsageError(f"a hop's payload has {SMALLEST_PAYLOAD} to {PAYLOADS_SIZE} bytes, not {size}")
    if size < 0xFD:
        return bytes((size,)) + payload
    return b"\xfd" + size.to_bytes(2, "big") + payload


def _payload_bounds(clear: bytes) -> tuple[int, int]:
    """Where the payload starts and ends; its hmac must lie within the area too."""
    start, size = 1, clear[0]
    if size == 0xFD:
        start, size = 3, int.from_bytes(clear[1:3], "big")
        minimal = size >= 0xFD
    else:
        minimal = size < 0xFD  # fe and ff announce lengths that cannot fit
    if not minimal or size < SMALLEST_PAYLOAD or start + size + HMAC_SIZE > PAYLOADS_SIZE:
        raise BadOnion("the length of the onion's payload is impossible")
    return start, start + size


def _blinded(ephemeral: bytes, shared_secret: bytes) -> bytes:
    try:
        return multiply(ephemeral, blinding(ephemeral, shared_secret))
    except BadKeyError:  # SHA-256 gave zero or more than the order: 2⁻¹²⁸
        raise BadOnion("the onion's ephemeral key cannot be blinded") from None


def _packet(ephemeral: bytes, area: bytes, hmac: bytes) -> bytes:
    return b"".join((b"\x00", ephemeral, area, hmac))
