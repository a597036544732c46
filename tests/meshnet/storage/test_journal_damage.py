"""Journals: damage is told from a torn end, what is whole stays, compaction, and any order of it all."""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from twisted.trial.unittest import SynchronousTestCase

from lab.simulation.disk import SimulatedDisk
from meshnet.errors import StorageError
from meshnet.storage.disk import CorruptFileError, Disk
from meshnet.storage.files import read_file, write_file
from meshnet.storage.journal import HEAD, OVERHEAD, Journal, Whole, open_journal
from meshnet.storage.quarantine import Quarantine

WORDS = ["make", "write", "sync", "rename", "syncdir", "open"]


def opened(disk: Disk, aside: bool = True) -> tuple[list[bytes], Journal]:
    """The records of the journal, and the journal, open."""
    found: list[bytes] = []
    quarantine = Quarantine(disk, "/q", lambda: 1.79e9) if aside else None
    journal = open_journal(disk, "/log", lambda _, data: found.append(data), quarantine=quarantine)
    return found, journal


class DamageTests(SynchronousTestCase):
    wanted = (b"first", b"", b"third record", b"last")

    def content(self, close: bool) -> bytes:
        """A journal of synced records, closed in order or just left."""
        disk = SimulatedDisk()
        journal = open_journal(disk, "/log", first=5)
        for data in self.wanted:
            journal.commit([data])
        if close:
            journal.close()
        return read_file(disk, "/log", 999)

    def on(self, content: bytes) -> SimulatedDisk:
        disk = SimulatedDisk()
        write_file(disk, "/log", content)
        return disk

    def ends(self) -> list[int]:
        """Where the head and each record end."""
        ends = [HEAD]
        for data in self.wanted:
            ends.append(ends[-1] + OVERHEAD + len(data))
        return ends

    def test_each_bit_after_an_orderly_close(self) -> None:
        """Any changed bit before the mark is damage; what was there is kept aside; the records before it
        stand, and of a damaged head all of them; nothing happens without a quarantine."""
        content, ends = self.content(close=True), self.ends()
        for bit in range(ends[-1] * 8):
            spoilt = bytearray(content)
            spoilt[bit // 8] ^= 1 << bit % 8
            disk = self.on(bytes(spoilt))
            self.assertRaises(CorruptFileError, opened, disk, aside=False)
            self.assertEqual(read_file(disk, "/log", 999), spoilt)
            found, journal = opened(disk)
            whole = 4 if bit // 8 < HEAD else sum(end * 8 <= bit for end in ends[1:])
            self.assertEqual(found, list(self.wanted[:whole]))
            self.assertEqual(
                (journal.whole, journal.sequence, len(journal.notes)), (Whole.DAMAGED, 5 + whole, 1)
            )
            kept = next(name for name in disk.listdir("/q") if not name.endswith(".why"))
            aside = read_file(disk, f"/q/{kept}", 999)
            self.assertTrue(bytes(spoilt).endswith(aside) and len(aside) >= len(spoilt) - ends[whole] - 20)
            journal.commit([b"more"])
            found, journal = opened(disk)
            self.assertEqual((found, journal.whole), ([*self.wanted[:whole], b"more"], Whole.ALL))

    def test_each_bit_without_a_close(self) -> None:
        """The last record may look like a torn end, which is told as that; before it, all is damage."""
        content, ends = self.content(close=False), self.ends()
        for bit in range(HEAD * 8, len(content) * 8):
            spoilt = bytearray(content)
            spoilt[bit // 8] ^= 1 << bit % 8
            _, journal = opened(self.on(bytes(spoilt)))
            self.assertIs(journal.whole, Whole.DAMAGED if bit < ends[-2] * 8 else Whole.TORN)
            self.assertTrue(journal.torn)

    def test_holes_of_a_power_cut_are_no_damage(self) -> None:
        """Of records not yet synced any may be missing, also one before others: nobody was told of them."""
        disk = SimulatedDisk()
        journal = open_journal(disk, "/log")
        journal.commit([b"a"])
        journal.append(b"b")
        journal.append_many([b"c", b"d"])
        content = bytearray(read_file(disk, "/log", 999))
        content[HEAD + OVERHEAD + 3] ^= 1
        found, journal = opened(self.on(bytes(content)))
        self.assertEqual((found, journal.whole), ([b"a"], Whole.TORN))

    def test_not_a_journal(self) -> None:
        """A file of which nothing is a journal goes aside whole, and a new one begins."""
        disk = self.on(b"something else altogether, and long")
        self.assertRaises(CorruptFileError, opened, disk, aside=False)
        found, journal = opened(disk)
        self.assertEqual((found, journal.whole), ([], Whole.DAMAGED))
        self.assertIn("was moved to /q/", journal.notes[0])

    def test_zeros_behind(self) -> None:
        """A long run of zeros, as a file system may leave it, is a torn end and looked through quickly."""
        _, journal = opened(self.on(self.content(close=False) + bytes(3 << 20)))
        self.assertIs(journal.whole, Whole.TORN)

    @given(st.binary(max_size=300))
    def test_any_tail(self, tail: bytes) -> None:
        """Whatever follows the records, they are there."""
        found, _ = opened(self.on(self.content(close=True) + tail))
        self.assertEqual(found, list(self.wanted))

    def test_reopened_without_writing(self) -> None:
        """Opening and closing again and again does not make the file grow."""
        disk = self.on(self.content(close=True))
        size = disk.stat("/log").size
        for _ in range(3):
            opened(disk)[1].close()
        self.assertEqual(disk.stat("/log").size, size)


class CompactionTests(SynchronousTestCase):
    def test_compact(self) -> None:
        """The new generation has the new records alone; sequences run on."""
        disk = SimulatedDisk()
        journal = open_journal(disk, "/log")
        journal.commit([b"1", b"2", b"3"])
        self.assertEqual(journal.compact([b"all"]), 3)
        self.assertEqual(journal.commit([b"4"]), 4)
        journal.close()
        found, journal = opened(disk)
        self.assertEqual((found, journal.generation, journal.sequence), ([b"all", b"4"], 1, 5))

    def test_large(self) -> None:
        """More than fits one write, given by a generator."""
        disk = SimulatedDisk(sector=4096)
        journal = open_journal(disk, "/log")
        journal.compact(b"%d" % i * 5000 for i in range(800))
        found, _ = opened(disk)
        self.assertEqual(found, [b"%d" % i * 5000 for i in range(800)])

    def test_too_large(self) -> None:
        """Records that do not fit leave the journal as it was, and no file behind."""
        disk = SimulatedDisk()
        journal = open_journal(disk, "/log", size_maximum=200, record_maximum=100)
        journal.commit([b"kept"])
        self.assertRaises(StorageError, journal.compact, [bytes(100)] * 3)
        self.assertRaises(StorageError, journal.compact, [bytes(101)])
        journal.commit([b"more"])
        self.assertEqual(disk.listdir("/"), ["log"])
        self.assertEqual(opened(disk)[0], [b"kept", b"more"])


class JournalMachine(RuleBasedStateMachine):
    """A journal against a list, through appends, syncs, compactions, failures, crashes and restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = SimulatedDisk(sector=64)
        self.model: list[bytes] = []  # what the program believes to be in it
        self.durable = 0  # so many of these must survive
        self.number = 0
        self.journal = open_journal(self.disk, "/log")

    def record(self) -> bytes:
        self.number += 1
        return b"%d" % self.number * (self.number % 40)

    @rule(count=st.integers(1, 5))
    def append(self, count: int) -> None:
        records = [self.record() for _ in range(count)]
        self.journal.append_many(records)
        self.model += records

    @rule()
    def sync(self) -> None:
        self.journal.sync()
        self.durable = len(self.model)

    @rule()
    def compact(self) -> None:
        self.model = [b"all %d" % len(self.model)]
        self.journal.compact(self.model)
        self.durable = 1

    @rule(
        after=st.integers(0, 2), word=st.sampled_from(["make", "write", "sync", "rename", "syncdir", "open"])
    )
    def failed_compaction(self, after: int, word: str) -> None:
        self.disk.fail(word, after=after)
        try:
            self.journal.compact([b"all %d" % len(self.model)])
        except StorageError:
            if self.journal.broken is None:
                return
            self.journal.compact(self.model)
            self.durable = len(self.model)
        else:
            self.model = [b"all %d" % len(self.model)]
            self.durable = 1
        finally:
            self.disk._faults.clear()

    @rule()
    def failed_write(self) -> None:
        self.disk.fail("write")
        with contextlib.suppress(StorageError):
            self.journal.append(self.record())
        assert self.journal.broken is None

    @rule()
    def failed_sync(self) -> None:
        """The way out of a failed sync: a new file from memory."""
        record = self.record()
        self.journal.append(record)
        self.model.append(record)
        self.disk.fail("sync")
        with contextlib.suppress(StorageError):
            self.journal.sync()
        self.journal.compact(self.model)
        self.durable = len(self.model)

    @rule()
    def restart(self) -> None:
        self.journal.close()
        found, self.journal = opened(self.disk)
        assert found == self.model
        assert self.journal.whole is Whole.ALL
        self.durable = len(found)

    @rule(seed=st.integers(0, 2**16))
    def power_cut(self, seed: int) -> None:
        states = list(self.disk.crash_states(8, seed))
        self.disk = states[seed % len(states)]
        found, self.journal = opened(self.disk)
        assert found == self.model[: len(found)], "a prefix, in order"
        assert len(found) >= self.durable, "all that was synced"
        assert self.journal.whole is not Whole.DAMAGED
        self.model, self.durable = found, len(found)

    @invariant()
    def sequence(self) -> None:
        assert self.durable <= len(self.model)


JournalMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
JournalMachineTests = JournalMachine.TestCase
