"""Blocks: their bytes, their hashes. What makes one valid is in `rules`.

All integers are little-endian.

    header        version u32 ‖ time u64 ‖ sequence u64 ‖ fee u64 ‖ previous 32 ‖ body hash 32 ‖ unspents 32
    block         header ‖ u32 n ‖ n × transaction
    signed block  block ‖ signature 65

A header has 124 bytes; the hash of a block is SHA-256 of its header. The body hash is the Merkle root of the
transaction ids. `unspents` is the exclusive-or of the snapshot hashes of all unspent outputs before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from struct import Struct
from typing import Final

from attrs import frozen

from coin.chain.hashing import ZERO, merkle_root
from coin.chain.signatures import SIGNATURE_SIZE
from coin.chain.transaction import MOST_PARTS, Transaction, read_transaction
from meshnet.errors import CodecError

HEADER_SIZE: Final = 124
LARGEST_BLOCK: Final = 1 << 20
"""Bytes of a signed block that are read at most: no message of the network carries a larger one."""
LATEST: Final = (1 << 63) - 1
"""The last time that a block may have: the format has room for as much again, a store has not."""

_HEADER = Struct("<IQQQ32s32s32s")
_COUNT = Struct("<I")


@frozen
class Header:
    """A block's header. `time` is unix seconds, `fee` hours; hashes are 32 bytes."""

    version: int
    time: int
    sequence: int
    fee: int
    previous: bytes
    body: bytes
    unspents: bytes

    def encode(self) -> bytes:
        """124 bytes."""
        return _HEADER.pack(
            self.version, self.time, self.sequence, self.fee, self.previous, self.body, self.unspents
        )

    @classmethod
    def decode(cls, data: bytes) -> Header:
        """Reads 124 bytes; raises CodecError."""
        if len(data) != HEADER_SIZE:
            raise CodecError(f"a block's header has {HEADER_SIZE} bytes, not {len(data)}")
        return cls(*_HEADER.unpack(data))


class Block:
    """A signed block, unchangeable. `raw` are its bytes without the signature."""

    __slots__ = ("_hash", "header", "raw", "signature", "transactions")

    def __init__(
        self,
        header: Header,
        transactions: tuple[Transaction, ...],
        signature: bytes = bytes(SIGNATURE_SIZE),
        raw: bytes = b"",
    ) -> None:
        self.header = header
        self.transactions = transactions
        self.signature = signature
        self.raw = raw or b"".join(
            [header.encode(), _COUNT.pack(len(transactions)), *[each.raw for each in transactions]]
        )
        self._hash: bytes | None = None

    def __repr__(self) -> str:
        return f"<Block {self.header.sequence} {self.hash.hex()}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Block):
            return NotImplemented
        return self.raw == other.raw and self.signature == other.signature

    def __hash__(self) -> int:
        return hash(self.hash)

    @property
    def hash(self) -> bytes:
        """SHA-256 of the header, 32 bytes."""
        found = self._hash
        if found is None:
            found = self._hash = sha256(self.raw[:HEADER_SIZE]).digest()
        return found

    @property
    def body_hash(self) -> bytes:
        """What the header's `body` must be."""
        return merkle_root([each.id for each in self.transactions])

    @property
    def size(self) -> int:
        """Bytes of all transactions together."""
        return len(self.raw) - HEADER_SIZE - 4

    def encode(self) -> bytes:
        """With the signature."""
        return self.raw + self.signature

    def with_signature(self, signature: bytes) -> Block:
        """The same block, signed."""
        return Block(self.header, self.transactions, signature, self.raw)


def read_block(data: bytes, start: int = 0) -> tuple[Block, int]:
    """The signed block that begins at `start`, and where it ends; raises CodecError."""
    at = start + HEADER_SIZE + 4
    if len(data) < at + SIGNATURE_SIZE:
        raise CodecError("a block is cut off")
    header = Header.decode(data[start : start + HEADER_SIZE])
    (count,) = _COUNT.unpack_from(data, at - 4)
    if count > MOST_PARTS or count > len(data) - at:
        raise CodecError("a block has more transactions than there are bytes, or than are allowed")
    transactions = []
    for _ in range(count):
        transaction, at = read_transaction(data, at)
        transactions.append(transaction)
    end = at + SIGNATURE_SIZE
    if end > len(data):
        raise CodecError("a block's signature is cut off")
    return Block(header, tuple(transactions), data[at:end], data[start:at]), end


def decode_block(data: bytes) -> Block:
    """The signed block that `data` is, all of it; raises CodecError."""
    if len(data) > LARGEST_BLOCK:
        raise CodecError(f"a block has at most {LARGEST_BLOCK} bytes, not {len(data)}")
    block, end = read_block(data)
    if end != len(data):
        raise CodecError(f"{len(data) - end} bytes follow a block")
    return block


def new_block(
    previous: Header, transactions: Sequence[Transaction], *, time: int, fee: int, unspents: bytes
) -> Block:
    """The block after `previous`, still to be signed; `unspents` is the sum before it, `fee` in hours."""
    header = Header(
        version=previous.version,
        time=time,
        sequence=previous.sequence + 1,
        fee=fee,
        previous=sha256(previous.encode()).digest(),
        body=merkle_root([each.id for each in transactions]),
        unspents=unspents,
    )
    return Block(header, tuple(transactions))


def genesis_block(transaction: Transaction, time: int, signature: bytes) -> Block:
    """The first block of a chain."""
    header = Header(0, time, 0, 0, ZERO, merkle_root([transaction.id]), ZERO)
    return Block(header, (transaction,), signature)
