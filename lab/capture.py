"""What passes the interfaces of a host, seen by a packet socket of ours inside it.

    with Capture(host) as capture:
        …
    assert not capture.leaving("to-router")

The kernel says what it could not give us (`lost`), so that "nothing was seen" may be relied upon only while
that is 0; `leaving` and its kin raise otherwise. `save` writes a pcap file for other programs.

Layout of a record in the file: Linux cooked capture v1 (link type 113), the addresses of the link left zero.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from attrs import define, field, frozen

from lab.namespaces import Host
from meshnet.errors import MeshError

ETH_P_ALL: Final = 3
ETH_P_IP: Final = 0x0800
ETH_P_IPV6: Final = 0x86DD
OUTGOING: Final = 4
"""PACKET_OUTGOING of packet(7)."""
_SOL_PACKET: Final = 263
_PACKET_STATISTICS: Final = 6
_SO_RCVBUFFORCE: Final = 33
BUFFER: Final = 64 << 20
LONGEST: Final = 1 << 16
_PCAP: Final = struct.Struct("<IHHiIII")
_RECORD: Final = struct.Struct("<IIII")
_COOKED: Final = struct.Struct(">HHH8sH")
_LINUX_SLL: Final = 113


class MissedPacketsError(MeshError):
    """A capture that was too slow proves nothing."""


@frozen
class Seen:
    """A packet: when (unix), on which interface, which way, its EtherType and its bytes from the network
    header on."""

    time: float
    interface: str
    outgoing: bool
    protocol: int
    data: bytes = field(repr=False)

    @property
    def leaves(self) -> bool:
        """Whether it is an IP packet on its way out; neighbour discovery of IPv6 apart, which no filter of
        the IP layer is asked about."""
        return self.outgoing and self.ends is not None and not _local_talk(self.data)

    @property
    def ends(self) -> Ends | None:
        """Addresses, protocol and ports of an IP packet; None for what is none."""
        return ends(self.data) if self.protocol in (ETH_P_IP, ETH_P_IPV6) else None


@frozen
class Ends:
    """Who sends to whom: the ports are 0 where there are none."""

    source: str
    target: str
    protocol: int
    sport: int = 0
    dport: int = 0


def ends(packet: bytes) -> Ends | None:
    """Of an IPv4 or IPv6 packet (extension headers are not looked behind); None where it is cut short."""
    if len(packet) >= 20 and packet[0] >> 4 == 4:
        head, protocol, low, size = (packet[0] & 15) * 4, packet[9], 12, 4
        first = not int.from_bytes(packet[6:8], "big") & 0x1FFF
    elif len(packet) >= 40 and packet[0] >> 4 == 6:
        head, protocol, low, size, first = 40, packet[6], 8, 16, True
    else:
        return None
    source, target = (str(ipaddress.ip_address(packet[at : at + size])) for at in (low, low + size))
    if protocol not in (socket.IPPROTO_TCP, socket.IPPROTO_UDP) or not first or len(packet) < head + 4:
        return Ends(source, target, protocol)
    return Ends(source, target, protocol, *struct.unpack_from(">HH", packet, head))


@define(eq=False)
class Capture:
    """Takes all packets of a host, or of one of its interfaces, from entering to leaving.

    `snap` is how many bytes of each are kept, `wanted` which (all unless given). The loopback interface is
    left out unless it is the one asked for.
    """

    host: Host
    interface: str = ""
    snap: int = 256
    wanted: Callable[[Seen], bool] | None = None
    packets: list[Seen] = field(factory=list)
    bytes: int = 0
    """Of all packets seen, kept or not, from the network header on."""
    lost: int = 0
    _socket: socket.socket | None = None
    _thread: threading.Thread | None = None
    _over: bool = False

    def __enter__(self) -> Self:
        self._socket = self.host.inside(self._open)
        self._thread = threading.Thread(target=self._take, name=f"capture {self.host.name}", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._thread is not None and self._socket is not None
        self._over = True
        self._thread.join()
        self._count()
        self._socket.close()

    def _open(self) -> socket.socket:
        taken = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        taken.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER)
        if self.interface:
            taken.bind((self.interface, ETH_P_ALL))
        taken.settimeout(0.05)
        return taken

    def _take(self) -> None:
        assert self._socket is not None
        room = bytearray(LONGEST)
        view = memoryview(room)
        while True:
            try:
                size, (interface, protocol, kind, *_) = self._socket.recvfrom_into(view)
            except TimeoutError:  # read empty before the end: what has passed by then is seen
                if self._over:
                    return
                continue
            except OSError:  # an interface went down: said once, the socket goes on
                continue
            if interface == "lo" and self.interface != "lo":
                continue
            self.bytes += size
            kept = bytes(view[: min(size, self.snap)])
            seen = Seen(time.time(), interface, kind == OUTGOING, protocol, kept)
            if self.wanted is None or self.wanted(seen):
                self.packets.append(seen)

    def _count(self) -> None:
        assert self._socket is not None
        told = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        self.lost += struct.unpack("II", told)[1]  # reading sets it back to 0

    def whole(self) -> list[Seen]:
        """All packets; raises MissedPacketsError if the kernel dropped some before we read them."""
        if self.lost:
            raise MissedPacketsError(
                f"{self.host.name}: {self.lost} packets passed unseen; the capture was too slow."
            )
        return list(self.packets)

    def leaving(self, *interfaces: str) -> list[Seen]:
        """IP packets that left by these interfaces (any, if none is named), as `Seen.leaves` has it. Raises
        MissedPacketsError."""
        return [
            seen for seen in self.whole() if seen.leaves and (not interfaces or seen.interface in interfaces)
        ]

    def save(self, file: Path) -> None:
        """Writes what was seen as a pcap file."""
        with file.open("wb") as out:
            out.write(_PCAP.pack(0xA1B2C3D4, 2, 4, 0, 0, LONGEST, _LINUX_SLL))
            for seen in self.packets:
                cooked = _COOKED.pack(OUTGOING if seen.outgoing else 0, 1, 6, b"", seen.protocol) + seen.data
                micros = round(seen.time * 1e6)
                out.write(_RECORD.pack(*divmod(micros, 1_000_000), len(cooked), len(cooked)) + cooked)


def _local_talk(packet: bytes) -> bool:
    """Neighbour and router discovery, and multicast listener reports (ICMPv6 130–137, 143), also behind the
    hop-by-hop header that the latter have."""
    if len(packet) < 49 or packet[0] >> 4 != 6:
        return False
    at, protocol = 40, packet[6]
    if protocol == 0:
        protocol, at = packet[40], 40 + 8 * (packet[41] + 1)
    return protocol == 58 and at < len(packet) and (130 <= packet[at] <= 137 or packet[at] == 143)
