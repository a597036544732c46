"""Which relays circuits died over: a relay that was in three of them, and in few that lived, is avoided.

One death says little, since any relay of the circuit may be its cause; a relay that is in one after another
stands out. What circuits carried well counts for all of their relays. Everything fades by half in an hour.
Time is an argument.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from attrs import define

from meshnet.limits import SUSPECTS
from meshnet.topology.record import Name

HALF_LIFE: Final = 3_600.0  # seconds
DEATHS: Final = 3.0
"""So many early deaths make a suspect, unless as many circuits lived."""
PARDON: Final = 1.0
"""A suspect is one no longer when what is left falls below."""
EARLY: Final = 60.0
"""Seconds in which the death of a circuit is early."""


@define(slots=True)
class _Tally:
    deaths: float = 0.0
    lives: float = 0.0
    at: float = 0.0
    suspect: bool = False

    def fade(self, now: float) -> None:
        share = 0.5 ** (max(now - self.at, 0.0) / HALF_LIFE)
        self.deaths *= share
        self.lives *= share
        self.at = now


class Suspicion:
    """Tallies of at most `SUSPECTS` relays; beyond that, those with the least to say are forgotten."""

    def __init__(self) -> None:
        self._tallies: dict[Name, _Tally] = {}

    def __len__(self) -> int:
        return len(self._tallies)

    def died(self, relays: Iterable[Name], now: float) -> None:
        """A circuit over these died early, or never carried anything. If one link is known to be the cause,
        give its two ends alone."""
        for relay in relays:
            tally = self._of(relay, now)
            tally.deaths += 1.0
            if tally.deaths - tally.lives > DEATHS - 0.5:
                tally.suspect = True

    def lived(self, relays: Iterable[Name], now: float) -> None:
        """A circuit over these carried what it should, for long enough."""
        for relay in relays:
            tally = self._tallies.get(relay)
            if tally is not None:
                tally.fade(now)
                tally.lives += 1.0

    def suspects(self, now: float) -> set[Name]:
        """Relays that are avoided now."""
        found = set()
        for relay, tally in self._tallies.items():
            if tally.suspect:
                tally.fade(now)
                tally.suspect = tally.deaths - tally.lives >= PARDON
                if tally.suspect:
                    found.add(relay)
        return found

    def _of(self, relay: Name, now: float) -> _Tally:
        tally = self._tallies.get(relay)
        if tally is None:
            if len(self._tallies) >= SUSPECTS:
                self._forget(now)
            tally = self._tallies[relay] = _Tally(at=now)
        tally.fade(now)
        return tally

    def _forget(self, now: float) -> None:
        """Half of all, those with the fewest deaths."""
        for tally in self._tallies.values():
            tally.fade(now)
        ordered = sorted(self._tallies, key=lambda relay: self._tallies[relay].deaths)
        for relay in ordered[: SUSPECTS // 2]:
            del self._tallies[relay]
