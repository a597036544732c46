"""A TUN device of Linux, with the virtio header and the offloads that the kernel has.

With them one read brings up to 60,000 bytes as one packet without checksums, and one write takes as much: the
kernel's cost is paid per superpacket. Where the kernel knows no offloads, the same descriptor reads single
packets, complete. Kernels before 6.2 cannot take superpackets of UDP, which are then cut here.

The device is told to speak little-endian, so that headers travel as they are.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from struct import pack
from typing import Final

from apps.vpn.packets.cut import singles
from apps.vpn.packets.virtio import ECN, PLAIN, Gso
from apps.vpn.tun.device import CSUM, LARGEST_SUPERPACKET, QUEUE_LENGTH, TSO4, TSO6, USO4, USO6, check_name
from apps.vpn.tun.rtnetlink import Interface, Network, add_address, add_route, set_up
from meshnet.errors import LocalError, MissingDependencyError

TUNSETIFF: Final = 0x400454CA
TUNSETOFFLOAD: Final = 0x400454D0
TUNSETVNETLE: Final = 0x400454DC
IFF_TUN: Final = 0x0001
IFF_NO_PI: Final = 0x1000
IFF_VNET_HDR: Final = 0x4000
IFF_TUN_EXCL: Final = 0x8000

_STUMP: Final = PLAIN + b"\x40"
"""A frame whose packet ends after its first byte."""
_TCP: Final = CSUM | TSO4 | TSO6
_ALL: Final = _TCP | USO4 | USO6


class LinuxDevice:
    """An open TUN interface, up; see `Device`."""

    def __init__(self, descriptor: int, name: str, index: int, mtu: int, offloads: int) -> None:
        self._descriptor = descriptor
        self.name = name
        self.index = index
        self.mtu = mtu
        self.offloads = offloads
        self.read: Callable[[Sequence[memoryview | bytearray]], int] = partial(os.readv, descriptor)
        self.write: Callable[[memoryview], object] = partial(os.write, descriptor)
        if not offloads & USO4:
            self.write = self._write_cut

    def fileno(self) -> int:
        """Its descriptor; -1 when it is closed."""
        return self._descriptor

    def _write_cut(self, frame: memoryview) -> None:
        """For kernels that know no superpackets of UDP."""
        if frame[1] & ~ECN != Gso.UDP:
            os.write(self._descriptor, frame)
            return
        for each in singles(frame):
            os.write(self._descriptor, each)

    def alive(self) -> bool:
        """Whether the interface is there, and up. The kernel looks when it has a packet in hand: here one
        that its IP layer throws away at once."""
        try:
            os.write(self._descriptor, _STUMP)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """The interface goes too. Twice is once."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def open_linux(
    name: str,
    mtu: int,
    addresses: Sequence[Interface] = (),
    routes: Sequence[Network] = (),
    offloads: int = _ALL,
) -> LinuxDevice:
    """Makes an interface, gives it its addresses and routes, and brings it up.

    `name` may hold one `%d`, for the first number that is free. `offloads` are those that are tried. Raises
    UsageError for a name that cannot be, MissingDependencyError without /dev/net/tun or the right to use it,
    LocalError where the kernel refuses something else.
    """
    check_name(name)
    try:
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as problem:
        raise _refused(problem, "/dev/net/tun") from None
    try:
        name, offloads = _attach(descriptor, name, offloads)
        index = socket.if_nametoindex(name)
        set_up(name, index, mtu, LARGEST_SUPERPACKET, QUEUE_LENGTH)
        for address in addresses:
            add_address(name, index, address)
        for route in routes:
            add_route(name, index, route)
    except BaseException:
        os.close(descriptor)
        raise
    return LinuxDevice(descriptor, name, index, mtu, offloads)


def _attach(descriptor: int, name: str, wanted: int) -> tuple[str, int]:
    """The interface's name and the offloads that its kernel has."""
    flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL
    request = pack("16sH22x", name.encode(), flags)
    try:
        answer = fcntl.ioctl(descriptor, TUNSETIFF, request)
    except OSError as problem:
        if problem.errno in (errno.EBUSY, errno.EEXIST):
            raise LocalError(f"An interface {name} is there already; give another name.") from None
        raise _refused(problem, f"the interface {name}") from None
    if sys.byteorder == "big":
        fcntl.ioctl(descriptor, TUNSETVNETLE, pack("i", 1))
    for offloads in (wanted, wanted & _TCP, 0):
        try:
            fcntl.ioctl(descriptor, TUNSETOFFLOAD, offloads)
        except OSError:
            continue
        break
    return answer[:16].rstrip(b"\0").decode(), offloads


def _refused(problem: OSError, what: str) -> MissingDependencyError:
    """No right, or no driver."""
    if problem.errno in (errno.EPERM, errno.EACCES):
        text = f"No right to open {what}; run the node as root or with CAP_NET_ADMIN."
    elif problem.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        text = "This system has no /dev/net/tun; load its driver with `modprobe tun`."
    else:
        text = f"Cannot open {what}: {os.strerror(problem.errno or 0)}."
    return MissingDependencyError(text)
