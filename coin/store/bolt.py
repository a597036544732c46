"""Bolt files, as the Go node keeps its chain in: read without trust, written anew. A format of its own.

    file        pages of one size; 0 and 1 are meta pages, of which the whole one with the higher count holds
    page        id u64 ‖ flags u16 ‖ count u16 ‖ overflow u32 (pages that belong to it) ‖ elements ‖ data
    meta        page header ‖ magic u32 ‖ version u32 ‖ page size u32 ‖ flags u32 ‖ root u64 ‖ sequence u64
                ‖ free list's page u64 ‖ first unused page u64 ‖ count u64 ‖ FNV-1a of these 56 bytes, u64
    branch (1)  element: position u32 ‖ key size u32 ‖ page u64
    leaf (2)    element: flags u32 ‖ position u32 ‖ key size u32 ‖ value size u32
    free (16)   page ids, u64 each
    bucket      a leaf element with flag 1: root page u64 ‖ sequence u64, and if the root is 0 a page inside

Integers are little-endian, positions count from their element, keys are in the order of their bytes. This is
the format of go.etcd.io/bbolt, version 2. A file is written as a whole, never changed in place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from struct import Struct, error
from typing import Final

from meshnet.errors import CodecError
from meshnet.storage.disk import CorruptFileError, Disk, StrPath, directory_of, name_of
from meshnet.storage.files import make_directory, replacing

MAGIC: Final = 0xED0C_DAED
VERSION: Final = 2
PAGE: Final = 4_096
BRANCH, LEAF, META, FREE = 1, 2, 4, 16
BUCKET: Final = 1
DEEPEST: Final = 32
"""Pages from a root to a leaf; a damaged file may lead in circles."""
_HEADER: Final = Struct("<QHHI")
_META: Final = Struct("<IIIIQQQQQ")
_SUM: Final = Struct("<Q")
_BRANCH: Final = Struct("<IIQ")
_LEAF: Final = Struct("<IIII")
_ROOT: Final = Struct("<QQ")
_FILL: Final = PAGE - _HEADER.size
_CHUNK: Final = 1 << 20

Buckets = Mapping[bytes, Mapping[bytes, bytes]]
"""The top buckets by name, and their values by key."""


class BoltFile:
    """The bytes of a bolt file. `buckets` are its top buckets' names; every method raises CodecError."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._size, self._root = _read_meta(data)
        self._roots = {
            key: value for key, value, flags in self._walk(self._page(self._root), 0) if flags & BUCKET
        }

    @property
    def buckets(self) -> frozenset[bytes]:
        """Names of the top buckets."""
        return frozenset(self._roots)

    def items(self, bucket: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values of a top bucket in the order of keys; nothing if it is not there. Buckets inside
        are passed over."""
        value = self._roots.get(bucket)
        if value is not None:
            with _cutting():
                root, _ = _ROOT.unpack_from(value)
            page = self._page(root) if root else value[_ROOT.size :]
            for key, found, flags in self._walk(page, 0):
                if not flags & BUCKET:
                    yield key, found

    def _page(self, number: int) -> bytes:
        start = number * self._size
        if not number > 1 or start + self._size > len(self._data):
            raise CodecError(f"page {number} of the bolt file is not there")
        overflow = _HEADER.unpack_from(self._data, start)[3]
        end = start + (overflow + 1) * self._size
        if end > len(self._data):
            raise CodecError(f"page {number} of the bolt file is cut off")
        return self._data[start:end]

    def _walk(self, page: bytes, depth: int) -> Iterator[tuple[bytes, bytes, int]]:
        if depth > DEEPEST:
            raise CodecError("the pages of the bolt file lead in circles")
        with _cutting():
            _, flags, count, _ = _HEADER.unpack_from(page)
        if flags & LEAF:
            for i in range(count):
                at = _HEADER.size + i * _LEAF.size
                with _cutting():
                    kind, start, keys, values = _LEAF.unpack_from(page, at)
                start += at
                if start + keys + values > len(page):
                    raise CodecError("an element of the bolt file is cut off")
                yield page[start : start + keys], page[start + keys : start + keys + values], kind
        elif flags & BRANCH:
            for i in range(count):
                with _cutting():
                    child = _BRANCH.unpack_from(page, _HEADER.size + i * _BRANCH.size)[2]
                yield from self._walk(self._page(child), depth + 1)
        else:
            raise CodecError(f"a page of the bolt file has the unknown kind {flags}")


def read_bolt(disk: Disk, path: StrPath) -> BoltFile:
    """The bolt file at `path`, all of it in memory; CorruptFileError if it is none, StorageError."""
    with contextlib.closing(disk.open(path)) as file:
        parts = [file.pread(_CHUNK, at) for at in range(0, file.size(), _CHUNK)]
        try:
            return BoltFile(b"".join(parts))
        except CodecError as fault:
            raise CorruptFileError(f"{file.path} is no whole bolt file: {fault}") from None


def write_bolt(disk: Disk, path: StrPath, buckets: Buckets) -> None:
    """Writes a bolt file of these buckets to `path`, in place of any file there. Durable on return."""
    name = name_of(path)
    make_directory(disk, directory_of(name))
    data = encode_bolt(buckets)
    with replacing(disk, name) as temporary, contextlib.closing(disk.open(temporary, "write")) as file:
        for start in range(0, len(data), _CHUNK):
            file.pwrite(data[start : start + _CHUNK], start)


def encode_bolt(buckets: Buckets) -> bytes:
    """The bytes of a bolt file of these buckets."""
    pages = _Pages()
    top = {
        name: _ROOT.pack(pages.tree(sorted((key, value, 0) for key, value in values.items())), 0)
        for name, values in buckets.items()
    }
    root = pages.tree(sorted((name, value, BUCKET) for name, value in top.items()))
    free = pages.take(_HEADER.pack(pages.next, FREE, 0, 0))
    metas = [_meta(number, root, free, pages.next) for number in range(2)]
    return b"".join([*metas, *pages.written])


class _Pages:
    """Pages behind the two of the metas, as they are written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.next = 2

    def take(self, page: bytes) -> int:
        """Writes a page, filled up to whole ones; its number."""
        number = self.next
        size = -(-len(page) // PAGE)
        self.written.append(page.ljust(size * PAGE, b"\0"))
        self.next += size
        return number

    def tree(self, items: list[tuple[bytes, bytes, int]]) -> int:
        """Writes elements as leaves with branches above; the number of the root."""
        level = [(group[0][0] if group else b"", self._leaf(group)) for group in _groups(items, _LEAF.size)]
        while len(level) > 1:
            groups = _groups([(key, b"", number) for key, number in level], _BRANCH.size)
            level = [(group[0][0], self._branch([(key, page) for key, _, page in group])) for group in groups]
        return level[0][1]

    def _leaf(self, items: list[tuple[bytes, bytes, int]]) -> int:
        heads: list[bytes] = []
        data: list[bytes] = []
        at = _LEAF.size * len(items)
        for index, (key, value, flags) in enumerate(items):
            heads.append(_LEAF.pack(flags, at - index * _LEAF.size, len(key), len(value)))
            data += (key, value)
            at += len(key) + len(value)
        return self._put(LEAF, len(items), heads + data)

    def _branch(self, items: list[tuple[bytes, int]]) -> int:
        heads, data = [], []
        at = _BRANCH.size * len(items)
        for index, (key, page) in enumerate(items):
            heads.append(_BRANCH.pack(at - index * _BRANCH.size, len(key), page))
            data.append(key)
            at += len(key)
        return self._put(BRANCH, len(items), heads + data)

    def _put(self, flags: int, count: int, parts: list[bytes]) -> int:
        body = b"".join(parts)
        overflow = -(-(len(body) + _HEADER.size) // PAGE) - 1
        return self.take(_HEADER.pack(self.next, flags, count, overflow) + body)


def _groups(items: list[tuple[bytes, bytes, int]], head: int) -> list[list[tuple[bytes, bytes, int]]]:
    """Cuts elements into pages: as many as fit, at least two in a branch (`head` bytes each before data)."""
    groups: list[list[tuple[bytes, bytes, int]]] = [[]]
    room = _FILL
    for item in items:
        size = head + len(item[0]) + len(item[1])
        if len(groups[-1]) >= 2 and size > room:
            groups.append([])
            room = _FILL
        groups[-1].append(item)
        room -= size
    return groups


def _meta(number: int, root: int, free: int, end: int) -> bytes:
    body = _META.pack(MAGIC, VERSION, PAGE, 0, root, 0, free, end, number)
    page = _HEADER.pack(number, META, 0, 0) + body + _SUM.pack(_fnv(body))
    return page.ljust(PAGE, b"\0")


def _read_meta(data: bytes) -> tuple[int, int]:
    """The size of a page, and the root's page, of the newer whole meta page."""
    found = []
    size = PAGE
    for _ in range(2):
        for start in (0, size):
            body = data[start + _HEADER.size : start + _HEADER.size + _META.size]
            if len(body) < _META.size:
                continue
            magic, version, page, _, root, _, _, _, count = _META.unpack(body)
            end = start + _HEADER.size + _META.size
            known = magic == MAGIC and version == VERSION and 512 <= page <= 1 << 16
            if known and data[end : end + 8] == _SUM.pack(_fnv(body)):
                found.append((count, page, root))
        size = found[0][1] if found else size
    if not found:
        raise CodecError("it has no whole meta page")
    _, page, root = max(found)
    return page, root


def _fnv(data: bytes) -> int:
    """FNV-1a, 64 bits."""
    value = 0xCBF2_9CE4_8422_2325
    for byte in data:
        value = (value ^ byte) * 0x100_0000_01B3 & 0xFFFF_FFFF_FFFF_FFFF
    return value


@contextlib.contextmanager
def _cutting() -> Iterator[None]:
    try:
        yield
    except error:
        raise CodecError("a page of the bolt file is cut off") from None
