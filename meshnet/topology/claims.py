"""What two ends of a link say, held against each other and against the speed of light.

Nothing here proves a lie: it finds statements that cannot all be true, so that paths avoid them. A link whose
ends say nothing impossible may still be invented by two that agree.
"""

from __future__ import annotations

from enum import IntFlag
from math import asin, cos, radians, sin, sqrt
from typing import Final

from meshnet.topology.record import LinkRow, Record

EARTH: Final = 6_371.0  # km
LIGHT: Final = 299_792.458  # km/s
PLACE_ERROR: Final = 160.0  # km: two places in whole degrees may be so much nearer than they say
CONTRADICTION: Final = 4.0
"""Two ends of a link may differ by this factor in what they measure."""
CONTRADICTION_LEAST: Final = 50_000  # µs; below it a difference of delays is noise
BEYOND: Final = 8.0
"""A capacity this many times what was ever seen is not believed."""
ONE_SIDED: Final = 4
"""Links that a node states and no other end states; more of them are marked if they are half of all."""


class Mark(IntFlag):
    """Why a link or a node is distrusted."""

    FASTER_THAN_LIGHT = 1
    """The delay is below what light needs between the stated places."""
    CONTRADICTED = 2
    """The two ends state delays that differ by more than measuring explains."""
    UNSEEN_CAPACITY = 4
    """A capacity far above what was ever seen over it."""
    ONE_SIDED = 8
    """The node states links that their other ends do not."""
    DROPS = 16
    """Circuits over it die or carry nothing."""

    @property
    def words(self) -> list[str]:
        """In words, for people."""
        return [_WORDS[mark] for mark in Mark if mark in self]


NONE: Final = Mark(0)
"""Nothing is wrong."""
_WORDS: Final = {
    Mark.FASTER_THAN_LIGHT: "states a delay below that of light",
    Mark.CONTRADICTED: "is contradicted by the other end",
    Mark.UNSEEN_CAPACITY: "states a capacity never seen",
    Mark.ONE_SIDED: "states links that their other ends do not",
    Mark.DROPS: "drops what it is given",
}


def distance(one: tuple[int, int], other: tuple[int, int]) -> float:
    """Kilometres along the surface between two places in degrees, as the haversine formula has it."""
    north, south = radians(one[0]), radians(other[0])
    turn = radians(other[1] - one[1])
    half = sin((south - north) / 2) ** 2 + cos(north) * cos(south) * sin(turn / 2) ** 2
    return 2 * EARTH * asin(min(sqrt(half), 1.0))


def least_delay(one: tuple[int, int], other: tuple[int, int]) -> float:
    """Seconds that light needs at least between two places known to a degree."""
    return max(distance(one, other) - PLACE_ERROR, 0.0) / LIGHT


def judge(one: Record, row: LinkRow, other: Record, back: LinkRow) -> Mark:
    """What is wrong with a link that `one` states as `row` and `other` as `back`."""
    mark = NONE
    here, there = one.place, other.place
    if here is not None and there is not None:
        least = least_delay(here, there) * 1e6
        if 0 < row.delay < least or 0 < back.delay < least:
            mark |= Mark.FASTER_THAN_LIGHT
    low, high = row.delay, back.delay
    if low > high:
        low, high = high, low
    if low and high > CONTRADICTION * low and high - low > CONTRADICTION_LEAST:
        mark |= Mark.CONTRADICTED
    return mark


def one_sided(stated: int, answered: int) -> bool:
    """Whether a node states too many links that nobody else states."""
    alone = stated - answered
    return alone > ONE_SIDED and 2 * alone > stated
