"""A file of blocks, to carry a chain from one node to another: simple, checked, read from front to end.

    file    "MESHCOIN" ‖ u32 version 1 ‖ hash of the first block 32 ‖ record … ‖ end
    record  u32 size ‖ signed block, `size` bytes ‖ first 8 bytes of SHA-256 of size and block
    end     u32 0 ‖ u64 number of blocks ‖ first 8 bytes of SHA-256 of these 12 bytes

Integers are little-endian; the blocks are in order, from the first one of the chain. It is written beside
its place and put there when it is whole and durable. Reading checks form and checksums; whether the blocks
are right is for who adds them to a store.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from hashlib import sha256
from struct import Struct
from typing import Final

from coin.chain.block import LARGEST_BLOCK, Block, decode_block
from meshnet.errors import CodecError
from meshnet.storage.disk import CorruptFileError, Disk, File, StrPath, directory_of, name_of
from meshnet.storage.files import make_directory, replacing

MAGIC: Final = b"MESHCOIN"
VERSION: Final = 1
_HEAD: Final = Struct("<8sI32s")
_SIZE: Final = Struct("<I")
_END: Final = Struct("<IQ")
_SUM: Final = 8
_CHUNK: Final = 1 << 20


def write_blocks(disk: Disk, path: StrPath, blocks: Iterable[Block]) -> int:
    """Writes blocks, the first one of their chain first, to `path` in place of any file there; how many.
    Durable on return; raises StorageError, and then the old file stays."""
    name = name_of(path)
    make_directory(disk, directory_of(name))
    count = 0
    with replacing(disk, name) as temporary, contextlib.closing(disk.open(temporary, "write")) as file:
        parts: list[bytes] = []
        size = 0
        for block in blocks:
            if not count:
                parts.append(_HEAD.pack(MAGIC, VERSION, block.hash))
            data = block.encode()
            record = _SIZE.pack(len(data)) + data
            parts += (record, _sum(record))
            count, size = count + 1, size + len(record)
            if size > _CHUNK:
                file.append(b"".join(parts))
                parts, size = [], 0
        end = _END.pack(0, count)
        file.append(b"".join([*parts, end, _sum(end)]))
    return count


def read_blocks(disk: Disk, path: StrPath) -> Iterator[Block]:
    """The blocks of a file, one after the other; CorruptFileError where it is not whole, StorageError."""
    with contextlib.closing(disk.open(path)) as file:
        reader = _Reader(file)
        magic, version, _ = _HEAD.unpack(reader.take(_HEAD.size))
        if magic != MAGIC:
            raise CorruptFileError(f"{file.path} is no file of blocks")
        if version != VERSION:
            raise CorruptFileError(f"{file.path} is of version {version}; only version {VERSION} is known")
        count = 0
        while True:
            head = reader.take(_SIZE.size)
            (size,) = _SIZE.unpack(head)
            if size == 0:
                head += reader.take(_END.size - _SIZE.size)
                if reader.take(_SUM) != _sum(head) or _END.unpack(head)[1] != count:
                    raise CorruptFileError(f"{file.path} is damaged: its end is not that of {count} blocks")
                return
            if size > LARGEST_BLOCK:
                raise CorruptFileError(f"{file.path} is damaged: block {count} would have {size} bytes")
            data = reader.take(size)
            if reader.take(_SUM) != _sum(head + data):
                raise CorruptFileError(f"{file.path} is damaged: the checksum of block {count} is wrong")
            try:
                yield decode_block(data)
            except CodecError as error:
                raise CorruptFileError(f"{file.path}: block {count} is none: {error}") from None
            count += 1


class _Reader:
    """Bytes of a file in order, read in large pieces."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._offset = 0
        self._data = b""
        self._at = 0

    def take(self, size: int) -> bytes:
        """The next `size` bytes; CorruptFileError if there are fewer."""
        if len(self._data) - self._at < size:
            more = self._file.pread(max(_CHUNK, size), self._offset)
            self._offset += len(more)
            self._data, self._at = self._data[self._at :] + more, 0
            if len(self._data) < size:
                raise CorruptFileError(f"{self._file.path} is cut off: copy it again")
        start, self._at = self._at, self._at + size
        return self._data[start : self._at]


def _sum(data: bytes) -> bytes:
    return sha256(data).digest()[:_SUM]
