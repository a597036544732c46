"""A small mutation fuzzer: seeded, so that a run can be repeated. It knows nothing of what it changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

TELLING = (0, 1, 0x7F, 0x80, 0xFD, 0xFE, 0xFF)


def mutated(seeds: Sequence[bytes], random: Random, longest: int) -> Iterator[bytes]:
    """Inputs without end: seeds with a few changes, and now and then what came before."""
    pool = list(seeds) or [b""]
    while True:
        data = bytearray(random.choice(pool))
        for _ in range(random.choice((1, 1, 1, 2, 3, 8))):
            _change(data, pool, random)
        made = bytes(data[:longest])
        if random.random() < 0.02:
            pool.append(made)
            if len(pool) > 200:
                del pool[random.randrange(len(seeds), 200)]
        yield made


def _change(data: bytearray, pool: Sequence[bytes], random: Random) -> None:
    at = random.randrange(len(data) + 1)
    match random.randrange(8):
        case 0 | 1 if at < len(data):
            data[at] ^= 1 << random.randrange(8)
        case 2 if at < len(data):
            data[at] = random.choice(TELLING)
        case 3:
            del data[at : at + random.choice((1, 2, 4, 30))]
        case 4:
            data[at:at] = random.randbytes(random.choice((1, 2, 4, 30)))
        case 5:
            data[at:at] = data[at : at + random.choice((1, 8, 40))]
        case 6:
            other = random.choice(pool)
            data[at:] = other[random.randrange(len(other) + 1) :]
        case _:
            size = random.choice((2, 4, 8))
            number = random.choice((0, 1, (1 << 8 * size) - 1, 1 << 8 * size - 1, random.randrange(1 << 16)))
            data[at : at + size] = number.to_bytes(max(size, 8), random.choice(("big", "little")))[-size:]
