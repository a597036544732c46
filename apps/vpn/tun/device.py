"""What a TUN device is to those who read and write it, on any system.

A frame is a virtio header and an IP packet (`apps.vpn.packets.virtio`). A device whose system has no such
header reads plain ones, and does by itself what the header of a frame asks for that it writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

LARGEST_SUPERPACKET: Final = 60_000
"""Bytes of a packet that the kernel may hand us at once: with all headers it still fits into a cell."""
QUEUE_LENGTH: Final = 500
"""Packets that wait in the kernel while nobody reads."""
LEAST_MTU: Final = 1_280
"""The least that IPv6 allows (RFC 8200 §5)."""
MOST_MTU: Final = 59_000
"""A packet of so many bytes still fits into the largest cell with its headers."""

LONGEST_NAME: Final = 15

CSUM: Final = 0x01
TSO4: Final = 0x02
TSO6: Final = 0x04
USO4: Final = 0x20
USO6: Final = 0x40
"""What the kernel may leave to us, and takes of us: the bits of TUNSETOFFLOAD (linux/if_tun.h)."""


class Device(Protocol):
    """An open TUN device, not blocking. `offloads` are those that it reads and writes; `index` is the
    interface's number."""

    name: str
    index: int
    mtu: int
    offloads: int

    def fileno(self) -> int:
        """Its descriptor; -1 when it is closed."""

    def read(self, buffers: Sequence[memoryview | bytearray], /) -> int:
        """Reads one frame into buffers, one behind the other; its size. Raises BlockingIOError if none waits,
        OSError if the interface is gone."""

    def write(self, frame: memoryview, /) -> object:
        """Writes one frame, which `headers.check` has passed, and may change it meanwhile. Raises OSError, of
        which BlockingIOError says that it is dropped for want of room."""

    def alive(self) -> bool:
        """Whether the interface is there, and up."""

    def close(self) -> None:
        """The interface goes too. Twice is once."""


def check_name(name: str) -> None:
    """Raises ValueError unless Linux would take it as an interface's name."""
    plain = name.replace("%d", "", 1)
    if (
        not plain
        or not plain.isascii()
        or len(name.replace("%d", "00", 1)) > LONGEST_NAME
        or not all(c.isalnum() or c in "-_." for c in plain)
    ):
        raise ValueError(
            f"{name!r} is no name of an interface: at most {LONGEST_NAME} letters, digits, '-', '_', '.'"
        )
