"""The stores of a node at work, each a workload for the search (`search.py`).

Small on purpose: few operations, small sectors, so that all states of a cut can be looked at. What a workload
acknowledges is what the store's own documentation promises to keep.
"""

from __future__ import annotations

import contextlib
from collections.abc import Hashable
from pathlib import Path

from lab.crash.search import Workload
from lab.crash.witness import ANYTHING, Witness
from lab.simulation.disk import SimulatedDisk
from meshnet.cipher.keys import SecretKey
from meshnet.circuit.replay_log import ReplayFiles
from meshnet.node.identity import never_ran, ran, read_key, write_key
from meshnet.storage.disk import ExistingFileError
from meshnet.storage.files import create_file, make_directory, read_file, sweep, write_file
from meshnet.storage.journal import Journal, Whole, open_journal

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
    sweep(disk, "/d")
    journal = open_journal(disk, "/d/log", lambda _, data: found.append(data))
    assert journal.whole is not Whole.DAMAGED, "a power cut was taken for damage"
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
    journal.close()


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
    """Records in groups with one sync each, then an orderly close."""
    return Workload("journal", _append, _open_journal, _directory, (), _append_after)


# The identity of a node and the onions it has seen

_KEY = Path("/k/key")
_SECRET = SecretKey(bytes(range(1, 33)))
_TAGS = tuple(bytes([number]) * 16 for number in range(1, 6))
_UNIX, _SLOT = 1_800_000_000.0, 6_000_000


def _start(disk: SimulatedDisk) -> tuple[ReplayFiles, dict[int, set[bytes]], int]:
    """As a node starts: the key, what was seen, and then the mark of a new key goes."""
    read_key(disk, _KEY)
    files = ReplayFiles(disk, "/d/replay", boot=f"boot {disk.boots}", first_start=never_ran(disk, _KEY))
    slots, refused_until = files.load(_UNIX)
    ran(disk, _KEY)
    return files, slots, refused_until


def _relay(disk: SimulatedDisk, witness: Witness) -> None:
    accepted: list[bytes] = []

    def rule(found: object) -> str | None:
        refused = found if isinstance(found, frozenset) else frozenset()
        again = [tag.hex()[:4] for tag in accepted if tag not in refused]
        return f"onions {', '.join(again)} would be accepted again" if again else None

    witness.rule = rule
    witness.allowed = [ANYTHING]
    files, _, _ = _start(disk)
    for place, tag in enumerate(_TAGS):
        files.append(_SLOT, tag)
        accepted.append(tag)
        witness.says(f"accepts onion {tag.hex()[:4]}")
        if place % 2:
            files.sync()
    files.close()


def _refuses(disk: SimulatedDisk) -> Hashable:
    """Which of the onions this node refuses."""
    if not disk.exists(_KEY):
        return frozenset()
    _, slots, refused_until = _start(disk)
    return frozenset(_TAGS) if refused_until > _UNIX else frozenset(slots.get(_SLOT, ()))


def _directories(disk: SimulatedDisk) -> None:
    make_directory(disk, "/d")
    make_directory(disk, "/k")


def _with_key(disk: SimulatedDisk) -> None:
    _directories(disk)
    write_key(disk, _KEY, _SECRET)


def replay_log() -> Workload:
    """Onions that were accepted are never accepted again, not even those not yet synced."""
    return Workload("replay log", _relay, _refuses, _with_key, relied_on=False)


def _make_key(disk: SimulatedDisk, witness: Witness) -> None:
    witness.begins(_SECRET.secret)
    write_key(disk, _KEY, _SECRET)
    witness.holds()
    _start(disk)


def _key(disk: SimulatedDisk) -> Hashable:
    if not disk.exists(_KEY):
        return None
    secret = read_key(disk, _KEY).secret
    _start(disk)
    return secret


def key_file() -> Workload:
    """The key of a node, from `init` on; once a node has started with it, it must not be lost."""
    return Workload("key file", _make_key, _key, _directories)


def all_workloads() -> list[Workload]:
    """The stores of files that never replace themselves as a whole; for those that do, `generations.py`."""
    return [plain_files(), new_file(), journal(), replay_log(), key_file()]
