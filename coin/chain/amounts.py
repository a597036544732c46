"""Amounts: coins count in droplets (10⁻⁶ coin), hours in whole coin hours; both are unsigned 64 bits."""

from __future__ import annotations

import re
from typing import Final

from meshnet.errors import UsageError

DROPLETS: Final = 1_000_000
"""Droplets in a coin."""
MOST: Final = (1 << 64) - 1
"""The largest amount of coins or hours."""
MOST_TEXT: Final = (1 << 63) - 1
"""The largest number of droplets that text may stand for."""
_NUMBER = re.compile(r"([0-9]{0,64})(?:\.([0-9]{0,64}))?")


class BadAmountError(UsageError):
    """Text that is no amount of coins."""


def coins_text(droplets: int) -> str:
    """Droplets as coins with six decimals: `1.500000`."""
    return f"{droplets // DROPLETS}.{droplets % DROPLETS:06d}"


def parse_coins(text: str) -> int:
    """Coins as droplets. Zeros behind the sixth decimal are allowed, other digits there are not; raises
    `BadAmountError` for them, for what is no number, for a negative one and for one that is too large."""
    match = _NUMBER.fullmatch(text)
    if match is None or not (match[1] or match[2]):
        if text.startswith("-"):
            raise BadAmountError(f"{text[:60]!r} is negative; an amount is not.")
        raise BadAmountError(f"{text[:60]!r} is no amount of coins; write it like 12.5.")
    decimals = (match[2] or "").rstrip("0")
    if len(decimals) > 6:
        raise BadAmountError(f"{text[:60]!r} has more than six decimals.")
    droplets = int(match[1] or "0") * DROPLETS + int(decimals.ljust(6, "0"))
    if droplets > MOST_TEXT:
        raise BadAmountError(f"{text[:60]!r} is more than there can be.")
    return droplets
