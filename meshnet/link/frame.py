"""The frames that belong to the link itself, and the kinds of all others.

    frame    length u16 | kind u8 | body        length counts kind and body   (docs/wire-format.md §2)
    1 HELLO  version u16 | features u64 | largest_frame u16 | lane u8 | lanes u8 | TLV tail (1: instance u64)
    2 PING   token u64 | time u64 µs
    3 PONG   token u64 | the ping's time u64 | time u64 µs | bytes u64 | cells u64

`time` is each side's own monotonic clock; `bytes` and `cells` are what the answering side has received on
this connection, from which the other computes delivery rate and loss. An unknown kind is skipped if odd
and closes the connection if even.
"""

from __future__ import annotations

from typing import Annotated, Final

from meshnet.codec import U8, U16, U64, Rest, Tlv, decode, encode, message, tlvs
from meshnet.errors import ProtocolError
from meshnet.limits import LANES, LARGEST_FRAME

PAD: Final = 0
HELLO: Final = 1
PING: Final = 2
PONG: Final = 3
CELL: Final = 12  # forward; 13 is backward, bit 7 of either means congestion was seen
MARKED: Final = 0x80

VERSION: Final = 1
LANE_NUMBERS: Final = tuple(1 << power for power in range(LANES.bit_length()))
LARGEST_TAIL: Final = 1_024


@message
class Hello:
    """HELLO: the first frame each way; the dialler's names the lane."""

    version: U16
    features: U64
    largest_frame: U16
    lane: U8
    lanes: U8
    tail: Annotated[bytes, Rest(LARGEST_TAIL)] = b""


@message
class Ping:
    """PING: `time` is the sender's monotonic clock in µs."""

    token: U64
    time: U64


@message
class Pong:
    """PONG: the ping's token and time, the answering side's clock in µs and its receive counters."""

    token: U64
    ping_time: U64
    time: U64
    bytes: U64
    cells: U64


@tlvs
class HelloTail:
    """What follows HELLO; unknown odd types are skipped.

    `instance` is drawn at random when a node starts: a neighbour that comes back with another one has
    forgotten all labels, and circuits over it need not be waited for.
    """

    instance: Annotated[int | None, Tlv(1, U64)] = None


def our_hello(instance: int | None = None, lane: int = 0, lanes: int = 1) -> Hello:
    """What this version says of itself: no optional features.

    `lane` is the one this connection is for where we dialled it, else 0; `lanes` is how many we want.
    """
    tail = encode(HelloTail(instance=instance))
    return Hello(version=VERSION, features=0, largest_frame=LARGEST_FRAME, lane=lane, lanes=lanes, tail=tail)


def instance_of(hello: Hello) -> int | None:
    """Which run of the neighbour's node this is; None if it does not say. Raises CodecError."""
    return decode(HelloTail, hello.tail).instance


def check_hello(hello: Hello, own_lanes: int = 1) -> None:
    """Raises ProtocolError or CodecError with a sentence if we cannot talk to who sent this.

    A link has as many lanes as the side that wants more of them says.
    """
    instance_of(hello)
    if hello.version != VERSION:
        raise ProtocolError(
            f"the neighbour speaks version {hello.version} of the link protocol, this node version "
            f"{VERSION}: update the older one"
        )
    if hello.lanes not in LANE_NUMBERS:
        raise ProtocolError(f"HELLO wants {hello.lanes} lanes, which is none of {LANE_NUMBERS}")
    if hello.lane >= max(hello.lanes, own_lanes):
        raise ProtocolError(f"HELLO names lane {hello.lane} of {max(hello.lanes, own_lanes)}")
    if hello.largest_frame < 2_048:
        raise ProtocolError(f"HELLO allows frames of {hello.largest_frame} bytes, too small for a circuit")
