"""A utun device of macOS: no offloads, four bytes that name the family in front of each packet.

    address family u32, big-endian (2 IPv4, 30 IPv6) | packet

It is a socket of the kernel control `com.apple.net.utun_control` (net/if_utun.h). Frames get a plain virtio
header when they are read; what a frame's header asks for when it is written is done here, so that both ends
of a circuit may be of any system. The names of its interfaces are utun0, utun1, …
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
from collections.abc import Callable, Sequence
from struct import pack
from typing import Final

from apps.vpn.host.tools import Run, run
from apps.vpn.packets.cut import singles
from apps.vpn.packets.virtio import HEADER, PLAIN
from apps.vpn.tun.rtnetlink import Interface, Network
from meshnet.errors import LocalError, MissingDependencyError

AF_SYSTEM: Final = 32
SYSPROTO_CONTROL: Final = 2
UTUN_OPT_IFNAME: Final = 2
CTLIOCGINFO: Final = 0xC0644E03
CONTROL: Final = "com.apple.net.utun_control"
FAMILY: Final = 4
"""Bytes in front of each packet."""
LARGEST: Final = 65_535 + FAMILY

_FAMILIES: Final = {4: pack(">I", 2), 6: pack(">I", 30)}
_utun = re.compile(r"utun([0-9]{1,4})")

Connect = Callable[[str], socket.socket]
"""A connected socket of the control, for the interface's name or, without one, the next that is free."""


class MacDevice:
    """An open utun interface, up; see `Device`."""

    def __init__(self, sock: socket.socket, name: str, index: int, mtu: int) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._buffer = memoryview(bytearray(LARGEST))
        self.name = name
        self.index = index
        self.mtu = mtu
        self.offloads = 0

    def fileno(self) -> int:
        """Its descriptor; -1 when it is closed."""
        return self._socket.fileno()

    def read(self, buffers: Sequence[memoryview | bytearray]) -> int:
        """Reads one packet as a plain frame into buffers, one behind the other; its size."""
        got = self._socket.recv_into(self._buffer)
        frame = bytes(PLAIN) + self._buffer[FAMILY:got]
        at = 0
        for buffer in buffers:
            part = frame[at : at + len(buffer)]
            buffer[: len(part)] = part
            at += len(part)
            if at == len(frame):
                break
        return len(frame)

    def write(self, frame: memoryview) -> None:
        """Writes the packets of a frame."""
        for each in singles(frame):
            packet = each[HEADER:]
            self._socket.sendmsg((_FAMILIES[packet[0] >> 4], packet))

    def alive(self) -> bool:
        """Whether the interface is there."""
        try:
            return socket.if_indextoname(self.index) == self.name
        except OSError:
            return False

    def close(self) -> None:
        """The interface goes too. Twice is once."""
        self._socket.close()


def open_macos(
    name: str,
    mtu: int,
    addresses: Sequence[Interface] = (),
    routes: Sequence[Network] = (),
    *,
    run: Run = run,
    connect: Connect | None = None,
) -> MacDevice:
    """Makes an interface with these addresses and routes, and brings it up.

    A name other than utunN means the next that is free. Raises MissingDependencyError without the right,
    LocalError where the system refuses.
    """
    try:
        sock = (connect or connect_control)(name if _utun.fullmatch(name) else "")
    except PermissionError:
        text = "No right to open a utun interface; run the node as root."
        raise MissingDependencyError(text) from None
    except OSError as problem:
        if problem.errno == errno.EBUSY:
            raise LocalError(f"An interface {name} is there already; give another name.") from None
        raise LocalError(f"Cannot open a utun interface: {problem.strerror}.") from None
    try:
        given = sock.getsockopt(SYSPROTO_CONTROL, UTUN_OPT_IFNAME, 16).rstrip(b"\0").decode()
        for command in commands(given, mtu, addresses, routes):
            answer = run(command, "")
            if answer.code:
                raise LocalError(f"Cannot set up {given}: {answer.why}.")
        return MacDevice(sock, given, socket.if_nametoindex(given), mtu)
    except BaseException:
        sock.close()
        raise


def commands(
    name: str, mtu: int, addresses: Sequence[Interface], routes: Sequence[Network]
) -> list[tuple[str, ...]]:
    """What is run to set it up: ifconfig(8), route(8)."""
    found: list[tuple[str, ...]] = [("/sbin/ifconfig", name, "mtu", str(mtu), "up")]
    for address in addresses:
        if address.version == 4:
            mask = str(address.netmask)
            words: tuple[str, ...] = ("inet", str(address.ip), str(address.ip), "netmask", mask, "alias")
        else:
            words = ("inet6", str(address.ip), "prefixlen", str(address.network.prefixlen), "alias")
        found.append(("/sbin/ifconfig", name, *words))
    for route in routes:
        family = "-inet" if route.version == 4 else "-inet6"
        found.append(("/sbin/route", "-q", "-n", "add", family, str(route), "-interface", name))
    return found


def connect_control(name: str) -> socket.socket:
    """A socket of the control, for this interface or the next; raises OSError."""
    import fcntl

    sock = socket.socket(AF_SYSTEM, socket.SOCK_DGRAM, SYSPROTO_CONTROL)
    with contextlib.ExitStack() as undo:
        undo.callback(sock.close)
        request = pack("I96s", 0, CONTROL.encode())
        control = int.from_bytes(fcntl.ioctl(sock, CTLIOCGINFO, request)[:4], "little")
        found = _utun.fullmatch(name)
        sock.connect((control, int(found[1]) + 1 if found else 0))  # unit 0: the next that is free
        os.set_inheritable(sock.fileno(), False)
        undo.pop_all()
    return sock
