"""Bench `storage`: what the journal's group commit does on a real disk, and what power cuts do to all stores.

A thousand records of 200 bytes always wait: whoever is answered commits the next one. The disk is that of
the directory for temporary files, or of the current directory if the former is memory; the note names its
file system. CPU is that of all threads, less what the threads spent inside fsync.

The crash rows run every store on simulated disks and look at each state that a power cut may leave
(`lab/crash`): how many different ones were recovered, and in how many something acknowledged was lost.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import tempfile
import time
from pathlib import Path

from attrs import define, field
from twisted.internet.selectreactor import SelectReactor

from lab.benches.rows import Options, Row, row_of
from lab.crash import sqlite, tally
from meshnet.errors import MeshError
from meshnet.storage.disk import Mode, RealDisk, RealFile, StrPath
from meshnet.storage.journal import Journal, open_journal
from meshnet.storage.service import JournalService

WAITING = 1_000
SIZE = 200


def run(options: Options) -> list[Row]:
    """The rows of the journal, and those of the search for losses (`lab/crash`)."""
    return [*_journal(options), *_crash(options)]


def _crash(options: Options) -> list[Row]:
    """States that power cuts left on simulated disks, each recovered as after a restart."""
    tasks = tally.tasks(options.quick)
    total = tally.count(tasks, seen=_say)
    for trace in total.traces:
        print(trace, file=sys.stderr)
    note = f"{len(tasks)} searches, {total.cuts} cuts, {total.checks} checks, seed {tally.SEED}"
    if not sqlite.available():
        note += "; without databases: APSW is missing, ./mesh test installs it"
    return [
        Row("crash_states", float(total.states), "", 1, target=100_000.0, better="higher", note=note),
        Row("crash_lost", float(total.lost), "", 1, target=0.0),
    ]


def _say(done: int, total: tally.Tally) -> None:
    if sys.stderr.isatty():
        print(f"\r{done} searches, {total.states:,} states ", end="", file=sys.stderr, flush=True)


def _journal(options: Options) -> list[Row]:
    warm, count, samples = (1_000, 3_000, 1) if options.quick else (20_000, 100_000, 7)
    with tempfile.TemporaryDirectory(prefix="meshnet-", dir=_directory()) as folder:
        _sample(Path(folder) / "warm", warm)
        found = [_sample(Path(folder) / str(i), count) for i in range(samples)]
        system = file_system(folder)
    batch = sum(one.count for one in found) / sum(one.syncs for one in found)
    sync = sum(one.sync_seconds for one in found) / sum(one.syncs for one in found) * 1e3
    shape = f"{SIZE} B, {WAITING} waiting, {count} a sample"
    return [
        row_of(
            "journal_records_per_s",
            [one.count / one.seconds for one in found],
            "1/s",
            target=20_000.0,
            better="higher",
            note=f"{shape}; fsync on {system}, {sync:.2g} ms for {batch:.0f} records",
        ),
        row_of(
            "journal_cpu_us",
            [one.cpu_seconds / one.count * 1e6 for one in found],
            "µs",
            target=6.0,
            note=f"{shape}; both threads, fsync's own CPU excepted",
        ),
    ]


@define
class _Sample:
    """Records committed, wall seconds, CPU seconds without those in syncs; syncs and the seconds in them."""

    count: int
    seconds: float
    cpu_seconds: float
    syncs: int
    sync_seconds: float


@define(eq=False)
class _TimedFile(RealFile):
    """Counts its syncs, and what they take."""

    syncs: int = field(default=0, init=False)
    seconds: float = field(default=0.0, init=False)
    cpu: float = field(default=0.0, init=False)

    def fsync(self) -> None:
        """See `File`."""
        clock, cpu = time.perf_counter(), time.thread_time()
        super().fsync()
        self.syncs += 1
        self.seconds += time.perf_counter() - clock
        self.cpu += time.thread_time() - cpu


class _TimedDisk(RealDisk):
    """Opens such files; keeps the last one."""

    file: _TimedFile

    def open(self, path: StrPath, mode: Mode = "read", permissions: int = 0o600) -> RealFile:
        """See `Disk`."""
        file = super().open(path, mode, permissions)
        self.file = _TimedFile(file.path, file._descriptor)
        return self.file


def _sample(path: Path, count: int) -> _Sample:
    disk = _TimedDisk()
    journal = open_journal(disk, path)
    file = disk.file
    gc.collect()
    before = file.syncs, file.seconds, file.cpu
    clock, cpu = time.perf_counter(), time.process_time()
    _drive(journal, count)
    seconds, used = time.perf_counter() - clock, time.process_time() - cpu
    syncs, waited = file.syncs - before[0], file.seconds - before[1]
    inside = file.cpu - before[2]
    journal.drop()
    return _Sample(count, seconds, used - inside, syncs, waited)


def _drive(journal: Journal, count: int) -> None:
    """Commits `count` records, `WAITING` of them at any time, under a reactor of its own."""
    reactor = SelectReactor()
    service = JournalService(reactor, journal)
    data, left, answered, faults = os.urandom(SIZE), count, 0, list[Exception]()

    def again(_: int) -> None:
        nonlocal left, answered
        answered += 1
        if left:
            left -= 1
            service.commit(data).addCallbacks(again, failed)
        elif answered == count:
            reactor.stop()

    def failed(why: object) -> None:
        faults.append(MeshError(f"the journal failed: {why}"))
        reactor.stop()

    def begin() -> None:
        nonlocal left
        left -= min(WAITING, count)
        for _ in range(min(WAITING, count)):
            service.commit(data).addCallbacks(again, failed)

    reactor.callWhenRunning(begin)
    reactor.run(installSignalHandlers=False)
    if faults:
        raise faults[0]


def _directory() -> str:
    """Where to write: on a disk, if there is one."""
    here = tempfile.gettempdir()
    return os.getcwd() if file_system(here) in ("tmpfs", "ramfs") else here


def file_system(path: StrPath) -> str:
    """The type of the file system that holds `path`, as Linux tells it; else "an unknown file system"."""
    best, found = "", "an unknown file system"
    real = os.path.realpath(path)
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mounts").read_text().splitlines():
            _, mount, kind, *_ = line.split()
            inside = real == mount or real.startswith(mount.rstrip("/") + "/")
            if inside and len(mount) >= len(best):
                best, found = mount, kind
    return found
