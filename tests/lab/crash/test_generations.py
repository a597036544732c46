"""Kept files and compaction through every power cut; a failed sync, and a new file from memory."""

from __future__ import annotations

import errno

import pytest

from lab.crash.generations import all_generations
from lab.crash.search import Search, Workload, search
from lab.crash.witness import Witness
from lab.simulation.disk import SimulatedDisk
from lab.simulation.models import MODELS, STRICT, Model
from meshnet.errors import StorageError
from meshnet.storage.files import make_directory
from meshnet.storage.journal import Journal, open_journal

SMALL = STRICT.with_sector(32)


@pytest.mark.parametrize("model", [SMALL, *MODELS], ids=str)
@pytest.mark.parametrize("workload", all_generations(), ids=lambda workload: workload.name)
def test_nothing_is_lost(workload: Workload, model: Model) -> None:
    """Acknowledged contents are found, others only if they were begun, and recovery never fails."""
    report = search(workload, model, most=1 << 10)
    print(report)
    assert not report.lost, "\n".join(map(str, report.losses))
    assert report.states > 3


def found(disk: SimulatedDisk) -> tuple[tuple[bytes, ...], Journal]:
    seen: list[bytes] = []
    journal = open_journal(disk, "/d/log", lambda _, data: seen.append(data))
    return tuple(seen), journal


def commit_and_rescue(disk: SimulatedDisk, witness: Witness, again: bool = False) -> None:
    """Two commits, the second of which fails to sync; then a new file, or the mistake of syncing again."""
    _, journal = found(disk)
    witness.begins((b"one",))
    journal.commit([b"one"])
    witness.holds()
    try:
        witness.begins((b"one", b"two"))
        journal.commit([b"two"])
    except StorageError:
        if again:
            journal._file.fsync()
        else:
            journal.compact([b"one", b"two"])
    witness.holds()


def rescue(again: bool) -> Workload:
    def opened(disk: SimulatedDisk) -> tuple[bytes, ...]:
        return found(disk)[0]

    return Workload(
        "rescue", lambda disk, witness: commit_and_rescue(disk, witness, again), opened,
        lambda disk: make_directory(disk, "/d"), (), relied_on=False,
    )  # fmt: skip


@pytest.mark.parametrize("again", [False, True])
def test_failed_sync(again: bool) -> None:
    """A new file from memory loses nothing; syncing the same file again does, and the search finds it."""
    report = Search(rescue(again), SMALL, most=1 << 10).run(lambda disk: disk.fail("sync", errno.EIO, 3))
    assert bool(report.lost) is again, "\n".join(map(str, report.losses))
