"""Where a client wants to go on the old internet: an address or a name, and a port.

The three kinds of address and their bytes are those of SOCKS5 (RFC 1928 §5) and serve the exit's request
too: 1 = IPv4, 4 bytes; 3 = a name, 1 to 253 ASCII bytes; 4 = IPv6, 16 bytes. Nothing is looked up here.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from attrs import frozen

IPV4: Final = 1
NAME: Final = 3
IPV6: Final = 4

LONGEST_NAME: Final = 253
"""Characters of a host name (RFC 1035 §2.3.4, without the final dot)."""

_NAME = re.compile(
    r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*\.?"
)

Address = IPv4Address | IPv6Address


@frozen
class Destination:
    """A host, either an address or a lower-case name without final dot, and a port from 1 to 65,535."""

    host: Address | str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if isinstance(self.host, IPv6Address) else str(self.host)
        return f"{host}:{self.port}"

    @property
    def kind(self) -> int:
        """IPV4, NAME or IPV6."""
        if isinstance(self.host, str):
            return NAME
        return IPV4 if isinstance(self.host, IPv4Address) else IPV6

    @property
    def packed(self) -> bytes:
        """The address or the name as bytes."""
        return self.host.encode("ascii") if isinstance(self.host, str) else self.host.packed


def destination(kind: int, packed: bytes, port: int) -> Destination:
    """A destination from its bytes; raises ValueError with what is wrong."""
    if not 1 <= port <= 65_535:
        raise ValueError(f"{port} is no TCP port")
    if kind == IPV4 and len(packed) == 4:
        return Destination(IPv4Address(packed), port)
    if kind == IPV6 and len(packed) == 16:
        return Destination(plain(IPv6Address(packed)), port)
    if kind != NAME:
        raise ValueError(f"{len(packed)} bytes are no address of kind {kind}")
    return Destination(host_name(packed.decode("latin-1")), port)


def host_name(text: str) -> str:
    """A host name in lower case without its final dot; raises ValueError. All digits and dots is a name too:
    the resolver reads it as an address, and the address is checked."""
    if len(text) > LONGEST_NAME + 1 or not _NAME.fullmatch(text):
        raise ValueError("the host name has other characters than letters, digits, hyphens and dots")
    return text.lower().removesuffix(".")


def plain(address: Address) -> Address:
    """An IPv4-mapped IPv6 address (::ffff:a.b.c.d) as the IPv4 address it stands for; others as they are."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
