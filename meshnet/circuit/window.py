"""The replay window of a relay: which of the last 2,048 sequence numbers have passed.

Numbers are mod 2⁶⁴; `(seq − top) mod 2⁶⁴ < 2⁶³` is newer. The first number starts the window with all lower
places unseen. A jump beyond 2²⁰ is refused: nothing at a relay is authenticated, and one forged cell must
not move the window away from the real ones.

Cells in order cost a comparison and an addition: `next` moves on alone, and the bitmap catches up when
the first number out of order asks for it. The caller may do that step itself:

    if seq == window.next:
        window.next = seq + 1
    elif drop := window.misplaced(seq):
        ...
"""

from __future__ import annotations

from typing import Final

from meshnet.circuit.keys import MASK
from meshnet.errors import Drop
from meshnet.limits import RELAY_WINDOW, SEQ_JUMP

_FULL: Final = (1 << RELAY_WINDOW) - 1
_HALF: Final = 1 << 63


class Window:
    """`next` is the number after the highest seen, not reduced mod 2⁶⁴ (a wrap takes the slow way once);
    negative before the first."""

    __slots__ = ("_seen", "_top", "next")

    def __init__(self) -> None:
        self.next = -1
        self._top = 0  # bit n of _seen stands for _top − n
        self._seen = 0

    def check(self, seq: int) -> Drop:
        """Takes `seq`; `Drop.NONE`, or why it is refused: REPLAYED, TOO_OLD or JUMPED."""
        if seq == self.next:
            self.next = seq + 1
            return Drop.NONE
        return self.misplaced(seq)

    def misplaced(self, seq: int) -> Drop:
        """The same for a number that is not `next`."""
        if self.next < 0:
            self._start(seq)
            return Drop.NONE
        self._catch_up()
        ahead = seq - self._top & MASK
        if ahead == 0:
            return Drop.REPLAYED
        if ahead < _HALF:
            return self._advance(seq, ahead)
        age = self._top - seq & MASK
        if age >= RELAY_WINDOW:
            return Drop.TOO_OLD
        place = 1 << age
        if self._seen & place:
            return Drop.REPLAYED
        self._seen |= place
        return Drop.NONE

    def _start(self, seq: int) -> None:
        self._top = seq
        self._seen = 1
        self.next = seq + 1 & MASK

    def _advance(self, seq: int, ahead: int) -> Drop:
        if ahead > SEQ_JUMP:
            return Drop.JUMPED
        self._seen = (self._seen << ahead & _FULL if ahead < RELAY_WINDOW else 0) | 1
        self._top = seq
        self.next = seq + 1 & MASK
        return Drop.NONE

    def _catch_up(self) -> None:
        """Enters the numbers that came in order since `_top`."""
        run = self.next - 1 - self._top & MASK
        if not run:
            return
        self._top = self._top + run & MASK
        if run < RELAY_WINDOW:
            self._seen = (self._seen << run | (1 << run) - 1) & _FULL
        else:
            self._seen = _FULL
