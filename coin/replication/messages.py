"""The messages between nodes of a chain, byte for byte as the Go node sends them.

All integers are little-endian; a list is its u32 count and its items.

    frame   length u32 (of what follows) ‖ id, 4 letters ‖ body, all of it
    INTR    mirror u32 ‖ port u16 ‖ version i32 ‖ extra, bytes (may be missing)
    extra   public key 33 ‖ burn u32 ‖ size u32 ‖ decimals u8 ‖ user agent, bytes ‖ genesis hash 32 (may be
            missing) ‖ whatever later editions append
    GETP PING PONG          nothing
    GIVP    list of (IPv4 address u32 ‖ port u16): the address's bytes are in the reverse of their usual order
    GETB    last block u64 ‖ blocks wanted u64                        GIVB    list of signed blocks
    ANNB    highest block u64                                         GIVT    list of transactions
    GETT ANNT   list of transaction ids 32                            DISC    reason u16 ‖ bytes

Blocks and transactions keep the bytes that they were read from (`coin.chain`); everything else is a message
of the codec's Skycoin profile. Hostile bytes raise CodecError, and nothing is made that the bytes read so
far do not pay for. Nothing here judges what a message says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from ipaddress import IPv4Address
from struct import Struct
from typing import Annotated, Final, TypeVar

from attrs import frozen

from coin.chain.block import Block, read_block
from coin.chain.transaction import Transaction, read_transaction
from meshnet.codec import (
    I32,
    SKYCOIN,
    U8,
    U16,
    U32,
    U64,
    Fixed,
    Many,
    OmitEmpty,
    Var,
    decode,
    decode_from,
    encode,
    message,
)
from meshnet.errors import CodecError
from meshnet.limits import (
    COIN_AGENT,
    COIN_BLOCKS,
    COIN_EXTRA,
    COIN_FRAME,
    COIN_IDS,
    COIN_PEERS_GIVEN,
    COIN_RESERVED,
)

T = TypeVar("T")
Hash = Annotated[bytes, Fixed(32)]
_LENGTH = Struct("<I")
_HEAD: Final = 8  # length and id
_GENESIS: Final = 32


class Reason(IntEnum):
    """Why a connection is ended, as DISC says it; from 1001 on only in our own log."""

    NONE = 0
    VERSION = 1
    INTRODUCTION_TIMEOUT = 2
    BANNED = 3
    SELF = 4
    TWICE = 5
    IDLE = 6
    NO_INTRODUCTION = 7
    IP_LIMIT = 8
    UNEXPECTED = 9
    MAX_OUTGOING = 10
    OTHER_CHAIN = 11
    BAD_EXTRA = 12
    RECEIVED_DISCONNECT = 13
    BAD_AGENT = 14
    OPERATOR = 15
    FULL = 16
    BAD_BURN = 17
    BAD_SIZE = 18
    BAD_DECIMALS = 19
    DEADLINE = 1001
    BAD_LENGTH = 1002
    MALFORMED = 1003
    UNKNOWN_MESSAGE = 1004
    SHUTDOWN = 1005
    UNDERFLOW = 1006
    TRUNCATED_ID = 1007


@message(profile=SKYCOIN)
class Introduction:
    """INTR: the first message. `mirror` is random for each run of a node, so that it knows itself."""

    mirror: U32
    port: U16
    version: I32
    extra: Annotated[bytes, Var(U32, COIN_EXTRA), OmitEmpty()] = b""


@message(profile=SKYCOIN)
class _Terms:
    """The part of `extra` that must be there."""

    publisher: Annotated[bytes, Fixed(33)]
    burn: U32
    size: U32
    decimals: U8
    agent: Annotated[bytes, Var(U32, COIN_AGENT)]


@frozen
class Extra:
    """What an introduction says of its node: whose chain, which limits for loose transactions, its user
    agent, and the hash of its first block where it says so."""

    publisher: bytes
    burn: int
    size: int
    decimals: int
    agent: str
    genesis: bytes | None = None

    def encode(self) -> bytes:
        """Bytes of `Introduction.extra`."""
        terms = _Terms(self.publisher, self.burn, self.size, self.decimals, self.agent.encode())
        return encode(terms) + (self.genesis or b"")

    @classmethod
    def decode(cls, data: bytes) -> Extra:
        """Raises CodecError if a part is cut off; what follows the genesis hash is ignored."""
        terms, end = decode_from(_Terms, data)
        rest = data[end : end + _GENESIS]
        if rest and len(rest) < _GENESIS:
            raise CodecError("the hash of the first block is cut off")
        return cls(
            terms.publisher, terms.burn, terms.size, terms.decimals, clean_agent(terms.agent), rest or None
        )


@message(profile=SKYCOIN)
class GetPeers:
    """GETP: asks for addresses."""


@message(profile=SKYCOIN)
class PeerAddress:
    """An IPv4 address as a number, and a TCP port."""

    ip: U32
    port: U16

    @property
    def host(self) -> str:
        """Dotted."""
        return str(IPv4Address(self.ip))


@message(profile=SKYCOIN)
class GivePeers:
    """GIVP: addresses of nodes that could be reached."""

    peers: Annotated[tuple[PeerAddress, ...], Many(U32, COIN_PEERS_GIVEN)]


@message(profile=SKYCOIN)
class Ping:
    """PING."""


@message(profile=SKYCOIN)
class Pong:
    """PONG."""


@message(profile=SKYCOIN)
class GetBlocks:
    """GETB: asks for at most `wanted` blocks after `last`."""

    last: U64
    wanted: U64


@message(profile=SKYCOIN)
class AnnounceBlocks:
    """ANNB: the sender has blocks up to `highest`."""

    highest: U64


@message(profile=SKYCOIN)
class GetTransactions:
    """GETT: asks for loose transactions."""

    ids: Annotated[tuple[Hash, ...], Many(U32, COIN_IDS)]


@message(profile=SKYCOIN)
class AnnounceTransactions:
    """ANNT: the sender has these loose transactions."""

    ids: Annotated[tuple[Hash, ...], Many(U32, COIN_IDS)]


@message(profile=SKYCOIN)
class Disconnect:
    """DISC: the connection ends, `reason` says why."""

    reason: U16
    reserved: Annotated[bytes, Var(U32, COIN_RESERVED)] = b""


@frozen
class GiveBlocks:
    """GIVB: blocks one after another."""

    blocks: tuple[Block, ...]


@frozen
class GiveTransactions:
    """GIVT: loose transactions that were asked for."""

    transactions: tuple[Transaction, ...]


Message = (
    Introduction
    | GetPeers
    | GivePeers
    | Ping
    | Pong
    | GetBlocks
    | GiveBlocks
    | AnnounceBlocks
    | GetTransactions
    | AnnounceTransactions
    | GiveTransactions
    | Disconnect
)

_DECLARED: Final[dict[bytes, type[Message]]] = {
    b"INTR": Introduction,
    b"GETP": GetPeers,
    b"GIVP": GivePeers,
    b"PING": Ping,
    b"PONG": Pong,
    b"GETB": GetBlocks,
    b"ANNB": AnnounceBlocks,
    b"GETT": GetTransactions,
    b"ANNT": AnnounceTransactions,
    b"DISC": Disconnect,
}
_IDS: Final[dict[type[Message], bytes]] = {
    **{cls: kind for kind, cls in _DECLARED.items()},
    GiveBlocks: b"GIVB",
    GiveTransactions: b"GIVT",
}


def message_id(value: Message) -> str:
    """The four letters of a message."""
    return _IDS[type(value)].decode()


def encode_body(value: Message) -> bytes:
    """The body of a message."""
    if isinstance(value, GiveBlocks):
        return blocks_body([each.encode() for each in value.blocks])
    if isinstance(value, GiveTransactions):
        return blocks_body([each.raw for each in value.transactions])
    return encode(value)


def blocks_body(raw: Sequence[bytes]) -> bytes:
    """The body of GIVB of signed blocks, or of GIVT of transactions, that are bytes already."""
    return b"".join((_LENGTH.pack(len(raw)), *raw))


def frame(kind: bytes, body: bytes) -> bytes:
    """A frame of a message's id and body."""
    return b"".join((_LENGTH.pack(len(body) + 4), kind, body))


