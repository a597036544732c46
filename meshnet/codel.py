"""Whether a queue stands: CoDel, the law of RFC 8289, apart from any queue.

A queue that empties now and then is a burst on its way; one whose members all wait longer than `QUEUE_TARGET`
for a whole `QUEUE_INTERVAL` only makes everybody late. Then a member is signalled now and then, the sooner
after each other the longer it lasts, until the sender slows down. What a signal is (a mark, a drop) is for
the owner of the queue to say. Pure: time is an argument, the queue is elsewhere.
"""

from __future__ import annotations

from math import sqrt

from meshnet.limits import QUEUE_INTERVAL, QUEUE_TARGET


class Codel:
    """One queue's. `in_a_row` is how many signals there were since it stands, 0 while it does not."""

    __slots__ = ("_above_at", "_count", "_last", "_next", "in_a_row")

    def __init__(self) -> None:
        self._above_at = 0.0  # when all have waited too long for an interval; 0: one has not
        self._next = 0.0
        self._count = self._last = 0
        self.in_a_row = 0

    def signal(self, waited: float, short: bool, now: float) -> bool:
        """Asked for each member as it leaves, after it `waited` so many seconds: whether this one is to be
        signalled. `short` says that what is left could not be less: then it is not the queue that makes wait.
        """
        if waited < QUEUE_TARGET or short:
            self._above_at = 0.0
            self.in_a_row = 0
            return False
        if not self._above_at:
            self._above_at = now + QUEUE_INTERVAL
        if now < (self._next if self.in_a_row else self._above_at):
            return False
        self.in_a_row += 1
        if self.in_a_row > 1:
            self._count += 1
            self._next += QUEUE_INTERVAL / sqrt(self._count)
            return True
        more = self._count - self._last  # soon after the last time it goes on where that came to
        soon = now - self._next < 16 * QUEUE_INTERVAL
        self._count = self._last = more if more > 1 and soon else 1
        self._next = now + QUEUE_INTERVAL / sqrt(self._count)
        return True
