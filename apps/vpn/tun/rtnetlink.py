"""Interfaces, addresses and routes of Linux, set by rtnetlink(7): what a TUN needs before it can be used.

One request, one answer, at once; no program is run. What else the VPN changes in the system (default routes,
rules, firewalls) is not here but in `apps.vpn.host`, with a journal: this here goes with the interface.
"""

from __future__ import annotations

import os
import socket
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from struct import Struct, pack, unpack_from
from typing import Final

from meshnet.errors import LocalError

NEWLINK: Final = 16
DELLINK: Final = 17
NEWADDR: Final = 20
NEWROUTE: Final = 24

_REQUEST: Final = 0x01
_ACK: Final = 0x04
_REPLACE: Final = 0x100
_CREATE: Final = 0x400
_ERROR: Final = 2
_IFF_UP: Final = 1
_MTU: Final = 4
_TXQLEN: Final = 13
_GSO_MAX_SIZE: Final = 41
_LOCAL: Final = 2
_ADDRESS: Final = 1
_FLAGS: Final = 8
_NO_DUPLICATE_DETECTION: Final = 0x02
_DST: Final = 1
_OIF: Final = 4
_TABLE_MAIN: Final = 254
_PROTOCOL_STATIC: Final = 4
_SCOPE_LINK: Final = 253
_UNICAST: Final = 1

_head: Final = Struct("=IHHII")
_link: Final = Struct("=BxHiII")
_address: Final = Struct("=BBBBI")
_route: Final = Struct("=BBBBBBBBI")

Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network


class NetlinkError(LocalError):
    """The kernel refused; `number` is its errno."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)
        self.number = number


def set_up(name: str, index: int, mtu: int, largest: int, queue: int) -> None:
    """Gives an interface its MTU, the largest superpacket, the length of its queue, and brings it up. Raises
    NetlinkError."""
    attributes = _u32(_MTU, mtu) + _u32(_TXQLEN, queue) + _u32(_GSO_MAX_SIZE, largest)
    try:
        _ask(NEWLINK, 0, _link.pack(0, 0, index, _IFF_UP, _IFF_UP) + attributes, f"set up {name}")
    except NetlinkError:  # older kernels know no such attribute
        attributes = _u32(_MTU, mtu) + _u32(_TXQLEN, queue)
        _ask(NEWLINK, 0, _link.pack(0, 0, index, _IFF_UP, _IFF_UP) + attributes, f"set up {name}")


def set_mtu(name: str, index: int, mtu: int) -> None:
    """Another MTU. Raises NetlinkError."""
    _ask(NEWLINK, 0, _link.pack(0, 0, index, 0, 0) + _u32(_MTU, mtu), f"set the MTU of {name} to {mtu}")


def delete_link(name: str, index: int) -> None:
    """The interface is no more. Raises NetlinkError."""
    _ask(DELLINK, 0, _link.pack(0, 0, index, 0, 0), f"delete {name}")


def add_address(name: str, index: int, address: Interface) -> None:
    """Gives it an address, with the length of its prefix, at once usable. Raises NetlinkError."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    body = _address.pack(family, address.network.prefixlen, 0, 0, index)
    body += _attribute(_LOCAL, address.packed) + _attribute(_ADDRESS, address.packed)
    if address.version == 6:
        body += _u32(_FLAGS, _NO_DUPLICATE_DETECTION)
    _ask(NEWADDR, _CREATE | _REPLACE, body, f"give {name} the address {address}")


def add_route(name: str, index: int, network: Network) -> None:
    """Packets to this network go to the interface. Raises NetlinkError."""
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    scope = _SCOPE_LINK if network.version == 4 else 0
    body = _route.pack(
        family, network.prefixlen, 0, 0, _TABLE_MAIN, _PROTOCOL_STATIC, scope, _UNICAST, 0
    ) + _u32(_OIF, index)
    body += _attribute(_DST, network.network_address.packed)
    _ask(NEWROUTE, _CREATE | _REPLACE, body, f"route {network} to {name}")


def _u32(kind: int, value: int) -> bytes:
    return _attribute(kind, pack("=I", value))


def _attribute(kind: int, data: bytes) -> bytes:
    return pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def _ask(kind: int, flags: int, body: bytes, what: str) -> None:
    """Sends a request and waits for what the kernel says at once; raises NetlinkError."""
    message = _head.pack(_head.size + len(body), kind, _REQUEST | _ACK | flags, 1, 0) + body
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as sock:
            sock.settimeout(5)
            sock.bind((0, 0))
            sock.send(message)
            answer = sock.recv(65_536)
    except OSError as problem:
        number = problem.errno or 0
    else:
        _, answered, _, _, _ = _head.unpack_from(answer)
        number = -unpack_from("=i", answer, 16)[0] if answered == _ERROR else 0
    if number:
        raise NetlinkError(f"Cannot {what}: {os.strerror(number)}.", number)
