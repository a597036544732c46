"""What CREATED carries back: one slot per hop, sealed so that each hop can only add its own.

    slots = 9 × 51 bytes; slot = R 33 | max_cell u16 | mac 16         (docs/wire-format.md §3)
    mac   = HMAC(HMAC("crtm", ss), R ‖ max_cell ‖ first 51 bytes received from downstream)[:16]

A hop puts its slot in front, drops the last 51 bytes and XORs the whole with ChaCha20 (nonce 0, block
counter 1) under HMAC("crtd", ss). The last hop writes a second slot, `Noise message 49 | 00 00`, and fills
the rest at random. The origin undoes this in path order; the first mac that does not fit blames the pair
of that hop and the one before.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Final

from attrs import frozen

from meshnet.cipher.aead import Backend, Buffer, nonce128
from meshnet.cipher.hashing import hmac256, same
from meshnet.circuit.interface import Random
from meshnet.circuit.messages import FIRST_MESSAGE, SLOTS_SIZE
from meshnet.errors import RemoteError

SLOT: Final = 51
MAC_SIZE: Final = 16
_CLEAR: Final = SLOT - MAC_SIZE
_ANSWER_PAD: Final = bytes(SLOT - FIRST_MESSAGE)
_START: Final = nonce128(0)
_slot = Struct(">33sH")


class ForgedSlot(RemoteError):  # noqa: N818  # the fault, not an error of ours
    """A slot was changed, or made by nobody of the route; `hop` is the first whose mac does not fit."""

    def __init__(self, hop: int) -> None:
        super().__init__(f"the answer of hop {hop + 1} does not fit")
        self.hop = hop


@frozen
class Slot:
    """What one hop answered: its fresh public key (33 bytes, unchecked) and the largest cell it takes."""

    key: bytes
    max_cell: int


def insert(shared_secret: bytes, key: bytes, max_cell: int, downstream: Buffer, backend: Backend) -> bytes:
    """A relay's answer: its slot in front of what came from downstream (459 bytes)."""
    return _sealed(shared_secret, key, max_cell, bytes(downstream[: SLOTS_SIZE - SLOT]), backend)


def answer(
    shared_secret: bytes, key: bytes, max_cell: int, reply: bytes, random: Random, backend: Backend
) -> bytes:
    """The last hop's answer; `reply` is the second Noise message, 49 bytes."""
    below = reply + _ANSWER_PAD + random(SLOTS_SIZE - 2 * SLOT)
    return _sealed(shared_secret, key, max_cell, below, backend)


def read(shared_secrets: Sequence[bytes], slots: Buffer, backend: Backend) -> tuple[list[Slot], bytes]:
    """At the origin: the slots in path order and the last hop's Noise message. Raises `ForgedSlot`."""
    data = bytearray(slots)
    found: list[Slot] = []
    for index, secret in enumerate(shared_secrets):
        _apply(secret, data, backend)
        mac = bytes(data[_CLEAR:SLOT])
        if not same(mac, _mac(secret, data[:_CLEAR], data[SLOT : 2 * SLOT])):
            raise ForgedSlot(index)
        found.append(Slot(*_slot.unpack_from(data)))
        del data[:SLOT]
    return found, bytes(data[:FIRST_MESSAGE])


def _sealed(shared_secret: bytes, key: bytes, max_cell: int, below: bytes, backend: Backend) -> bytes:
    clear = _slot.pack(key, max_cell)
    data = bytearray(clear + _mac(shared_secret, clear, below[:SLOT]) + below)
    _apply(shared_secret, data, backend)
    return bytes(data)


def _mac(shared_secret: bytes, clear: Buffer, below: Buffer) -> bytes:
    return hmac256(hmac256(b"crtm", shared_secret), bytes(clear) + below)[:MAC_SIZE]


def _apply(shared_secret: bytes, data: bytearray, backend: Backend) -> None:
    stream = backend.stream(hmac256(b"crtd", shared_secret))
    stream.reset_nonce(_START)
    stream.update_into(data, data)
