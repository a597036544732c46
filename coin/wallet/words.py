"""Seeds of twelve to twenty-four words that carry a checksum (BIP 39, English).

    128 to 256 bits of chance ‖ the first bits of their SHA-256, one for each 32, in groups of 11: each the
    number of a word

The list of words (`english.txt`) is the standard's. Words become 64 bytes by PBKDF2-HMAC-SHA-512, 2,048
rounds, salt `mnemonic` ‖ passphrase. A passphrase counts as it is typed, not in a normal form of Unicode: so
the Go node does, and a wallet of its words must be found again (outside ASCII others may differ).
"""

from __future__ import annotations

import difflib
import hashlib
from functools import cache
from importlib.resources import files
from typing import Final

from coin.chain.hashing import sha256
from coin.wallet.errors import WalletError
from meshnet.errors import UsageError

ENTROPY: Final = 16
"""Bytes of chance in a new seed."""
COUNTS: Final = (12, 15, 18, 21, 24)
"""How many words a seed may have."""
_ROUNDS: Final = 2_048


class WordsError(WalletError):
    """Words that are no seed: one is unknown, or the checksum is wrong. The text names a word only
    if it is on no list."""


@cache
def english() -> tuple[str, ...]:
    """The 2,048 words."""
    return tuple(files("coin.wallet").joinpath("english.txt").read_text("ascii").split())


@cache
def _numbers() -> dict[str, int]:
    return {word: number for number, word in enumerate(english())}


def words_of(entropy: bytes) -> str:
    """The words of 16, 20, 24, 28 or 32 bytes."""
    if len(entropy) not in range(16, 33, 4):
        raise UsageError(f"Words stand for 16 to 32 bytes, in steps of 4, not {len(entropy)}.")
    check = len(entropy) // 4
    number = int.from_bytes(entropy, "big") << check | sha256(entropy)[0] >> (8 - check)
    count = (len(entropy) * 8 + check) // 11
    return " ".join(english()[number >> 11 * i & 2047] for i in range(count - 1, -1, -1))


def entropy_of(text: str) -> bytes:
    """The bytes that words with single spaces between them stand for; raises WordsError, which names the
    first word that is on no list."""
    words, numbers = text.split(" "), _numbers()
    for place, word in enumerate(words, 1):
        if not word:
            raise WordsError("Between the words stands one space each, and none before or behind them.")
        if word not in numbers:
            near = difflib.get_close_matches(word.lower(), english(), 3)
            hint = f"; perhaps {' or '.join(near)}" if near else ""
            raise WordsError(f"Word {place}, {word[:20]!r}, is not on the list{hint}.")
    if len(words) not in COUNTS:
        raise WordsError(f"A seed has 12, 15, 18, 21 or 24 words, not {len(words)}.")
    number = 0
    for word in words:
        number = number << 11 | numbers[word]
    check = len(words) // 3
    entropy = (number >> check).to_bytes(check * 4, "big")
    if number & (1 << check) - 1 != sha256(entropy)[0] >> (8 - check):
        raise WordsError("The words' checksum is wrong: one of them is another word, or the order is.")
    return entropy


def checked(text: str) -> bool:
    """Whether a seed is words with a right checksum; any other text is a seed as well, easier to mistype."""
    try:
        entropy_of(text)
    except WordsError:
        return False
    return True


def seed_of(words: str, passphrase: str = "") -> bytes:
    """The 64 bytes that the keys of BIP 32 come from; raises WordsError. Takes about 1 ms."""
    entropy_of(words)
    salt = b"mnemonic" + passphrase.encode()
    return hashlib.pbkdf2_hmac("sha512", words.encode(), salt, _ROUNDS, 64)
