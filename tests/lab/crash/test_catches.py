"""The harness finds what it must: each program here is wrong in one way, and loses something."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from lab.crash.search import Report, Search, Workload
from lab.crash.trace import Loss
from lab.crash.witness import Witness
from lab.simulation.disk import SimulatedDisk
from lab.simulation.models import BTRFS, EXT4, STRICT, XFS, Model
from meshnet.errors import StorageError
from meshnet.storage.disk import Disk
from meshnet.storage.files import make_directory, read_file, write_file

Change = Callable[[SimulatedDisk], object]

OLD, NEW = b"old content", b"new content, somewhat longer"


def put(disk: Disk, path: str, data: bytes, *, sync: bool) -> None:
    """Write a file from its start, with or without fsync."""
    with contextlib.closing(disk.open(path, "write")) as file:
        file.truncate(0)
        file.pwrite(data, 0)
        if sync:
            file.fsync()


def prepare(disk: SimulatedDisk) -> None:
    make_directory(disk, "/d")
    write_file(disk, "/d/file", OLD)


def recover(disk: Disk) -> bytes | None:
    return read_file(disk, "/d/file", 1000) if disk.exists("/d/file") else None


def rewrite_in_place(disk: SimulatedDisk) -> None:
    """Skycoin's SaveBinary: a copy that is not synced, the file itself rewritten, the copy removed."""
    put(disk, "/d/file.tmp", NEW, sync=False)
    put(disk, "/d/file", NEW, sync=False)
    disk.unlink("/d/file.tmp")


def no_directory_sync(disk: SimulatedDisk) -> None:
    put(disk, "/d/tmp", NEW, sync=True)
    disk.rename("/d/tmp", "/d/file")


def no_file_sync(disk: SimulatedDisk) -> None:
    put(disk, "/d/tmp", NEW, sync=False)
    disk.rename("/d/tmp", "/d/file")
    disk.fsyncdir("/d")


def removed_before_the_sync(disk: SimulatedDisk) -> None:
    put(disk, "/d/tmp", NEW, sync=True)
    disk.unlink("/d/file")
    disk.rename("/d/tmp", "/d/file")
    disk.fsyncdir("/d")


def again_after_a_failed_sync(disk: SimulatedDisk) -> None:
    disk.fail("sync")
    with contextlib.closing(disk.open("/d/tmp", "create")) as file:
        file.pwrite(NEW, 0)
        with contextlib.suppress(StorageError):
            file.fsync()
        file.fsync()
    disk.rename("/d/tmp", "/d/file")
    disk.fsyncdir("/d")


class CatchTests(SynchronousTestCase):
    """Each wrong program is found out, and the trace shows why, with no more lost than it takes."""

    def search(self, change: Change, model: Model = STRICT) -> Report:
        def program(disk: SimulatedDisk, witness: Witness) -> None:
            witness.begins(NEW)
            change(disk)
            witness.holds()

        workload = Workload(change.__name__, program, recover, prepare, OLD, relied_on=False)
        return Search(workload, model).run()

    def found(self, change: Change, model: Model = STRICT) -> Loss:
        """The one loss that is traced."""
        report = self.search(change, model)
        self.assertEqual(report.lost, 1, f"{report}: nothing found")
        return report.losses[0]

    def lines(self, loss: Loss) -> list[str]:
        """The operations of a trace, and what was found."""
        return [line.strip() for line in str(loss).splitlines()[2:]]

    def test_rewrite_in_place_after_an_unsynced_copy(self) -> None:
        """The file is emptied while the copy is nowhere."""
        loss = self.found(rewrite_in_place)
        self.assertEqual(
            self.lines(loss)[1:],
            [
                "1  make /d/file.tmp  + name file.tmp",
                "2  write 28 bytes at 0 of /d/file.tmp  + size 28  + bytes 0–28",
                "3  cut to 0 bytes /d/file  + size 0",
                "⚡ power cut",
                "found b'', but only b'old content' or b'new content, somewhat longer' is right",
            ],
        )

    def test_no_directory_sync(self) -> None:
        """Acknowledged, and the name still stands for the old file."""
        lines = self.lines(self.found(no_directory_sync))
        self.assertIn("4  rename /d/tmp to /d/file  – name file  + no name tmp", lines)
        self.assertIn("found b'old content', but only b'new content, somewhat longer' is right", lines)

    def test_no_file_sync(self) -> None:
        """The name is there, the bytes are not: nothing else need be lost."""
        loss = self.found(no_file_sync)
        self.assertEqual([str(effect) for effect in loss.lost], ["bytes 0–28"])

    def test_acknowledged_before_the_sync(self) -> None:
        """A cut between the promise and its keeping."""

        def program(disk: SimulatedDisk, witness: Witness) -> None:
            witness.begins(NEW)
            witness.holds()
            write_file(disk, "/d/file", NEW)

        report = Search(Workload("early", program, recover, prepare, OLD)).run()
        self.assertEqual(report.lost, 1)
        self.assertIn("acknowledges", str(report.losses[0]))

    def test_removed_before_the_sync(self) -> None:
        """For a moment there is neither the old file nor the new one."""
        loss = self.found(removed_before_the_sync)
        self.assertIn("found None", loss.why)
        self.assertEqual(str(loss.log[-1]), "remove /d/file")

    def test_again_after_a_failed_sync(self) -> None:
        """The second sync says that all is well, and the bytes are gone."""
        loss = self.found(again_after_a_failed_sync)
        self.assertEqual([str(effect) for effect in loss.lost], ["bytes 0–28"])
        self.assertIn("EIO instead of sync", str(loss))

    def test_damage_in_recovery(self) -> None:
        """A recovery that is right, but loses everything when it is cut itself; the trace shows both cuts."""

        def program(disk: SimulatedDisk, witness: Witness) -> None:
            put(disk, "/d/other", b"x", sync=False)

        def recovery(disk: SimulatedDisk) -> bytes | None:
            if disk.exists("/d/other"):
                disk.unlink("/d/other")
                disk.fsyncdir("/d")
                put(disk, "/d/file", OLD, sync=True)  # "repairs" in place
            return recover(disk)

        workload = Workload("repair", program, recovery, prepare, OLD)
        self.assertEqual(Search(workload, depth=0, kills=False).run().lost, 0)
        loss = Search(workload, kills=False).run().losses[0]
        assert loss.then is not None
        self.assertEqual(str(loss.then.log[-1]), "cut to 0 bytes /d/file")
        self.assertEqual(str(loss).count("⚡ power cut"), 2)

    def test_told_before_it_is_durable(self) -> None:
        """Killed after the rename; the next one reads the new content and says so; then the power goes."""

        def program(disk: SimulatedDisk, witness: Witness) -> None:
            witness.begins(NEW)
            write_file(disk, "/d/file", NEW)
            witness.holds()

        loss = Search(Workload("relied on", program, recover, prepare, OLD)).run().losses[0]
        self.assertIn("killed; the next one recovers", str(loss))
        self.assertIn("– name file", str(loss))

    def test_what_each_file_system_forgives(self) -> None:
        """Which of the mistakes costs something on which file system, as their models say."""
        wrong = [
            rewrite_in_place,
            no_directory_sync,
            no_file_sync,
            removed_before_the_sync,
            again_after_a_failed_sync,
        ]
        for model, lost in ((EXT4, (1, 1, 0, 1, 1)), (XFS, (1, 1, 1, 1, 1)), (BTRFS, (1, 1, 1, 1, 1))):
            self.assertEqual(tuple(self.search(change, model).lost for change in wrong), lost, model.name)
