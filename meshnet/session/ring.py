"""Bytes of a stream by their offset, in a buffer that goes round and grows as needed.

One place for unacknowledged bytes of a sender and early bytes of a receiver. The owner says which offsets
are alive; the ring only maps offsets to memory, and never checks that what is read was written.
"""

from __future__ import annotations

from typing import Final

from meshnet.bundle import pages

SMALLEST: Final = 4_096
KEPT: Final = 256 << 10  # an empty ring keeps at most this much memory


def _memory(size: int) -> memoryview:
    """Large memory in pages of its own: what comes and goes with streams would leave holes in the heap, and
    a node that runs for long would only ever grow."""
    return pages(size) if size >= KEPT else memoryview(bytearray(size))


class Ring:
    """Memory for a sliding span of offsets."""

    __slots__ = ("_mask", "_view")

    def __init__(self) -> None:
        self._view = memoryview(b"")
        self._mask = -1

    @property
    def capacity(self) -> int:
        """Bytes of memory held: 0 or a power of two."""
        return len(self._view)

    def reserve(self, base: int, end: int, wanted: int) -> None:
        """Makes room for [base, wanted); [base, end) is alive and is kept."""
        capacity = len(self._view)
        if wanted - base <= capacity:
            return
        capacity = max(capacity, SMALLEST)
        while capacity < wanted - base:
            capacity *= 2
        old, old_mask = self._view, self._mask
        self._view, self._mask = _memory(capacity), capacity - 1
        pos = base
        while pos < end:
            start = pos & old_mask
            size = min(end - pos, len(old) - start)
            self.put(pos, old[start : start + size])
            pos += size

    def put(self, offset: int, data: memoryview) -> None:
        """Stores `data` (flat bytes) at `offset`, inside what was reserved."""
        view = self._view
        start = offset & self._mask
        size = len(data)
        first = len(view) - start
        if size <= first:
            view[start : start + size] = data
        else:
            view[start:] = data[:first]
            view[: size - first] = data[first:]

    def take(self, offset: int, size: int, into: memoryview) -> None:
        """Copies `size` bytes from `offset` to the start of `into`."""
        view = self._view
        start = offset & self._mask
        first = len(view) - start
        if size <= first:
            into[:size] = view[start : start + size]
        else:
            into[:first] = view[start:]
            into[first:size] = view[: size - first]

    def piece(self, offset: int, size: int) -> memoryview:
        """The bytes from `offset` that lie together: at least 1, at most `size`; borrowed."""
        start = offset & self._mask
        return self._view[start : start + size]

    def release(self) -> None:
        """Nothing is alive: gives large memory back."""
        if len(self._view) > KEPT:
            self.drop()

    def drop(self) -> None:
        """Gives all memory back."""
        self._view, self._mask = memoryview(b""), -1
