"""UDP through an exit: the header of RFC 1928 §7, and datagrams between a client and its exit.

    program ↔ SOCKS port    0 u16 | fragment u8 = 0 | kind u8 | address | port u16 | payload
    client ↔ exit           association 16 | kind u8 | port u16 | size u8 ‖ address | payload

A client asks on a stream to mesh port 1,080 for an association (`messages.associate`); as long as that stream
lives, its mesh datagrams to datagram port 1,080 leave the exit as UDP, and answers come back to datagram port
1,083. Towards the exit the address is where the datagram goes to, a name as well; back it is where it comes
from. Fragments are not put together (RFC 1928 lets them be dropped). Nothing here reads, writes or looks up.
"""

from __future__ import annotations

from typing import Annotated, Final

from apps.vpn.destination import IPV4, IPV6, NAME, Destination, destination
from meshnet.codec import U8, U16, Fixed, Rest, Var, View, decode, encode, message
from meshnet.errors import CodecError

ANSWERS_PORT: Final = 1_083
"""The datagram port of a client to which exits answer."""
ASSOCIATION: Final = 16
"""Bytes of an association's name, which its client draws by chance: who knows it gets the answers."""
LARGEST_PAYLOAD: Final = 65_507
"""Bytes that a UDP datagram over IPv4 can carry."""

_SIZES: Final = {IPV4: 4, IPV6: 16}


@message
class ExitDatagram:
    """A UDP datagram on its way over the mesh."""

    association: Annotated[bytes, Fixed(ASSOCIATION)]
    kind: U8
    port: U16
    address: Annotated[bytes, Var(U8, 255)]
    payload: Annotated[View, Rest(LARGEST_PAYLOAD)]


def to_mesh(association: bytes, where: Destination, payload: bytes | memoryview) -> bytes:
    """The bytes of a mesh datagram."""
    return encode(ExitDatagram(association, where.kind, where.port, where.packed, memoryview(payload)))


def from_mesh(data: bytes) -> tuple[bytes, Destination, memoryview]:
    """Association, address and payload of a mesh datagram; raises CodecError."""
    found = decode(ExitDatagram, data)
    try:
        where = destination(found.kind, found.address, found.port)
    except ValueError as error:
        raise CodecError(f"datagram: {error}") from None
    return found.association, where, memoryview(found.payload)


def to_program(where: Destination, payload: bytes | memoryview) -> bytes:
    """A datagram for a program, with the header of RFC 1928 §7."""
    size = bytes((len(where.packed),)) if where.kind == NAME else b""
    head = bytes((0, 0, 0, where.kind)) + size + where.packed + where.port.to_bytes(2, "big")
    return head + payload


def from_program(data: bytes) -> tuple[Destination, memoryview]:
    """Where a program's datagram goes to, and its payload; raises CodecError, also for a fragment."""
    if len(data) < 5 or data[:2] != b"\0\0":
        raise CodecError("a datagram without the header of RFC 1928")
    if data[2]:
        raise CodecError("a fragment")
    kind = data[3]
    start, size = (5, data[4]) if kind == NAME else (4, _SIZES.get(kind, -1))
    if size < 0 or len(data) < start + size + 2:
        raise CodecError("a datagram whose address is of an unknown kind or incomplete")
    end = start + size
    try:
        where = destination(kind, data[start:end], int.from_bytes(data[end : end + 2], "big"))
    except ValueError as error:
        raise CodecError(f"datagram: {error}") from None
    return where, memoryview(data)[end + 2 :]
