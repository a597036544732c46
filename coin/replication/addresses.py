"""Where other nodes are: those of the config, which are always kept, and those that peers told of.

An address is `tcp:HOST:PORT` or `mesh:KEY`. Only what could be reached is told to others; only IPv4 addresses
with a port of 1,024 and above fit into the message and are taken from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address
from typing import Final

from attrs import define

from coin.replication.messages import PeerAddress
from meshnet.limits import COIN_ADDRESSES

GIVEN: Final = 30
"""Addresses of one answer."""
FORGOTTEN: Final = 7 * 86_400.0
_TRUSTED_LONGEST: Final = 60.0
_LONGEST: Final = 6 * 3_600.0
_LEAST_PORT: Final = 1_024


@define
class _Known:
    trusted: bool
    seen: float
    tries: int = 0
    next: float = 0.0
    reached: bool = False


class Addresses:
    """All that are known. `random(n)` gives 0 … n − 1."""

    def __init__(self, trusted: Iterable[str], random: Callable[[int], int], private: bool = False) -> None:
        self._known = {each: _Known(True, 0.0) for each in trusted}
        self._random = random
        self._private = private  # whether private and loopback addresses of strangers count

    def __len__(self) -> int:
        return len(self._known)

    def learn(self, peers: Iterable[PeerAddress], now: float) -> None:
        """What a peer told."""
        for each in peers:
            ip = IPv4Address(each.ip)
            if each.port < _LEAST_PORT or not (ip.is_global or self._private):
                continue
            known = self._known.get(address := f"tcp:{ip}:{each.port}")
            if known is not None:
                known.seen = max(known.seen, now)
            elif len(self._known) < COIN_ADDRESSES:
                self._known[address] = _Known(False, now)

    def give(self) -> tuple[PeerAddress, ...]:
        """Some that could be reached, by chance."""
        found = [
            each for address, known in self._known.items() if known.reached and (each := _given(address))
        ]
        while len(found) > GIVEN:
            found.pop(self._random(len(found)))
        return tuple(found)

    def trusted(self) -> list[str]:
        """Those of the config."""
        return [address for address, known in self._known.items() if known.trusted]

    def reachable(self) -> list[str]:
        """Those of strangers that could be reached."""
        return [address for address, known in self._known.items() if known.reached and not known.trusted]

    def next(self, connected: Sequence[str], now: float, strangers: bool) -> str | None:
        """One to dial now: those of the config first; of the others, if `strangers`, one by chance."""
        free = [
            (address, known)
            for address, known in self._known.items()
            if known.next <= now and address not in connected
        ]
        chosen = [address for address, known in free if known.trusted]
        if not chosen and strangers:
            chosen = [address for address, known in free if not known.trusted]
        if not chosen:
            return None
        address = chosen[self._random(len(chosen))]
        known = self._known[address]
        known.tries += 1
        longest = _TRUSTED_LONGEST if known.trusted else _LONGEST
        wait = min(longest, (2 ** min(known.tries, 12) - 1) * (1.0 if known.trusted else 5.0))
        known.next = now + wait * (0.5 + self._random(1_000) / 1_000)
        return address

    def reached(self, address: str, now: float) -> None:
        """It answered and has our chain."""
        known = self._known.get(address)
        if known is not None:
            known.tries, known.reached, known.seen = 0, True, now

    def tick(self, now: float) -> None:
        """Forgets strangers that were not heard of for a week."""
        for address in [a for a, known in self._known.items() if _stale(known, now)]:
            del self._known[address]


def _stale(known: _Known, now: float) -> bool:
    return not known.trusted and known.seen + FORGOTTEN < now


def _given(address: str) -> PeerAddress | None:
    kind, _, rest = address.partition(":")
    host, _, port = rest.rpartition(":")
    if kind != "tcp":
        return None
    try:
        return PeerAddress(int(IPv4Address(host)), int(port))
    except ValueError:
        return None
