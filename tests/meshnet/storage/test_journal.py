"""The journal: what is synced survives a power cut, torn ends are cut and told."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lab.simulation.disk import SimulatedDisk, after_power_cuts
from meshnet.errors import StorageError
from meshnet.storage.disk import CorruptFileError, Disk, DiskFullError, RealDisk
from meshnet.storage.files import read_file, write_file
from meshnet.storage.journal import HEAD, OVERHEAD, Journal, open_journal


def records(disk: Disk, path: str = "/log") -> tuple[list[bytes], Journal]:
    """The records of a journal, and the journal, open."""
    found: list[bytes] = []
    journal = open_journal(disk, path, lambda sequence, data: found.append(data))
    return found, journal


class JournalTests(SynchronousTestCase):
    @given(st.lists(st.binary(max_size=50), max_size=30), st.integers(0, 30))
    def test_round_trip(self, wanted: list[bytes], split: int) -> None:
        """Records come back in order with running sequences, over any number of openings."""
        disk = SimulatedDisk()
        journal = open_journal(disk, "/log", first=7)
        self.assertEqual(
            [journal.append(data) for data in wanted[:split]], list(range(7, 7 + len(wanted[:split])))
        )
        journal.close()
        found, journal = records(disk)
        self.assertEqual(found, wanted[:split])
        self.assertEqual(journal.append_many(wanted[split:]), 7 + len(found))
        journal.close()
        found, journal = records(disk)
        self.assertEqual((found, journal.torn, journal.sequence), (wanted, False, 7 + len(wanted)))

    def test_real_disk(self) -> None:
        """The same on a real file, larger than one read."""
        path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "log")
        wanted = [os.urandom(size) for size in (0, 1, 60_000, 65_536, 30_000) * 10]
        journal = open_journal(RealDisk(), path)
        journal.append_many(wanted)
        journal.sync()
        journal.close()
        found, journal = records(RealDisk(), path)
        self.assertEqual(found, wanted)
        journal.drop()
        self.assertFalse(os.path.exists(path))

    def test_limits(self) -> None:
        """A record that is too long and one too many are refused and leave no trace."""
        disk = SimulatedDisk()
        journal = open_journal(disk, "/log", record_maximum=10, size_maximum=HEAD + 2 * (OVERHEAD + 10))
        self.assertRaises(StorageError, journal.append, bytes(11))
        self.assertRaises(StorageError, journal.append_many, [b"ok", bytes(11)])
        journal.append_many([bytes(10)] * 2)
        self.assertIn("full", str(self.assertRaises(StorageError, journal.append, b"")))
        self.assertEqual(journal.sequence, 2)
        self.assertEqual(len(records(disk)[0]), 2)

    def test_closed(self) -> None:
        """A closed journal says so."""
        journal = open_journal(SimulatedDisk(), "/log")
        journal.close()
        journal.close()
        self.assertIn("closed", str(self.assertRaises(StorageError, journal.append, b"x")))
        self.assertRaises(StorageError, journal.sync)

    def test_other_files_are_not_touched(self) -> None:
        """A file that is no journal is refused and stays as it is."""
        disk = SimulatedDisk()
        for content in (b"", b"something else altogether", b"meshlog1"):
            write_file(disk, "/log", content)
            self.assertRaises(CorruptFileError, open_journal, disk, "/log")
            self.assertEqual(read_file(disk, "/log", 99), content)


class DamageTests(SynchronousTestCase):
    def setUp(self) -> None:
        disk = SimulatedDisk()
        journal = open_journal(disk, "/log")
        self.wanted = [b"first", b"", b"third record"]
        self.ends = [journal.size]
        for data in self.wanted:
            journal.append(data)
            self.ends.append(journal.size)
        self.content = read_file(disk, "/log", 999)

    def opened(self, content: bytes) -> tuple[list[bytes], Journal, SimulatedDisk]:
        disk = SimulatedDisk()
        write_file(disk, "/log", content)
        return *records(disk), disk

    def test_truncated_anywhere(self) -> None:
        """Cut at any length, the whole records before it are there, and the tear is told once."""
        for size in range(self.ends[0], len(self.content) + 1):
            found, journal, disk = self.opened(self.content[:size])
            whole = sum(end <= size for end in self.ends[1:])
            self.assertEqual(found, self.wanted[:whole])
            self.assertEqual(journal.cut, size - self.ends[whole])
            self.assertEqual(journal.append(b"next"), whole)
            found, journal = records(disk)
            self.assertEqual((found, journal.torn), ([*self.wanted[:whole], b"next"], False))

    def test_each_byte_flipped(self) -> None:
        """Any changed byte behind the header is noticed; the records before it stand."""
        for at in range(self.ends[0], len(self.content)):
            spoilt = bytearray(self.content)
            spoilt[at] ^= 0x40
            found, journal, _ = self.opened(bytes(spoilt))
            self.assertEqual(found, self.wanted[: sum(end <= at for end in self.ends[1:])])
            self.assertTrue(journal.torn)

    def test_zeros_at_the_end(self) -> None:
        """Zeros, as a file system may leave them, are no records."""
        found, journal, _ = self.opened(self.content + bytes(5000))
        self.assertEqual((found, journal.cut), (self.wanted, 5000))

    @given(st.binary(max_size=100))
    def test_arbitrary_tail(self, tail: bytes) -> None:
        """Whatever follows, the whole records are there and nothing else breaks."""
        self.setUp()
        found, _, _ = self.opened(self.content + tail)
        self.assertEqual(found[:3], self.wanted)


class PowerCutTests(SynchronousTestCase):
    def check(self, program: Callable[[SimulatedDisk, Callable[[object], None]], None], states: int) -> int:
        """Each state after a cut holds a prefix of b"0", b"1", … no shorter than what was acknowledged."""
        lost = seen = 0
        for state, acknowledged in after_power_cuts(SimulatedDisk(sector=8), program, most=64):
            seen += 1
            found, journal = records(state)
            self.assertEqual(found, [b"%d" % i for i in range(len(found))])
            lost += len(found) < max((int(str(one)) for one in acknowledged), default=0)
            journal.append(b"after")
            journal.sync()
            self.assertEqual(records(state.synced())[0], [*found, b"after"])
        self.assertGreaterEqual(seen, states)
        return lost

    def test_synced_records_survive(self) -> None:
        """Cut anywhere, each acknowledged record is there, none is torn, and the journal goes on."""

        def program(disk: SimulatedDisk, acknowledge: Callable[[object], None]) -> None:
            journal = open_journal(disk, "/log")
            for i in range(4):
                journal.append(b"%d" % i)
                if i % 2:
                    journal.sync()
                    acknowledge(i + 1)

        self.assertEqual(self.check(program, 70), 0)

    def test_process_died_before_its_syncs(self) -> None:
        """What a restarted process reads it may rely on: neither the records nor the file vanish later."""

        def program(disk: SimulatedDisk, acknowledge: Callable[[object], None]) -> None:
            open_journal(disk, "/made")
            disk.rename("/made", "/log")  # and killed before the directory was synced
            open_journal(disk, "/log").append(b"0")  # and killed before the record was synced
            found, _ = records(disk)
            acknowledge(len(found))

        self.assertEqual(self.check(program, 10), 0)

    def test_acknowledged_before_the_sync(self) -> None:
        """Who acknowledges a record that is only appended loses it: the test finds that."""

        def program(disk: SimulatedDisk, acknowledge: Callable[[object], None]) -> None:
            journal = open_journal(disk, "/log")
            journal.append(b"0")
            acknowledge(1)

        self.assertGreater(self.check(program, 5), 0)

    def test_cut_while_recovering(self) -> None:
        """Opening a torn journal may itself be cut, again and again."""
        torn = SimulatedDisk(sector=8)
        journal = open_journal(torn, "/log")
        journal.append(b"0")
        journal.sync()
        journal.append(b"1" * 30)

        def recover(disk: SimulatedDisk, acknowledge: Callable[[object], None]) -> None:
            records(disk)

        for once in torn.crash_states(64):
            for twice, _ in after_power_cuts(once, recover, most=16):
                self.assertEqual(records(twice)[0][:1], [b"0"])


class FaultTests(SynchronousTestCase):
    def test_failed_sync_is_final(self) -> None:
        """After a failed sync the journal takes nothing more and never says again that all is well."""
        disk = SimulatedDisk()
        journal = open_journal(disk, "/log")
        journal.append(b"x")
        disk.fail("sync")
        self.assertRaises(StorageError, journal.sync)
        for attempt in (journal.sync, lambda: journal.append(b"y"), lambda: journal.append_many([b"y"])):
            self.assertIn("takes no more records", str(self.assertRaises(StorageError, attempt)))
        journal.close()

    def test_full_disk(self) -> None:
        """A record for which there is no room is not there; when there is room again, the journal goes on."""
        disk = SimulatedDisk(capacity=HEAD + 2 * (OVERHEAD + 10))
        journal = open_journal(disk, "/log")
        journal.append(bytes(10))
        self.assertRaises(DiskFullError, journal.append, bytes(11))
        self.assertEqual(disk.stat("/log").size, journal.size)
        journal.append(bytes(10))
        self.assertEqual(len(records(disk)[0]), 2)

    def test_failed_write_that_cannot_be_taken_back(self) -> None:
        """If neither the write nor the repair works, the journal refuses from then on."""
        disk = SimulatedDisk()
        journal = open_journal(disk, "/log")
        disk.fail("write", errno.EIO)
        disk.fail("cut", errno.EIO)
        self.assertRaises(StorageError, journal.append, b"x")
        self.assertIn("takes no more", str(self.assertRaises(StorageError, journal.append, b"x")))

    def test_short_writes(self) -> None:
        """Writes that take less than asked are continued."""
        disk = SimulatedDisk()
        disk.short_writes = 5
        journal = open_journal(disk, "/log")
        journal.append(b"a longer record")
        self.assertEqual(records(disk)[0], [b"a longer record"])

    def test_nothing_to_sync(self) -> None:
        """A sync without new records touches no disk."""
        disk = SimulatedDisk()
        journal = open_journal(disk, "/log")
        before = disk.operations
        journal.sync()
        self.assertEqual(disk.operations, before)
