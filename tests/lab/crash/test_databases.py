"""Databases on the simulated disk: what is committed survives every cut, and a careless setting is found."""

from __future__ import annotations

import pytest

from lab.crash import databases
from lab.crash.search import Report, Search, Workload, search
from lab.crash.sqlite import available, connect_on
from lab.simulation.disk import SimulatedDisk
from lab.simulation.models import EXT4, MODELS, STRICT, Model
from meshnet.storage.database import Profile

pytestmark = pytest.mark.skipif(not available(), reason="APSW is not installed; ./mesh test installs it")

OFF = Profile("OFF", "integrity_check")  # type: ignore[arg-type]


def nothing_lost(report: Report) -> None:
    print(report)
    assert not report.lost, "\n".join(map(str, report.losses))


@pytest.mark.parametrize("model", [STRICT, EXT4], ids=str)
@pytest.mark.parametrize("workload", databases.all_databases()[:3], ids=lambda workload: workload.name)
def test_nothing_is_lost(workload: Workload, model: Model) -> None:
    """Committed transactions are there, others as a whole or not at all, and the database always opens."""
    nothing_lost(Search(workload, model, most=5, depth=0, kills=False).run())


def test_killed() -> None:
    """The program is killed anywhere, the next one reads and tells, the power goes: it is still there."""
    nothing_lost(Search(databases.transactions(), STRICT, most=1, deeper=4).run())


def test_killed_while_rebuilding() -> None:
    """What a killed process has filled again is made durable before it counts as rebuilt."""
    nothing_lost(Search(databases.rebuilding(), EXT4, most=1, deeper=2, depth=0).run())


@pytest.mark.long
@pytest.mark.parametrize("model", [STRICT, STRICT.with_sector(4096), *MODELS], ids=str)
@pytest.mark.parametrize("workload", databases.all_databases(), ids=lambda workload: workload.name)
def test_nothing_is_lost_in_more_states(workload: Workload, model: Model) -> None:
    """The same with a thousand states at each point."""
    nothing_lost(Search(workload, model, most=1000, deeper=16).run())


@pytest.mark.parametrize("model", [STRICT, EXT4], ids=str)
@pytest.mark.parametrize(
    "profile", [OFF, Profile("NORMAL", "quick_check")], ids=lambda each: each.synchronous
)
def test_a_careless_setting_is_found(profile: Profile, model: Model) -> None:
    """Who does not sync what he acknowledges loses it (synchronous=OFF, and NORMAL taken for durable)."""
    report = search(databases.transactions(profile, f"synchronous={profile.synchronous}"), model, most=64)
    assert report.lost == 1
    assert "acknowledges ('one',)" in str(report.losses[0])


def test_a_full_disk() -> None:
    """No room for a transaction: it fails with a sentence, and the database goes on when there is room."""
    disk = SimulatedDisk()
    disk.mkdir("/d")
    with databases.opened(disk) as database:
        disk.fail("write", 28)
        with pytest.raises(Exception, match="no space left to write"):
            database.write(lambda it: it.execute("INSERT INTO entry (text) VALUES (?)", ("x" * 9000,)))
        database.write(lambda it: it.execute("INSERT INTO entry (text) VALUES ('kept')"))
        assert databases.texts(database) == ("kept",)


def test_a_dead_program_does_nothing_more() -> None:
    """A connection that was never closed leaves the files as they are when it is forgotten."""
    disk = SimulatedDisk()
    disk.mkdir("/d")
    connection = connect_on(disk)("/d/data.db")
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE entry (text TEXT)")
    before = disk.snapshot()
    del connection
    assert disk.snapshot() == before
