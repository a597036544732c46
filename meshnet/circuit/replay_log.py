"""Replayed onions on disk: one append-only file per slot of expiry, and a note about what may be missing.

    DIRECTORY/<slot>.tags     records of 20 bytes: tag 16 | CRC-32 of the tag
    DIRECTORY/state           JSON: {"boot": text, "refused_until": unix seconds}, framed (storage/kept.py)

`append` writes; `sync` makes durable what was written, once a second and away from the reactor's thread. So
only a fall of the whole machine can lose tags, which `boot`, the system's id of its present run, tells. A
missing or torn file tells the same. Then all onions that could be among the lost ones are refused, for as
long as they are valid, also over further restarts.
"""

from __future__ import annotations

import json
from contextlib import closing
from struct import Struct
from typing import Final
from zlib import crc32

from meshnet.errors import StorageError
from meshnet.limits import EXPIRY_AHEAD, REPLAY_IN_ALL
from meshnet.storage.disk import Disk, File, join
from meshnet.storage.files import make_directory, read_file, sweep, write_file
from meshnet.storage.kept import pack, unpack

_STATE: Final = "state"
_STATE_MAXIMUM: Final = 4_096
_SUFFIX: Final = ".tags"
_record = Struct(">16sI")
RECORD: Final = _record.size


class ReplayFiles:
    """A `ReplayLog` in `directory`, which is nobody else's.

    `boot` is the system's id of its present run (on Linux /proc/sys/kernel/random/boot_id); `first_start`
    says that the node's key has just been made, so that nothing can be missing.
    """

    def __init__(self, disk: Disk, directory: str, *, boot: str, first_start: bool) -> None:
        self._disk = disk
        self._directory = directory
        self._boot = boot
        self._first_start = first_start
        self._files: dict[int, tuple[File, int]] = {}  # with the size
        self._unsynced: dict[int, File] = {}
        self._unnamed = False
        self._closing: list[tuple[File, str]] = []
        self._broken: set[int] = set()

    def load(self, unix: float) -> tuple[dict[int, set[bytes]], int]:
        """See `ReplayLog`."""
        make_directory(self._disk, self._directory)
        sweep(self._disk, self._directory)
        refused_until, complete = self._read_state()
        slots: dict[int, set[bytes]] = {}
        for name in self._disk.listdir(self._directory):
            if name.endswith(_SUFFIX) and name.removesuffix(_SUFFIX).isdecimal():
                slot = int(name.removesuffix(_SUFFIX))
                slots[slot], whole = self._read_slot(slot)
                complete = complete and whole
        if not complete:
            refused_until = max(refused_until, int(unix) + EXPIRY_AHEAD)
        state = json.dumps({"boot": self._boot, "refused_until": refused_until})
        write_file(self._disk, join(self._directory, _STATE), pack(state.encode()))
        return slots, refused_until

    def append(self, slot: int, tag: bytes) -> None:
        """See `ReplayLog`."""
        if slot in self._broken:
            raise StorageError(f"{self._path(slot)} could not be written before")
        file, size = self._files.get(slot) or self._create(slot)
        file.pwrite(_record.pack(tag, crc32(tag)), size)  # what a failed one left, the next one overwrites
        self._files[slot] = file, size + RECORD
        self._unsynced[slot] = file

    def drop(self, slot: int) -> None:
        """See `ReplayLog`; the file goes at the next `sync`."""
        held = self._files.pop(slot, None)
        self._broken.discard(slot)
        if held is not None:
            self._closing.append((held[0], self._path(slot)))

    def sync(self) -> None:
        """Makes durable all that was appended before. May run in another thread than the other methods, one
        call at a time. Raises StorageError; the slot that failed takes no more tags."""
        unsynced, self._unsynced = self._unsynced, {}
        ended, self._closing = self._closing, []
        unnamed, self._unnamed = self._unnamed, False
        gone = {file.path for file, _ in ended}
        fault: StorageError | None = None
        for slot, file in unsynced.items():
            if file.path in gone:
                continue
            try:
                file.fsync()
            except StorageError as error:
                self._broken.add(slot)
                fault = error
        if unnamed:
            self._disk.fsyncdir(self._directory)
        for file, path in ended:
            file.close()
            self._disk.unlink(path)
        if fault is not None:
            raise fault

    def close(self) -> None:
        """Syncs and closes all files."""
        self.sync()
        for file, _ in self._files.values():
            file.close()
        self._files.clear()

    def _path(self, slot: int) -> str:
        return join(self._directory, f"{slot}{_SUFFIX}")

    def _create(self, slot: int) -> tuple[File, int]:
        file = self._disk.open(self._path(slot), "write")
        self._files[slot] = file, file.size()
        self._unnamed = True
        return self._files[slot]

    def _read_state(self) -> tuple[int, bool]:
        """Up to when expiries are refused, and whether the machine has run on since the last start."""
        path = join(self._directory, _STATE)
        if not self._disk.exists(path):
            return 0, self._first_start
        try:
            state = json.loads(unpack(read_file(self._disk, path, _STATE_MAXIMUM)).data)
            return int(state["refused_until"]), state["boot"] == self._boot
        except (StorageError, ValueError, OverflowError, TypeError, LookupError, RecursionError):
            return 0, False

    def _read_slot(self, slot: int) -> tuple[set[bytes], bool]:
        """The tags of a slot's file, and whether it is whole; a torn end is cut off."""
        file = self._disk.open(self._path(slot), "write")
        size = file.size()
        kept = min(size // RECORD, REPLAY_IN_ALL) * RECORD
        whole = kept == size
        data = file.pread(kept, 0)
        if not whole:
            file.truncate(kept)
        tags = set()
        for tag, check in _record.iter_unpack(data[: len(data) // RECORD * RECORD]):
            if crc32(tag) == check:
                tags.add(tag)
            else:
                whole = False
        self._files[slot] = file, kept
        return tags, whole


def boot_id(disk: Disk) -> str:
    """The system's id of its present run; where it has none, every start counts as after a fall."""
    try:
        with closing(disk.open("/proc/sys/kernel/random/boot_id")) as file:
            return file.pread(64, 0).decode("ascii", "replace").strip()
    except StorageError:
        return disk.token()
