"""The frames of a connection, byte by byte.

    frame     word u32 · id u16 · body          word = slot u8 ‖ kind (4 bits) ‖ length of the body (20 bits)

    HELLO  0  magic 4 "mRPC" · version u8 · calls u16 · streamed u16 · requests u32 · credit u32 · body u32;
              more may follow and is ignored
    BIND   1  name of a service (u8 length) · count u8 · (number u16 · form u8 · signature 8)*
    CALL   2  time u16 · request                slot: the method, counted through all that were bound
    ANSWER 3  answer                            ends the call
    FAIL   4  code u16 · text                   ends the call
    ITEM   5  item
    END    6  no more items from this side; from the one called, it ends the call
    CANCEL 7  the caller wants no answer any more
    CREDIT 8  bytes u32                         so many bytes of items may follow, beyond all granted before
    CLOSE  9  code u16 · text                   nothing follows

The side that opened the connection numbers its calls with even ids, the other with odd ones. A call's time is
what is left of it, in milliseconds: 12 bits, shifted left by the 4 bits above them, rounded up.
`overhead` is what a call with one answer costs beside its two messages: 6 + 2 + 6 bytes.
"""

from __future__ import annotations

from struct import Struct
from typing import Annotated, Final

from meshnet.codec import U8, U16, U32, Fixed, Many, Var, message
from meshnet.limits import RPC_BOUND

HELLO: Final = 0
BIND: Final = 1
CALL: Final = 2
ANSWER: Final = 3
FAIL: Final = 4
ITEM: Final = 5
END: Final = 6
CANCEL: Final = 7
CREDIT: Final = 8
CLOSE: Final = 9
KINDS: Final = 10

HEAD: Final = Struct(">IH")
HEAD_SIZE: Final = HEAD.size
CALL_HEAD: Final = Struct(">IHH")
TIME: Final = Struct(">H")
TIME_SIZE: Final = TIME.size
AMOUNT: Final = Struct(">I")
LENGTH: Final = 0xF_FFFF
SHIFT: Final = 20  # of the kind
SLOT: Final = 24  # of the slot
IDS: Final = 1 << 16

MAGIC: Final = b"mRPC"
VERSION: Final = 1
OVERHEAD: Final = CALL_HEAD.size + HEAD_SIZE

_MANTISSA: Final = 12
_LONGEST_MS: Final = ((1 << _MANTISSA) - 1) << 15


@message
class Hello:
    """What a side lets the other do: calls that are not ended, those of them with streams of items, bytes of
    their requests, unread bytes of one such stream, the largest body. No less than the limits of version 1,
    so that calls need not wait for it."""

    magic: Annotated[bytes, Fixed(4)]
    version: U8
    calls: U16
    streamed: U16
    requests: U32
    credit: U32
    body: U32


@message
class Wanted:
    """A method as its caller declares it; `form` has bit 0 if the caller streams items, bit 1 if items come
    back."""

    number: U16
    form: U8
    signature: Annotated[bytes, Fixed(8)]


@message
class Bind:
    """The methods of one service that the sender may call; they take the next slots, in this order."""

    service: Annotated[str, Var(U8, 64)]
    methods: Annotated[tuple[Wanted, ...], Many(U8, RPC_BOUND - 1)]


HELLO_SIZE: Final = 21
GRANTS: Final = ("calls", "streamed", "requests", "credit", "body")
MOST_CREDIT: Final = 1 << 32
MOST_CALLS: Final = IDS // 4
MOST_BODY: Final = LENGTH - TIME_SIZE
"""What is used of a peer's grants at most: half of our ids stay free, and a length has 20 bits."""


def time_code(seconds: float) -> int:
    """The u16 for so many seconds, rounded up to what 12 bits hold; at least 1 ms, at most 37 hours."""
    ms = min(max(int(seconds * 1e3) + 1, 1), _LONGEST_MS)
    if ms < 4_096:
        return ms
    shift = ms.bit_length() - _MANTISSA
    mantissa = (ms + (1 << shift) - 1) >> shift
    if mantissa > 0xFFF:
        mantissa, shift = mantissa >> 1, shift + 1
    return min(shift, 15) << _MANTISSA | mantissa


def time_of(code: int) -> float:
    """Seconds of a u16."""
    return ((code & 0xFFF) << (code >> _MANTISSA)) / 1e3
