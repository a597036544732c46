"""How peers behave: points for what they do wrong, bans that end.

A peer is known by where it is: its IP address (of IPv6 the /64), or its key. Points fade; who has 100 is
banned for an hour, the next time for twice as long, up to a day. Not remembered across restarts.
"""

from __future__ import annotations

from typing import Final

from attrs import define, frozen

from meshnet.limits import COIN_CONDUCT

BANNED_AT: Final = 100.0
FIRST_BAN: Final = 3_600.0
LONGEST_BAN: Final = 86_400.0
_FADE: Final = 1.0 / 6.0  # points a second: 10 a minute


@frozen
class Ban:
    """Until when (monotonic seconds), and for what."""

    until: float
    why: str


@define
class _Record:
    points: float
    at: float
    bans: int = 0
    ban: Ban | None = None


class Conduct:
    """What is remembered of peers; the oldest records are forgotten first."""

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}

    def note(self, place: str, points: float, why: str, now: float) -> bool:
        """Adds points; true if that is a ban."""
        record = self._records.pop(place, None) or _Record(0.0, now)
        self._records[place] = record  # the newest last
        if len(self._records) > COIN_CONDUCT:
            del self._records[next(iter(self._records))]
        record.points = max(0.0, record.points - (now - record.at) * _FADE) + points
        record.at = now
        if record.points < BANNED_AT:
            return False
        record.points = 0.0
        record.ban = Ban(now + min(LONGEST_BAN, FIRST_BAN * 2**record.bans), why)
        record.bans = min(record.bans + 1, 10)
        return True

    def ban(self, place: str, now: float) -> Ban | None:
        """The ban of a peer that has not ended."""
        record = self._records.get(place)
        return record.ban if record is not None and record.ban and record.ban.until > now else None

    def bans(self, now: float) -> dict[str, Ban]:
        """All that have not ended."""
        found = {place: self.ban(place, now) for place in self._records}
        return {place: ban for place, ban in found.items() if ban is not None}

    def pardon(self, place: str) -> bool:
        """Forgets a peer; false if nothing was known."""
        return self._records.pop(place, None) is not None
