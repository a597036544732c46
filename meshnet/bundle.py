"""A bundle: memory in which frames are gathered before they are sealed as one record.

    frame    length u16 | kind u8 | body          length counts kind and body (docs/wire-format.md §2)

This is where the floors of the data plane meet: whoever makes a frame writes it where it will be sealed.
`room` and `commit` are the plain way. The relay step, which runs for every cell, writes at `end` itself if
`end` + the frame's size ≤ `limit`, moves `end`, and calls `touched` if it wrote the first frame. A bundle
knows nothing of keys and connections; `meshnet/link/record.py` seals it.
"""

from __future__ import annotations

from collections.abc import Callable
from mmap import mmap
from struct import Struct
from typing import Final

FRAME_HEAD: Final = 3
put_frame = Struct(">HB").pack_into


def pages(size: int) -> memoryview:
    """`size` zero bytes that take memory only where they are used.

    A node keeps half a megabyte of buffers for each neighbour; a bytearray would take all of it at once,
    which a crowd of silent neighbours could use.
    """
    return memoryview(mmap(-1, max(size, 1)))[:size]


def nothing() -> None:
    """What a bundle without an owner calls."""


class Bundle:
    """Frames from `first` to `end` of `view`; none may reach beyond `limit`, which is 0 when blocked.

    `touched` is called when the first frame enters an empty bundle.
    """

    __slots__ = ("_kind", "end", "first", "limit", "touched", "view")

    def __init__(self, size: int, touched: Callable[[], object] = nothing) -> None:
        self.view = pages(size)
        self.first = self.end = 0
        self.limit = size
        self.touched = touched
        self._kind = 0

    def room(self, kind: int, most: int) -> memoryview | None:
        """Exactly `most` bytes for the body of a frame; None: not now, or the frame can never fit.

        Nothing changes until `commit`; the next `room` hands out the same place again.
        """
        start = self.end + FRAME_HEAD
        if start + most > self.limit:
            if not self._turn(most):
                return None
            start = self.end + FRAME_HEAD
        self._kind = kind
        return self.view[start : start + most]

    def commit(self, size: int) -> None:
        """The body handed out last is `size` bytes long and will be sent."""
        end = self.end
        put_frame(self.view, end, size + 1, self._kind)
        self.end = end + FRAME_HEAD + size
        if end == self.first:
            self.touched()

    def _turn(self, most: int) -> bool:
        """Makes room for a body of `most` bytes where the bundle is full; false if that cannot be."""
        return False
