"""A node's stores through power cuts and kills: in simulation, as real processes, on files that forget."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.crash import cuts, fuse
from lab.crash.cuts import Outcome, simulated
from lab.crash.node_stores import NodeStores, Told
from lab.demos import powercut
from lab.processes import environment, python
from lab.simulation.disk import SimulatedDisk
from lab.simulation.models import EXT4, STRICT
from meshnet.storage.disk import RealDisk, StrPath


def whole(outcome: Outcome, count: int) -> None:
    """So many cuts, a start after each, nothing lost."""
    assert not outcome.why, "\n".join(outcome.why)
    assert (outcome.cuts, outcome.started, outcome.lost) == (count, count, 0)
    assert sum(outcome.told.values()) > count


def test_simulated() -> None:
    """Cut at random operations, the node starts each time and has all that it told."""
    whole(simulated(60, seed=1), 60)


@pytest.mark.long
def test_simulated_for_long() -> None:
    """The same, two thousand times."""
    whole(simulated(2000, seed=random.randrange(1 << 32)), 2000)


def test_careless_directories_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk that does not sync directories, something told is soon lost, or the node does not start."""
    monkeypatch.setattr(SimulatedDisk, "fsyncdir", lambda disk, path: None)
    assert simulated(60, seed=1).lost > 0


def test_careless_files_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk that does not sync files, the same."""
    monkeypatch.setattr(cuts.SimulatedDisk, "sync", lambda disk, node, operation, path: None)
    assert simulated(60, seed=1).lost > 0


def test_what_is_missing_is_told() -> None:
    """The check complains about each kind of thing that was told and is not there."""
    stores = NodeStores(SimulatedDisk(), cuts.FOLDER, "boot", 1.8e9, None)
    stores.open()
    told: Told = [
        ("identity", "02" * 33),
        ("state", "1"),
        ("journal", "1"),
        ("database", "1"),
        ("onion", f"{1_800_000_600}:{'00' * 16}"),
        ("service", "name:address"),
    ]
    assert len(stores.check(told)) == len(told)
    assert stores.check([*told[4:], ("removing", "name")]) == stores.check(told[4:5])


@contextlib.contextmanager
def room() -> Iterator[Path]:
    """A directory in memory, where there is one: what a killed process wrote is in memory anyway."""
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield Path(name)


def killed(folder: Path, count: int, *more: str) -> Outcome:
    """Rounds of killed processes, made by a process that may fork."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    command = python("-m", "lab.crash.killed", str(folder), str(count), str(seed), *more)
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    return Outcome(**json.loads(done.stdout.splitlines()[-1]))


def test_killed() -> None:
    """Processes killed at random moments: whatever they said is there for the next one."""
    with room() as folder:
        whole(killed(folder, 40), 40)


@pytest.mark.long
def test_killed_thousands_of_times() -> None:
    """The same with ten nodes, each of which dies two hundred times."""
    for _ in range(10):
        with room() as folder:
            whole(killed(folder, 200), 200)


forgetting = pytest.mark.skipif(fuse.why_not() is not None, reason=str(fuse.why_not()))


@forgetting
def test_forgetting_files() -> None:
    """Real processes on a file system that forgets: what they said is there after each power cut."""
    with room() as folder:
        whole(killed(folder, 12, "fuse"), 12)


@forgetting
@pytest.mark.long
def test_forgetting_files_for_long() -> None:
    """The same, four hundred times."""
    for _ in range(4):
        with room() as folder:
            whole(killed(folder, 100, "fuse"), 100)


@forgetting
def test_the_file_system_forgets() -> None:
    """What is synced is there after a cut, what is not is gone sooner or later; and it is a file system."""
    with room() as folder, fuse.Mounted(folder, STRICT, seed=1) as mounted:
        disk = RealDisk()
        (folder / "room").mkdir()
        _put(disk, folder / "room" / "kept", b"synced")
        os.link(folder / "room" / "kept", folder / "room" / "other")
        assert sorted(os.listdir(folder / "room")) == ["kept", "other"]
        with pytest.raises(FileExistsError):
            (folder / "room").mkdir()
        os.rename(folder / "room" / "other", folder / "renamed")
        assert (folder / "renamed").read_bytes() == b"synced"
        for path in (folder / "room", folder):
            disk.fsyncdir(path)
        lost = 0
        for number in range(12):
            (folder / f"{number}").write_bytes(b"x" * 10_000)
            mounted.cut()
            path = folder / f"{number}"
            lost += not path.exists() or path.read_bytes() != b"x" * 10_000
            assert (folder / "room" / "kept").read_bytes() == b"synced"
        assert lost > 3


def _put(disk: RealDisk, path: StrPath, data: bytes) -> None:
    with contextlib.closing(disk.open(path, "create")) as file:
        file.append(data)
        file.fsync()


@forgetting
def test_a_cut_leaves_no_mount() -> None:
    """When it is closed, nothing is mounted any more."""
    with room() as folder:
        fuse.Mounted(folder, EXT4).close()
        assert not os.path.ismount(folder)
        assert not list(folder.iterdir())


@forgetting
def test_killed_rounds_leave_no_mount() -> None:
    """Nor when the process that uses it is killed outright."""
    with room() as folder:
        command = python("-m", "lab.crash.killed", str(folder), "1000", "0", "fuse")
        process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL)
        while not os.path.ismount(folder):
            assert process.poll() is None
        process.kill()
        process.wait()
        while os.path.ismount(folder):
            pass


@pytest.mark.long
def test_powercut(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demonstration with fewer cuts: all kinds take part, and `ok` is true."""
    monkeypatch.setattr(powercut, "CUTS", {"simulated": 40, "killed": 10, "node": 2})
    report = powercut.once()
    assert report["ok"], report
    assert (report["cuts"], report["started"], report["lost"]) == (52, 52, 0)
    assert "together" in powercut.told(report)
