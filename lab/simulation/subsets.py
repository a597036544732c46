"""Which of the things that a power cut may lose are there after it: sets of them, as bit masks.

Of n effects, bit i stands for the i-th, and `needs[i]` is the mask of those without which it cannot be there,
all of them earlier ones. A set is legal if it holds, with each effect, what that one needs.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Final

EXHAUSTIVE: Final = 1 << 14
"""So many sets are looked at, all of them, before they are only sampled."""

SAMPLES: Final = 10_000
"""Seeded samples beside the systematic ones, where there are more sets than `EXHAUSTIVE`."""

PAIRS: Final = 2_000
"""At most so many pairs of lost effects; beyond, the samples have to do."""


def all_or_some(needs: Sequence[int], most: int = EXHAUSTIVE, seed: int = 0) -> Iterator[int]:
    """All legal sets if they are at most `most`; else extremes, then seeded samples, about `most` of them.

    The order is the same at each call.
    """
    legal = every(needs, most)
    if legal is not None:
        yield from legal
    else:
        yield from itertools.islice(some(needs, min(most, SAMPLES), seed), most)


def every(needs: Sequence[int], most: int) -> list[int] | None:
    """All legal sets, or None if there are more than `most`."""
    found = [0]
    for place, needed in enumerate(needs):
        bit = 1 << place
        found += [mask | bit for mask in found if mask & needed == needed]
        if len(found) > most:
            return None
    return found


def some(needs: Sequence[int], samples: int, seed: int) -> Iterator[int]:
    """None, all, each alone, all but each, all but each two, and samples; each made legal, with repeats.

    "Alone" is with what it needs, "all but" without what needs it.
    """
    count = len(needs)
    whole = (1 << count) - 1
    yield 0
    yield whole
    for place in range(count):
        yield with_needs(needs, 1 << place)
        yield without(needs, whole & ~(1 << place))
    for one, other in itertools.islice(itertools.combinations(range(count), 2), PAIRS):
        yield without(needs, whole & ~(1 << one | 1 << other))
    chance = random.Random(seed)
    for _ in range(samples):
        odds, mask = chance.random(), 0
        for place in range(count):
            if chance.random() < odds:
                mask |= 1 << place
        yield without(needs, mask)


def without(needs: Sequence[int], mask: int) -> int:
    """The largest legal set inside this one."""
    legal = 0
    for place, needed in enumerate(needs):
        if mask >> place & 1 and legal & needed == needed:
            legal |= 1 << place
    return legal


def with_needs(needs: Sequence[int], mask: int) -> int:
    """The smallest legal set around this one."""
    for place in range(len(needs) - 1, -1, -1):
        if mask >> place & 1:
            mask |= needs[place]
    return mask
