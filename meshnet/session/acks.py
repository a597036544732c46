"""What a receiver acknowledges, and when (RFC 9000 §13.2, with cells for packets).

An ACK goes out at every `ACK_EVERY`th cell that asks for one, at once after a gap, a late cell, a PING or a
fresh congestion mark, else `ACK_DELAY` after the first cell not yet acknowledged. It names the 32 highest
ranges received, each below the highest at least 16 times: acknowledgements are not acknowledged, so this is
when a gap is forgotten. What the sender never hears of he sends again, which is harmless. Duplicates never
come here: the replay window stops them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from meshnet.limits import ACK_DELAY, ACK_EVERY, ACK_RANGES
from meshnet.session import items

REPEATS = 16
"""A range below the highest is told at least this often, at most twice as often."""


class Acks:
    """Packet numbers received. Ranges are inclusive, ascending: (`_lows[i]`, `_highs[i]`).

    `due` means: send an ACK at the next chance. `deadline` is when `due` turns true by itself, or None.
    `marks` counts cells that arrived with the congestion bit, `waiting` those that ask and were not
    acknowledged yet. `sent` counts ACKs.
    """

    __slots__ = (
        "_highs", "_largest_at", "_lows", "_settled", "deadline", "due", "marks", "sent", "waiting",
    )  # fmt: skip

    def __init__(self) -> None:
        self._lows: list[int] = []
        self._highs: list[int] = []
        self._largest_at = 0.0
        self._settled = -1  # the highest number REPEATS ACKs ago, or more
        self.waiting = 0
        self.due = False
        self.deadline: float | None = None
        self.marks = 0
        self.sent = 0

    def received(self, number: int, now: float, asks: bool, marked: bool) -> None:
        """A cell was opened. `asks`: it held something to acknowledge."""
        highs = self._highs
        in_order = bool(highs) and number == highs[-1] + 1
        if in_order:
            highs[-1] = number
            self._largest_at = now
        else:
            in_order = self._insert(number, now)
        if marked:
            self.marks += 1
        if not asks:
            return
        self.waiting += 1
        if marked or not in_order or self.waiting >= ACK_EVERY:
            self.due = True
        elif self.deadline is None:
            self.deadline = now + ACK_DELAY

    def _insert(self, number: int, now: float) -> bool:
        """Any number that does not extend the highest range; true if it is the very first, and 0."""
        lows, highs = self._lows, self._highs
        if not highs or number > highs[-1]:
            self._largest_at = now
        i = bisect_left(highs, number - 1)  # the first range that could touch from below
        j = bisect_right(lows, number + 1)  # behind the last that could touch from above
        low = min(number, lows[i]) if i < j else number
        high = max(number, highs[j - 1]) if i < j else number
        lows[i:j] = [low]
        highs[i:j] = [high]
        if len(lows) > ACK_RANGES:
            del lows[0], highs[0]
        return number == 0 and len(lows) == 1

    @property
    def heard_at(self) -> float:
        """When the newest cell came; 0.0 before the first."""
        return self._largest_at

    def hurry(self) -> None:
        """The next cell takes an ACK along, and goes soon."""
        self.due = True

    def tick(self, now: float) -> None:
        """Time has passed."""
        if self.deadline is not None and now >= self.deadline:
            self.deadline = None
            self.due = self.due or self.waiting > 0

    def write(self, room: memoryview, pos: int, limit: int, now: float) -> int:
        """Writes an ACK at `pos`; the position after it, or `pos` if it does not fit below `limit`."""
        lows, highs = self._lows, self._highs
        if not highs:
            self.due = False
            return pos
        delay = int((now - self._largest_at) * 1e6)
        end = items.put_ack(room, pos, limit, delay, self.marks, lows, highs)
        if end > pos:
            self.due = False
            self.waiting = 0
            self.deadline = None
            self.sent += 1
            if self.sent % REPEATS == 0:
                gone = bisect_left(highs, self._settled, 0, len(highs) - 1)
                del lows[:gone], highs[:gone]
                self._settled = highs[-1]
        return end
