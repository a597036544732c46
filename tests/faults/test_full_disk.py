"""No space left where a relay notes the onions it has seen."""

from __future__ import annotations

from pathlib import Path

from twisted.internet import reactor  # noqa: TID251  (its thread pool)
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase, TestCase

from lab.simulation.disk import SimulatedDisk
from meshnet.circuit.replay import Replays
from meshnet.circuit.replay_log import ReplayFiles
from meshnet.errors import Reason
from meshnet.node.replay import ReplayKeeper

NOW = 1_800_000_000.0
EXPIRY = 1_800_000_600
PEER = b"\x02" * 33


def tag(number: int) -> bytes:
    return number.to_bytes(16, "big")


class FullDiskTests(SynchronousTestCase):
    """A disk that fills up and is emptied again."""

    def setUp(self) -> None:
        self.disk = SimulatedDisk()
        self.disk.mkdir("/data")

    def replays(self) -> Replays:
        self.files = ReplayFiles(self.disk, "/data/replay", boot="a", first_start=True)
        return Replays(self.files, NOW)

    def test_refused_while_full(self) -> None:
        """Onions that cannot be noted are refused; with space again the same file goes on, and what it says
        after a restart is exactly what was accepted."""
        replays = self.replays()
        accepted: list[int] = []
        refused: list[int] = []
        used = self.disk._used()
        for number in range(300):
            self.disk.capacity = used + 1_000 if number < 200 else None
            reason = replays.admit(EXPIRY, tag(number), PEER)
            (refused if reason else accepted).append(number)
            self.assertIn(reason, (None, Reason.BUSY))
            self.assertEqual(replays.fault is None, reason is None)
        self.assertEqual((accepted[:50], accepted[-100:]), (list(range(50)), list(range(200, 300))))
        self.assertEqual(len(refused), 150)
        self.files.close()
        again = self.replays()
        self.assertLess(again.refused_until, NOW, "nothing is missing")
        for number in accepted:
            self.assertEqual(again.refused(EXPIRY, tag(number)), Reason.REPLAY)
        for number in refused:
            self.assertIsNone(again.refused(EXPIRY, tag(number)))

    def test_a_torn_write(self) -> None:
        """Killed while the last record was only half there: the next start refuses what it cannot know."""
        replays = self.replays()
        self.assertIsNone(replays.admit(EXPIRY, tag(1), PEER))
        self.disk.capacity = self.disk._used() + 7
        self.assertEqual(replays.admit(EXPIRY, tag(2), PEER), Reason.BUSY)
        self.disk.capacity = None
        again = self.replays()
        self.assertEqual(again.refused(EXPIRY, tag(1)), Reason.REPLAY)
        self.assertEqual(again.refused(EXPIRY, tag(3)), Reason.BUSY)


class SaidTests(TestCase):
    """What the operator hears of it."""

    async def test_said_once(self) -> None:
        """One line when it begins, one when it is over."""
        disk = SimulatedDisk()
        disk.mkdir("/data")
        keeper = ReplayKeeper(disk, Path("/data"), Path("/key"), reactor)
        replays = keeper.open(NOW)

        async def synced() -> None:
            keeper.sync()
            await keeper._thread.call(lambda: None)

        with capturedLogs() as logged:
            disk.capacity = disk._used()
            for number in range(5):
                self.assertEqual(replays.admit(EXPIRY * 2, tag(number), PEER), Reason.BUSY)
                await synced()
            self.assertIn("cannot be saved", keeper.fault)
            disk.capacity = None
            self.assertIsNone(replays.admit(EXPIRY * 2, tag(9), PEER))
            await synced()
            await synced()
        self.assertEqual(keeper.fault, "")
        lines = [str(event["log_format"]) for event in logged if "replay log" in str(event.get("log_format"))]
        self.assertEqual(
            [line.split(",")[0].split(":")[0] for line in lines],
            [
                "the replay log cannot be saved",
                "the replay log is saved again",
            ],
        )
        await keeper.close()
