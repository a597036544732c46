"""Kept files: the newest whole generation, whatever happens to the other, and damaged ones set aside."""

from __future__ import annotations

import errno

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lab.simulation.disk import SimulatedDisk
from meshnet.errors import StorageError
from meshnet.limits import QUARANTINE_ITEMS
from meshnet.storage import quarantine as quarantine_module
from meshnet.storage.disk import CorruptFileError
from meshnet.storage.files import read_file, write_file
from meshnet.storage.kept import OVERHEAD, KeptFile, Loaded, pack, unpack
from meshnet.storage.quarantine import Quarantine


class FrameTests(SynchronousTestCase):
    @given(st.binary(max_size=200), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1))
    def test_round_trip(self, data: bytes, format: int, generation: int) -> None:
        """Content, format and generation come back."""
        content = pack(data, format, generation)
        frame = unpack(content)
        self.assertEqual((frame.data, frame.format, frame.generation), (data, format, generation))
        self.assertEqual(len(content), OVERHEAD + len(data))

    @given(st.binary(max_size=300))
    def test_any_bytes(self, content: bytes) -> None:
        """Arbitrary bytes are no frame, and nothing but that is said."""
        self.assertRaises(CorruptFileError, unpack, content)

    def test_each_bit_flipped(self) -> None:
        """Every changed bit, every cut and every addition is noticed."""
        content = pack(b"some content", 3, 7)
        for at in range(len(content) * 8):
            spoilt = bytearray(content)
            spoilt[at // 8] ^= 1 << at % 8
            self.assertRaises(CorruptFileError, unpack, bytes(spoilt))
        for size in range(len(content)):
            self.assertRaises(CorruptFileError, unpack, content[:size])
        self.assertRaises(CorruptFileError, unpack, content + b"\0")


class KeptFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.disk = SimulatedDisk()
        self.quarantine = Quarantine(self.disk, "/quarantine", lambda: 1.79e9)

    def kept(self) -> KeptFile:
        return KeptFile(self.disk, "/state", 100, self.quarantine)

    def spoil(self, slot: int, at: int = 30) -> None:
        file = self.disk.open(f"/state.{slot}", "write")
        byte = file.pread(1, at)[0]
        file.pwrite(bytes([byte ^ 1]), at)

    def test_generations(self) -> None:
        """Each save is found by the next program; the one before it is still there."""
        self.assertEqual(self.kept().load().outcome, Loaded.MISSING)
        for generation in range(1, 6):
            kept = self.kept()
            self.assertEqual(kept.save(b"%d" % generation, 4), generation)
            found = self.kept().load()
            assert found.frame is not None
            self.assertEqual((found.outcome, found.notes), (Loaded.CURRENT, ()))
            self.assertEqual((found.frame.data, found.frame.format), (b"%d" % generation, 4))
        self.assertEqual(unpack(read_file(self.disk, "/state.0", 999)).data, b"4")

    def test_newest_damaged(self) -> None:
        """Then the one before counts, the operator is told, and the next save replaces the damaged one."""
        kept = self.kept()
        kept.save(b"older")
        kept.save(b"newer")
        self.spoil(0)
        kept = self.kept()
        found = kept.load()
        assert found.frame is not None
        self.assertEqual((found.outcome, found.frame.data), (Loaded.PREVIOUS, b"older"))
        self.assertIn(
            "/state.0 is damaged: its checksum is wrong; it was moved to /quarantine/", found.notes[0]
        )
        self.assertFalse(self.disk.exists("/state.0"))
        kept.save(b"newest")
        found = self.kept().load()
        assert found.frame is not None
        self.assertEqual((found.outcome, found.frame.data), (Loaded.CURRENT, b"newest"))

    def test_both_damaged(self) -> None:
        """Nothing valid is told from missing, and a new beginning can be saved."""
        kept = self.kept()
        kept.save(b"a")
        kept.save(b"b")
        self.spoil(0)
        self.spoil(1)
        found = self.kept().load()
        self.assertEqual((found.outcome, found.frame, len(found.notes)), (Loaded.NOTHING_VALID, None, 2))
        self.kept().save(b"c")
        self.assertEqual(self.kept().load().outcome, Loaded.CURRENT)

    def test_without_a_quarantine(self) -> None:
        """Damaged files then stay where they are until they are replaced."""
        self.kept().save(b"a")
        self.spoil(1)
        kept = KeptFile(self.disk, "/state", 100)
        self.assertEqual(kept.load().notes, ("/state.1 is damaged: its checksum is wrong.",))
        self.assertTrue(self.disk.exists("/state.1"))

    def test_quarantine_that_fails(self) -> None:
        """What cannot be moved away is told, and loading goes on."""
        kept = self.kept()
        kept.save(b"a")
        kept.save(b"b")
        self.spoil(0)
        self.disk.fail("make")
        found = self.kept().load()
        self.assertEqual(found.outcome, Loaded.PREVIOUS)
        self.assertIn("could not be moved away", found.notes[0])

    def test_maximum(self) -> None:
        """More than the maximum is not saved, and a larger file is not read."""
        self.assertRaises(StorageError, self.kept().save, bytes(101))
        write_file(self.disk, "/state.0", bytes(5000))
        self.assertEqual(self.kept().load().outcome, Loaded.NOTHING_VALID)

    @given(st.lists(st.sampled_from(["save", "open", "spoil 0", "spoil 1", "fail"]), max_size=25))
    def test_any_order(self, steps: list[str]) -> None:
        """Whatever the order: loading gives the newest that is whole, never another content."""
        self.setUp()
        slots: dict[int, tuple[int, bytes]] = {}
        kept, number = self.kept(), 0
        for step in steps:
            if step == "open":
                kept = self.kept()
            elif step in ("save", "fail"):
                number += 1
                if step == "fail":
                    self.disk.fail("sync")
                    self.assertRaises(StorageError, kept.save, b"%d" % number)
                    continue
                generation = kept.save(b"%d" % number)
                slots[generation % 2] = generation, b"%d" % number
            elif self.disk.exists(f"/state.{step[-1]}"):
                self.spoil(int(step[-1]))
                slots.pop(int(step[-1]), None)
                kept = self.kept()  # who has it open does not look again
            found = self.kept().load()
            newest = max(slots.values(), default=None)
            self.assertEqual(found.frame and found.frame.data, newest and newest[1])


class QuarantineTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.disk = SimulatedDisk()
        self.unix = 1_795_363_385.0
        self.quarantine = Quarantine(self.disk, "/q", lambda: self.unix)

    def take(self, *names: str) -> str:
        for name in names:
            write_file(self.disk, f"/{name}", name.encode())
        return self.quarantine.take("it broke", *(f"/{name}" for name in names))

    def test_names(self) -> None:
        """An item says when and what, holds what belongs together, and why."""
        self.assertEqual(self.take("a.db", "a.db-wal"), "/q/20261122T160305Z-00-a.db")
        self.assertEqual(self.take("a.db"), "/q/20261122T160305Z-01-a.db")
        names = ["20261122T160305Z-00-a.db", "20261122T160305Z-00-a.db-wal", "20261122T160305Z-00.why"]
        self.assertEqual(self.quarantine.items()["20261122T160305Z-00"], names)
        self.assertEqual(read_file(self.disk, f"/q/{names[2]}", 99), b"it broke\n")
        self.assertEqual(self.disk.listdir("/"), ["q"])

    def test_missing_files(self) -> None:
        """Files that are not there are passed over."""
        self.assertEqual(self.quarantine.take("gone", "/none"), "")

    def test_bounds(self) -> None:
        """The oldest items go when there are too many or they are too large; the newest stays."""
        for number in range(40):
            self.unix += 1
            self.take(f"file{number}")
        self.assertEqual(len(self.quarantine.items()), QUARANTINE_ITEMS)
        self.patch(quarantine_module, "QUARANTINE_BYTES", 10)
        self.unix += 1
        last = self.take("large file" * 3)
        self.assertEqual(list(self.quarantine.items()), [last.removeprefix("/q/")[:19]])

    def test_without_links(self) -> None:
        """A file system that knows no second names: the file is renamed."""
        self.disk.fail("make", errno.EPERM, after=3)  # the file, the directory, the reason, then the link
        moved = self.take("a")
        self.assertEqual(read_file(self.disk, moved, 9), b"a")
        self.assertFalse(self.disk.exists("/a"))
