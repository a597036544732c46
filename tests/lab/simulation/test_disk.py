"""The simulated disk: it behaves as a real one, and at a power cut it finds what careless programs lose."""

from __future__ import annotations

import contextlib
import errno
import tempfile
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lab.simulation.disk import PowerCut, SimulatedDisk, after_power_cuts
from meshnet.errors import StorageError
from meshnet.storage.disk import Disk, DiskFullError, LockedError, RealDisk
from meshnet.storage.files import create_file, make_directory, read_file, write_file

OLD, NEW = b"old content!", b"new content, which is longer than one sector"

Program = Callable[[SimulatedDisk, Callable[[object], None]], None]
Action = Callable[[Disk, str], object]


def disk_with(content: bytes, sector: int = 16) -> SimulatedDisk:
    """A disk on which `/d/file` durably holds `content`."""
    disk = SimulatedDisk(sector=sector)
    disk.mkdir("/d")
    write_file(disk, "/d/file", content)
    return disk.synced()


def put(disk: Disk, path: str, data: bytes, *, sync: bool) -> None:
    """Write a file from its start, with or without fsync."""
    with contextlib.closing(disk.open(path, "write")) as file:
        file.truncate(0)
        file.pwrite(data, 0)
        if sync:
            file.fsync()


def losses(program: Program, before: SimulatedDisk | None = None) -> int:
    """In how many states after a power cut `/d/file` is neither old nor new, or acknowledged and not new."""
    lost = 0
    for state, acknowledged in after_power_cuts(before or disk_with(OLD), program):
        try:
            found = read_file(state, "/d/file", 1000)
        except StorageError:
            found = b""
        lost += found != NEW if acknowledged else found not in (OLD, NEW)
    return lost


class CarelessProgramTests(SynchronousTestCase):
    """Each loses something; a harness that does not find it would be worth nothing."""

    def test_rewrite_in_place_after_an_unsynced_copy(self) -> None:
        """Skycoin's SaveBinary: temporary copy without sync, target rewritten in place, copy removed."""

        def program(disk: SimulatedDisk, acknowledge: Callable[[object], None]) -> None:
            put(disk, "/d/file.tmp", NEW, sync=False)
            put(disk, "/d/file", NEW, sync=False)
            disk.unlink("/d/file.tmp")
            acknowledge(1)

        self.assertGreater(losses(program), 0)

    def test_rewrite_in_place_with_sync(self) -> None:
        """Synced before it is acknowledged, and still torn by a cut in the middle."""

        def program(disk: SimulatedDisk, acknowledge: Callable[[object], None]) -> None:
            put(disk, "/d/file", NEW, sync=True)
            acknowledge(1)

        self.assertGreater(losses(program), 0)

    def test_no_fsync_of_the_file(self) -> None:
        """Rename alone does not carry the bytes."""

        def program(disk: SimulatedDisk, acknowledge: Callable[[object], None]) -> None:
            put(disk, "/d/tmp", NEW, sync=False)
            disk.rename("/d/tmp", "/d/file")
            disk.fsyncdir("/d")
            acknowledge(1)

        self.assertGreater(losses(program), 0)

    def test_no_fsync_of_the_directory(self) -> None:
        """The new name may not be there."""

        def program(disk: SimulatedDisk, acknowledge: Callable[[object], None]) -> None:
            put(disk, "/d/tmp", NEW, sync=True)
            disk.rename("/d/tmp", "/d/file")
            acknowledge(1)

        self.assertGreater(losses(program), 0)

    def test_acknowledged_before_the_sync(self) -> None:
        """Right in all but the moment at which it says so."""

        def program(disk: SimulatedDisk, acknowledge: Callable[[object], None]) -> None:
            acknowledge(1)
            write_file(disk, "/d/file", NEW)

        self.assertGreater(losses(program), 0)

    def test_removed_before_the_sync(self) -> None:
        """The old file goes before the new one is durable."""

        def program(disk: SimulatedDisk, acknowledge: Callable[[object], None]) -> None:
            put(disk, "/d/tmp", NEW, sync=True)
            disk.unlink("/d/file")
            disk.link("/d/tmp", "/d/file")
            disk.fsyncdir("/d")
            acknowledge(1)

        self.assertGreater(losses(program), 0)

    def test_retry_after_a_failed_fsync(self) -> None:
        """The second sync says all is well, the bytes are gone."""

        def program(disk: SimulatedDisk, acknowledge: Callable[[object], None]) -> None:
            disk.fail("sync")
            with contextlib.closing(disk.open("/d/tmp", "create")) as file:
                file.pwrite(NEW, 0)
                with contextlib.suppress(StorageError):
                    file.fsync()
                file.fsync()
            disk.rename("/d/tmp", "/d/file")
            disk.fsyncdir("/d")
            acknowledge(1)

        self.assertGreater(losses(program), 0)

    def test_new_directory_without_sync(self) -> None:
        """A durable file in a directory that is not."""

        def program(disk: SimulatedDisk, acknowledge: Callable[[object], None]) -> None:
            disk.mkdir("/d")
            write_file(disk, "/d/file", NEW)
            acknowledge(1)

        found = [
            state.exists("/d/file") for state, done in after_power_cuts(SimulatedDisk(), program) if done
        ]
        self.assertIn(False, found)


