"""Room on the disk: refused early, a reserve for last words, given back and made again."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from lab.simulation.disk import SimulatedDisk
from meshnet.errors import StorageError
from meshnet.limits import RESERVE, SPACE_ENOUGH, SPACE_FULL, SPACE_LOW
from meshnet.storage.disk import DiskFullError
from meshnet.storage.files import write_file
from meshnet.storage.journal import open_journal
from meshnet.storage.reserve import Space


class SpaceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.disk = SimulatedDisk(capacity=100 << 20)
        self.disk.mkdir("/data")
        self.space = Space(self.disk, "/data")
        self.left: int | None = None
        real = self.disk.free_space
        self.patch(self.disk, "free_space", lambda path: real(path) if self.left is None else self.left)

    def look(self, left: int) -> bool:
        self.left = left
        self.space.look()
        return self.space.low

    def test_low_and_enough(self) -> None:
        """Between the two marks it stays as it was: a store does not start and stop with every byte."""
        steps = (SPACE_ENOUGH, SPACE_LOW, SPACE_LOW - 1, SPACE_ENOUGH - 1, SPACE_ENOUGH, SPACE_LOW)
        self.assertEqual([self.look(left) for left in steps], [False, False, True, True, False, False])

    def test_require(self) -> None:
        """What would have to be kept is refused with a sentence that says what to do."""
        self.look(SPACE_ENOUGH)
        self.space.require()
        self.assertEqual(self.space.sentence, "")
        self.look(SPACE_LOW - 1)
        error = self.assertRaises(DiskFullError, self.space.require)
        self.assertIn("/data has 15 MiB left, nothing new is kept until it has 32 MiB: free some", str(error))

    def test_reserve(self) -> None:
        """It takes the room it says, once, and gives it back when the disk is full."""
        self.space.look()
        self.space.fill()
        self.space.fill()
        self.assertEqual(self.disk.stat("/data/reserve").size, RESERVE)
        self.assertFalse(self.look(SPACE_ENOUGH))
        self.assertTrue(self.look(SPACE_FULL - 1))
        self.assertEqual(self.disk.listdir("/data"), [])
        self.space.fill()
        self.assertFalse(self.space.held)
        self.look(SPACE_ENOUGH)
        self.assertTrue(self.space.wanting)
        self.space.fill()
        self.assertTrue(self.disk.exists("/data/reserve"))

    def test_last_words(self) -> None:
        """On a disk with no room at all a record can still be written once the reserve is given back."""
        self.space.look()
        self.space.fill()
        journal = open_journal(self.disk, "/data/log")
        write_file(self.disk, "/data/filler", bytes(100))
        self.disk.capacity = RESERVE + self.disk.stat("/data/log").size + 100
        self.assertRaises(DiskFullError, journal.append, bytes(1000))
        self.space.release()
        journal.append(bytes(1000))
        journal.sync()
        self.assertTrue(self.space.low)

    def test_cannot_be_made(self) -> None:
        """A reserve that cannot be written is told, and is not taken for held."""
        self.space.look()
        self.disk.fail("sync")
        self.assertRaises(StorageError, self.space.fill)
        self.assertFalse(self.space.held)

    def test_incompressible(self) -> None:
        """No two blocks of it are alike, so that no file system keeps it in less."""
        self.space.look()
        self.space.fill()
        content = self.disk.snapshot()["/data/reserve"]
        assert content is not None
        blocks = {content[at : at + 4096] for at in range(0, RESERVE, 4096)}
        self.assertEqual(len(blocks), RESERVE // 4096)
