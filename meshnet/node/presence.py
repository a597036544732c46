"""Which neighbours are linked, since when those are not that were, and who waits for one.

Told of every link that comes up; losses are seen when somebody looks, at least once a second. Nothing here
dials or reads a clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, succeed

from meshnet.cipher.keys import PublicKey
from meshnet.errors import MeshError


class Presence:
    """One per node."""

    def __init__(self) -> None:
        self._up: set[str] = set()
        self._lost: dict[str, float] = {}
        self._waiting: dict[Deferred[None], frozenset[str]] = {}

    def look(self, links: Iterable[Mapping[str, Any]], now: float) -> None:
        """Takes in who is linked at `now` (monotonic seconds): links as JSON objects with `peer` and `up`."""
        up = {str(link["peer"]) for link in links if link["up"]}
        self._lost.update(dict.fromkeys(self._up - up, now))
        for peer in up:
            self._lost.pop(peer, None)
        self._up = up
        for waiting in [each for each, wanted in self._waiting.items() if wanted & up]:
            del self._waiting[waiting]
            waiting.callback(None)

    def came(self, peer: PublicKey, now: float) -> None:
        """A link to `peer` is up."""
        self.look([{"peer": each, "up": True} for each in {*self._up, peer.hex()}], now)

    def lost_seconds(self, peer: str, now: float) -> float | None:
        """How long ago the link to `peer` (hex) was lost; None if it is up or never was."""
        lost = self._lost.get(peer)
        return None if lost is None else round(max(0.0, now - lost), 1)

    def wait(self, peers: Iterable[PublicKey]) -> Deferred[None]:
        """Fires when one of them is linked; may be cancelled."""
        wanted = frozenset(peer.hex() for peer in peers)
        if wanted & self._up:
            return succeed(None)
        waiting: Deferred[None] = Deferred(self._cancelled)
        self._waiting[waiting] = wanted
        return waiting

    def _cancelled(self, waiting: Deferred[None]) -> None:
        self._waiting.pop(waiting, None)

    def stop(self, why: MeshError) -> None:
        """Nobody is linked any more, and who waits is told why."""
        self._up.clear()
        self._lost.clear()
        waiting, self._waiting = list(self._waiting), {}
        for each in waiting:
            each.errback(why)


def absence(lost_seconds: float | None, why: str) -> str:
    """Since when and why a neighbour is not linked, for a person."""
    since = "not linked yet" if lost_seconds is None else f"lost {age(lost_seconds)} ago"
    return f"{since}: {why}" if why else since


def age(seconds: float) -> str:
    """A time span for a person: 12 s, 5 min, 3 h, 4 days."""
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
