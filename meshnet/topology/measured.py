"""What ways were measured to take, by the circuits that went there; kept for ten minutes.

What nodes state of their links is a promise, and relays add what no link states. Where a circuit of ours took
clearly longer than stated, or clearly less, what it took counts. Small differences do not: else the ways that
nobody has tried yet would always look a little better. Time is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attrs import frozen

from meshnet.limits import WAYS_MEASURED
from meshnet.topology.record import Name

HOLDS: Final = 600.0  # seconds
SHARE: Final = 0.25  # by which it must differ …
LEAST: Final = 0.002  # … and by so many seconds
LEAST_LOSS: Final = 0.01  # the same of losses


@frozen
class Measured:
    """Seconds one way, half of a round trip; the share that was lost, None if too little was sent to tell."""

    delay: float
    loss: float | None
    at: float

    def against(self, delay: float, loss: float) -> tuple[float, float]:
        """Delay and loss to reckon with, where these are stated."""
        if abs(self.delay - delay) > SHARE * delay + LEAST:
            delay = self.delay
        if self.loss is not None and abs(self.loss - loss) > SHARE * loss + LEAST_LOSS:
            loss = self.loss
        return delay, loss


Known = Mapping[tuple[Name, ...], Measured]
"""By all nodes of a way, both ends included."""


class Measurements:
    """Of at most `WAYS_MEASURED` ways, the oldest forgotten first."""

    def __init__(self) -> None:
        self._each: dict[tuple[Name, ...], Measured] = {}

    def __len__(self) -> int:
        return len(self._each)

    def note(self, nodes: tuple[Name, ...], trip: float, loss: float | None, now: float) -> None:
        """A circuit along these took `trip` seconds there and back."""
        self._each.pop(nodes, None)
        self._each[nodes] = Measured(trip / 2, loss, now)
        if len(self._each) > WAYS_MEASURED:
            del self._each[next(iter(self._each))]

    def known(self, now: float) -> Known:
        """What holds now."""
        for nodes in [nodes for nodes, each in self._each.items() if now >= each.at + HOLDS]:
            del self._each[nodes]
        return self._each
