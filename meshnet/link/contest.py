"""Which of several connections serves a lane (docs/wire-format.md §1). Pure: no I/O, no clock.

    nobody ── arrives ──→ it serves
    one serves ── a newer one ──→ the newer serves: same dialler, the smaller key's dialler, or another run
               └─ the greater key's ──→ it challenges: Ask ── PONG ──→ the older stays
                                                          └─ no PONG in time, or lost ──→ the newer serves

Of two connections the one that the smaller key dialled stays; a newer one from the same dialler replaces the
older. Both ends see the same connections and the same diallers, so both decide alike without a word. A loser
is still read for a while, since frames may be under way on it, and never written.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Generic, TypeVar

from attrs import define, frozen

from meshnet.limits import LANE_LOSERS

LOSER_READ: Final = 5.0
CHALLENGE_LEAST: Final = 1.0
CHALLENGE_TRIPS: Final = 4
RENEW: Final = 3_600.0  # a connection this old is replaced by its dialler, for fresh keys
RENEW_AGAIN: Final = 60.0  # after a try that came to nothing

C = TypeVar("C")


def patience(trip: float) -> float:
    """Seconds that the older connection has to answer, at a round trip of `trip` seconds."""
    return max(CHALLENGE_LEAST, CHALLENGE_TRIPS * trip)


@frozen
class Serves(Generic[C]):
    """This connection carries the lane from now on."""

    connection: C


@frozen
class Ask(Generic[C]):
    """Send a PING over the connection that serves; tell `answered` of its PONG."""

    connection: C


@frozen
class Ends(Generic[C]):
    """Close this connection: it has lost, and was read long enough."""

    connection: C


Event = Serves[C] | Ask[C] | Ends[C]


@define
class _Challenge(Generic[C]):
    connection: C
    until: float


class Contest(Generic[C]):
    """The connections of one lane. `serving` is the one that carries it, or None.

    `arrived` is told of connections that have exchanged HELLOs, `lost` of those that ended. What is to be
    done comes by `events`, in order.
    """

    __slots__ = ("_challenge", "_events", "_losers", "_renew_at", "_smaller", "serving")

    def __init__(self) -> None:
        self.serving: C | None = None
        self._smaller = False  # whether the smaller key dialled the one that serves
        self._challenge: _Challenge[C] | None = None
        self._losers: deque[tuple[float, C]] = deque()
        self._renew_at = 0.0
        self._events: list[Event[C]] = []

    def arrived(self, connection: C, by_smaller: bool, now: float, wait: float) -> None:
        """A connection stands; `by_smaller`: the smaller key dialled it. `wait` seconds are for the PONG if
        the present one has to be asked."""
        if self.serving is None or by_smaller or not self._smaller:
            self._end_challenge(now)
            self._take_over(connection, by_smaller, now)
        elif self._challenge is not None:  # the greater key's node has come again: the question stands
            self._retire(self._challenge.connection, now)
            self._challenge.connection = connection
        else:
            self._challenge = _Challenge(connection, now + wait)
            self._events.append(Ask(self.serving))

    def answered(self, now: float) -> None:
        """The PONG of the last `Ask` has come: the challenger loses. Harmless if there is none."""
        self._end_challenge(now)

    def lost(self, connection: C, now: float) -> None:
        """A connection is gone, whatever it was."""
        if connection is self.serving:
            self.serving = None
            if self._challenge is not None:
                challenger, self._challenge = self._challenge.connection, None
                self._take_over(challenger, False, now)
        elif self._challenge is not None and connection is self._challenge.connection:
            self._challenge = None
        else:
            self._losers = deque(each for each in self._losers if each[1] is not connection)

    def forget(self) -> None:
        """The neighbour has restarted: all connections of its former run end at once."""
        former = [loser for _, loser in self._losers]
        if self._challenge is not None:
            former.append(self._challenge.connection)
        if self.serving is not None:
            former.append(self.serving)
        self.serving, self._challenge = None, None
        self._losers.clear()
        self._events += [Ends(connection) for connection in former]

    def deadline(self) -> float | None:
        """When `tick` is due."""
        times = [self._losers[0][0]] if self._losers else []
        if self._challenge is not None:
            times.append(self._challenge.until)
        return min(times) if times else None

    def tick(self, now: float) -> None:
        """Ends challenges that got no PONG, and losers that were read long enough."""
        if self._challenge is not None and now >= self._challenge.until:
            newer, self._challenge = self._challenge.connection, None
            self._take_over(newer, False, now)
        while self._losers and self._losers[0][0] <= now:
            self._events.append(Ends(self._losers.popleft()[1]))

    def renewal(self, now: float) -> bool:
        """Whether the connection that serves is so old that its dialler makes a fresh one; asked anew, a
        minute later again."""
        if self.serving is None or now < self._renew_at:
            return False
        self._renew_at = now + RENEW_AGAIN
        return True

    def events(self) -> list[Event[C]]:
        """What is to be done since the last call, in order."""
        events, self._events = self._events, []
        return events

    @property
    def challenger(self) -> C | None:
        """The connection that waits for the answer to `Ask`."""
        return self._challenge.connection if self._challenge is not None else None

    @property
    def losers(self) -> list[C]:
        """Connections that are still read, those that end first first."""
        return [loser for _, loser in self._losers]

    def _take_over(self, connection: C, by_smaller: bool, now: float) -> None:
        old, self.serving, self._smaller = self.serving, connection, by_smaller
        self._renew_at = now + RENEW
        self._events.append(Serves(connection))
        if old is not None:
            self._retire(old, now)

    def _end_challenge(self, now: float) -> None:
        if self._challenge is not None:
            loser, self._challenge = self._challenge.connection, None
            self._retire(loser, now)

    def _retire(self, connection: C, now: float) -> None:
        """Reads it a while longer; where so many have lost that somebody plays with us, the oldest ends."""
        self._losers.append((now + LOSER_READ, connection))
        if len(self._losers) > LANE_LOSERS:
            self._events.append(Ends(self._losers.popleft()[1]))
