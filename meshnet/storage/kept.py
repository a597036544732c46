"""Files that know whether they are whole: framed with a checksum, the previous generation kept.

    frame = "meshkept" ‖ format u32 ‖ generation u64 ‖ length u64 ‖ SHA-256 ‖ content     integers big-endian

The hash covers everything else. `format` is the caller's, for the layout of the content.

A `KeptFile` NAME lies in NAME.0 and NAME.1; a new generation replaces the older of the two (`files.py`), so
nothing touches the newest while it is the only one that must not be lost. Loading takes the newest whole
one. A file that is not whole goes to the quarantine and is told; it is never an exception.
"""

from __future__ import annotations

import contextlib
from enum import Enum
from hashlib import sha256
from struct import Struct
from typing import Final

from attrs import frozen

from meshnet.errors import StorageError
from meshnet.storage.disk import (
    Bytes,
    CorruptFileError,
    Disk,
    MissingFileError,
    StrPath,
    directory_of,
    name_of,
)
from meshnet.storage.files import read_file, write_file
from meshnet.storage.quarantine import Quarantine

MAGIC: Final = b"meshkept"
_HEAD: Final = Struct(">8sIQQ")
OVERHEAD: Final = _HEAD.size + 32
"""Bytes of a frame beside its content."""


@frozen
class Frame:
    """What a whole file holds."""

    data: bytes
    format: int
    generation: int


def pack(data: Bytes, format: int = 0, generation: int = 0) -> bytes:
    """The framed content."""
    head = _HEAD.pack(MAGIC, format, generation, len(data))
    return b"".join((head, _hash(head, data), data))


def unpack(content: bytes) -> Frame:
    """What a framed file holds; `CorruptFileError` if it is not whole."""
    head, check, data = content[: _HEAD.size], content[_HEAD.size : OVERHEAD], content[OVERHEAD:]
    if len(content) < OVERHEAD or not head.startswith(MAGIC):
        raise CorruptFileError("it does not begin as it should")
    _, format, generation, length = _HEAD.unpack(head)
    if length != len(data):
        raise CorruptFileError(f"it holds {len(data)} bytes instead of {length}")
    if _hash(head, data) != check:
        raise CorruptFileError("its checksum is wrong")
    return Frame(data, format, generation)


def _hash(head: bytes, data: Bytes) -> bytes:
    digest = sha256(head)
    digest.update(data)
    return digest.digest()


class Loaded(Enum):
    """What loading a kept file came to."""

    CURRENT = "current"
    PREVIOUS = "previous"
    """The other of its two files is damaged: this may be the generation before the newest."""
    MISSING = "missing"
    NOTHING_VALID = "nothing valid"
    """There was something, and nothing of it is whole."""


@frozen
class Kept:
    """The result of loading: `frame` is None unless something whole was there; `notes` tell the operator
    what was not, in sentences."""

    outcome: Loaded
    frame: Frame | None
    notes: tuple[str, ...] = ()


class KeptFile:
    """The kept file `path`, with contents of at most `maximum` bytes. For one thread at a time."""

    def __init__(self, disk: Disk, path: StrPath, maximum: int, quarantine: Quarantine | None = None) -> None:
        self._disk = disk
        self._path = name_of(path)
        self._maximum = maximum
        self._quarantine = quarantine
        self._generation: int | None = None

    def load(self) -> Kept:
        """The newest generation that is whole. StorageError only for what the disk does."""
        with contextlib.suppress(MissingFileError):  # what is read may be relied on: whoever saved it may
            self._disk.fsyncdir(directory_of(self._path))  # have been killed before this sync
        notes: list[str] = []
        frames = [frame for slot in (0, 1) if (frame := self._read(slot, notes)) is not None]
        newest = max(frames, key=lambda frame: frame.generation, default=None)
        self._generation = newest.generation if newest else 0
        if newest is None:
            return Kept(Loaded.NOTHING_VALID if notes else Loaded.MISSING, None, tuple(notes))
        return Kept(Loaded.PREVIOUS if notes else Loaded.CURRENT, newest, tuple(notes))

    def save(self, data: Bytes, format: int = 0) -> int:
        """Make `data` the newest generation; its number. Durable on return.

        On StorageError the generation before stands; it may be the new one if syncing the directory failed.
        """
        if len(data) > self._maximum:
            raise StorageError(f"{self._path} takes at most {self._maximum} bytes, not {len(data)}")
        if self._generation is None:
            self.load()
        generation = (self._generation or 0) + 1
        write_file(self._disk, self._slot(generation % 2), pack(data, format, generation))
        self._generation = generation
        return generation

    def _slot(self, slot: int) -> str:
        return f"{self._path}.{slot}"

    def _read(self, slot: int, notes: list[str]) -> Frame | None:
        path = self._slot(slot)
        try:
            content = read_file(self._disk, path, self._maximum + OVERHEAD)
        except MissingFileError:
            return None
        except CorruptFileError as fault:
            why = str(fault)
        else:
            try:
                return unpack(content)
            except CorruptFileError as fault:
                why = f"{path} is damaged: {fault}"
        notes.append(f"{why}{self._set_aside(path, why)}.")
        return None

    def _set_aside(self, path: str, why: str) -> str:
        """Move a damaged file away; what became of it, as the end of a sentence."""
        if self._quarantine is None:
            return ""
        try:
            return f"; it was moved to {self._quarantine.take(why, path)}"
        except StorageError as fault:
            return f"; it could not be moved away: {fault}"
