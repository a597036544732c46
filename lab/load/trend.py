"""Whether a figure that is looked at now and then stays flat; pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import combinations
from typing import Final

MOST: Final = 400  # samples that are compared, each with each


def slope(samples: Sequence[tuple[float, float]]) -> float:
    """Growth per second of (time, value): the median of the slopes between any two of them (Theil and Sen),
    which single peaks do not move. 0 for fewer than two samples."""
    step = -(-len(samples) // MOST) or 1
    pairs = combinations(samples[::step], 2)
    slopes = [
        (after[1] - before[1]) / (after[0] - before[0]) for before, after in pairs if after[0] > before[0]
    ]
    return statistics.median(slopes) if slopes else 0.0


def growth(samples: Sequence[tuple[float, float]], settled: float = 1 / 4) -> float:
    """How much it has grown along that slope, the first part of the time left out: until it is warm."""
    if not samples:
        return 0.0
    first, last = samples[0][0], samples[-1][0]
    warm = [each for each in samples if each[0] >= first + (last - first) * settled]
    return slope(warm) * (warm[-1][0] - warm[0][0])
