"""What somebody wants to hear of, from where on; which events of a block that is.

Pure. A place is the height and the index of the next event (see `content.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from attrs import define, frozen

from coin.chain.address import Address
from coin.events.content import KINDS, Content, Event, Kind, Touch

_PLACE: Final = re.compile(r"([0-9]{1,18})\.([0-9]{1,9})")


@frozen(order=True)
class Place:
    """Where in the order of all events: a block's sequence and an index in it."""

    height: int
    index: int = 0


def after(text: str) -> Place:
    """The place behind that of an event's id; raises ValueError."""
    match = _PLACE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:60]!r} is no id of an event: they are like 181.3")
    return Place(int(match[1]), int(match[2]) + 1)


@define
class Wanted:
    """Events of some kinds; those of transactions if they touch one of `addresses` (None: all), and of kind
    `transaction` when they have `confirmations`."""

    kinds: frozenset[Kind] = frozenset(KINDS)
    addresses: set[Address] | None = None
    confirmations: int = 1

    def wants(self, content: Content) -> bool:
        """Whether any transaction of a block is meant."""
        return self.addresses is None or not self.addresses.isdisjoint(content.touched)

    def older(self, height: int) -> int | None:
        """The block whose transactions have their confirmations at a height, None if there is none."""
        sequence = height - self.confirmations + 1
        return sequence if "transaction" in self.kinds and sequence >= 0 else None

    def events(self, content: Content, older: Content | None, index: int) -> Iterator[tuple[int, Event]]:
        """What is wanted of a height from an index on, each with its index. `older` is the block that
        `older()` names, None if that is not wanted."""
        if index == 0 and "block" in self.kinds:
            yield 0, content.block()
        if "address" in self.kinds and self.wants(content):
            for at, moved, touch in content.touches:
                if at >= index and (self.addresses is None or touch.address in self.addresses):
                    yield at, content.address(at, moved, touch)
        if older is None or not self.wants(older):
            return
        for number, each in enumerate(older.moved):
            at = content.places + number
            if at >= index and self._touched(each.touches):
                place = f"{content.sequence}.{at}"
                yield at, older.transaction(number, place, self.confirmations)

    def _touched(self, touches: tuple[Touch, ...]) -> bool:
        addresses = self.addresses
        return addresses is None or any(each.address in addresses for each in touches)
