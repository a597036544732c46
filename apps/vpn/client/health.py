"""Whether packets get through, told from counts: something was sent, and no sign of it came back. Pure."""

from __future__ import annotations

from typing import Final

STALLED: Final = 1.0
"""Seconds without a sign that was waited for, from which on nothing is said to get through …"""
TRIPS: Final = 4.0
"""… or so many round trips, if these are more."""


class Health:
    """Say `look` once a second, and when somebody wants to know; `ask` when a sign was asked for."""

    def __init__(self) -> None:
        self._heard = -1
        self._asked = False
        self._since: float | None = None

    def ask(self, now: float) -> None:
        """A sign was asked for: from now on it is waited for."""
        self._asked = True
        if self._since is None:
            self._since = now

    def look(self, now: float, heard: int, outstanding: bool) -> None:
        """`heard` is another number after each sign of the other end; `outstanding`: whether one is due."""
        if heard != self._heard:
            self._asked = False
            self._since = now if outstanding else None
        elif not (outstanding or self._asked):
            self._since = None
        elif self._since is None:
            self._since = now
        self._heard = heard

    @property
    def waits(self) -> bool:
        """Whether a sign is waited for."""
        return self._since is not None

    def silent(self, now: float) -> float:
        """For how many seconds nothing has come that was waited for."""
        return 0.0 if self._since is None else now - self._since

    def stalled(self, now: float, rtt: float) -> bool:
        """Whether that is so long that nothing gets through; `rtt` in seconds."""
        return self.silent(now) >= max(STALLED, TRIPS * rtt)
