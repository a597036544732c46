"""Seeds of twelve words that carry 128 bits and a checksum (BIP 39, English).

    128 bits of chance ‖ the first 4 bits of their SHA-256, in groups of 11: each the number of a word

The list of words (`english.txt`) is the standard's.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Final

from coin.chain.hashing import sha256
from meshnet.errors import UsageError

ENTROPY: Final = 16
"""Bytes of chance in a new seed."""


@cache
def english() -> tuple[str, ...]:
    """The 2,048 words."""
    return tuple(files("coin.wallet").joinpath("english.txt").read_text("ascii").split())


def words_of(entropy: bytes) -> str:
    """The words of 16, 20, 24, 28 or 32 bytes."""
    if len(entropy) not in range(16, 33, 4):
        raise UsageError(f"Words stand for 16 to 32 bytes, in steps of 4, not {len(entropy)}.")
    check = len(entropy) // 4
    number = int.from_bytes(entropy, "big") << check | sha256(entropy)[0] >> (8 - check)
    count = (len(entropy) * 8 + check) // 11
    return " ".join(english()[number >> 11 * i & 2047] for i in range(count - 1, -1, -1))


def checked(text: str) -> bool:
    """Whether a seed is words with a right checksum; any other text is a seed as well, easier to mistype."""
    known = {word: number for number, word in enumerate(english())}
    words = text.split(" ")
    if len(words) not in (12, 15, 18, 21, 24) or any(word not in known for word in words):
        return False
    number = 0
    for word in words:
        number = number << 11 | known[word]
    check = len(words) // 3
    entropy = (number >> check).to_bytes(check * 4, "big")
    return number & (1 << check) - 1 == sha256(entropy)[0] >> (8 - check)