def encode_frame(value: Message) -> bytes:
    """A message as it goes out."""
    return frame(_IDS[type(value)], encode_body(value))


def decode_body(kind: bytes, body: bytes) -> Message:
    """The message of an id; raises CodecError."""
    if kind == b"GIVB":
        return GiveBlocks(_items(body, read_block, COIN_BLOCKS, "blocks"))
    if kind == b"GIVT":
        return GiveTransactions(_items(body, read_transaction, COIN_IDS, "transactions"))
    cls = _DECLARED.get(kind)
    if cls is None:
        raise CodecError(f"a message {kind!r} is not known")
    return decode(cls, body)


def _items(body: bytes, read: Callable[[bytes, int], tuple[T, int]], most: int, what: str) -> tuple[T, ...]:
    if len(body) < 4:
        raise CodecError(f"the count of {what} is cut off")
    (count,) = _LENGTH.unpack_from(body)
    if count > most:
        raise CodecError(f"{count} {what} are given; {most} are allowed")
    items, at = [], 4
    for _ in range(count):
        item, at = read(body, at)
        items.append(item)
    if at != len(body):
        raise CodecError(f"{len(body) - at} bytes follow the {what}")
    return tuple(items)


class Frames:
    """Cuts what comes over a connection into messages. It holds one frame that is not whole, at most."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that are whole now; raises CodecError at the first that is none. Read it to its end:
        what was not asked for stays."""
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while len(buffer) - start >= 4:
                (length,) = _LENGTH.unpack_from(buffer, start)
                if not 4 <= length <= COIN_FRAME:
                    raise CodecError(f"a frame says it has {length} bytes; 4 to {COIN_FRAME} are allowed")
                end = start + 4 + length
                if end > len(buffer):
                    break
                kind, body = bytes(buffer[start + 4 : start + _HEAD]), bytes(buffer[start + _HEAD : end])
                start = end
                yield decode_body(kind, body)
        finally:
            del buffer[:start]


_ILLEGAL = re.compile(rb"[^ -~]|[<>&\"'#@|{}`]")


def clean_agent(data: bytes) -> str:
    """A user agent without characters that it may not have, so that it can be shown to people."""
    return _ILLEGAL.sub(b"", data).decode("ascii")
