"""The frames that belong to the link itself, and the kinds of all others.

    frame    length u16 | kind u8 | body        length counts kind and body   (docs/wire-format.md §2)
    1 HELLO  version u16 | features u64 | largest_frame u16 | lane u8 | lanes u8 | TLV tail
    2 PING   token u64 | time u64 µs
    3 PONG   token u64 | the ping's time u64 | time u64 µs | bytes u64 | cells u64

`time` is each side's own monotonic clock; `bytes` and `cells` are what the answering side has received on
this connection, from which the other computes delivery rate and loss. An unknown kind is skipped if odd
and closes the connection if even.
"""

from __future__ import annotations

from typing import Annotated, Final

from meshnet.codec import U8, U16, U64, Rest, message
from meshnet.errors import ProtocolError
from meshnet.limits import LARGEST_FRAME

PAD: Final = 0
HELLO: Final = 1
PING: Final = 2
PONG: Final = 3
CELL: Final = 12  # forward; 13 is backward, bit 7 of either means congestion was seen
MARKED: Final = 0x80

VERSION: Final = 1
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


def our_hello() -> Hello:
    """What this version says of itself: one lane, no optional features."""
    return Hello(version=VERSION, features=0, largest_frame=LARGEST_FRAME, lane=0, lanes=1)


def check_hello(hello: Hello) -> None:
    """Raises ProtocolError with a sentence if we cannot talk to who sent this."""
    if hello.version != VERSION:
        raise ProtocolError(
            f"the neighbour speaks version {hello.version} of the link protocol, this node version "
            f"{VERSION}: update the older one"
        )
    if hello.lanes not in (1, 2, 4, 8, 16) or hello.lane >= hello.lanes:
        raise ProtocolError(f"HELLO names lane {hello.lane} of {hello.lanes}")
    if hello.largest_frame < 2_048:
        raise ProtocolError(f"HELLO allows frames of {hello.largest_frame} bytes, too small for a circuit")
