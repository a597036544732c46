"""What the operator allows other nodes' circuits to cost.

The names are those of `[relay]` in the config. A circuit that ends at this node counts too, but needs no
`enabled`.
"""

from __future__ import annotations

from typing import Final

from attrs import frozen

from meshnet.limits import (
    CIRCUIT_IDLE,
    CIRCUITS_IN_ALL,
    CIRCUITS_PER_NEIGHBOUR,
    CREATE_BURST,
    CREATES_IN_ALL,
    CREATES_PER_SECOND,
    QUEUES_HOLD,
)

POOL_SHARE: Final = 4


@frozen(kw_only=True)
class Policy:
    """The limits of one node; rates per second, times in seconds."""

    enabled: bool = True
    """Whether circuits of others may lead on through this node."""
    max_rate: int = 0
    """Bytes of cells relayed per second in all, both directions; 0: no limit."""
    max_circuits: int = CIRCUITS_IN_ALL
    max_circuits_per_neighbour: int = CIRCUITS_PER_NEIGHBOUR
    creates_per_second: float = CREATES_PER_SECOND
    """CREATE frames taken per neighbour, refilling a bucket of `create_burst`."""
    create_burst: int = CREATE_BURST
    creates_in_all: float = CREATES_IN_ALL
    """The same for all neighbours together; twice as many at once."""
    idle: float = CIRCUIT_IDLE
    """How long a circuit may carry nothing where its origin asks for no other time."""


class Pool:
    """Bytes that wait in the queues of all circuits over a node: at most `limit`, `used` are now.

    No queue gets more than a quarter of what is still free, so that however many there are, each gets some.
    `stood` counts cells that were dropped because their queue stood, of circuits that are and that were.
    """

    __slots__ = ("limit", "stood", "used")

    def __init__(self, limit: int = QUEUES_HOLD) -> None:
        self.limit = limit
        self.used = 0
        self.stood = 0

    def room(self, held: int) -> int:
        """Bytes that a queue which holds `held` may hold more; below 1: none."""
        return (self.limit - self.used) // POOL_SHARE - held


class Bucket:
    """A token bucket: `rate` tokens per second, at most `burst` at once, full at the start."""

    __slots__ = ("_at", "burst", "level", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self.level = burst
        self._at = now

    def adjust(self, rate: float, burst: float) -> None:
        """Other figures from now on."""
        self.rate, self.burst = rate, burst
        self.level = min(self.level, burst)

    def take(self, amount: float, now: float) -> bool:
        """Takes `amount` tokens if they are there."""
        if now > self._at:
            self.level = min(self.burst, self.level + (now - self._at) * self.rate)
            self._at = now
        if amount > self.level:
            return False
        self.level -= amount
        return True
