"""Why a packet was dropped. The names are those of a metric's label, the numbers index a list of counts."""

from __future__ import annotations

from enum import IntEnum


class Fault(IntEnum):
    """What is wrong with a packet, or with where it shall go. NONE is nothing."""

    NONE = 0
    SHORT = 1
    """Fewer bytes than its headers say."""
    NOT_IP = 2
    """Neither IPv4 nor IPv6."""
    LENGTH = 3
    """Its length is another than its header says."""
    HEADER = 4
    """A header that cannot be."""
    OFFLOAD = 5
    """The header in front of it does not fit the packet: wrong kind, place or size of what is to be done."""
    SOURCE = 6
    """From an address that is not its sender's."""
    TARGET = 7
    """To an address that is not ours to pass on."""
    UNKNOWN = 8
    """To an address that nobody is known to have."""
    FULL = 9
    """More waits than may."""
    STANDING = 10
    """It waited in a queue that did not get shorter (CoDel)."""
    TOO_LARGE = 11
    """It fits into no cell of the path, and may not be cut."""
    KERNEL = 12
    """The kernel did not take it."""
    GONE = 13
    """Nobody is there to take it: the interface is down, or its stream has ended."""
    UNSUPPORTED = 14
    """What is to be done with it is beyond this device."""


def new_counts() -> list[int]:
    """A count for each."""
    return [0] * len(Fault)


def named(counts: list[int]) -> dict[str, int]:
    """Those that are not zero, by name."""
    return {fault.name.lower(): n for fault, n in zip(Fault, counts, strict=True) if n}
