"""The Go node's database: a chain and its pool taken from one, and written as one.

    blocks             hash → header ‖ body             block_sigs   hash → signature 65
    block_tree         sequence u64 BE → u32 n ‖ n × (hash 32 ‖ hash before 32)
    blockchain_meta    "head_seq" → u64 BE
    unspent_pool       output id → unspent output 85    unspent_meta "xorhash" → sum 32
    unspent_pool_addr_index  address 25 → u32 n ‖ n × output id; "addr_index_height" → u64 BE in unspent_meta
    transactions       id → transaction ‖ sequence u64
    uxouts             output id → unspent output 85 ‖ transaction that spent it 32 ‖ its block u64 (or zeros)
    address_in, address_txns  address 25 → u32 n ‖ n × output or transaction ids; history_meta
                       "parsed_height" → u64 BE
    unconfirmed_txns   id as hex → transaction ‖ received i64 ‖ checked i64 ‖ announced i64 ‖ valid i8
    unconfirmed_unspents  id as hex → u32 n ‖ n × unspent output; db_meta "version" → text

Reading takes blocks, signatures and the pool alone: all else follows from them, and may be missing or wrong.
What is read is checked like what any peer gives. Writing makes all buckets; lists are in the chain's order.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Final

from attrs import frozen

from coin.chain.address import Address, text_order
from coin.chain.block import Block, decode_block
from coin.chain.signatures import SIGNATURE_SIZE
from coin.chain.transaction import Transaction, Unspent, read_transaction
from coin.store.bolt import BoltFile, read_bolt, write_bolt
from coin.store.store import ChainStore
from meshnet.errors import CodecError
from meshnet.storage.disk import CorruptFileError, Disk, StrPath

VERSION: Final = b"0.27.1"
"""The version of the Go node whose format this is."""
BUCKETS: Final = (
    *(b"blocks", b"block_sigs", b"block_tree", b"blockchain_meta", b"unspent_pool", b"unspent_meta"),
    *(b"unspent_pool_addr_index", b"transactions", b"uxouts", b"address_in", b"address_txns"),
    *(b"history_meta", b"unconfirmed_txns", b"unconfirmed_unspents", b"db_meta"),
)
_TIMES: Final = Struct("<qqqb")
_U32: Final = Struct("<I")
_U64: Final = Struct("<Q")
_BIG: Final = Struct(">Q")


@frozen
class Unconfirmed:
    """A loose transaction of a Go node; times in nanoseconds since 1970."""

    transaction: Transaction
    received: int
    checked: int
    announced: int
    valid: bool


class GoFile:
    """An open database of a Go node. CorruptFileError where what is asked for is damaged."""

    def __init__(self, file: BoltFile, path: str) -> None:
        self._path = path
        self._file = file
        self._blocks = self._bucket(b"blocks")
        self._signatures = self._bucket(b"block_sigs")
        if not self._blocks:
            raise CorruptFileError(f"{path} has no blocks: it is no database of a Go node")

    def _bucket(self, name: bytes) -> dict[bytes, bytes]:
        try:
            return dict(self._file.items(name))
        except CodecError as error:
            raise CorruptFileError(f"{self._path} is damaged: {error}") from None

    def blocks(self) -> Iterator[Block]:
        """The blocks, the first one of the chain first; of two of one height, that whose successor is here.
        Ends with CorruptFileError where one is missing or damaged."""
        followed = {data[28:60]: digest for digest, data in self._blocks.items()}
        digest: bytes | None = followed.get(bytes(32))
        count = 0
        while digest is not None:
            signature = self._signatures.get(digest)
            if signature is None or len(signature) != SIGNATURE_SIZE:
                raise CorruptFileError(f"{self._path} has no signature of block {count}")
            try:
                block = decode_block(self._blocks[digest] + signature)
            except CodecError as error:
                raise CorruptFileError(f"{self._path}: block {count} is damaged: {error}") from None
            if block.hash != digest or block.header.sequence != count:
                raise CorruptFileError(f"{self._path}: block {count} is damaged: its hash is another")
            yield block
            count += 1
            digest = followed.get(digest)
        if count < len(self._blocks):
            raise CorruptFileError(f"{self._path}: block {count} is missing or damaged")

    def unconfirmed(self) -> list[Unconfirmed]:
        """The pool; what is damaged of it is passed over."""
        found = []
        for data in self._bucket(b"unconfirmed_txns").values():
            try:
                it, end = read_transaction(data)
            except CodecError:
                continue
            if len(data) - end == _TIMES.size:
                received, checked, announced, valid = _TIMES.unpack_from(data, end)
                found.append(Unconfirmed(it, received, checked, announced, valid == 1))
        return found


def read_go_file(disk: Disk, path: StrPath) -> GoFile:
    """The database of a Go node at `path`; CorruptFileError if it is none, StorageError."""
    return GoFile(read_bolt(disk, path), str(path))


def write_go_file(disk: Disk, path: StrPath, store: ChainStore) -> None:
    """Writes all of a store as a Go node's database to `path`, in place of any file there; durable on return.
    It is made in memory: about ten times the bytes of the blocks."""
    write_bolt(disk, path, go_buckets(store))


def go_buckets(store: ChainStore) -> dict[bytes, dict[bytes, bytes]]:
    """What is in the buckets of a Go node that has this chain and pool."""
    made = _Buckets()
    for sequence in range(store.head.header.sequence + 1):
        block = store.block(sequence)
        if block is None:
            raise CorruptFileError(f"Block {sequence} is not in the store: check it.")
        made.add(block)
    head = _BIG.pack(store.head.header.sequence)
    made.set(b"blockchain_meta", b"head_seq", head)
    made.set(b"history_meta", b"parsed_height", head)
    made.set(b"unspent_meta", b"xorhash", store.head.unspents)
    made.set(b"unspent_meta", b"addr_index_height", head)
    made.set(b"db_meta", b"version", VERSION)
    for loose in store.pool.all():
        it = loose.transaction
        times = _TIMES.pack(loose.received, loose.checked, loose.announced, not loose.rule)
        name = it.id.hex().encode()
        made.set(b"unconfirmed_txns", name, it.raw + times)
        # As the Go node makes them: as if they were in the last block.
        head_header = store.head.header
        outputs = [
            Unspent(head_header.time, head_header.sequence, it.id, out.address, out.coins, out.hours)
            for out in it.outputs
        ]
        made.set(b"unconfirmed_unspents", name, _list([each.encode() for each in outputs]))
    return made.finish()


class _Buckets:
    """Buckets as blocks come."""

    def __init__(self) -> None:
        self._values: dict[bytes, dict[bytes, bytes]] = {name: {} for name in BUCKETS}
        self._unspent: dict[bytes, Unspent] = {}
        self._received: dict[Address, list[bytes]] = {}
        self._touched: dict[Address, dict[bytes, None]] = {}

    def set(self, bucket: bytes, key: bytes, value: bytes) -> None:
        """Puts a value."""
        self._values[bucket][key] = value

    def add(self, block: Block) -> None:
        """Puts all that follows from the next block."""
        header = block.header
        self.set(b"blocks", block.hash, block.raw)
        self.set(b"block_sigs", block.hash, block.signature)
        self.set(b"block_tree", _BIG.pack(header.sequence), _list([block.hash + header.previous]))
        for it in block.transactions:
            self.set(b"transactions", it.id, it.raw + _U64.pack(header.sequence))
            for number in it.inputs:
                spent = self._unspent.pop(number)
                where = it.id + _U64.pack(header.sequence)
                self.set(b"uxouts", number, spent.encode() + where)
                self._touched.setdefault(spent.address, {})[it.id] = None
            for made in it.unspents(header.time, header.sequence):
                self._unspent[made.id] = made
                self.set(b"uxouts", made.id, made.encode() + bytes(40))
                self._received.setdefault(made.address, []).append(made.id)
                self._touched.setdefault(made.address, {})[it.id] = None

    def finish(self) -> dict[bytes, dict[bytes, bytes]]:
        """All buckets."""
        owned: dict[Address, list[bytes]] = {}
        for number, unspent in self._unspent.items():
            self.set(b"unspent_pool", number, unspent.encode())
            owned.setdefault(unspent.address, []).append(number)
        for address, numbers in owned.items():
            self.set(b"unspent_pool_addr_index", text_order(address), _list(numbers))
        for address, numbers in self._received.items():
            self.set(b"address_in", text_order(address), _list(numbers))
        for address, ids in self._touched.items():
            self.set(b"address_txns", text_order(address), _list(list(ids)))
        return self._values


def _list(items: list[bytes]) -> bytes:
    return _U32.pack(len(items)) + b"".join(items)
