"""Stores that replace themselves as workloads for the search: kept files, compaction, mending."""

from __future__ import annotations

from collections.abc import Hashable

from lab.crash.search import Workload
from lab.crash.witness import Witness
from lab.simulation.disk import SimulatedDisk
from meshnet.storage.files import make_directory, read_file, sweep
from meshnet.storage.journal import HEAD, OVERHEAD, Journal, Whole, open_journal
from meshnet.storage.kept import KeptFile, Loaded
from meshnet.storage.quarantine import Quarantine

MOST = 1 << 16


def _directory(disk: SimulatedDisk) -> None:
    make_directory(disk, "/d")


def _quarantine(disk: SimulatedDisk) -> Quarantine:
    return Quarantine(disk, "/d/quarantine", lambda: 1.79e9)


# Kept files


def _save(disk: SimulatedDisk, witness: Witness) -> None:
    kept = KeptFile(disk, "/d/state", MOST, _quarantine(disk))
    for content in (b"first", b"second, a bit longer" * 2, b"", b"fourth"):
        witness.begins(content)
        kept.save(content)
        witness.holds()


def _load(disk: SimulatedDisk) -> Hashable:
    sweep(disk, "/d")
    found = KeptFile(disk, "/d/state", MOST, _quarantine(disk)).load()
    assert found.outcome in (Loaded.CURRENT, Loaded.MISSING), "no cut damages a generation"
    return found.frame.data if found.frame else None


def _save_again(disk: SimulatedDisk, found: Hashable) -> None:
    KeptFile(disk, "/d/state", MOST).save(b"after")
    assert _load(disk.synced()) == b"after"


def kept_file() -> Workload:
    """A kept file saved again and again."""
    return Workload("kept file", _save, _load, _directory, go_on=_save_again)


def _half_damaged(disk: SimulatedDisk) -> None:
    _directory(disk)
    kept = KeptFile(disk, "/d/state", MOST)
    kept.save(b"older")
    kept.save(b"newest")
    with_damage = disk.open("/d/state.0", "write")
    with_damage.pwrite(b"?", 70)
    with_damage.fsync()


def _load_and_save(disk: SimulatedDisk, witness: Witness) -> None:
    kept = KeptFile(disk, "/d/state", MOST, _quarantine(disk))
    found = kept.load()
    assert found.outcome is Loaded.PREVIOUS or found.frame is None or found.frame.data != b"older"
    witness.begins(b"new")
    kept.save(b"new")
    witness.holds()


def _load_anything(disk: SimulatedDisk) -> Hashable:
    found = KeptFile(disk, "/d/state", MOST, _quarantine(disk)).load()
    return found.frame.data if found.frame else None


def damaged_kept_file() -> Workload:
    """The newest generation is damaged: the one before counts, until there is a new one."""
    return Workload(
        "damaged kept file", _load_and_save, _load_anything, _half_damaged, b"older", relied_on=False
    )


# Journals


def _records(disk: SimulatedDisk) -> tuple[tuple[bytes, ...], Journal]:
    found: list[bytes] = []
    sweep(disk, "/d")
    journal = open_journal(disk, "/d/log", lambda _, data: found.append(data), quarantine=_quarantine(disk))
    return tuple(found), journal


def _compact(disk: SimulatedDisk, witness: Witness) -> None:
    records, journal = _records(disk)
    for batch, whole in (((b"one", b"two"), b"1+2"), ((b"three",), b"1+2+3")):
        for end in range(1, len(batch) + 1):
            witness.begins((*records, *batch[:end]))
        journal.commit(batch)
        witness.holds()
        witness.begins((whole,))
        journal.compact([whole])
        witness.holds()
        records = (whole,)
    journal.close()


def _open_whole(disk: SimulatedDisk) -> Hashable:
    found, journal = _records(disk)
    assert journal.whole is not Whole.DAMAGED, "no cut looks like damage"
    journal.close()
    return found


def _commit_after(disk: SimulatedDisk, found: Hashable) -> None:
    records, journal = _records(disk)
    assert records == found
    journal.commit([b"after"])
    assert _records(disk.synced())[0] == (*records, b"after")


def compaction() -> Workload:
    """A journal compacted between commits."""
    return Workload("compaction", _compact, _open_whole, _directory, (), _commit_after)


def _damaged_middle(disk: SimulatedDisk) -> None:
    _directory(disk)
    journal = open_journal(disk, "/d/log")
    for record in (b"one", b"two", b"three"):
        journal.commit([record])
    file = disk.open("/d/log", "write")
    file.pwrite(b"?", HEAD + OVERHEAD + 3 + OVERHEAD)
    file.fsync()


def _mend(disk: SimulatedDisk, witness: Witness) -> None:
    _, journal = _records(disk)
    assert journal.whole is Whole.DAMAGED
    (item,) = _quarantine(disk).items().values()
    copy = read_file(disk.synced(), f"/d/quarantine/{item[0]}", MOST)
    assert copy.endswith(b"three"), "what is cut off was kept first"
    witness.begins((b"one", b"four"))
    journal.commit([b"four"])
    witness.holds()


def damaged_journal() -> Workload:
    """A record in the middle is damaged: what is whole before it stays, whatever cut comes."""
    return Workload(
        "damaged journal", _mend, lambda disk: _records(disk)[0], _damaged_middle, (b"one",), _commit_after
    )


def all_generations() -> list[Workload]:
    """All of them."""
    return [kept_file(), damaged_kept_file(), compaction(), damaged_journal()]
