"""Disks that fail or rot: what was acknowledged is still there, and what is wrong is told."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.crash import databases
from lab.crash.faults import failing, short
from lab.crash.rot import Looked, flipped, silent
from lab.crash.search import Search, Workload
from lab.crash.sqlite import available
from lab.crash.tally import of_files
from lab.crash.witness import Witness
from lab.simulation.disk import SimulatedDisk
from lab.simulation.models import MODELS, STRICT
from meshnet.storage.files import read_file, write_file
from meshnet.storage.journal import Whole, open_journal
from meshnet.storage.kept import KeptFile, Loaded

SMALL = STRICT.with_sector(64)
needs_apsw = pytest.mark.skipif(not available(), reason="APSW is not installed; ./mesh test installs it")


@pytest.mark.parametrize("workload", of_files(), ids=lambda workload: workload.name)
def test_one_failing_operation(workload: Workload) -> None:
    """Each operation fails once, in each way it can (EIO, ENOSPC, EINTR); and short writes are continued."""
    for report in [
        *failing(workload, SMALL, most=4, deeper=2, depth=0, kills=False),
        short(workload, SMALL, most=4),
    ]:
        assert not report.lost, "\n".join(map(str, report.losses))


@pytest.mark.long
@pytest.mark.parametrize("workload", of_files(), ids=lambda workload: workload.name)
def test_one_failing_operation_in_more_states(workload: Workload) -> None:
    """The same with more states at each point, and cuts during recovery."""
    for model in MODELS:
        for report in failing(workload, model, most=256):
            assert not report.lost, "\n".join(map(str, report.losses))


@needs_apsw
@pytest.mark.long
@pytest.mark.parametrize("workload", databases.all_databases(), ids=lambda workload: workload.name)
def test_one_failing_operation_of_a_database(workload: Workload) -> None:
    """SQLite, too, keeps what it has committed when one operation fails."""
    for report in failing(workload, STRICT.with_sector(4096), most=4, depth=0, kills=False):
        assert not report.lost, "\n".join(map(str, report.losses))


# Sequences of operations that nobody thought of

steps = st.lists(
    st.one_of(
        st.tuples(st.just("save"), st.sampled_from(["a", "b"]), st.binary(max_size=40)),
        st.tuples(st.just("write"), st.sampled_from(["a", "b"]), st.binary(max_size=40)),
        st.tuples(st.just("append"), st.just("log"), st.binary(max_size=20)),
        st.tuples(st.just("sync"), st.just("log"), st.just(b"")),
        st.tuples(st.just("compact"), st.just("log"), st.binary(max_size=20)),
        st.tuples(st.just("reopen"), st.just("log"), st.just(b"")),
    ),
    max_size=8,
)


def at_work(sequence: list[tuple[str, str, bytes]]) -> Workload:
    """Two kept files, two plain ones and a journal, used as `sequence` says, each with its own witness."""

    def program(disk: SimulatedDisk, witness: Witness) -> None:
        records: tuple[bytes, ...] = ()
        log = witness.of("log", ())
        for name in ("a", "b"):
            witness.of(f"kept {name}")
            witness.of(f"plain {name}")
        journal = open_journal(disk, "/d/log")
        for word, name, data in sequence:
            if word == "save":
                part = witness.of(f"kept {name}")
                part.begins(data)
                KeptFile(disk, f"/d/kept-{name}", 100).save(data)
                part.holds()
            elif word == "write":
                part = witness.of(f"plain {name}")
                part.begins(data)
                write_file(disk, f"/d/plain-{name}", data)
                part.holds()
            elif word == "append":
                records = (*records, data)
                log.begins(records)
                journal.append(data)
            elif word == "sync":
                journal.sync()
                log.holds(records)
            elif word == "compact":
                records = (data,)
                log.begins(records)
                journal.compact(records)
                log.holds()
            else:
                journal.close()
                log.begins(records)
                journal = open_journal(disk, "/d/log")
                log.holds()

    def recover(disk: SimulatedDisk) -> tuple[tuple[str, object], ...]:
        found: list[bytes] = []
        journal = open_journal(disk, "/d/log", lambda _, data: found.append(data))
        assert journal.whole is not Whole.DAMAGED
        contents: list[tuple[str, object]] = [("log", tuple(found))]
        for name in ("a", "b"):
            frame = KeptFile(disk, f"/d/kept-{name}", 100).load().frame
            contents.append((f"kept {name}", frame and frame.data))
            there = disk.exists(f"/d/plain-{name}")
            contents.append((f"plain {name}", read_file(disk, f"/d/plain-{name}", 99) if there else None))
        return tuple(contents)

    return Workload("a sequence", program, recover, lambda disk: disk.mkdir("/d"), relied_on=False)


@settings(max_examples=15)
@given(steps, st.sampled_from([SMALL, *MODELS]), st.integers(0, 3))
def test_any_sequence(sequence: list[tuple[str, str, bytes]], model: object, seed: int) -> None:
    """Whatever is done in whatever order, nothing that was acknowledged is lost."""
    report = Search(at_work(sequence), model, most=24, deeper=4, seed=seed).run()  # type: ignore[arg-type]
    assert not report.lost, "\n".join(map(str, report.losses))


# Bit-rot


def test_rot_of_a_kept_file() -> None:
    """Every byte of both generations: told, and the other generation is given out; or the newest, whole."""
    disk = SimulatedDisk()
    disk.mkdir("/d")
    for content in (b"the one before", b"the newest"):
        KeptFile(disk, "/d/kept", 100).save(content)

    def look(spoilt: SimulatedDisk) -> Looked:
        kept = KeptFile(spoilt, "/d/kept", 100).load()
        assert kept.frame is not None
        return Looked((kept.outcome, kept.frame.data), bool(kept.notes))

    rots = list(flipped(disk, look))
    assert len(rots) == sum(len(content or b"") for content in disk.snapshot().values())
    assert all(rot.told for rot in rots)
    assert {rot.found for rot in rots} == {
        (Loaded.PREVIOUS, b"the one before"),
        (Loaded.PREVIOUS, b"the newest"),
    }


def test_rot_of_a_journal() -> None:
    """Every byte of a journal that was closed in order: told, and what is given out is a whole beginning."""
    disk = SimulatedDisk()
    disk.mkdir("/d")
    journal = open_journal(disk, "/d/log")
    for record in (b"first", b"", b"third record"):
        journal.commit([record])
    journal.close()

    def look(spoilt: SimulatedDisk) -> Looked:
        found: list[bytes] = []
        whole = open_journal(spoilt, "/d/log", lambda _, data: found.append(data)).whole
        assert found == [b"first", b"", b"third record"][: len(found)]
        return Looked(tuple(found), whole is Whole.DAMAGED)

    count, wrong = silent(flipped(disk, look), (b"first", b"", b"third record"))
    assert count > 100
    assert not wrong, "\n".join(map(str, wrong))


@needs_apsw
@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.long)])
def test_rot_of_a_database(step: int) -> None:
    """A byte of a database that was closed in order: it is refused."""
    disk = SimulatedDisk()
    disk.mkdir("/d")
    with databases.opened(disk) as database:
        database.write(lambda it: it.execute("INSERT INTO entry (text) VALUES ('kept')"))

    def look(spoilt: SimulatedDisk) -> Looked:
        with databases.opened(spoilt) as database:
            return Looked(databases.texts(database))

    count, wrong = silent(flipped(disk, look, step=step), ("kept",))
    assert count > 1000
    assert not wrong, "\n".join(map(str, wrong))


def test_rot_is_seen() -> None:
    """A store without a checksum gives out what is not right: the harness says so."""
    disk = SimulatedDisk()
    write_file(disk, "/file", b"content")
    count, wrong = silent(flipped(disk, lambda spoilt: Looked(read_file(spoilt, "/file", 9))), b"content")
    assert (count, len(wrong)) == (7, 7)
