"""Bytes that a stream carries, known to both of its ends from a seed; pure.

`Content` gives them in order; `Check` holds what was read against them, place by place, so that a byte that
is lost, doubled or changed shows at the place where it happened.
"""

from __future__ import annotations

import random
from typing import Final

PIECE: Final = 64 << 10


def piece(seed: int, number: int) -> bytes:
    """The piece of that number, counted from 0."""
    return random.Random(seed << 32 | number).randbytes(PIECE)


class Content:
    """The `size` bytes that belong to `seed`; `position` is how many of them were taken."""

    def __init__(self, seed: int, size: int) -> None:
        self.seed = seed
        self.size = size
        self.position = 0
        self._number = -1
        self._piece = b""

    @property
    def left(self) -> int:
        """Bytes not yet taken."""
        return self.size - self.position

    def next(self, most: int) -> memoryview:
        """The bytes from `position` on, at most so many and at least one if there are any; takes none."""
        number, start = divmod(self.position, PIECE)
        if number != self._number:
            self._number, self._piece = number, piece(self.seed, number)
        return memoryview(self._piece)[start : min(PIECE, start + min(most, self.left))]

    def take(self, size: int) -> None:
        """So many of the bytes that `next` gave are done with."""
        self.position += size


class Check:
    """Holds what is read against the content; `wrong` is the place of the first byte that differs or is too
    many, None while all is right."""

    def __init__(self, seed: int, size: int) -> None:
        self._content = Content(seed, size)
        self.wrong: int | None = None

    @property
    def read(self) -> int:
        """Bytes that were right."""
        return self._content.position

    @property
    def whole(self) -> bool:
        """All has come, and nothing else."""
        return self.wrong is None and not self._content.left

    def feed(self, data: memoryview) -> None:
        """The next bytes that were read."""
        content, position = self._content, 0
        while position < len(data) and self.wrong is None:
            expected = content.next(len(data) - position)
            size = len(expected)
            if not size or data[position : position + size] != expected:
                self.wrong = content.position
                return
            content.take(size)
            position += size
