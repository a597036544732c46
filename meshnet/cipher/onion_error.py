"""The error onion of BOLT 4: how a hop tells the origin, and nobody else, why it refuses.

    292 bytes = hmac 32 | length u16 | failure | length u16 | zeros       failure and zeros: 256 bytes

The erring hop seals this under the shared secret of its onion, each hop on the way back adds its layer, and
the origin takes them off in path order: the first layer whose hmac fits names the hop. A hop's stream is
one-time, so it makes at most one error onion per circuit (docs/wire-format.md §3).

Source: lightning/bolts 04-onion-routing.md, "Returning Errors".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from meshnet.cipher.aead import Buffer
from meshnet.cipher.hashing import hmac256, same
from meshnet.cipher.sphinx import HMAC_SIZE, derive, xor_stream
from meshnet.errors import UsageError
from meshnet.limits import HOPS

FAILURE_SIZE: Final = 256
"""What a failure and its padding have together."""

ERROR_SIZE: Final = HMAC_SIZE + 2 + FAILURE_SIZE + 2


def create(shared_secret: bytes, failure: bytes, size: int = FAILURE_SIZE) -> bytes:
    """Seal `failure` at the erring hop: 36 + `size` bytes, its own layer included.

    Raises `UsageError` if the failure is longer than `size` (256 on our wire).
    """
    return add_layer(shared_secret, sealed(shared_secret, failure, size))


def sealed(shared_secret: bytes, failure: bytes, size: int = FAILURE_SIZE) -> bytes:
    """The same without the layer; raises `UsageError` if the failure is longer than `size`."""
    if len(failure) > size:
        raise UsageError(f"a failure has at most {size} bytes, not {len(failure)}")
    rest = size - len(failure)
    body = b"".join((len(failure).to_bytes(2, "big"), failure, rest.to_bytes(2, "big"), bytes(rest)))
    return hmac256(derive(b"um", shared_secret), body) + body


def add_layer(shared_secret: bytes, packet: Buffer) -> bytes:
    """Add (or, at the origin, take off) the layer of the hop with that shared secret; the size stays."""
    return xor_stream(derive(b"ammag", shared_secret), packet)


def open_error(shared_secrets: Sequence[bytes], packet: Buffer) -> tuple[int, bytes] | None:
    """The index of the hop that speaks and its failure; None if no hop of the circuit made this packet.

    A hop that sealed something malformed has said b"". Takes off as many layers whoever speaks, at least 8,
    so that the time tells nobody where it was.
    """
    found: tuple[int, bytes] | None = None
    rounds = [*shared_secrets, *(bytes(32) for _ in range(len(shared_secrets), HOPS))]
    data = bytes(packet)
    for index, secret in enumerate(rounds):
        data = add_layer(secret, data)
        fits = same(hmac256(derive(b"um", secret), data[HMAC_SIZE:]), data[:HMAC_SIZE])
        if fits and found is None and index < len(shared_secrets):
            found = (index, _failure(data[HMAC_SIZE:]))
    return found


def _failure(body: bytes) -> bytes:
    size = int.from_bytes(body[:2], "big")
    return body[2 : 2 + size] if 2 + size + 2 <= len(body) else b""