class CarefulProgramTests(SynchronousTestCase):
    def test_write_file(self) -> None:
        """Cut anywhere, the file is the old or the new one; new, once `write_file` has returned."""

        def program(disk: SimulatedDisk, acknowledge: Callable[[object], None]) -> None:
            write_file(disk, "/d/file", NEW)
            acknowledge(1)

        self.assertEqual(losses(program), 0)

    def test_write_file_after_short_writes_and_faults(self) -> None:
        """A failed attempt and one with short writes lose nothing either."""

        def program(disk: SimulatedDisk, acknowledge: Callable[[object], None]) -> None:
            disk.fail("sync")
            with contextlib.suppress(StorageError):
                write_file(disk, "/d/file", NEW)
            disk.short_writes = 20
            write_file(disk, "/d/file", NEW)
            acknowledge(1)

        self.assertEqual(losses(program), 0)

    def test_create_file(self) -> None:
        """A new file is whole or absent."""

        def program(disk: SimulatedDisk, acknowledge: Callable[[object], None]) -> None:
            create_file(disk, "/d/file", NEW)
            acknowledge(1)

        before = SimulatedDisk(sector=16)
        before.mkdir("/d")
        for state, acknowledged in after_power_cuts(before, program):
            there = state.exists("/d/file")
            self.assertTrue(there or not acknowledged)
            self.assertEqual(read_file(state, "/d/file", 99) if there else NEW, NEW)

    def test_make_directory(self) -> None:
        """A file in new directories is there once acknowledged, also after a restart halfway."""

        def program(disk: SimulatedDisk, acknowledge: Callable[[object], None]) -> None:
            make_directory(disk, "/a/b")
            write_file(disk, "/a/b/file", NEW)
            acknowledge(1)

        half = SimulatedDisk(sector=16)
        half.mkdir("/a")
        for before in (SimulatedDisk(sector=16), half):
            for state, acknowledged in after_power_cuts(before, program):
                self.assertTrue(state.exists("/a/b/file") or not acknowledged)


class ModelTests(SynchronousTestCase):
    def test_size_and_bytes_are_apart(self) -> None:
        """An unsynced append may leave zeros, a part, nothing, or all."""
        disk = disk_with(b"")
        disk.open("/d/file", "write").append(b"abcdefgh" * 3)
        found = {read_file(state, "/d/file", 99) for state in disk.crash_states()}
        self.assertEqual(
            found, {b"", bytes(24), b"abcdefgh" * 2 + bytes(8), bytes(16) + b"abcdefgh", b"abcdefgh" * 3}
        )

    def test_rename_is_two_names(self) -> None:
        """After an unsynced rename either name, both or none may be there."""
        disk = SimulatedDisk()
        write_file(disk, "/old", b"x")
        disk.rename("/old", "/new")
        found = {tuple(state.listdir("/")) for state in disk.crash_states()}
        self.assertEqual(found, {("old",), ("new",), ("new", "old"), ()})

    def test_synced_things_stay(self) -> None:
        """What is synced has one state; what follows a failed sync does not."""
        disk = disk_with(OLD)
        self.assertEqual(disk.pending(), [])
        file = disk.open("/d/file", "write")
        file.pwrite(b"1", 0)
        disk.fail("sync")
        self.assertRaises(StorageError, file.fsync)
        file.pwrite(b"2", 1)
        file.fsync()
        found = {read_file(state, "/d/file", 99)[:2] for state in disk.crash_states()}
        self.assertEqual(found, {b"o2", b"12"})

    def test_many_states_are_sampled(self) -> None:
        """More than the limit are sampled, the extremes among them, and the same each time."""
        disk = disk_with(b"", sector=1)
        disk.open("/d/file", "write").append(bytes(range(1, 40)))
        states = [read_file(state, "/d/file", 99) for state in disk.crash_states(most=200)]
        self.assertIn(b"", states)
        self.assertIn(bytes(range(1, 40)), states)
        self.assertEqual(states, [read_file(state, "/d/file", 99) for state in disk.crash_states(most=200)])

    def test_hard_links_stay_one_file(self) -> None:
        """Two names of one file are one file after a crash too."""
        disk = disk_with(OLD)
        disk.link("/d/file", "/d/other")
        after = disk.synced()
        put(after, "/d/other", NEW, sync=False)
        self.assertEqual(read_file(after, "/d/file", 99), NEW)

    def test_power_cut(self) -> None:
        """After the cut nothing more happens."""
        disk = disk_with(OLD)
        disk.cut_after(1)
        disk.mkdir("/e")
        self.assertRaises(PowerCut, disk.mkdir, "/f")
        self.assertRaises(PowerCut, disk.fsyncdir, "/")
        self.assertEqual(disk.synced().listdir("/"), ["d", "e"])

    def test_capacity(self) -> None:
        """A full disk takes a part of a write and says so; removing makes room."""
        disk = SimulatedDisk(capacity=10)
        file = disk.open("/a", "create")
        error = self.assertRaises(DiskFullError, file.pwrite, bytes(11), 0)
        self.assertIn("no space left to write /a", str(error))
        self.assertEqual((file.size(), disk.free_space("/")), (10, 0))
        disk.unlink("/a")
        put(disk, "/b", bytes(10), sync=True)

    def test_faults(self) -> None:
        """A fault comes once, at its turn, as the error that a real disk would raise."""
        disk = SimulatedDisk()
        disk.fail("write", errno.EIO, after=1)
        file = disk.open("/a", "create")
        file.pwrite(b"1", 0)
        self.assertIn("input/output error", str(self.assertRaises(StorageError, file.pwrite, b"2", 1)))
        file.pwrite(b"2", 1)
        file.close()
        self.assertRaises(StorageError, file.pwrite, b"3", 2)
        self.assertRaises(StorageError, disk.open("/a").pwrite, b"3", 2)


