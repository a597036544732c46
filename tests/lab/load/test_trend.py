"""Whether something grows: peaks do not count, a steady leak does."""

from __future__ import annotations

import random

from lab.load.trend import growth, slope


def test_flat_with_peaks() -> None:
    """Noise and single peaks are no growth; nor is what happens while it warms up."""
    chance = random.Random(1)
    flat = [(float(t), 50.0 + chance.random() + (40.0 if t % 17 == 0 else 0.0)) for t in range(300)]
    assert abs(growth(flat)) < 1.0
    warm = [(float(t), min(50.0, 20.0 + t)) for t in range(300)]
    assert growth(warm) == 0.0


def test_leak() -> None:
    """A tenth of a unit per sample is seen under noise ten times as large."""
    chance = random.Random(2)
    leak = [(float(t), 50.0 + 0.1 * t + chance.uniform(-1, 1)) for t in range(1_000)]
    assert 70 < growth(leak) < 80
    assert abs(slope(leak) - 0.1) < 0.01


def test_nothing() -> None:
    """Too few samples say nothing."""
    assert growth([]) == growth([(1.0, 5.0)]) == slope([(1.0, 5.0)]) == 0.0
