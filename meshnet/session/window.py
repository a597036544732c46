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
    """Which packet numbers have been accepted; `next` is one above the highest.

    Who accepts `next` itself may just raise it: numbers in order cost an addition, and the bitmap catches up
    when one out of order comes.
    """

    __slots__ = ("_seen", "_top", "next")

    def __init__(self) -> None:
        self.next = 0
        self._top = 0
        self._seen = 0  # bit i: number _top − 1 − i was accepted, and all from _top to next

    def check(self, number: int) -> Drop:
        """NONE if `number` (≥ 0) would be accepted, else REPLAYED or TOO_OLD."""
        age = self.next - 1 - number
        if age < 0:
            return Drop.NONE
        self._catch_up()
        if age >= SESSION_WINDOW:
            return Drop.TOO_OLD
        return Drop.REPLAYED if self._seen >> age & 1 else Drop.NONE

    def accept(self, number: int) -> None:
        """Marks `number`, for which `check` said NONE."""
        ahead = number - self.next + 1
        if ahead == 1:
            self.next = number + 1
            return
        self._catch_up()
        if ahead <= 0:
            self._seen |= 1 << -ahead
        elif ahead >= SESSION_WINDOW:
            self._seen = 1
            self.next = self._top = number + 1
        else:
            self._seen = (self._seen << ahead | 1) & _FULL
            self.next = self._top = number + 1

    def _catch_up(self) -> None:
        """Notes those that came in order."""
        count = min(self.next - self._top, SESSION_WINDOW)
        if count:
            self._seen = (self._seen << count | (1 << count) - 1) & _FULL
            self._top = self.next