names = st.sampled_from(["a", "b", "d/c", "d", "e/f"])


@st.composite
def actions(draw: st.DrawFn) -> tuple[str, Action]:
    """One operation on a disk, with its description."""
    one, two = draw(names), draw(names)
    data, offset = draw(st.binary(max_size=20)), draw(st.integers(0, 12))
    size = draw(st.integers(0, 15))

    def with_file(disk: Disk, base: str, mode: str, do: Callable[..., object]) -> object:
        with contextlib.closing(disk.open(f"{base}/{one}", mode)) as file:  # type: ignore[arg-type]
            return do(file), file.size()

    choices: dict[str, Action] = {
        "write": lambda disk, base: with_file(disk, base, "write", lambda file: file.pwrite(data, offset)),
        "create": lambda disk, base: with_file(disk, base, "create", lambda file: file.append(data)),
        "append": lambda disk, base: with_file(disk, base, "write", lambda file: file.append(data)),
        "read": lambda disk, base: with_file(disk, base, "read", lambda file: file.pread(size, offset)),
        "truncate": lambda disk, base: with_file(disk, base, "write", lambda file: file.truncate(size)),
        "rename": lambda disk, base: disk.rename(f"{base}/{one}", f"{base}/{two}"),
        "link": lambda disk, base: disk.link(f"{base}/{one}", f"{base}/{two}"),
        "unlink": lambda disk, base: disk.unlink(f"{base}/{one}"),
        "mkdir": lambda disk, base: disk.mkdir(f"{base}/{one}"),
        "listdir": lambda disk, base: disk.listdir(f"{base}/{one}"),
        "exists": lambda disk, base: disk.exists(f"{base}/{one}"),
        "write_file": lambda disk, base: write_file(disk, f"{base}/{one}", data),
        "create_file": lambda disk, base: create_file(disk, f"{base}/{one}", data),
        "read_file": lambda disk, base: read_file(disk, f"{base}/{one}", 15),
    }
    name = draw(st.sampled_from(sorted(choices)))
    return f"{name} {one} {two}", choices[name]


class SameAsRealTests(SynchronousTestCase):
    @given(st.lists(actions(), max_size=25))
    def test_same_results(self, steps: list[tuple[str, Action]]) -> None:
        """Any sequence of operations gives the same results and the same kind of error on both disks."""
        real, simulated = RealDisk(), SimulatedDisk()
        with tempfile.TemporaryDirectory() as base:
            make_directory(simulated, base)
            for name, action in steps:
                self.assertEqual(outcome(action, real, base), outcome(action, simulated, base), name)
            self.assertEqual(outcome(listing, simulated.synced(), base), outcome(listing, real, base))


def listing(disk: Disk, base: str) -> object:
    """The names at the top."""
    return disk.listdir(base)


def outcome(action: Action, disk: Disk, base: str) -> object:
    """What came back, or the class of the error."""
    try:
        return action(disk, base)
    except StorageError as error:
        return type(error)


class LockTests(SynchronousTestCase):
    def test_lock(self) -> None:
        """One holder at a time; a power cut gives it back."""
        disk = SimulatedDisk()
        lock = disk.lock("/lock")
        self.assertIn("/lock", str(self.assertRaises(LockedError, disk.lock, "/lock")))
        disk.synced().lock("/lock")
        lock.release()
        disk.lock("/lock")
