"""What the rules of a table have counted, read from the kernel at once and without a program (nfnetlink).

    message   = length u32 | type u16 | flags u16 | number u32 | port u32
              | family u8 | version u8 | resource u16 | attributes
    attribute = length u16 | type u16 | value, padded to 4 bytes

The head is in the machine's byte order, numbers in values are big-endian (linux/netfilter/nf_tables.h). It
only asks; without the right to, or without nftables, nothing was counted.
"""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from struct import Struct, pack
from typing import Final

_NETFILTER: Final = 12
_NEW, _GET = 10 << 8 | 18, 10 << 8 | 19  # of objects of nftables
_REQUEST, _DUMP = 0x01, 0x300
_ERROR, _DONE = 2, 3
_INET: Final = 1
_TABLE, _NAME, _TYPE, _DATA, _PACKETS = 1, 2, 3, 4, 2
_COUNTER: Final = 1
_PATIENCE: Final = 1.0
_LARGEST: Final = 1 << 16
_MESSAGES: Final = 64  # of an answer; a table of ours has a handful of counters
_head: Final = Struct("=IHHII").unpack_from
_attribute: Final = Struct("=HH").unpack_from

Read = Callable[[str], Mapping[str, int]]


def read_counters(table: str) -> dict[str, int]:
    """Packets that the named counters of a table of the family inet have seen; empty where there is none."""
    name = table.encode() + b"\0"
    body = pack("=BBH", _INET, 0, 0) + pack("=HH", 4 + len(name), _TABLE) + name + bytes(-len(name) % 4)
    message = pack("=IHHII", 16 + len(body), _GET, _REQUEST | _DUMP, 1, 0) + body
    found: dict[str, int] = {}
    with contextlib.suppress(OSError, AttributeError), _kernel() as sock:  # not allowed, or no Linux
        sock.send(message)
        for _ in range(_MESSAGES):
            done, some = counters_in(sock.recv(_LARGEST), table)
            found |= some
            if done:
                break
    return found


def _kernel() -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER)
    sock.settimeout(_PATIENCE)
    return sock


def counters_in(data: bytes, table: str) -> tuple[bool, dict[str, int]]:
    """Whether these messages are the last of an answer, and the counters of this table that they tell."""
    found: dict[str, int] = {}
    at = 0
    while at + 16 <= len(data):
        length, kind, _, _, _ = _head(data, at)
        if length < 16 or at + length > len(data):
            break
        if kind in (_ERROR, _DONE):
            return True, found
        if kind == _NEW:
            told = dict(_attributes(data[at + 20 : at + length]))
            counted = dict(_attributes(told.get(_DATA, b"")))
            if told.get(_TABLE) == table.encode() + b"\0" and _number(told.get(_TYPE)) == _COUNTER:
                name = told.get(_NAME, b"").rstrip(b"\0").decode(errors="replace")
                found[name] = _number(counted.get(_PACKETS))
        at += length + 3 & ~3
    return False, found


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        length, kind = _attribute(data, at)
        if length < 4 or at + length > len(data):
            return
        yield kind & 0x3FFF, data[at + 4 : at + length]
        at += length + 3 & ~3


def _number(data: bytes | None) -> int:
    return int.from_bytes(data or b"", "big")


class Counters:
    """Those of a table, over all its lives: when it is made anew they begin at 0 there, and not here. What is
    counted between the last look and its end is lost."""

    def __init__(self, table: str, read: Read = read_counters) -> None:
        self._table = table
        self._read = read
        self._last: Mapping[str, int] = {}
        self._past: Counter[str] = Counter()

    def look(self) -> dict[str, int]:
        """Packets by counter since the start, as of now; those that are 0 left out."""
        now = self._read(self._table)
        for name, count in self._last.items():
            if now.get(name, 0) < count:
                self._past[name] += count
        self._last = now
        return {name: count for name, count in sorted((self._past + Counter(now)).items()) if count}
