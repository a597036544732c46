"""IP packets for tests, built the plain way: field by field, checksums added word by word."""

from __future__ import annotations

from ipaddress import ip_address
from struct import pack

TCP, UDP = 6, 17


def words(data: bytes) -> int:
    """The sum of 16-bit words, carries around the end."""
    data += bytes(len(data) % 2)
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def ip(source: str, target: str, protocol: int, body: bytes, *, number: int = 1, **more: int) -> bytes:
    """An IPv4 or IPv6 packet, complete but for checksums inside; `tos`, `hops` and `flags` may be given."""
    here, there = ip_address(source).packed, ip_address(target).packed
    tos, hops = more.get("tos", 0), more.get("hops", 64)
    if len(here) == 16:
        return pack(">IHBB", 0x60000000 | tos << 20, len(body), protocol, hops) + here + there + body
    head = pack(">BBHHHBBH", 0x45, tos, 20 + len(body), number, more.get("flags", 0x4000), hops, protocol, 0)
    head += here + there
    return head[:10] + pack(">H", 0xFFFF ^ words(head)) + head[12:] + body


def pseudo(source: str, target: str, protocol: int, size: int) -> int:
    """The sum of a pseudo header."""
    here, there = ip_address(source).packed, ip_address(target).packed
    return words(here + there + pack(">IBBH", size, 0, 0, protocol))


def udp(source: str, target: str, ports: tuple[int, int], payload: bytes, **more: int) -> bytes:
    """A UDP packet, complete."""
    head = pack(">HHHH", *ports, 8 + len(payload), 0)
    total = words(head + payload + pack(">H", pseudo(source, target, UDP, 8 + len(payload))))
    if len(payload) % 2:
        total = words(head + payload + b"\0" + pack(">H", pseudo(source, target, UDP, 8 + len(payload))))
    field = (0xFFFF ^ total) or 0xFFFF
    return ip(source, target, UDP, head[:6] + pack(">H", field) + payload, **more)


def tcp(
    source: str,
    target: str,
    ports: tuple[int, int],
    payload: bytes,
    *,
    seq: int = 0,
    ack: int = 1,
    flags: int = 0x10,
    options: bytes = b"",
    **more: int,
) -> bytes:
    """A TCP segment, complete."""
    size = 20 + len(options)
    head = pack(">HHIIBBHHH", *ports, seq, ack, size // 4 << 4, flags, 500, 0, 0) + options
    body = head + payload + bytes(len(payload) % 2)
    total = words(body + pack(">H", pseudo(source, target, TCP, size + len(payload))))
    head = head[:16] + pack(">H", 0xFFFF ^ total) + head[18:]
    return ip(source, target, TCP, head + payload, **more)


def vouched(packet: bytes) -> bytes:
    """A frame of a complete packet as a kernel makes it for its own: with the sum left to do."""
    start, protocol = (20, packet[9]) if packet[0] >> 4 == 4 else (40, packet[6])
    offset = 16 if protocol == TCP else 6
    addresses = packet[12:20] if start == 20 else packet[8:40]
    seed = words(addresses + pack(">HH", protocol, len(packet) - start))
    at = start + offset
    return pack("<BBHHHH", 1, 0, 0, 0, start, offset) + packet[:at] + pack(">H", seed) + packet[at + 2 :]


def superpacket(packet: bytes, segment: int, ecn: bool = False) -> bytes:
    """A frame of a TCP or UDP packet that is to be cut every `segment` bytes of its payload."""
    frame = vouched(packet)
    start, protocol = (20, packet[9]) if packet[0] >> 4 == 4 else (40, packet[6])
    kind = 5 if protocol == UDP else 1 if start == 20 else 4
    head = start + (8 if protocol == UDP else (packet[start + 12] >> 4) * 4)
    return pack("<BBHH", 1, kind | (0x80 if ecn else 0), head, segment) + frame[6:]


def plain(packet: bytes) -> bytes:
    """A frame of a complete packet."""
    return bytes(10) + packet
