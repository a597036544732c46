"""Hashes of the chain: SHA-256, RIPEMD-160, Merkle roots, the exclusive-or of many hashes.

A hash is 32 bytes (RIPEMD-160: 20). OpenSSL may be built without RIPEMD-160; then a slow one of our own takes
its place (about 60 µs instead of 1 µs a block), after Dobbertin, Bosselaers and Preneel, "RIPEMD-160: a
strengthened version of RIPEMD" (1996), appendix A.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from struct import Struct
from typing import Final

HASH_SIZE: Final = 32
ZERO: Final = bytes(HASH_SIZE)
"""The hash that stands for none."""


def sha256(data: bytes | memoryview) -> bytes:
    """SHA-256, 32 bytes."""
    return hashlib.sha256(data).digest()


def double_sha256(data: bytes | memoryview) -> bytes:
    """SHA-256 of the SHA-256, 32 bytes."""
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


def xor(one: bytes, other: bytes) -> bytes:
    """The exclusive-or of two hashes."""
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).to_bytes(HASH_SIZE, "big")


def merkle_root(hashes: Sequence[bytes]) -> bytes:
    """The root over `hashes`, filled up with zero hashes to a power of two.

    One hash is its own root; none give the zero hash.
    """
    count = max(1, len(hashes))
    level = list(hashes) + [ZERO] * ((1 << (count - 1).bit_length()) - len(hashes))
    while len(level) > 1:
        level = [sha256(level[i] + level[i + 1]) for i in range(0, len(level), 2)]
    return level[0]


def _openssl_ripemd160() -> Callable[[bytes], bytes] | None:
    try:
        hashlib.new("ripemd160", usedforsecurity=False)
    except ValueError:
        return None
    return lambda data: hashlib.new("ripemd160", data, usedforsecurity=False).digest()


_WORDS = Struct("<16I")
_STATE = Struct("<5I")
_START = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0)
_ADDED = (0, 0x5A827999, 0x6ED9EBA1, 0x8F1BBCDC, 0xA953FD4E)
_ADDED_RIGHT = (0x50A28BE6, 0x5C4DD124, 0x6D703EF3, 0x7A6D76E9, 0)
_RHO = (7, 4, 13, 1, 10, 6, 15, 3, 12, 0, 9, 5, 2, 14, 11, 8)
_SHIFTS = (
    (11, 14, 15, 12, 5, 8, 7, 9, 11, 13, 14, 15, 6, 7, 9, 8),
    (12, 13, 11, 15, 6, 9, 9, 7, 12, 15, 11, 13, 7, 8, 7, 7),
    (13, 15, 14, 11, 7, 7, 6, 8, 13, 14, 13, 12, 5, 5, 6, 9),
    (14, 11, 12, 14, 8, 6, 5, 5, 15, 12, 15, 14, 9, 9, 8, 6),
    (15, 12, 13, 13, 9, 5, 8, 6, 14, 11, 12, 11, 8, 6, 5, 5),
)
_MASK = 0xFFFFFFFF


def _orders(first: list[int]) -> list[list[int]]:
    """Which word each of the 16 steps of the five rounds takes: each round permutes by rho once more."""
    rounds = [first]
    for _ in range(4):
        rounds.append([_RHO[word] for word in rounds[-1]])
    return rounds


_LEFT = _orders(list(range(16)))
_RIGHT = _orders([(9 * word + 5) % 16 for word in range(16)])


def _mix(number: int, x: int, y: int, z: int) -> int:
    """The boolean function of round `number`."""
    if number == 0:
        return x ^ y ^ z
    if number == 1:
        return (x & y) | (~x & z)
    if number == 2:
        return (x | (~y & _MASK)) ^ z
    if number == 3:
        return (x & z) | (y & ~z)
    return x ^ (y | (~z & _MASK))


def _line(
    state: tuple[int, ...],
    words: tuple[int, ...],
    orders: list[list[int]],
    added: tuple[int, ...],
    right: bool,
) -> tuple[int, int, int, int, int]:
    a, b, c, d, e = state
    for number in range(5):
        mixing = 4 - number if right else number
        for word in orders[number]:
            shift = _SHIFTS[number][word]
            total = (a + _mix(mixing, b, c, d) + words[word] + added[number]) & _MASK
            turned = ((total << shift) | (total >> (32 - shift))) & _MASK
            a, e, d, c, b = e, d, ((c << 10) | (c >> 22)) & _MASK, b, (turned + e) & _MASK
    return a, b, c, d, e


def plain_ripemd160(data: bytes) -> bytes:
    """RIPEMD-160 without OpenSSL, 20 bytes."""
    padded = data + b"\x80" + bytes(-(len(data) + 9) % 64) + (8 * len(data)).to_bytes(8, "little")
    state: tuple[int, ...] = _START
    for start in range(0, len(padded), 64):
        words = _WORDS.unpack_from(padded, start)
        left = _line(state, words, _LEFT, _ADDED, False)
        right = _line(state, words, _RIGHT, _ADDED_RIGHT, True)
        state = tuple((state[(i + 1) % 5] + left[(i + 2) % 5] + right[(i + 3) % 5]) & _MASK for i in range(5))
    return _STATE.pack(*state)


ripemd160: Final[Callable[[bytes], bytes]] = _openssl_ripemd160() or plain_ripemd160
"""RIPEMD-160, 20 bytes."""
