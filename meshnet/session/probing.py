"""What PROBE and REPORT tell of one circuit: the delay of each way, and what is lost on each.

Layout: docs/wire-format.md §5.

    asks      sent, so many cells sent ──────────────── now, so many cells received
    answers              time, so many received and sent

A session knows the round trip and its own losses from acknowledgements while it sends; what only comes, or
comes seldom, it learns of by these. The two clocks do not agree, so of one way nobody knows more than
`meshnet.oneway` says. Losses are shares of the cells between two reports, older ones counting ever less.
Nothing here is asked per cell.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from meshnet.oneway import OneWay

FADE: Final = 0.75
"""What sums of before count at each report."""
TRIPS: Final = 3
TELLING: Final = 100  # cells each way, faded like all sums, from which a loss can be told
OPEN: Final = 8  # probes whose answer may still come


class Probing:
    """Both sides of it, of one circuit. `asked` and `answered` count probes of ours; `delays` are those of
    the last answer."""

    __slots__ = (
        "_back", "_began", "_last", "_open", "_there", "_token", "_trips", "answered", "asked", "delays",
    )  # fmt: skip

    def __init__(self) -> None:
        self._began: float | None = None
        self._open: dict[int, tuple[float, int]] = {}  # token: when it was sent, cells sent up to it
        self._token = 0
        self._last: tuple[int, int, int, int] | None = None  # sent, received there; sent there, received
        self._there = (0.0, 0.0)  # cells, and of them lost
        self._back = (0.0, 0.0)
        self.asked = self.answered = 0
        self.delays = OneWay()
        self._trips: deque[float] = deque(maxlen=TRIPS)

    @property
    def trip(self) -> float:
        """The round trip of the last answer, seconds; 0.0 before the first."""
        return self._trips[-1] if self._trips else 0.0

    @property
    def least_trip(self) -> float:
        """The shortest of the last three: without what a queue of the moment added."""
        return min(self._trips, default=0.0)

    @property
    def loss(self) -> float | None:
        """Of both ways the share that loses more; None where too few cells went to tell."""
        if min(self._there[0], self._back[0]) < TELLING:
            return None
        return max(self.lost_there, self.lost_back)

    @property
    def lost_there(self) -> float:
        """Share of our cells lost on the way there, 0 to 1."""
        return _share(self._there)

    @property
    def lost_back(self) -> float:
        """Share of the other side's cells lost on the way back, 0 to 1."""
        return _share(self._back)

    def ask(self, sent: int, now: float) -> int:
        """The token of a probe that leaves now in cell number `sent` of this circuit, counted from 1."""
        self._token += 1
        self.asked += 1
        self._open[self._token] = now, sent
        if len(self._open) > OPEN:
            del self._open[next(iter(self._open))]
        return self._token

    def time(self, now: float) -> int:
        """What a REPORT says of the time: µs since the first PROBE came."""
        if self._began is None:
            self._began = now
        return int((now - self._began) * 1e6)

    def told(
        self, token: int, time: int, received: int, sent: int, received_here: int, now: float
    ) -> float | None:
        """A REPORT came, when so many cells had; when its probe was sent, None if it answers none that is
        open."""
        asked = self._open.pop(token, None)
        if asked is None:
            return None
        self.answered += 1
        self._trips.append(now - asked[0])
        self.delays.answered(asked[0], time * 1e-6, now)
        counts = asked[1], received, sent, received_here
        if self._last is not None:
            grown = [new - old for new, old in zip(counts, self._last, strict=True)]
            if min(grown) < 0:  # an older report, or one that lies
                return asked[0]
            self._there = _added(self._there, grown[0], grown[1])
            self._back = _added(self._back, grown[2], grown[3])
        self._last = counts
        return asked[0]


def _added(sums: tuple[float, float], sent: int, came: int) -> tuple[float, float]:
    return FADE * sums[0] + sent, FADE * sums[1] + max(sent - came, 0)


def _share(sums: tuple[float, float]) -> float:
    return min(sums[1] / sums[0], 1.0) if sums[0] else 0.0
