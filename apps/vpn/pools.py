"""The addresses that an exit lends: who has which, which rest, which is next. Pure: time is an argument.

Seat n has the n-th address of each pool; the first host address is the exit's own (`own4`, `own6`), the seats
begin behind it. A new client gets the seat that has rested long enough and longest, else the next that never
was used: nothing is drawn by chance, and the same comings and goings give the same addresses. A seat given
back rests for `REST_SECONDS`, so that answers to whom had it are not for the next; only its ticket gets it
sooner. Whoever shows the ticket of a seat that is taken gets it as well, and the caller ends the old client.
"""

from __future__ import annotations

from collections import deque
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from attrs import define, field

REST_SECONDS: Final = 300.0
"""How long a seat rests, and how long its ticket is good."""
RESTING: Final = 16_384
"""Seats that rest at a time; beyond this nobody new gets one."""
POOL4: Final = IPv4Network("10.181.0.0/16")
POOL6: Final = IPv6Network("fd6d:6573:6873::/64")


@define(eq=False)
class Seat:
    """A place in the pools: its addresses (None: no such pool), its ticket, the caller that got it (None: one
    without a name), and from when on it is free (0: it is taken)."""

    number: int
    v4: IPv4Address | None
    v6: IPv6Address | None
    ticket: bytes
    caller: bytes | None = None
    free_at: float = 0.0


@define(eq=False)
class Pools:
    """Both pools of an exit; a family without a pool is not served. Raises ValueError for pools too small."""

    pool4: IPv4Network | None = POOL4
    pool6: IPv6Network | None = POOL6
    _fresh: int = field(default=0, init=False)
    _resting: deque[Seat] = field(factory=deque, init=False)
    _tickets: dict[bytes, Seat] = field(factory=dict, init=False)
    size: int = field(default=0, init=False)
    taken: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        pools = [pool for pool in (self.pool4, self.pool6) if pool is not None]
        if not pools:
            raise ValueError("an exit needs a pool of IPv4 or IPv6 addresses")
        self.size = min(pool.num_addresses for pool in pools) - 3  # without network, our own, and the last
        if self.size < 1:
            raise ValueError("a pool needs room for at least one client: /30 or larger, /126 for IPv6")

    @property
    def own4(self) -> IPv4Address | None:
        """The exit's own address."""
        return None if self.pool4 is None else self.pool4[1]

    @property
    def own6(self) -> IPv6Address | None:
        """The exit's own address."""
        return None if self.pool6 is None else self.pool6[1]

    @property
    def resting(self) -> int:
        """Seats given back that are not free yet, or that nobody has asked for since."""
        return len(self._resting)

    def take(self, now: float, ticket: bytes, caller: bytes | None = None) -> Seat | None:
        """A seat for a new client with this new ticket; None if there is none."""
        seat: Seat | None = None
        if self._resting and self._resting[0].free_at <= now:
            seat = self._resting.popleft()
            del self._tickets[seat.ticket]
            seat.ticket, seat.caller, seat.free_at = ticket, caller, 0.0
        elif self._fresh < self.size and len(self._resting) < RESTING:
            seat = self._seat(self._fresh, ticket, caller)
            self._fresh += 1
        if seat is not None:
            self._tickets[ticket] = seat
            self.taken += 1
        return seat

    def resume(self, now: float, ticket: bytes, caller: bytes | None = None) -> Seat | None:
        """The seat of a ticket that is still good, taken again by the same caller; None if there is none. The
        ticket stays."""
        seat = self._tickets.get(ticket)
        if seat is None or seat.caller != caller:
            return None
        if seat.free_at:
            if seat.free_at <= now:
                return None
            self._resting.remove(seat)
            seat.free_at = 0.0
            self.taken += 1
        return seat

    def give_back(self, seat: Seat, now: float) -> None:
        """The client of a seat that was taken has gone."""
        seat.free_at = now + REST_SECONDS
        self._resting.append(seat)
        self.taken -= 1

    def _seat(self, number: int, ticket: bytes, caller: bytes | None) -> Seat:
        v4 = None if self.pool4 is None else self.pool4[number + 2]
        v6 = None if self.pool6 is None else self.pool6[number + 2]
        return Seat(number, v4, v6, ticket, caller)
