"""The replay log as a node keeps it."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor  # noqa: TID251  (its thread pool)
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from meshnet.cipher.keys import SecretKey
from meshnet.errors import Reason, StorageError
from meshnet.node.identity import write_key
from meshnet.node.replay import ReplayKeeper
from meshnet.storage.disk import RealDisk
from tests.support.nodes import new_folder

NOW = 1_800_000_000.0
EXPIRY = 1_800_000_600
PEER = b"\x02" * 33


class KeeperTests(TestCase):
    def setUp(self) -> None:
        self.folder = new_folder(self)
        self.disk = RealDisk()
        self.key = self.folder / "key"

    def keeper(self) -> ReplayKeeper:
        keeper = ReplayKeeper(self.disk, self.folder, self.key, reactor)
        self.addCleanup(keeper.close)
        return keeper

    def pause(self, seconds: float) -> Deferred[None]:
        later: Deferred[None] = Deferred()
        there: Any = reactor
        there.callLater(seconds, later.callback, None)
        return later

    async def test_remembers(self) -> None:
        """What was seen before a restart is refused after it."""
        write_key(self.disk, self.key, SecretKey.generate())
        first = self.keeper()
        replays = first.open(NOW)
        self.assertEqual(replays.refused_until, 0)
        self.assertIsNone(replays.admit(EXPIRY, b"a" * 16, PEER))
        first.sync()
        first.sync()
        await first.close()
        again = self.keeper().open(NOW + 1)
        self.assertEqual(again.refused(EXPIRY, b"a" * 16), Reason.REPLAY)

    async def test_a_key_from_elsewhere(self) -> None:
        """A key that may have run before, without its log, refuses what it may have seen."""
        replays = self.keeper().open(NOW)
        self.assertEqual(replays.refused(EXPIRY, b"a" * 16), Reason.BUSY)

    async def test_a_new_key_is_new_once(self) -> None:
        """After its first start a lost log counts as lost."""
        write_key(self.disk, self.key, SecretKey.generate())
        first = self.keeper()
        first.open(NOW)
        await first.close()
        (self.folder / "replay" / "state").unlink()
        self.assertGreater(self.keeper().open(NOW).refused_until, NOW)

    async def test_a_failing_disk_is_said_once(self) -> None:
        """The node goes on; the log has one line until it works again."""
        keeper = self.keeper()
        keeper.open(NOW)
        calls: list[int] = []

        def fail() -> None:
            calls.append(1)
            raise StorageError("no space left")

        assert keeper._files is not None
        keeper._files.sync = fail  # type: ignore[method-assign]
        while len(calls) < 3:
            keeper.sync()
            await self.pause(0.001)
        await keeper._thread.call(lambda: None)
        self.assertTrue(keeper._failing)
