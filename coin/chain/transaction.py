"""Transactions and outputs: their bytes, their hashes. Nothing here says whether one is allowed.

All integers are little-endian.

    transaction  length u32 ‖ type u8 ‖ inner hash 32 ‖ u32 n ‖ n × signature 65 ‖ u32 n ‖ n × input 32
                 ‖ u32 m ‖ m × output 37                                         49 + 97 n + 37 m bytes
    output       address 21 ‖ coins u64 ‖ hours u64                                            37 bytes
    unspent      time u64 ‖ block u64 ‖ body;  body = source 32 ‖ output 37               16 + 69 bytes

    inner hash       SHA-256(inputs with their count ‖ outputs with theirs); the same however it is signed
    transaction id   SHA-256 of all bytes, signatures too
    what input i signs   SHA-256(inner hash ‖ input i)
    output id        SHA-256(body); the snapshot hash of an unspent output is SHA-256(body ‖ time ‖ block)

A transaction keeps the bytes it was read from: blocks are full of them, and every hash is over them. So they
are cut by hand here, not by a declared message; `tests/coin/replication/test_messages.py` holds the layouts
of this module and of `block` against declared ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from struct import Struct
from typing import Final

from attrs import field, frozen

from coin.chain.address import ADDRESS_SIZE, Address
from coin.chain.hashing import HASH_SIZE, ZERO
from coin.chain.signatures import SIGNATURE_SIZE, UNSIGNED, recover, sign
from meshnet.cipher.keys import SecretKey
from meshnet.errors import CodecError

MOST_PARTS: Final = 65_535
"""Signatures, inputs or outputs of one transaction; transactions of one block."""
OUTPUT_SIZE: Final = 37
BODY_SIZE: Final = 69
UNSPENT_SIZE: Final = 85

_HEAD = Struct("<IB32sI")
_COUNT = Struct("<I")
_OUTPUT = Struct("<21sQQ")
_UNSPENT = Struct("<QQ32s21sQQ")
_HEAD_SIZE = _HEAD.size - 4  # before the count of signatures


@frozen
class Output:
    """What a transaction gives: `coins` in droplets and `hours`, both 64 bits, to an address."""

    address: Address
    coins: int
    hours: int


@frozen
class Unspent:
    """An output that stands in the chain: made at `time` (unix seconds) in block `block` by transaction
    `source` (32 zero bytes for the genesis output). `id` names it as an input."""

    time: int
    block: int
    source: bytes
    address: Address
    coins: int
    hours: int
    id: bytes = field(init=False, repr=lambda value: value.hex())

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "id", sha256(self.encode()[16:]).digest())

    def encode(self) -> bytes:
        """85 bytes."""
        return _UNSPENT.pack(self.time, self.block, self.source, self.address, self.coins, self.hours)

    @classmethod
    def decode(cls, data: bytes) -> Unspent:
        """Reads 85 bytes; raises CodecError."""
        if len(data) != UNSPENT_SIZE:
            raise CodecError(f"an unspent output has {UNSPENT_SIZE} bytes, not {len(data)}")
        time, block, source, address, coins, hours = _UNSPENT.unpack(data)
        return cls(time, block, source, Address(address), coins, hours)

    @property
    def snapshot(self) -> bytes:
        """The hash by which it stands in the sum over all unspent outputs, 32 bytes."""
        data = self.encode()
        return sha256(data[16:] + data[:16]).digest()


class Transaction:
    """A transaction, unchangeable. `raw` are its bytes; `inner` and `length` what it claims (`rules`)."""

    __slots__ = ("_id", "inner", "inputs", "kind", "length", "outputs", "raw", "signatures")

    def __init__(
        self,
        length: int,
        kind: int,
        inner: bytes,
        signatures: tuple[bytes, ...],
        inputs: tuple[bytes, ...],
        outputs: tuple[Output, ...],
        raw: bytes = b"",
    ) -> None:
        """`raw` is given by who has read it; else the bytes are made. Numbers and lengths must be right."""
        self.length = length
        self.kind = kind
        self.inner = inner
        self.signatures = signatures
        self.inputs = inputs
        self.outputs = outputs
        self.raw = raw or self._encode()
        self._id: bytes | None = None

    def __repr__(self) -> str:
        return f"<Transaction {self.id.hex()}>"

    def __eq__(self, other: object) -> bool:
        return self.raw == other.raw if isinstance(other, Transaction) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def _encode(self) -> bytes:
        signed = _HEAD.pack(self.length, self.kind, self.inner, len(self.signatures))
        return signed + b"".join(self.signatures) + _parts(self.inputs, self.outputs)

    @property
    def id(self) -> bytes:
        """32 bytes; another if it is signed again."""
        found = self._id
        if found is None:
            found = self._id = sha256(self.raw).digest()
        return found

    @property
    def true_inner(self) -> bytes:
        """What `inner` must be, 32 bytes."""
        return sha256(self.raw[_HEAD.size + SIGNATURE_SIZE * len(self.signatures) :]).digest()

    def digest(self, index: int) -> bytes:
        """What the signature of input `index` signs, 32 bytes."""
        return sha256(self.inner + self.inputs[index]).digest()

    def unspents(self, time: int, block: int) -> list[Unspent]:
        """The outputs it makes in block `block` of `time`."""
        # The genesis output alone has no source.
        source = self.id if block else ZERO
        return [Unspent(time, block, source, out.address, out.coins, out.hours) for out in self.outputs]

    def signed(self, keys: Sequence[SecretKey | None]) -> Transaction:
        """The same with input i signed by `keys[i]`, or left as it is where that is None."""
        signatures = tuple(
            old if key is None else sign(key, self.digest(i))
            for i, (old, key) in enumerate(zip(self.signatures, keys, strict=True))
        )
        return Transaction(self.length, self.kind, self.inner, signatures, self.inputs, self.outputs)

    def signers(self) -> tuple[bytes, ...]:
        """The public keys that signed, in the order of the inputs; raises BadSignatureError. This is where
        nearly all time of a check goes."""
        inner, inputs = self.inner, self.inputs
        return tuple(
            recover(signature, sha256(inner + inputs[i]).digest())
            for i, signature in enumerate(self.signatures)
        )


def new_transaction(inputs: Sequence[bytes], outputs: Sequence[Output]) -> Transaction:
    """A transaction still to be signed: every signature is in its place and empty."""
    size = 49 + (SIGNATURE_SIZE + HASH_SIZE) * len(inputs) + OUTPUT_SIZE * len(outputs)
    inner = sha256(_parts(inputs, outputs)).digest()
    return Transaction(size, 0, inner, (UNSIGNED,) * len(inputs), tuple(inputs), tuple(outputs))


def genesis_transaction(address: Address, volume: int) -> Transaction:
    """The first transaction of a chain: no inputs, one output of `volume` droplets and as many hours."""
    return Transaction(0, 0, ZERO, (), (), (Output(address, volume, volume),))


def read_transaction(data: bytes, start: int = 0) -> tuple[Transaction, int]:
    """The transaction that begins at `start`, and where it ends; raises CodecError."""
    try:
        length, kind, inner, count = _HEAD.unpack_from(data, start)
        signatures, at = _cut(data, start + _HEAD_SIZE, count, SIGNATURE_SIZE, "signatures")
        inputs, at = _cut(data, at, _COUNT.unpack_from(data, at)[0], HASH_SIZE, "inputs")
        count = _COUNT.unpack_from(data, at)[0]
    except Exception as error:
        raise _short(error) from None
    first, at = at + 4, at + 4 + OUTPUT_SIZE * count
    if count > MOST_PARTS or at > len(data):
        raise CodecError("a transaction has more outputs than there are bytes, or than are allowed")
    outputs = tuple([Output(*each) for each in _OUTPUT.iter_unpack(data[first:at])])
    return Transaction(length, kind, inner, signatures, inputs, outputs, data[start:at]), at


def decode_transaction(data: bytes) -> Transaction:
    """The transaction that `data` is, all of it; raises CodecError."""
    transaction, end = read_transaction(data)
    if end != len(data):
        raise CodecError(f"{len(data) - end} bytes follow a transaction")
    return transaction


def _parts(inputs: Sequence[bytes], outputs: Sequence[Output]) -> bytes:
    parts = [_COUNT.pack(len(inputs)), *inputs, _COUNT.pack(len(outputs))]
    parts += [_OUTPUT.pack(out.address, out.coins, out.hours) for out in outputs]
    return b"".join(parts)


def _cut(data: bytes, at: int, count: int, size: int, what: str) -> tuple[tuple[bytes, ...], int]:
    """`count` pieces of `size` bytes behind the count at `at`, and where they end."""
    start, end = at + 4, at + 4 + size * count
    if count > MOST_PARTS or end > len(data):
        raise CodecError(f"a transaction has more {what} than there are bytes, or than are allowed")
    return tuple([data[i : i + size] for i in range(start, end, size)]), end


def _short(error: Exception) -> CodecError:
    return error if isinstance(error, CodecError) else CodecError("a transaction is cut off")


assert _OUTPUT.size == OUTPUT_SIZE and ADDRESS_SIZE == 21
