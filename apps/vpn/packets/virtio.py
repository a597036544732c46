"""What stands in front of each packet: the header that tells the kernel what it may do with it.

    flags u8 | gso u8 | header u16 | segment u16 | start u16 | offset u16          10 bytes, little-endian

It is `struct virtio_net_hdr` (linux/virtio_net.h). A device is told to speak little-endian whatever the
machine is, so that the same ten bytes lie on the wire and in the kernel, and nobody between touches them.

- `flags`: SUM: the checksum field at `start + offset` (of the packet) holds only the sum of the pseudo
  header; who sends the packet further adds the bytes from `start` and stores the complement. VALID: the
  kernel has looked at the checksum.
- `gso`: the packet is several at once, whose payload is cut every `segment` bytes. All have its headers.
- `header` is a hint that is never trusted here.

Everything of a packet travels as a *frame*: `size u16 (big-endian) | header 10 | packet`, size counting what
follows it. Frames lie behind each other without gaps.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Final

HEADER: Final = 10
"""Bytes of the header."""
SIZE: Final = 2
"""Bytes in front of it."""
AHEAD: Final = SIZE + HEADER
"""Bytes of a frame in front of the packet."""
LARGEST_PACKET: Final = 0xFFFF - HEADER
"""Bytes of a packet that a frame can hold."""

SUM: Final = 1
VALID: Final = 2
ECN: Final = 0x80
"""A bit of `gso`: the first of the packets says that the window was reduced (CWR)."""


class Gso(IntEnum):
    """Kinds of packets that are several at once."""

    NONE = 0
    TCP4 = 1
    TCP6 = 4
    UDP = 5


PLAIN: Final = bytes(HEADER)
"""The header of a complete packet."""

_layout: Final = Struct("<BBHHHH")
read = _layout.unpack_from
"""(flags, gso, header, segment, start, offset) of a header at an offset of a buffer."""
write = _layout.pack_into
"""Writes these six into a buffer at an offset."""
