"""Who of those that connect is let in: cheap refusals before any of the handshake's arithmetic. Pure.

    connections ─ accepted, 2,000/s ─→ admitted, 32/s of one source and 200/s in all ─→ a lane, act one, ECDH
                   └─ the rest waits in the kernel          └─ the rest is hung up on

A handshake costs a node half a millisecond, a connection that is hung up on a fiftieth of that. So whoever
floods from one place uses up only what that place may have, and all floods together a tenth of a processor.
Sources from which somebody was linked before need no share of what all strangers have together, so that a
flood from everywhere does not keep neighbours from coming back.

A source is an IPv4 address or an IPv6 network of 64 bits; those of whom it is unknown share one.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

from meshnet.limits import (
    ACCEPT_BURST,
    ACCEPTS_PER_SECOND,
    STRANGER_BURST,
    STRANGER_SOURCES,
    STRANGERS_IN_ALL,
    STRANGERS_PER_SECOND,
)


class _Bucket:
    """`rate` tokens per second, at most `burst` at once, full at the start."""

    __slots__ = ("_at", "_burst", "_rate", "level")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = self.level = burst
        self._at = now

    def take(self, now: float) -> bool:
        """One token, if it is there."""
        if now > self._at:
            self.level = min(self._burst, self.level + (now - self._at) * self._rate)
            self._at = now
        if self.level < 1:
            return False
        self.level -= 1
        return True


class Gate:
    """One per listening socket. `turned_away` counts whom it did not admit."""

    __slots__ = ("_accepts", "_all", "_known", "_sources", "turned_away")

    def __init__(self, now: float) -> None:
        self._accepts = _Bucket(ACCEPTS_PER_SECOND, ACCEPT_BURST, now)
        self._all = _Bucket(STRANGERS_IN_ALL, 2 * STRANGERS_IN_ALL, now)
        self._sources: OrderedDict[str, _Bucket] = OrderedDict()
        self._known: OrderedDict[str, None] = OrderedDict()
        self.turned_away = 0

    def accepts(self, now: float) -> bool:
        """Whether one more may be accepted; if not, the kernel keeps the rest waiting."""
        return self._accepts.take(now)

    def admits(self, host: str, now: float) -> bool:
        """Whether somebody from `host` may begin a handshake."""
        source = _source(host)
        bucket = self._sources.get(source)
        if bucket is None:
            bucket = self._sources[source] = _Bucket(STRANGERS_PER_SECOND, STRANGER_BURST, now)
            if len(self._sources) > STRANGER_SOURCES:
                self._sources.popitem(last=False)
        else:
            self._sources.move_to_end(source)
        if bucket.take(now) and (source in self._known or self._all.take(now)):
            return True
        self.turned_away += 1
        return False

    def know(self, host: str) -> None:
        """Somebody from there has become a neighbour; the last so many such sources are remembered."""
        source = _source(host)
        self._known[source] = None
        self._known.move_to_end(source)
        if len(self._known) > STRANGER_SOURCES:
            self._known.popitem(last=False)


def _source(host: str) -> str:
    """The network that one stranger can be expected to have for himself."""
    if ":" not in host:
        return host
    address = ipaddress.IPv6Address(host.partition("%")[0])
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return address.exploded[:19]
