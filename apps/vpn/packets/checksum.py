"""The Internet checksum (RFC 1071): sums of 16-bit words in one's complement.

A sum is an int from 0 to 0xffff, in which 0 and 0xffff are the same number; a checksum field holds its
complement. Python's integers do the adding: a number of many words is congruent to their sum modulo 0xffff.
Nothing here knows where in a packet anything lies but `pseudo_sum`.
"""

from __future__ import annotations

Bytes = bytes | bytearray | memoryview


def ones_sum(data: Bytes) -> int:
    """The sum of `data`; an odd last byte counts as if a zero followed it."""
    number = int.from_bytes(data, "big")
    if len(data) & 1:
        number <<= 8
    # Of non-zero words the sum is never 0, but 0xffff.
    return (number % 0xFFFF or 0xFFFF) if number else 0


def fold(number: int) -> int:
    """Any non-negative number of added sums as one sum."""
    return (number % 0xFFFF or 0xFFFF) if number else 0


def checksum(data: Bytes) -> int:
    """What a field that was 0 while `data` was added must hold."""
    return 0xFFFF ^ ones_sum(data)


def changed(field: int, old: int, new: int) -> int:
    """The checksum `field` after words that summed up to `old` have become `new` (RFC 1624, equation 3)."""
    return 0xFFFF ^ fold((0xFFFF ^ field) + (0xFFFF ^ old) + new)


def pseudo_sum(packet: Bytes, protocol: int, size: int) -> int:
    """The sum of the pseudo header in front of `size` bytes of `protocol` in an IPv4 or IPv6 packet whose
    destination stands in its fixed header (RFC 9293 §3.1, RFC 8200 §8.1)."""
    addresses = packet[12:20] if packet[0] >> 4 == 4 else packet[8:40]
    return fold(int.from_bytes(addresses, "big") + protocol + size)
