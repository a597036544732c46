"""The stores of a node at work, each a workload for the search (`search.py`).

Small on purpose: few operations, small sectors, so that all states of a cut can be looked at. What a workload
acknowledges is what the store's own documentation promises to keep.
"""

from __future__ import annotations

import contextlib
from collections.abc import Hashable

from lab.crash.search import Workload
from lab.crash.witness import Witness
from lab.simulation.disk import SimulatedDisk
from meshnet.storage.disk import ExistingFileError
from meshnet.storage.files import create_file, make_directory, read_file, sweep, write_file
from meshnet.storage.journal import Journal, open_journal

MOST = 1 << 16


def _read(disk: SimulatedDisk, path: str) -> bytes | None:
    return read_file(disk, path, MOST) if disk.exists(path) else None


# Plain files


def _files(disk: SimulatedDisk, witness: Witness) -> None:
    for content in (b"first", b"second, a bit longer" * 2, b""):
        witness.begins(content)
        write_file(disk, "/d/file", content)
        witness.holds()


def _file(disk: SimulatedDisk) -> Hashable:
    sweep(disk, "/d")
    return _read(disk, "/d/file")


def _write_again(disk: SimulatedDisk, found: Hashable) -> None:
    write_file(disk, "/d/file", b"after")
    assert _read(disk.synced(), "/d/file") == b"after"


def _directory(disk: SimulatedDisk) -> None:
    make_directory(disk, "/d")


def plain_files() -> Workload:
    """A file replaced again and again (`write_file`). A reader does not make durable what it reads."""
    return Workload("plain file", _files, _file, _directory, go_on=_write_again, relied_on=False)


def _create(disk: SimulatedDisk, witness: Witness) -> None:
    witness.begins(b"made")
    create_file(disk, "/d/file", b"made")
    witness.holds()
    with contextlib.suppress(ExistingFileError):
        create_file(disk, "/d/file", b"made again")


def new_file() -> Workload:
    """A file made if it is not there (`create_file`)."""
    return Workload("new file", _create, _file, _directory, go_on=_write_again, relied_on=False)


# Journal


def _records(disk: SimulatedDisk) -> tuple[tuple[bytes, ...], Journal]:
    found: list[bytes] = []
    journal = open_journal(disk, "/d/log", lambda _, data: found.append(data))
    return tuple(found), journal


def _append(disk: SimulatedDisk, witness: Witness) -> None:
    records, journal = _records(disk)
    for batch in ((b"one",), (b"two", b"three" * 5), (b"",)):
        for record in batch:
            records = (*records, record)
            witness.begins(records)
            journal.append(record)
        journal.sync()
        witness.holds()


def _open_journal(disk: SimulatedDisk) -> Hashable:
    found, journal = _records(disk)
    journal.close()
    return found


def _append_after(disk: SimulatedDisk, found: Hashable) -> None:
    records, journal = _records(disk)
    assert records == found
    journal.append(b"after")
    journal.sync()
    assert _records(disk.synced())[0] == (*records, b"after")


def journal() -> Workload:
    """Records in groups with one sync each."""
    return Workload("journal", _append, _open_journal, _directory, (), _append_after)


def all_workloads() -> list[Workload]:
    """Every store that a node has."""
    return [plain_files(), new_file(), journal()]
