"""Looks up names for an exit: at most `MOST` addresses, in at most so many seconds.

The reactor's resolver (the machine's own, in threads) does the work. A text that is an address in any of the
forms that the resolver knows comes back as that address.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IHostResolution, IResolutionReceiver
from zope.interface import implementer

from apps.vpn.destination import Address, plain

MOST: Final = 16
"""Addresses kept of one name."""


@implementer(IResolutionReceiver)
class _Answer:
    def __init__(self, fire: Callable[[list[Address]], None]) -> None:
        self._fire = fire
        self._found: list[Address] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """Nothing to note."""

    def addressResolved(self, address: IAddress) -> None:
        """Keeps an address, once."""
        if isinstance(address, IPv4Address | IPv6Address) and len(self._found) < MOST:
            found = plain(ip_address(address.host.partition("%")[0]))
            if found not in self._found:
                self._found.append(found)

    def resolutionComplete(self) -> None:
        """Hands over what there is."""
        self._fire(self._found)


def resolve(reactor: Any, clock: Any, name: str, seconds: float) -> Deferred[list[Address]]:
    """Fires with the addresses of a name in the resolver's order; empty: none, or not in time."""
    d: Deferred[list[Address]] = Deferred()

    def fire(found: list[Address]) -> None:
        if not d.called:
            stop_waiting()
            d.callback(found)

    stop_waiting = clock.call_later(seconds, lambda: fire([]))
    reactor.nameResolver.resolveHostName(
        _Answer(fire), name, 0, addressTypes=[IPv4Address, IPv6Address], transportSemantics="TCP"
    )
    return d
