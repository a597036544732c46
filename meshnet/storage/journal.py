"""An append-only log of records that says, when it is opened again, what of it is whole.

    file    = "meshlog1" ‖ first sequence u64 ‖ records
    record  = length u32 ‖ crc32 u32 ‖ sequence u64 ‖ data          integers big-endian

The checksum covers length, sequence and data; sequences run on by one. `append` writes at once (so a record
survives the death of the process) and syncs nothing; `sync` makes all that was appended durable (so it
survives the death of the machine). Opening reads the records in order up to the first that is not whole, cuts
the file there and says so in `torn`. A failed sync or an unrepaired write is final: the journal then refuses
everything. One thread may append while another syncs; two must not append.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from struct import Struct
from typing import Final
from zlib import crc32

from meshnet.errors import StorageError
from meshnet.limits import JOURNAL_RECORD, JOURNAL_SIZE
from meshnet.storage.disk import Bytes, CorruptFileError, Disk, File, StrPath, directory_of, name_of
from meshnet.storage.files import write_file

MAGIC: Final = b"meshlog1"
_HEADER: Final = Struct(">8sQ")
_RECORD: Final = Struct(">IIQ")
_CHECKED: Final = Struct(">IQ")
_CHUNK: Final = 1 << 20

Reader = Callable[[int, bytes], None]
"""Called with the sequence and the data of each whole record when a journal is opened."""


class Journal:
    """An open journal. `torn` says that opening cut something off, `cut` how many bytes; `sequence` is that
    of the next record, `size` the file's in bytes."""

    __slots__ = (
        "_broken",
        "_dirty",
        "_disk",
        "_file",
        "_record_maximum",
        "_size_maximum",
        "cut",
        "path",
        "sequence",
        "size",
    )

    def __init__(
        self,
        disk: Disk,
        file: File,
        sequence: int,
        size: int,
        cut: int,
        record_maximum: int,
        size_maximum: int,
    ) -> None:
        self._disk = disk
        self._file = file
        self._broken: StorageError | None = None
        self._dirty = False
        self._record_maximum = record_maximum
        self._size_maximum = size_maximum
        self.path = file.path
        self.sequence = sequence
        self.size = size
        self.cut = cut

    @property
    def torn(self) -> bool:
        """Whether the end of the file was no whole record when it was opened."""
        return self.cut > 0

    def append(self, data: Bytes) -> int:
        """Write one record; its sequence. Not durable before `sync`.

        `StorageError` if it is too long, the file would grow beyond its maximum, or the disk fails; the
        record is then not in the journal.
        """
        sequence = self.sequence
        self._write(self._frame(data, sequence))
        self.sequence = sequence + 1
        return sequence

    def append_many(self, records: Iterable[Bytes]) -> int:
        """Write several records with one write, all or none of them; the sequence of the first."""
        sequence = first = self.sequence
        frames = []
        for data in records:
            frames.append(self._frame(data, sequence))
            sequence += 1
        if frames:
            self._write(b"".join(frames))
        self.sequence = sequence
        return first

    def sync(self) -> None:
        """Make every record so far durable; nothing to do costs nothing.

        A failure is final for this journal: `StorageError` from then on.
        """
        self._check()
        if not self._dirty:
            return
        self._dirty = False  # before the call, so that what another thread appends meanwhile counts
        try:
            self._file.fsync()
        except StorageError as fault:
            self._broken = fault
            raise

    def close(self) -> None:
        """Close the file without syncing; a second call does nothing."""
        if self._broken is None:
            self._broken = StorageError(f"{self.path} is closed")
        self._file.close()

    def drop(self) -> None:
        """Close the journal and remove its file. After a power cut it may be there again."""
        self.close()
        self._disk.unlink(self.path)

    def _frame(self, data: Bytes, sequence: int) -> bytes:
        size = len(data)
        if size > self._record_maximum:
            raise StorageError(
                f"{self.path} takes records of at most {self._record_maximum} bytes, not {size}"
            )
        checksum = crc32(data, crc32(_CHECKED.pack(size, sequence)))
        return _RECORD.pack(size, checksum, sequence) + data

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
        self._dirty = True

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
) -> Journal:
    """Open the journal at `path`, or make it; `reader` gets every whole record that is in it.

    `first` is the sequence of the first record of a new journal. `CorruptFileError` if the file is none of
    ours, which then stays untouched.
    """
    if not disk.exists(path):
        write_file(disk, path, _HEADER.pack(MAGIC, first))
    file = disk.open(path, "write")
    try:
        header = file.pread(_HEADER.size, 0)
        if len(header) != _HEADER.size or not header.startswith(MAGIC):
            raise CorruptFileError(f"{name_of(path)} is not a journal: move it away")
        sequence, end = _scan(file, _HEADER.unpack(header)[1], record_maximum, reader)
        cut = file.size() - end
        if cut:
            file.truncate(end)
        # What was read is told to the caller, so neither it nor the file's name may vanish later: the process
        # that made them may have died before its syncs.
        file.fsync()
        disk.fsyncdir(directory_of(path))
    except BaseException:
        file.close()
        raise
    return Journal(disk, file, sequence, end, cut, record_maximum, size_maximum)


def _scan(file: File, sequence: int, record_maximum: int, reader: Reader | None) -> tuple[int, int]:
    """Read whole records; the sequence that follows and the offset after the last one."""
    base, window, pos = _HEADER.size, b"", 0
    while True:
        whole = _RECORD.size
        if len(window) - pos >= whole:
            size, checksum, found = _RECORD.unpack_from(window, pos)
            if size > record_maximum or found != sequence:
                return sequence, base + pos
            whole += size
        if len(window) - pos < whole:
            window, base, pos = window[pos:], base + pos, 0
            more = file.pread(max(_CHUNK, whole), base + len(window))
            window += more
            if len(window) < whole:
                return sequence, base
            continue
        data = window[pos + _RECORD.size : pos + whole]
        if crc32(data, crc32(_CHECKED.pack(size, sequence))) != checksum:
            return sequence, base + pos
        if reader is not None:
            reader(sequence, data)
        pos += whole
        sequence += 1
