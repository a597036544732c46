"""Disks that fail: each operation of a workload fails once, in each way that it can, and nothing is lost.

The program may go on or give up; what it has acknowledged must be there, after a restart and after a power
cut. What a reader is told after a failed sync is not asked about: on Linux its pages look clean, and no
program can know that they are not on the medium.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

from attrs import define, evolve, field

from lab.crash.search import Report, Search, Workload
from lab.simulation.disk import SimulatedDisk
from lab.simulation.models import STRICT, Model

FAULTS = (
    *(("write", code) for code in (errno.EIO, errno.ENOSPC, errno.EINTR)),
    *((word, code) for word in ("sync", "syncdir") for code in (errno.EIO, errno.EINTR)),
    *(("rename", errno.EIO), ("make", errno.ENOSPC), ("remove", errno.EIO), ("cut", errno.EIO)),
)
"""Operations and how each may fail."""
FURTHEST = 200


def failing(workload: Workload, model: Model = STRICT, **more: Any) -> Iterator[Report]:
    """One search for each operation of the program and each way in which it can fail; see `Search`."""
    workload = evolve(workload, relied_on=False)
    for word, code in FAULTS:
        for after in range(FURTHEST):
            fault = _Fault(word, code, after)
            name = f"{workload.name}, {errno.errorcode[code]} at {word} {after + 1}"
            search = Search(evolve(workload, name=name), model, **{"most": 64, "deeper": 8, **more})
            yield search.run(fault)
            if not fault.met:
                break


@define
class _Fault:
    """Sets up a disk to fail; `met` is not empty when it has."""

    word: str
    code: int
    after: int
    met: list[bool] = field(factory=list, init=False)

    def __call__(self, disk: SimulatedDisk) -> None:
        disk.fail(self.word, self.code, self.after)
        disk.met = self.met


def short(workload: Workload, model: Model = STRICT, *, size: int = 7, most: int = 64) -> Report:
    """A search on a disk that takes only a few bytes at a call."""

    def set_up(disk: SimulatedDisk) -> None:
        disk.short_writes = size

    search = Search(evolve(workload, name=f"{workload.name}, short writes"), model, most=most, deeper=8)
    return search.run(set_up)
