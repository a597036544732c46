"""Bit-rot: every byte of every file of a store is flipped once; none may go unnoticed.

A store that is opened after that may say what it found, fall back to the previous generation, or refuse; but
it must never give out something else as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator

from attrs import define, field, frozen

from lab.simulation.disk import SimulatedDisk
from meshnet.errors import MeshError


@frozen
class Rot:
    """A flipped bit: of which file, at which byte, and what became of it."""

    path: str
    offset: int
    bit: int
    told: bool
    """The store said that something is wrong."""
    found: Hashable
    """What it gives out; the text of the error if it refuses."""

    def __str__(self) -> str:
        what = "told" if self.told else "silent"
        return f"byte {self.offset} of {self.path}, bit {self.bit}: {what}, {self.found!r}"


@define
class Looked:
    """What a store gives out, and whether it complains."""

    found: Hashable
    told: bool = field(default=False)


def flipped(
    disk: SimulatedDisk,
    look: Callable[[SimulatedDisk], Looked],
    *,
    skip: Callable[[str], bool] = lambda path: path.endswith(".lock"),
    bit_of: Callable[[int], int] = lambda offset: offset * 5 % 8,
    step: int = 1,
) -> Iterator[Rot]:
    """Flip one bit of each byte (`step`: of each so many) of each file, and look at the store.

    `look` opens it on a copy; a MeshError of it counts as told, any other exception goes to the caller.
    """
    whole = disk.synced()
    for path, content in whole.snapshot().items():
        if content is None or skip(path):
            continue
        for offset in range(0, len(content), step):
            spoilt = whole.synced()
            bit = bit_of(offset)
            spoilt.spoil(path, offset, 1 << bit)
            try:
                seen = look(spoilt)
            except MeshError as fault:
                seen = Looked(str(fault), told=True)
            yield Rot(path, offset, bit, seen.told, seen.found)


def silent(rots: Iterator[Rot], right: Hashable) -> tuple[int, list[Rot]]:
    """How many bytes were flipped, and the flips after which something wrong was given out in silence."""
    count, wrong = 0, []
    for rot in rots:
        count += 1
        if not rot.told and rot.found != right:
            wrong.append(rot)
    return count, wrong
