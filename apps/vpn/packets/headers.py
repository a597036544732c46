"""Reading what others wrote: whether bytes are a packet, whether its virtio header fits it, whose it is.

Nothing here is trusted: every offset is checked before it is used, and what is wrong has a name (`Fault`).
Checksums are not looked at. That of an IPv4 header and those inside are the business of the kernel that gets
them, which drops what is wrong; where the virtio header says SUM there is none yet, and the seals of the mesh
stand for it.

A `frame` here is `virtio header | packet`, without the size in front.
"""

from __future__ import annotations

from typing import Final

from apps.vpn.packets.faults import Fault
from apps.vpn.packets.virtio import ECN, HEADER, SUM, VALID, Gso, read
from meshnet.limits import TUN_SEGMENTS

TCP: Final = 6
UDP: Final = 17
ICMP: Final = 1
ICMP6: Final = 58

IPV4_LEAST: Final = 20
IPV6_FIXED: Final = 40

_START4: Final = HEADER + IPV4_LEAST
_START6: Final = HEADER + IPV6_FIXED
_TCP4: Final = int(Gso.TCP4)
_TCP6: Final = int(Gso.TCP6)
_UDP: Final = int(Gso.UDP)


def check(frame: memoryview) -> Fault:
    """What is wrong with a frame that came from afar, before a kernel sees it."""
    size = len(frame)
    if size < _START4:
        return Fault.SHORT
    first = frame[HEADER]
    if first >> 4 == 4:
        least = (first & 15) * 4
        if least < IPV4_LEAST:
            return Fault.HEADER
        if (frame[HEADER + 2] << 8 | frame[HEADER + 3]) != size - HEADER or size < HEADER + least:
            return Fault.LENGTH
    elif first >> 4 == 6:
        if size < _START6:
            return Fault.SHORT
        if (frame[HEADER + 4] << 8 | frame[HEADER + 5]) != size - _START6:
            return Fault.LENGTH
        least = IPV6_FIXED
    else:
        return Fault.NOT_IP
    if frame[0] or frame[1]:
        return check_offload(frame, first >> 4, least)
    return Fault.NONE


def check_offload(frame: memoryview, version: int, least: int) -> Fault:
    """What is wrong with a virtio header that is not plain; `least` bytes of IP header lie in the packet."""
    flags, gso, _, segment, start, offset = read(frame)
    size = len(frame) - HEADER
    if flags & ~(SUM | VALID):
        return Fault.OFFLOAD
    if flags & SUM and not (least <= start and start + offset + 2 <= size):
        return Fault.OFFLOAD
    kind = gso & ~ECN
    if not kind:
        return Fault.OFFLOAD if gso else Fault.NONE
    if not flags & SUM or not segment:
        return Fault.OFFLOAD
    if kind == _TCP6 and version == 6 and start == IPV6_FIXED and offset == 16 and start + 20 <= size:
        # As `headers_length`, for what comes most.
        transport = (frame[_START6 + 12] >> 4) * 4
        length = start + transport if transport >= 20 and frame[HEADER + 6] == TCP else 0
    else:
        length = headers_length(frame, kind, version, start, offset)
    if not length or not 0 < size - length <= TUN_SEGMENTS * segment:
        return Fault.OFFLOAD
    return Fault.NONE


def headers_length(frame: memoryview, kind: int, version: int, start: int, offset: int) -> int:
    """Bytes of IP and transport headers of a packet that is several at once; 0 if it cannot be one."""
    size = len(frame) - HEADER
    if kind == _UDP:
        fits = offset == 6 and start + 8 <= size and _carries(frame, version, UDP, start)
        return start + 8 if fits else 0
    if version != (6 if kind == _TCP6 else 4 if kind == _TCP4 else 0) or offset != 16 or start + 20 > size:
        return 0
    transport = (frame[HEADER + start + 12] >> 4) * 4
    return start + transport if transport >= 20 and _carries(frame, version, TCP, start) else 0


def _carries(frame: memoryview, version: int, protocol: int, start: int) -> bool:
    """Whether that protocol's header lies right behind an IP header that says so, in no fragment. No kernel
    has superpackets with extension headers."""
    if version == 4:
        head = frame[HEADER]
        whole = not (frame[HEADER + 6] & 0x3F or frame[HEADER + 7])  # offset and MF
        return whole and start == (head & 15) * 4 and frame[HEADER + 9] == protocol
    return start == IPV6_FIXED and frame[HEADER + 6] == protocol


def source(frame: memoryview) -> bytes:
    """Its source address, 4 or 16 bytes, of a frame that `check` passed."""
    if frame[HEADER] >> 4 == 4:
        return bytes(frame[HEADER + 12 : HEADER + 16])
    return bytes(frame[HEADER + 8 : HEADER + 24])


def target(frame: memoryview) -> bytes:
    """Its destination address, 4 or 16 bytes; empty if it is no IP packet at all."""
    if len(frame) >= _START4:
        first = frame[HEADER] >> 4
        if first == 4:
            return bytes(frame[HEADER + 16 : HEADER + 20])
        if first == 6 and len(frame) >= _START6:
            return bytes(frame[HEADER + 24 : HEADER + 40])
    return b""


def flow_key(frame: memoryview) -> bytes:
    """Bytes that packets of one flow share and others hardly do: addresses and what stands behind them, as a
    rule ports. IPv4 with options and fragments make flows of their own, which harms nobody."""
    if frame[HEADER] >> 4 == 4:
        return bytes(frame[HEADER + 12 : HEADER + 24])
    return bytes(frame[HEADER + 8 : HEADER + 44])
