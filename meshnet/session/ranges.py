"""A set of integers as sorted, disjoint, half-open ranges.

Used for stream bytes that arrived out of order, were acknowledged or must be sent again. It never holds
two ranges that touch. What bounds its length is the caller's matter (`len` is the number of ranges).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class Ranges:
    """Ranges [start, end); the i-th is (`starts[i]`, `ends[i]`), both lists ascending."""

    __slots__ = ("ends", "starts")

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self.starts, self.ends, strict=True)

    def __contains__(self, number: int) -> bool:
        i = bisect_right(self.starts, number)
        return i > 0 and number < self.ends[i - 1]

    def add(self, start: int, end: int) -> None:
        """Adds [start, end); nothing if it is empty."""
        if start >= end:
            return
        starts, ends = self.starts, self.ends
        if not ends or start > ends[-1]:
            starts.append(start)
            ends.append(end)
            return
        # Ranges i … j − 1 touch or overlap the new one and melt into it.
        i = bisect_left(ends, start)
        j = bisect_right(starts, end)
        if i < j:
            start = min(start, starts[i])
            end = max(end, ends[j - 1])
        starts[i:j] = [start]
        ends[i:j] = [end]

    def remove(self, start: int, end: int) -> None:
        """Takes [start, end) out; what is not there is no error."""
        if start >= end or not self.starts:
            return
        starts, ends = self.starts, self.ends
        i = bisect_right(ends, start)
        j = bisect_left(starts, end)
        if i >= j:
            return
        kept = []
        if starts[i] < start:
            kept.append((starts[i], start))
        if ends[j - 1] > end:
            kept.append((end, ends[j - 1]))
        starts[i:j] = [piece[0] for piece in kept]
        ends[i:j] = [piece[1] for piece in kept]

    def remove_all(self, other: Ranges) -> None:
        """Takes out everything that is in `other`."""
        for start, end in other:
            self.remove(start, end)

    def pop_from(self, number: int) -> int:
        """The end of the contiguous run that holds `number`, or `number`; drops all up to that end."""
        starts, ends = self.starts, self.ends
        while starts and starts[0] <= number:
            number = max(number, ends[0])
            del starts[0], ends[0]
        return number

    def clear(self) -> None:
        """Empties it."""
        self.starts.clear()
        self.ends.clear()
