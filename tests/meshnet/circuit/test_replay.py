"""Onions seen before, in memory and on disk."""

from __future__ import annotations

import tempfile
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from meshnet.circuit import replay
from meshnet.circuit.replay import NoLog, Replays, slot_of
from meshnet.circuit.replay_log import RECORD, ReplayFiles, boot_id
from meshnet.errors import Reason, StorageError
from meshnet.limits import EXPIRY_AHEAD, EXPIRY_PAST
from meshnet.storage.disk import RealDisk, join
from meshnet.storage.kept import pack

UNIX = 1_700_000_100.0  # on the grid
PEER = b"p" * 33


def tag(number: int) -> bytes:
    return number.to_bytes(16, "big")


class ReplaysTests(SynchronousTestCase):
    def test_once(self) -> None:
        """An onion is admitted once; another with the same expiry is another."""
        known = Replays(NoLog(), UNIX)
        expiry = int(UNIX) + 900
        self.assertIsNone(known.refused(expiry, tag(1)))
        self.assertIsNone(known.admit(expiry, tag(1), PEER))
        self.assertIs(known.refused(expiry, tag(1)), Reason.REPLAY)
        self.assertIs(known.admit(expiry, tag(1), b"q" * 33), Reason.REPLAY)
        self.assertIsNone(known.admit(expiry, tag(2), PEER))

    def test_timely(self) -> None:
        """25 minutes ahead, 5 past, both included."""
        known = Replays(NoLog(), UNIX)
        for shift, good in ((EXPIRY_AHEAD, True), (EXPIRY_AHEAD + 1, False), (-EXPIRY_PAST, True)):
            self.assertIs(known.timely(int(UNIX) + shift, UNIX), good)
        self.assertFalse(known.timely(int(UNIX) - EXPIRY_PAST - 1, UNIX))

    def test_forgotten_when_over(self) -> None:
        """A slot goes when its onions could not be accepted any more, and not before."""
        known = Replays(NoLog(), UNIX)
        expiry = int(UNIX) + 300
        known.admit(expiry, tag(1), PEER)
        later = expiry + EXPIRY_PAST
        known.settle(later)
        self.assertTrue(known.timely(expiry, later))
        self.assertEqual(len(known), 1)
        known.settle(later + 1)
        self.assertEqual((len(known), known.brought_by(PEER)), (0, 0))

    def test_a_clock_that_goes_back(self) -> None:
        """What was forgotten stays refused, though by the clock it is timely again."""
        known = Replays(NoLog(), UNIX)
        expiry = int(UNIX) + 300
        known.admit(expiry, tag(1), PEER)
        known.settle(UNIX + 3_600)
        self.assertFalse(known.timely(expiry, UNIX))

    def test_a_clock_that_jumps_ahead_and_back(self) -> None:
        """A clock that was wrong by a year shuts nobody out afterwards but onions that may have been seen,
        and what comes later is forgotten in its time."""
        known = Replays(NoLog(), UNIX)
        seen, later = int(UNIX) + 300, int(UNIX) + 900
        known.admit(seen, tag(1), PEER)
        known.settle(UNIX + 365 * 86_400)
        known.settle(UNIX)
        self.assertFalse(known.timely(seen, UNIX))
        self.assertTrue(known.timely(later, UNIX))
        self.assertIsNone(known.admit(later, tag(2), PEER))
        known.settle(later + EXPIRY_PAST + 1)
        self.assertEqual(len(known), 0)

    def test_a_start_with_a_clock_ahead(self) -> None:
        """Onions are refused 25 minutes after a start without all tags, not until a wrong clock's time."""

        class Lost(NoLog):
            def load(self, unix: float) -> tuple[dict[int, set[bytes]], int]:
                return {}, int(unix) + EXPIRY_AHEAD

        known = Replays(Lost(), UNIX + 86_400)
        known.settle(UNIX)
        self.assertEqual(known.refused_until, int(UNIX) + EXPIRY_AHEAD)
        known.settle(UNIX + 600)
        self.assertEqual(known.refused_until, int(UNIX) + EXPIRY_AHEAD)

    def test_skewed_onions_stay_refused(self) -> None:
        """An onion that came too early is a replay when its time has come; none is forgotten within half an
        hour."""
        known = Replays(NoLog(), UNIX)
        self.assertIsNone(known.admit_skewed(tag(1), UNIX + 1_700))
        self.assertIs(known.refused(int(UNIX) + 3_600, tag(1)), Reason.REPLAY)
        self.assertIsNone(known.admit_skewed(tag(2), UNIX + 1_900))
        self.assertIs(known.admit_skewed(tag(1), UNIX + 1_900), Reason.REPLAY)
        self.assertIsNone(known.admit_skewed(tag(3), UNIX + 3_800))
        self.assertIs(known.refused(int(UNIX), tag(2)), Reason.REPLAY)
        self.assertIsNone(known.refused(int(UNIX), tag(1)))

    def test_full_means_busy(self) -> None:
        """Per neighbour and in all; nothing is evicted."""
        with patch.object(replay, "REPLAY_PER_NEIGHBOUR", 3), patch.object(replay, "REPLAY_IN_ALL", 5):
            known = Replays(NoLog(), UNIX)
            expiry = int(UNIX) + 900
            for number in range(3):
                self.assertIsNone(known.admit(expiry + 300 * number, tag(number), PEER))
            self.assertIs(known.admit(expiry, tag(3), PEER), Reason.BUSY)
            self.assertIsNone(known.admit(expiry, tag(4), b"q" * 33))
            self.assertIsNone(known.admit(expiry, tag(5), b"q" * 33))
            self.assertIs(known.admit(expiry, tag(6), b"r" * 33), Reason.BUSY)
            self.assertIs(known.refused(expiry, tag(0)), Reason.REPLAY)

    def test_skewed_onions(self) -> None:
        """Remembered for half an hour and bounded."""
        with patch.object(replay, "REPLAY_SKEWED", 2):
            known = Replays(NoLog(), UNIX)
            answers = [known.admit_skewed(tag(number), UNIX) for number in (1, 1, 2, 3)]
            self.assertEqual(answers, [None, Reason.REPLAY, None, Reason.BUSY])
            self.assertIsNone(known.admit_skewed(tag(3), UNIX + 1_800))

    def test_a_failing_log_means_busy(self) -> None:
        """What could not be written is not acted on."""

        class Full(NoLog):
            def append(self, slot: int, tag: bytes) -> None:
                raise StorageError("full")

        self.assertIs(Replays(Full(), UNIX).admit(int(UNIX) + 900, tag(1), PEER), Reason.BUSY)


class ReplayFilesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self._temporary = tempfile.TemporaryDirectory()
        self.addCleanup(self._temporary.cleanup)
        self.path = join(self._temporary.name, "replay")
        self.expiry = int(UNIX) + 900

    def start(self, unix: float = UNIX, *, boot: str = "one", first_start: bool = False) -> Replays:
        self.log = ReplayFiles(RealDisk(), self.path, boot=boot, first_start=first_start)
        self.addCleanup(self.log.close)
        return Replays(self.log, unix)

    def test_kept_over_a_restart(self) -> None:
        """Written when `admit` returns, so a killed process forgets nothing."""
        known = self.start(first_start=True)
        self.assertEqual(known.refused_until, 0)
        for number in range(100):
            known.admit(self.expiry + 300 * (number % 3), tag(number), PEER)
        again = self.start()
        self.assertEqual((len(again), again.refused_until), (100, 0))
        self.assertIs(again.refused(self.expiry, tag(99)), Reason.REPLAY)
        again.admit(self.expiry, tag(100), PEER)
        self.assertEqual(len(self.start()), 101)

    def test_first_start_only_once(self) -> None:
        """A key that is not new and has no files: they are missing."""
        self.assertEqual(self.start().refused_until, int(UNIX) + EXPIRY_AHEAD)

    def test_a_fall_of_the_machine(self) -> None:
        """Another boot: whatever may be missing is refused, also after one more restart meanwhile."""
        self.start(first_start=True).admit(self.expiry, tag(1), PEER)
        until = int(UNIX) + 60 + EXPIRY_AHEAD
        for minute in (1, 2):
            known = self.start(UNIX + 60 * minute, boot="two")
            self.assertEqual(known.refused_until, until)
            self.assertIs(known.refused(self.expiry, tag(2)), Reason.BUSY)
            self.assertIs(known.refused(self.expiry, tag(1)), Reason.REPLAY)

    def test_torn_and_changed_files(self) -> None:
        """A cut or changed record is noticed; the others still count, and new ones follow in place."""
        for change in (lambda data: data[:-3], lambda data: b"\xff" + data[1:]):
            self.path += "x"
            known = self.start(first_start=True)
            for number in range(3):
                known.admit(self.expiry, tag(number), PEER)
            path = join(self.path, f"{slot_of(self.expiry)}.tags")
            with open(path, "rb") as file:
                data = file.read()
            self.assertEqual(len(data), 3 * RECORD)
            with open(path, "wb") as file:
                file.write(change(data))
            known = self.start(UNIX + 1)
            self.assertEqual((len(known), known.refused_until), (2, int(UNIX) + 1 + EXPIRY_AHEAD))
            known.admit(self.expiry + 1_000, tag(7), PEER)
            self.assertEqual(len(self.start(UNIX + 2)), 3)

    def test_an_unreadable_state(self) -> None:
        self.start(first_start=True)
        for text in ("", "{}", "[]", '{"boot": "one", "refused_until": "x"}'):
            for content in (text.encode(), pack(text.encode())):
                with open(join(self.path, "state"), "wb") as file:
                    file.write(content)
                self.assertGreater(self.start().refused_until, UNIX, text)

    def test_slots_go_with_their_time(self) -> None:
        """Files of slots that are over are removed, at the next sync or the next start."""
        disk = RealDisk()
        known = self.start(first_start=True)
        known.admit(self.expiry, tag(1), PEER)
        known.admit(self.expiry + 600, tag(2), PEER)
        self.log.sync()
        known.settle(self.expiry + EXPIRY_PAST + 1)
        self.log.sync()
        self.assertEqual(disk.listdir(self.path), [f"{slot_of(self.expiry + 600)}.tags", "state"])
        self.assertEqual(len(self.start(UNIX + 7_200)), 0)
        self.log.sync()
        self.assertEqual(disk.listdir(self.path), ["state"])

    def test_boot_id(self) -> None:
        """The same at every call on one system."""
        self.assertEqual(boot_id(RealDisk()), boot_id(RealDisk()))
