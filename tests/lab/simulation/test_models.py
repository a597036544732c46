"""What each file system orders, as its model's docstring says."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from lab.simulation.disk import SimulatedDisk
from lab.simulation.models import BTRFS, EXT4, MODELS, STRICT, XFS, Model
from meshnet.storage.files import write_file


def found(
    model: Model, program: Callable[[SimulatedDisk], object]
) -> set[tuple[tuple[str, bytes | None], ...]]:
    """The files that may be there after a program and a cut, without those that are as before."""
    disk = SimulatedDisk(model=model)
    disk.mkdir("/d")
    for name in ("/old", "/one", "/two"):
        write_file(disk, name, name.encode())
    before = disk.synced()
    program(before)
    states = [state.snapshot() for state in before.crash_states()]
    kept = set(disk.snapshot().items())
    return {tuple(sorted(set(state.items()) - kept, key=str)) for state in states}


class ModelTests(SynchronousTestCase):
    def check(
        self, program: Callable[[SimulatedDisk], object], wanted: dict[str, bool], what: Callable[..., bool]
    ) -> None:
        """Whether some state after `program` is as `what` says, by model."""
        seen = {model.name: any(what(dict(state)) for state in found(model, program)) for model in MODELS}
        self.assertEqual(seen, wanted)

    def test_rename_in_two_places(self) -> None:
        """Only the strictest model knows a file under both names or none."""

        def program(disk: SimulatedDisk) -> None:
            disk.rename("/one", "/d/new")

        for model in MODELS:
            names = {
                (state.exists("/one"), state.exists("/d/new"))
                for state in self.after(model, program).crash_states()
            }
            whole = {(True, False), (False, True)}
            self.assertEqual(names, whole | {(True, True), (False, False)} if model is STRICT else whole)

    def after(self, model: Model, program: Callable[[SimulatedDisk], object]) -> SimulatedDisk:
        disk = SimulatedDisk(model=model)
        disk.mkdir("/d")
        for name in ("/old", "/one", "/two"):
            write_file(disk, name, name.encode())
        disk = disk.synced()
        program(disk)
        return disk

    def test_names_in_order(self) -> None:
        """A later rename without an earlier one: not with a journal."""

        def program(disk: SimulatedDisk) -> None:
            disk.rename("/one", "/d/one")
            disk.rename("/two", "/d/two")

        wanted = {"strict": True, "ext4": False, "xfs": False, "btrfs": False}
        self.check(program, wanted, lambda state: "/d/two" in state and "/d/one" not in state)

    def test_name_without_bytes(self) -> None:
        """A new file may be empty under its new name everywhere; over another file not on ext4."""

        def new(disk: SimulatedDisk) -> None:
            disk.open("/tmp", "create").append(b"bytes")
            disk.rename("/tmp", "/d/new")

        def over(disk: SimulatedDisk) -> None:
            disk.open("/tmp", "create").append(b"bytes")
            disk.rename("/tmp", "/old")

        self.check(
            new, dict.fromkeys(("strict", "ext4", "xfs", "btrfs"), True), lambda s: s.get("/d/new") == b""
        )
        wanted = {"strict": True, "ext4": False, "xfs": True, "btrfs": True}
        self.check(over, wanted, lambda state: state.get("/old") == b"")

    def test_size_without_bytes(self) -> None:
        """A file that has grown by what was not written: only in the strictest model."""

        def program(disk: SimulatedDisk) -> None:
            disk.open("/old", "write").append(bytes(10) + b"x")

        wanted = {"strict": True, "ext4": False, "xfs": False, "btrfs": False}
        self.check(program, wanted, lambda state: state.get("/old") == b"/old" + bytes(11))

    def test_writing_over(self) -> None:
        """What is written over in two places may come in any order everywhere."""

        def program(disk: SimulatedDisk) -> None:
            file = disk.open("/d/big", "create")
            file.append(bytes(9000))
            file.fsync()
            disk.fsyncdir("/d")
            file.pwrite(b"1", 0)
            file.pwrite(b"2", 8999)

        everywhere = dict.fromkeys(("strict", "ext4", "xfs", "btrfs"), True)
        self.check(program, everywhere, lambda state: state["/d/big"] == bytes(8999) + b"2")

    def test_what_a_sync_carries(self) -> None:
        """The file's own name with a journal, what was renamed before on ext4 and XFS, after only on ext4."""

        def program(disk: SimulatedDisk) -> None:
            disk.rename("/one", "/d/before")
            file = disk.open("/d/new", "create")
            disk.rename("/two", "/d/after")
            file.append(b"x")
            file.fsync()

        strict = {"strict": True, "ext4": False, "xfs": False, "btrfs": False}
        self.check(program, strict, lambda state: "/d/new" not in state)
        before = {"strict": True, "ext4": False, "xfs": False, "btrfs": True}
        self.check(program, before, lambda state: "/d/before" not in state)
        after = {"strict": True, "ext4": False, "xfs": True, "btrfs": True}
        self.check(program, after, lambda state: "/d/after" not in state)

    def test_a_directory_sync_carries_no_bytes(self) -> None:
        """Whatever the model."""

        def program(disk: SimulatedDisk) -> None:
            disk.open("/d/new", "create").append(b"x")
            disk.fsyncdir("/d")

        for model in (STRICT, EXT4, XFS, BTRFS):
            self.assertIn((("/d/new", b""),), found(model, program), model.name)

    def test_torn_sectors(self) -> None:
        """With `torn`, a sector may come in parts, too."""
        for torn in (False, True):
            disk = SimulatedDisk(model=STRICT.with_sector(16, torn=torn))
            write_file(disk, "/file", bytes(16))
            disk = disk.synced()
            disk.open("/file", "write").pwrite(b"x" * 16, 0)
            states = {state.snapshot()["/file"] for state in disk.crash_states()}
            self.assertEqual(len(states), 4 if torn else 2)
