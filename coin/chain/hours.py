"""Coin hours: what an output earns while it is not spent, and the fee that a transaction burns of them.

An output earns its coins times the hours that have passed. All figures are unsigned 64-bit, as the chain's
first software computed them: a product that does not fit is an error, the last sum that does not fit is
another, which blocks of old forgive (the output then counts as 0 hours, one such was spent in block 13,277)
and loose transactions do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from coin.chain.amounts import DROPLETS, MOST
from meshnet.errors import MeshError

HOUR: Final = 3600


class HoursError(MeshError):
    """A number of hours does not fit into 64 bits."""


class HoursSumError(HoursError):
    """What was earned fits, the sum with the hours an output began with does not: old blocks forgive that."""


def hours_at(coins: int, hours: int, born: int, now: int) -> int:
    """The hours of an output of `coins` droplets that had `hours` at `born`, at the later time `now` (unix
    seconds; earlier: none earned). Raises `HoursError`, `HoursSumError`."""
    if now < born:
        return hours
    seconds = now - born
    whole = seconds * (coins // DROPLETS)
    part = seconds * (coins % DROPLETS)
    if whole > MOST or part > MOST:
        raise HoursError("The coin hours of an output do not fit into 64 bits.")
    # This sum alone wraps around, as it always did.
    total = hours + (whole + part // DROPLETS & MOST) // HOUR
    if total > MOST:
        raise HoursSumError("The coin hours of an output do not fit into 64 bits.")
    return total


def forgiving_hours_at(coins: int, hours: int, born: int, now: int) -> int:
    """The same, 0 where only the last sum does not fit: inside blocks and for people to see."""
    try:
        return hours_at(coins, hours, born, now)
    except HoursSumError:
        return 0


def required_fee(hours: int, burn: int) -> int:
    """Hours that a transaction with inputs of `hours` burns at least: one part of `burn`, rounded up."""
    return -(-hours // burn)


def share_hours(coins: Sequence[int], hours: int) -> list[int]:
    """Divides `hours` among outputs in proportion to their `coins` (each above 0), all of it.

    What rounding leaves goes, one each, first to outputs that got none, then to the others, in order.
    """
    total = sum(coins)
    shares = [each * hours // total for each in coins]
    left = hours - sum(shares)
    for index, share in enumerate(shares):
        if left and share == 0:
            shares[index] = 1
            left -= 1
    for index in range(left):
        shares[index] += 1
    return shares
