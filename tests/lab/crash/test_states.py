"""States after a power cut: each is legal, none is missing, and equal ones have one key."""

from __future__ import annotations

import errno

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lab.crash.states import States
from lab.simulation.disk import SimulatedDisk
from lab.simulation.models import MODELS, STRICT, Model
from meshnet.errors import StorageError
from meshnet.storage.files import write_file

names = st.sampled_from(["a", "b", "d/c", "d/e"])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), names, st.binary(min_size=1, max_size=20), st.integers(0, 12)),
        st.tuples(st.just("truncate"), names, st.integers(0, 15)),
        st.tuples(st.just("rename"), names, names),
        st.tuples(st.just("link"), names, names),
        st.tuples(st.just("unlink"), names),
        st.tuples(st.just("fsync"), names),
        st.tuples(st.just("fsyncdir"), st.sampled_from(["/", "/d"])),
    ),
    max_size=8,
)


def done(model: Model, sequence: list[tuple[object, ...]]) -> SimulatedDisk:
    """A disk after these steps; those that make no sense are left out."""
    disk = SimulatedDisk(model=model)
    disk.mkdir("/d")
    disk.fsyncdir("/")
    for word, *rest in sequence:
        try:
            if word in ("write", "truncate", "fsync"):
                file = disk.open(f"/{rest[0]}", "write")
                {"write": file.pwrite, "truncate": file.truncate, "fsync": file.fsync}[word](*rest[1:])  # type: ignore[operator]
            elif word == "fsyncdir":
                disk.fsyncdir(str(rest[0]))
            else:
                getattr(disk, str(word))(*(f"/{name}" for name in rest))
        except StorageError:
            continue
    return disk


class StatesTests(SynchronousTestCase):
    @given(st.sampled_from(MODELS), steps)
    def test_keys(self, model: Model, sequence: list[tuple[object, ...]]) -> None:
        """A state's disk is the one that `crash` makes of the same effects, and keys tell states apart."""
        disk = done(model.with_sector(8), sequence)
        states = States(disk, 256)
        found: dict[bytes, object] = {}
        for mask, garbage, key in states:
            state = states.disk(mask, garbage)
            shown = repr((state.snapshot(), links(state)))
            self.assertEqual(found.setdefault(key, shown), shown)
            if not garbage:
                kept = {effect for place, effect in enumerate(states.lost) if mask >> place & 1}
                self.assertEqual(disk.crash(kept.__contains__).snapshot(), state.snapshot())
        self.assertEqual(len(set(found.values())), len(found))

    @given(st.sampled_from(MODELS), steps)
    def test_models_are_stricter_than_strict(self, model: Model, sequence: list[tuple[object, ...]]) -> None:
        """What a file system may leave, the strictest model may leave too."""
        allowed = {
            str(state.snapshot()) for state in done(STRICT.with_sector(8), sequence).crash_states(1 << 12)
        }
        disk = done(model.with_sector(8), sequence)
        if len(done(STRICT.with_sector(8), sequence).pending()) <= 12:
            for state in disk.crash_states(1 << 12):
                self.assertIn(str(state.snapshot()), allowed)

    @given(st.sampled_from(MODELS), steps)
    def test_extremes(self, model: Model, sequence: list[tuple[object, ...]]) -> None:
        """Everything may have come; and a copy for a successor looks the same and loses the same."""
        disk = done(model, sequence)
        self.assertEqual(disk.synced().snapshot(), disk.snapshot())
        heir = disk.fork()
        self.assertEqual(heir.snapshot(), disk.snapshot())
        self.assertEqual(list(map(str, heir.pending())), list(map(str, disk.pending())))
        self.assertEqual({key for _, _, key in States(heir, 64)}, {key for _, _, key in States(disk, 64)})

    def test_garbage(self) -> None:
        """In the strictest model, what a file lacks may be anything; what was asked for as zeros is zeros."""
        disk = done(STRICT.with_sector(8), [])
        file = disk.open("/a", "create")
        file.fsync()
        disk.fsyncdir("/")
        file.append(b"x" * 8)
        states = States(disk)
        found = [states.disk(mask, garbage).open("/a").pread(9, 0) for mask, garbage, _ in states]
        self.assertEqual(len(set(found)), 4, "nothing, the bytes, zeros, garbage")
        file.fsync()
        file.truncate(20)
        self.assertEqual(len({key for _, _, key in States(disk)}), 2)


def links(disk: SimulatedDisk) -> list[list[str]]:
    """Which paths are one file."""
    same: dict[object, list[str]] = {}
    for path in disk.snapshot():
        same.setdefault(disk._find(path), []).append(path)
    return list(same.values())


class FaultTests(SynchronousTestCase):
    def test_interrupted_calls_are_repeated(self) -> None:
        """EINTR is no error: Python does the call again."""
        disk = SimulatedDisk()
        disk.fail("write", errno.EINTR)
        disk.fail("sync", errno.EINTR)
        write_file(disk, "/file", b"content")
        self.assertEqual(disk.snapshot(), {"/file": b"content"})
        self.assertEqual(disk.pending(), [])
