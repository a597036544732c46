"""An append-only log of records that says, when it is opened again, what of it is whole.

    file    = "meshlog2" ‖ generation u64 ‖ first sequence u64 ‖ crc32 u32 ‖ records
    record  = crc32 u32 ‖ length u32 ‖ sequence u64 ‖ open u32 ‖ data             integers big-endian
    mark    = a record of length 2^32 - 1 without data; its sequence is that of the next record

Checksums cover what stands beside them in the head and the data; sequences run on by one. `open` is how many
records before this one were not durable when it was written: so it is known which records must be there, and
a torn end, as any power cut may leave it, is told from damage. A mark says so at an orderly close.

`append` writes at once (so a record survives the death of the process) and syncs nothing; `sync` makes all
that was appended durable (so it survives the death of the machine). `compact` replaces the file by a new
generation. A failed sync or an unrepaired write is final for the file: the journal refuses everything until
it is compacted to a new one from memory. One thread may append while another syncs; two must not append.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from struct import Struct
from typing import Final
from zlib import crc32

from attrs import define

from meshnet.errors import StorageError
from meshnet.limits import JOURNAL_RECORD, JOURNAL_SEARCH, JOURNAL_SIZE
from meshnet.storage.disk import (
    Bytes,
    CorruptFileError,
    Disk,
    FailingDiskError,
    File,
    StrPath,
    directory_of,
    name_of,
)
from meshnet.storage.files import discard, renew_file, temporary_name, write_file
from meshnet.storage.quarantine import Quarantine

MAGIC: Final = b"meshlog2"
_HEAD: Final = Struct(">8sQQ")
_CHECK: Final = Struct(">I")
_FIELDS: Final = Struct(">IQI")
_RECORD: Final = Struct(">IIQI")
HEAD: Final = _HEAD.size + _CHECK.size
"""Bytes before the first record."""
OVERHEAD: Final = _RECORD.size
"""Bytes of a record beside its data."""
_MARK: Final = 0xFFFF_FFFF
_CHUNK: Final = 1 << 20

Reader = Callable[[int, bytes], None]
"""Called with the sequence and the data of each whole record when a journal is opened."""


class Whole(Enum):
    """What of a journal was whole when it was opened."""

    NEW = "new"
    """It was not there."""
    ALL = "all"
    TORN = "torn"
    """A power cut has torn off the end, which nobody was told to be durable."""
    DAMAGED = "damaged"
    """Records that were durable are lost; what was behind the damage lies in the quarantine."""


class Journal:
    """An open journal.

    `sequence` is that of the next record, `size` the file's in bytes, `generation` how often it was
    compacted, `least` its size right after that in this process, else 0. `whole` and `cut` say what opening
    found and how many bytes it cut off, `notes` what the operator should know, in sentences.
    """

    __slots__ = (
        "_broken",
        "_disk",
        "_durable",
        "_file",
        "_marked",
        "_size_maximum",
        "cut",
        "generation",
        "least",
        "notes",
        "path",
        "record_maximum",
        "sequence",
        "size",
        "whole",
    )

    def __init__(self, disk: Disk, file: File, scan: Scan, record_maximum: int, size_maximum: int) -> None:
        self._disk = disk
        self._file = file
        self._broken: StorageError | None = None
        self._durable = scan.sequence
        self._marked = scan.marked
        self.record_maximum = record_maximum
        self._size_maximum = size_maximum
        self.path = file.path
        self.generation = scan.generation
        self.sequence = scan.sequence
        self.size = scan.end
        self.least = 0
        self.cut = 0
        self.whole = Whole.ALL
        self.notes: list[str] = []

    @property
    def torn(self) -> bool:
        """Whether something was cut off when it was opened."""
        return self.cut > 0

    @property
    def broken(self) -> StorageError | None:
        """Why it takes nothing more, if so."""
        return self._broken

    def append(self, data: Bytes) -> int:
        """Write one record; its sequence. Not durable before `sync`.

        `StorageError` if it is too long, the file would grow beyond its maximum, or the disk fails; the
        record is then not in the journal.
        """
        return self.append_many((data,))

    def append_many(self, records: Iterable[Bytes]) -> int:
        """Write several records with one write, all or none of them; the sequence of the first."""
        first = self.sequence
        frames, sequence = self._frames(records, first, first - self._durable)
        if frames:
            self._write(b"".join(frames))
        self.sequence = sequence
        return first

    def sync(self) -> None:
        """Make every record so far durable; nothing to do costs nothing.

        A failure is final for this file: `StorageError` from then on, until `compact` made a new one.
        """
        self._check()
        sequence = self.sequence  # before the call: what another thread appends meanwhile is not in it
        if sequence == self._durable:
            return
        try:
            self._file.fsync()
        except StorageError as fault:
            self._broken = fault
            raise
        self._durable = sequence

    def commit(self, records: Iterable[Bytes]) -> int:
        """`append_many`, then `sync`: durable on return."""
        first = self.append_many(records)
        self.sync()
        return first

    def compact(self, records: Iterable[Bytes]) -> int:
        """Replace the file by a new generation with these records alone; the sequence of the first, which
        follows on the last one before. Durable on return, and then only is the old file gone.

        Whatever fails, the old file stands, and the journal is as it was; only if syncing the directory
        fails, either may be found later, and the journal refuses everything until a later `compact`. One that
        was broken takes records again.
        """
        scan = Scan(self.generation + 1, self.sequence, self.sequence, HEAD)
        temporary = temporary_name(self._disk, self.path)
        try:
            with contextlib.closing(self._disk.open(temporary, "create")) as file:
                self._fill(file, scan, records)
                file.fsync()
            self._disk.rename(temporary, self.path)
        except BaseException:
            with contextlib.suppress(StorageError):
                self._disk.unlink(temporary)
            raise
        try:
            self._disk.fsyncdir(directory_of(self.path))
            file, old = self._disk.open(self.path, "write"), self._file
        except StorageError as fault:
            self._broken = fault
            raise
        first = self.sequence
        self._file, self._broken = file, None
        self.generation, self.sequence, self.size = scan.generation, scan.sequence, scan.end
        self.least = scan.end
        self._durable = scan.sequence
        self._marked = False
        old.close()
        return first

    def close(self) -> None:
        """Close the file without syncing, marked if all is durable; a second call does nothing."""
        if self._broken is None:
            if self.sequence == self._durable and not self._marked:
                with contextlib.suppress(StorageError):  # without a mark less is known, nothing is lost
                    self._write(_frame(_MARK, self.sequence, 0, b""))
            self._broken = StorageError(f"{self.path} is closed")
        self._file.close()

    def drop(self) -> None:
        """Close the journal and remove its file. After a power cut it may be there again."""
        self.close()
        self._disk.unlink(self.path)

    def _frames(self, records: Iterable[Bytes], sequence: int, open: int) -> tuple[list[Bytes], int]:
        """The parts of these records as they are written, and the sequence that follows."""
        frames: list[Bytes] = []
        fields, check, maximum = _FIELDS.pack, _CHECK.pack, self.record_maximum
        for data in records:
            size = len(data)
            if size > maximum:
                raise StorageError(f"{self.path} takes records of at most {maximum} bytes, not {size}")
            head = fields(size, sequence, open)
            frames += (check(crc32(data, crc32(head))), head, data)
            sequence += 1
            open += open < _MARK
        return frames, sequence

    def _fill(self, file: File, scan: Scan, records: Iterable[Bytes]) -> None:
        """Write a whole new file, some records at a time; `scan` is then what reading it would give."""
        file.pwrite(_head(scan.generation, scan.sequence), 0)
        for chunk in _chunks(records):
            frames, scan.sequence = self._frames(chunk, scan.sequence, 0)  # the file counts only as a whole
            data = b"".join(frames)
            if scan.end + len(data) > self._size_maximum:
                raise StorageError(f"{self.path} may hold {self._size_maximum} bytes, this is more")
            file.pwrite(data, scan.end)
            scan.end += len(data)

    def _write(self, frames: bytes) -> None:
        self._check()
        end = self.size + len(frames)
        if end > self._size_maximum:
            raise StorageError(f"{self.path} is full: it may hold {self._size_maximum} bytes")
        try:
            self._file.pwrite(frames, self.size)
        except StorageError:
            self._repair()
            raise
        self.size = end
        self._marked = False

    def _repair(self) -> None:
        """Take back what a failed write left behind the last record, so that later ones can follow it."""
        try:
            self._file.truncate(self.size)
        except StorageError as fault:
            self._broken = fault

    def _check(self) -> None:
        if self._broken is not None:
            raise StorageError(f"{self.path} takes no more records: {self._broken}") from self._broken


def open_journal(
    disk: Disk,
    path: StrPath,
    reader: Reader | None = None,
    *,
    record_maximum: int = JOURNAL_RECORD,
    size_maximum: int = JOURNAL_SIZE,
    first: int = 0,
    quarantine: Quarantine | None = None,
) -> Journal:
    """Open the journal at `path`, or make it; `reader` gets every whole record before the first that is not.

    `first` is the sequence of the first record of a new journal. A torn end is cut off. Damage goes to the
    quarantine, as far as it reaches, and the journal goes on with what is whole before it; without a
    quarantine, and for a file that is none of ours, `CorruptFileError`, and the file stays untouched.
    """
    name, limits = name_of(path), (record_maximum, size_maximum)
    new = not disk.exists(name)
    if new:
        _begin(disk, name, first)
    try:
        journal = _open(disk, name, reader, *limits, quarantine)
    except NoJournalError as fault:
        if quarantine is None:
            raise
        moved = quarantine.take(str(fault), name)
        _begin(disk, name, first)
        journal = _open(disk, name, reader, *limits, quarantine)
        journal.whole = Whole.DAMAGED
        journal.notes.append(f"{fault}; it was moved to {moved}, and a new one begun.")
    if new:
        journal.whole = Whole.NEW
    return journal


class NoJournalError(CorruptFileError):
    """Nothing of the file is a journal."""


@define
class Scan:
    """What reading a journal's file gives: the sequence of the first record, and of that which follows the
    last whole one, which ends at the offset `end`. `headless`: the head is damaged, and the sequences are
    those that the records themselves say. `marked`: the last one is a mark."""

    generation: int
    first: int
    sequence: int
    end: int
    headless: bool = False
    marked: bool = False


def _open(
    disk: Disk,
    path: str,
    reader: Reader | None,
    record_maximum: int,
    size_maximum: int,
    quarantine: Quarantine | None,
) -> Journal:
    file = disk.open(path, "write")
    try:
        scan = _read_head(file)
        _scan(file, scan, record_maximum, reader)
        if scan.headless and scan.end == HEAD:
            raise NoJournalError(f"{path} is not a journal")
        journal = Journal(disk, file, scan, record_maximum, size_maximum)
        _mend(journal, file, scan, quarantine)
        # What was read is told to the caller, so neither it nor the file's name may vanish later: the process
        # that made them may have died before its syncs.
        try:
            file.fsync()
            disk.fsyncdir(directory_of(path))
        except FailingDiskError:
            renew_file(disk, path)
            journal._file = disk.open(path, "write")
            file.close()
    except BaseException:
        file.close()
        raise
    return journal


def _begin(disk: Disk, path: str, first: int) -> None:
    """A new journal. One whose name may not be durable does not stay: the next attempt would trust it."""
    try:
        write_file(disk, path, _head(0, first))
    except StorageError:
        with contextlib.suppress(StorageError):
            discard(disk, path)
        raise


def _mend(journal: Journal, file: File, scan: Scan, quarantine: Quarantine | None) -> None:
    """Make the file what was read of it; what that loses is told, and kept if it was durable once."""
    journal.cut = file.size() - scan.end
    lost = journal.cut > 0 and _lost(file, scan, journal.cut)
    if scan.headless or lost:
        why = f"{journal.path} is damaged {'at its head' if scan.headless else f'at byte {scan.end}'}"
        if quarantine is None:
            raise CorruptFileError(f"{why}: restore a copy, or move it away")
        copy = quarantine.copy(why, file, 0 if scan.headless else scan.end)
        journal.whole = Whole.DAMAGED
        journal.notes.append(f"{why}; what was there is in {copy}.")
    elif journal.cut:
        journal.whole = Whole.TORN
    if scan.headless:  # in place: torn again, it is as damaged as it was
        file.pwrite(_head(0, scan.first), 0)
    if journal.cut:
        file.truncate(scan.end)


def _head(generation: int, first: int) -> bytes:
    head = _HEAD.pack(MAGIC, generation, first)
    return head + _CHECK.pack(crc32(head))


def _read_head(file: File) -> Scan:
    head = file.pread(HEAD, 0)
    fields, check = head[: _HEAD.size], head[_HEAD.size :]
    if len(head) == HEAD and fields.startswith(MAGIC) and _CHECK.pack(crc32(fields)) == check:
        _, generation, first = _HEAD.unpack(fields)
        return Scan(generation, first, first, HEAD)
    return Scan(0, 0, 0, HEAD, headless=True)


def _scan(file: File, scan: Scan, record_maximum: int, reader: Reader | None) -> None:
    """Read whole records from `scan.end` on, and move `scan` behind them."""
    base, window, pos = scan.end, b"", 0
    believed = not scan.headless  # whether the sequence is known
    while True:
        whole = OVERHEAD
        if len(window) - pos >= whole:
            check, size, found, _ = _RECORD.unpack_from(window, pos)
            if found != scan.sequence and believed:
                return
            if size != _MARK:
                if size > record_maximum:
                    return
                whole += size
        if len(window) - pos < whole:
            window, base, pos = window[pos:], base + pos, 0
            window += file.pread(max(_CHUNK, whole), base + len(window))
            if len(window) < whole:
                return
            continue
        end = pos + whole
        if crc32(window[pos + _CHECK.size : end]) != check:
            return
        if not believed:
            believed, scan.sequence, scan.first = True, found, found
        scan.marked = size == _MARK
        if not scan.marked:
            if reader is not None:
                reader(found, window[pos + OVERHEAD : end])
            scan.sequence += 1
        pos = end
        scan.end = base + pos


def _lost(file: File, scan: Scan, size: int) -> bool:
    """Whether a whole record in the `size` bytes behind what was read says that more had been durable."""
    tail = file.pread(min(size, JOURNAL_SEARCH), scan.end)
    for high in {scan.sequence >> 32, (scan.sequence + len(tail)) >> 32}:
        # A sequence near ours: its upper half, and a lower half that is not zero (zeros are a torn end).
        for match in re.finditer(b"(?=%b(?!\\0{4}))" % re.escape(_CHECK.pack(high)), tail, re.DOTALL):
            at = match.start() - 8
            if at < 0 or at + OVERHEAD > len(tail):
                continue
            check, length, sequence, open = _RECORD.unpack_from(tail, at)
            end = at + OVERHEAD + (0 if length == _MARK else length)
            if sequence - open > scan.sequence and end <= len(tail) and crc32(tail[at + 4 : end]) == check:
                return True
    return False


def _chunks(records: Iterable[Bytes]) -> Iterator[list[Bytes]]:
    """The records, about `_CHUNK` bytes of them at a time."""
    chunk: list[Bytes] = []
    size = 0
    for data in records:
        chunk.append(data)
        size += len(data) + OVERHEAD
        if size >= _CHUNK:
            yield chunk
            chunk, size = [], 0
    yield chunk


def _frame(length: int, sequence: int, open: int, data: bytes) -> bytes:
    head = _FIELDS.pack(length, sequence, open)
    return _CHECK.pack(crc32(data, crc32(head))) + head + data
