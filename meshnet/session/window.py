"""The replay window of a circuit's end: each packet number is accepted once (docs/wire-format.md §4).

`check` is asked before a cell is opened, `accept` told after its tag was right, so that forged cells
cannot move the window. Numbers more than 8,192 below the highest accepted are too old.
"""

from __future__ import annotations

from typing import Final

from meshnet.errors import Drop
from meshnet.limits import SESSION_WINDOW

_FULL: Final = (1 << SESSION_WINDOW) - 1


class ReplayWindow:
    """Which packet numbers have been accepted; `next` is one above the highest."""

    __slots__ = ("_seen", "next")

    def __init__(self) -> None:
        self.next = 0
        self._seen = 0  # bit i: number next − 1 − i was accepted

    def check(self, number: int) -> Drop:
        """NONE if `number` (≥ 0) would be accepted, else REPLAYED or TOO_OLD."""
        age = self.next - 1 - number
        if age < 0:
            return Drop.NONE
        if age >= SESSION_WINDOW:
            return Drop.TOO_OLD
        return Drop.REPLAYED if self._seen >> age & 1 else Drop.NONE

    def accept(self, number: int) -> None:
        """Marks `number`, for which `check` said NONE."""
        ahead = number - self.next + 1
        if ahead <= 0:
            self._seen |= 1 << -ahead
        elif ahead >= SESSION_WINDOW:
            self._seen = 1
            self.next = number + 1
        else:
            self._seen = (self._seen << ahead | 1) & _FULL
            self.next = number + 1
