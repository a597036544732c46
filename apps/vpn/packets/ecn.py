"""Explicit congestion notification (RFC 3168): tells the ends of a flow to send less, without dropping.

Only packets whose ends have said that they understand it (ECT) are marked. The checksum of an IPv4 header is
mended in place; IPv6 has none, and the traffic class is in no pseudo header.
"""

from __future__ import annotations

from apps.vpn.packets.checksum import changed
from apps.vpn.packets.virtio import HEADER

_CE = 3


def mark(frame: memoryview | bytearray) -> bool:
    """Marks a packet, which lies behind its virtio header; false if its ends would not understand. The frame
    has been checked (`headers.check`)."""
    first = frame[HEADER]
    if first >> 4 == 4:
        old = frame[HEADER + 1]
        if not old & _CE:
            return False
        if old & _CE != _CE:
            frame[HEADER + 1] = old | _CE
            field = frame[HEADER + 10] << 8 | frame[HEADER + 11]
            field = changed(field, first << 8 | old, first << 8 | old | _CE)
            frame[HEADER + 10], frame[HEADER + 11] = field >> 8, field & 0xFF
        return True
    old = frame[HEADER + 1]
    if not old & 0x30:
        return False
    frame[HEADER + 1] = old | 0x30
    return True
