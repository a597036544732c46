"""Answers to senders whose packets go no further: ICMP errors (RFC 792, RFC 4443, RFC 1191, RFC 8201).

They are made for packets that cannot be carried: nobody has the destination, or the way has no cells so
large. Nothing is answered that must not be (RFC 4443 §2.4, RFC 1122 §3.2.2): other errors, fragments but the
first, and what was sent to, or seems to come from, many.
"""

from __future__ import annotations

from struct import pack
from typing import Final

from apps.vpn.packets.checksum import checksum, fold, ones_sum, pseudo_sum
from apps.vpn.packets.headers import ICMP, ICMP6
from apps.vpn.packets.virtio import HEADER

NO_ROUTE: Final = 0
ADDRESS_UNREACHABLE: Final = 3
"""Codes of ICMPv6 type 1."""

_UNREACHABLE6: Final = 1
_TOO_BIG6: Final = 2
_UNREACHABLE4: Final = 3
_TOO_BIG4: Final = 4  # a code of it: fragmentation needed
_HOST: Final = 1  # another: host unreachable
_LARGEST6: Final = 1_280
_LARGEST4: Final = 576
_LEAST_MTU: Final = {4: 68, 6: 1_280}
_HOPS: Final = 64


def unreachable(frame: memoryview, own: bytes, code: int = ADDRESS_UNREACHABLE) -> bytes | None:
    """The packet that tells the sender of a frame that nobody has its destination; `own` is the address it
    comes from, of the same family. None where there must be no answer."""
    if not _may_be_answered(frame):
        return None
    if len(own) == 4:
        return _answer4(frame, own, _HOST, 0)
    return _answer6(frame, own, _UNREACHABLE6, code, 0)


def too_big(frame: memoryview, own: bytes, mtu: int) -> bytes | None:
    """The packet that tells the sender of a frame that packets of more than `mtu` bytes do not pass. None
    where there must be no answer, or none would help: below the least MTU of IP, and in IPv4 without DF."""
    version = frame[HEADER] >> 4
    if not _may_be_answered(frame) or mtu < _LEAST_MTU[version]:
        return None
    if version == 4:
        return _answer4(frame, own, _TOO_BIG4, mtu) if frame[HEADER + 6] & 0x40 else None
    return _answer6(frame, own, _TOO_BIG6, 0, mtu)


def _may_be_answered(frame: memoryview) -> bool:
    packet = frame[HEADER:]
    if packet[0] >> 4 == 4:
        start = (packet[0] & 15) * 4
        sender, target = packet[12], packet[16]
        if sender >= 224 or not any(packet[12:16]) or target >= 224:
            return False
        if packet[6] & 0x1F or packet[7]:
            return False
        return packet[9] != ICMP or (len(packet) > start and packet[start] in (0, 8, 13, 14))
    if packet[8] == 0xFF or not any(packet[8:24]) or packet[24] == 0xFF:
        return False
    return packet[6] != ICMP6 or (len(packet) > 40 and bool(packet[40] & 0x80) and packet[40] != 137)


def _answer6(frame: memoryview, own: bytes, kind: int, code: int, value: int) -> bytes:
    packet = frame[HEADER:]
    body = pack(">BBHI", kind, code, 0, value) + packet[: _LARGEST6 - 48]
    head = pack(">IHBB", 0x60000000, len(body), ICMP6, _HOPS) + own + packet[8:24]
    field = 0xFFFF ^ fold(pseudo_sum(head, ICMP6, len(body)) + ones_sum(body))
    return head + body[:2] + pack(">H", field) + body[4:]


def _answer4(frame: memoryview, own: bytes, code: int, value: int) -> bytes:
    packet = frame[HEADER:]
    body = pack(">BBHI", _UNREACHABLE4, code, 0, value) + packet[: _LARGEST4 - 28]
    body = body[:2] + pack(">H", checksum(body)) + body[4:]
    head = pack(">BBHHHBBH", 0x45, 0xC0, 20 + len(body), 0, 0, _HOPS, ICMP, 0) + own + packet[12:16]
    return head[:10] + pack(">H", checksum(head)) + head[12:] + body
