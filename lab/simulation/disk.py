"""A disk in memory that forgets at a power cut whatever a real one may forget.

`SimulatedDisk` is a `meshnet.storage.disk.Disk`. It keeps what programs see at once, and beside it the
effects that are not durable yet (`medium.py`): each write cut at sector borders, the size apart from the
bytes, each name in a directory by itself (a rename is two: the new name appears, the old one goes). `fsync`
makes the effects on one file durable, `fsyncdir` those on the names in one directory. After a power cut any
subset of the others may have happened: the strictest legal model, without order between two things that are
not synced.

    crash     `crash(keep)` makes one state, `crash_states()` all of them, or a sample when they are too many
    cut       `cut_after(n)`: the n-th operation from now raises `PowerCut` and does nothing
    faults    `fail(operation, code, after)`, `capacity` (bytes, then ENOSPC), `short_writes` (bytes a call)

A failing fsync is as on Linux: the kernel calls the pages clean, so no later fsync makes them durable.
It knows no symbolic links, no times, and one user.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Iterator

from attrs import define, field

from lab.simulation.medium import Effect, Node, apply, subsets
from meshnet.storage.disk import (
    Bytes,
    Lock,
    LockedError,
    Mode,
    Stat,
    StrPath,
    failing,
    read_whole,
    write_whole,
)

USER = 1000
_READS = ("read", "list", "look at")


class PowerCut(Exception):  # noqa: N818  (not an error of the program under test)
    """The machine lost power; nothing more happens on this disk."""


@define
class _Fault:
    operation: str
    code: int
    after: int


@define(eq=False)
class SimulatedFile:
    """A `meshnet.storage.disk.File` on a `SimulatedDisk`."""

    path: str
    _disk: SimulatedDisk = field(alias="disk")
    _node: Node = field(alias="node")
    _writable: bool = field(alias="writable")
    _open: bool = field(default=True, init=False)

    def pread(self, size: int, offset: int) -> bytes:
        """See `File`."""
        with failing("read", self.path):
            self._begin("read")
            content = self._node.content
            return read_whole(lambda most, at: bytes(content[at : at + most]), size, offset)

    def pwrite(self, data: Bytes, offset: int) -> None:
        """See `File`; the loop over short writes is the real one."""
        with failing("write", self.path):
            write_whole(self._write_some, data, offset)

    def _write_some(self, data: memoryview, offset: int) -> int:
        self._begin("write")
        room = self._disk.room(self._node, offset + len(data))
        taken = min(len(data), self._disk.short_writes or len(data), max(0, room - offset))
        if taken == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._disk.put(self._node, bytes(data[:taken]), offset)
        return taken

    def append(self, data: Bytes) -> int:
        """See `File`."""
        offset = len(self._node.content)
        self.pwrite(data, offset)
        return offset

    def truncate(self, size: int) -> None:
        """See `File`."""
        with failing("cut", self.path):
            self._begin("cut")
            content = self._node.content
            if size != len(content):
                self._node.effects.append(Effect(self._node, size=size))
                del content[size:]
                content.extend(bytes(size - len(content)))

    def fsync(self) -> None:
        """See `File`."""
        with failing("sync", self.path):
            try:
                self._begin("sync")
            except OSError:
                self._node.fail_sync()
                raise
            self._node.sync()

    def stat(self) -> Stat:
        """See `File`."""
        return Stat(len(self._node.content), self._node.permissions, USER, self._node.directory)

    def size(self) -> int:
        """See `File`."""
        return len(self._node.content)

    def close(self) -> None:
        """See `File`."""
        self._open = False

    def _begin(self, operation: str) -> None:
        if not self._open or (operation in ("write", "cut") and not self._writable):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        self._disk.begin(operation)


@define(eq=False)
class SimulatedLock:
    """A lock that is held; a crash of the machine gives it back."""

    _locks: set[str] = field(alias="locks")
    _path: str = field(alias="path")

    def release(self) -> None:
        """See `Lock`."""
        self._locks.discard(self._path)


class SimulatedDisk:
    """See the module. `sector` is the size in bytes at which a write may tear."""

    def __init__(self, *, sector: int = 512, capacity: int | None = None) -> None:
        self.sector = sector
        self.capacity = capacity
        self.short_writes = 0
        self.operations = 0
        self._root = Node(directory=True, permissions=0o700)
        self._locks: set[str] = set()
        self._faults: list[_Fault] = []
        self._cut_at: int | None = None
        self._tokens = 0

    # What a program sees (meshnet.storage.disk.Disk)

    def open(self, path: StrPath, mode: Mode = "read", permissions: int = 0o600) -> SimulatedFile:
        """See `Disk`."""
        with failing("make" if mode == "create" else "open", path):
            self.begin("make" if mode == "create" else "open")
            parent, name = self._place(path)
            node = parent.names.get(name)
            if mode == "create" and node is not None:
                raise OSError(errno.EEXIST, "")
            if node is None:
                if mode == "read":
                    raise OSError(errno.ENOENT, "")
                node = Node(directory=False, permissions=permissions)
                self._name(parent, name, node)
            if node.directory:
                raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
            return SimulatedFile(os.fspath(path), self, node, mode != "read")

    def fsyncdir(self, path: StrPath) -> None:
        """See `Disk`."""
        with failing("sync", path):
            node = self._directory(path)
            try:
                self.begin("syncdir")
            except OSError:
                node.fail_sync()
                raise
            node.sync()

    def rename(self, old: StrPath, new: StrPath) -> None:
        """See `Disk`."""
        with failing("rename", old):
            self.begin("rename")
            here, name = self._place(old)
            there, target = self._place(new)
            node, replaced = self._there(here, name), there.names.get(target)
            if replaced is node:
                return  # two names of one file: POSIX says that nothing happens
            if replaced is not None and replaced.directory != node.directory:
                raise OSError(
                    errno.EISDIR if replaced.directory else errno.ENOTDIR, "is a directory, or is none"
                )
            if replaced is not None and replaced.names:
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
            self._name(there, target, node)
            self._name(here, name, None)

    def link(self, old: StrPath, new: StrPath) -> None:
        """See `Disk`."""
        with failing("make", new):
            self.begin("make")
            here, name = self._place(old)
            node = self._there(here, name)
            there, target = self._place(new)
            if target in there.names:
                raise OSError(errno.EEXIST, "")
            if node.directory:
                raise OSError(errno.EPERM, "")
            self._name(there, target, node)

    def unlink(self, path: StrPath) -> None:
        """See `Disk`."""
        with failing("remove", path):
            self.begin("remove")
            parent, name = self._place(path)
            if self._there(parent, name).directory:
                raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
            self._name(parent, name, None)

    def mkdir(self, path: StrPath, permissions: int = 0o700) -> None:
        """See `Disk`."""
        with failing("make", path):
            self.begin("make")
            parent, name = self._place(path)
            if name in parent.names:
                raise OSError(errno.EEXIST, "")
            node = Node(directory=True, permissions=permissions)
            self._name(parent, name, node)

    def listdir(self, path: StrPath) -> list[str]:
        """See `Disk`."""
        with failing("list", path):
            self.begin("list")
            return sorted(self._directory(path).names)

    def exists(self, path: StrPath) -> bool:
        """See `Disk`."""
        return self._find(path) is not None

    def stat(self, path: StrPath) -> Stat:
        """See `Disk`."""
        with failing("look at", path):
            self.begin("look at")
            node = self._find(path)
            if node is None:
                raise OSError(errno.ENOENT, "")
            return Stat(len(node.content), node.permissions, USER, node.directory)

    def lock(self, path: StrPath) -> Lock:
        """See `Disk`."""
        name = os.fspath(path)
        self.open(path, "write").close()
        if name in self._locks:
            raise LockedError(f"{name} is locked: another process uses it, stop that one")
        self._locks.add(name)
        return SimulatedLock(self._locks, name)

    def free_space(self, path: StrPath) -> int:
        """See `Disk`."""
        return (1 << 40) if self.capacity is None else max(0, self.capacity - self._used())

    def user(self) -> int:
        """See `Disk`."""
        return USER

    def token(self) -> str:
        """See `Disk`: a number, so that a run can be repeated."""
        self._tokens += 1
        return f"{self._tokens:016x}"

    # What a test does

    def chmod(self, path: StrPath, permissions: int) -> None:
        """Change permission bits, durably."""
        node = self._find(path)
        assert node is not None
        node.permissions = permissions

    def fail(self, operation: str, code: int = errno.EIO, after: int = 0) -> None:
        """Let the operation ("write", "sync", "syncdir", "rename", …) fail once, after `after` that work."""
        self._faults.append(_Fault(operation, code, after))

    def cut_after(self, operations: int) -> None:
        """Cut the power when this many more operations have been done."""
        self._cut_at = self.operations + operations

    def pending(self) -> list[Effect]:
        """All effects that a power cut now may lose."""
        found, seen = [self._root], {self._root}
        for node in found:  # grows while it is walked: whatever some crash state may show
            for child in (*node.durable_names.values(), *(one.target for one in node.effects)):
                if child is not None and child not in seen:
                    seen.add(child)
                    found.append(child)
        return [effect for node in found for effect in node.pending()]

    def snapshot(self) -> dict[str, bytes | None]:
        """Every path with its content; None for directories."""
        return dict(_walk(self._root, ""))

    def crash(self, keep: Callable[[Effect], bool]) -> SimulatedDisk:
        """The disk as it is found after a power cut now, of the pending effects those that `keep` picks."""
        after = SimulatedDisk(sector=self.sector, capacity=self.capacity)
        made: dict[Node, Node] = {}

        def rebuild(node: Node) -> Node:
            if node in made:
                return made[node]
            chosen = [one for one in node.effects if one in node.forced or keep(one)]
            content, names = apply(node, chosen)
            copy = made[node] = Node(node.directory, node.permissions, bytearray(content))
            copy.durable_content = content
            copy.names = {name: rebuild(child) for name, child in names.items()}
            copy.durable_names = dict(copy.names)
            return copy

        after._root = rebuild(self._root)
        after._tokens = self._tokens
        return after

    def synced(self) -> SimulatedDisk:
        """The disk after an orderly stop: a copy with everything on the medium."""
        return self.crash(lambda _: True)

    def crash_states(self, most: int = 1 << 10, seed: int = 0) -> Iterator[SimulatedDisk]:
        """Every different state that a power cut now may leave, or about `most` of them.

        When 2^pending is more than `most`: all, none, each effect alone, each but one, then seeded samples.
        """
        pending, seen = self.pending(), set[frozenset[tuple[str, bytes | None]]]()
        for kept in subsets(pending, most, seed):
            state = self.crash(kept.__contains__)
            mark = frozenset(state.snapshot().items())
            if mark not in seen:
                seen.add(mark)
                yield state

    # What files call

    def begin(self, operation: str) -> None:
        """Count an operation unless it only reads; raises `PowerCut`, or a fault asked for as OSError."""
        if self._cut_at is not None and self.operations >= self._cut_at:
            raise PowerCut
        self.operations += operation not in _READS
        for fault in self._faults:
            if fault.operation == operation:
                fault.after -= 1
                if fault.after < 0:
                    self._faults.remove(fault)
                    raise OSError(fault.code, os.strerror(fault.code))

    def room(self, node: Node, end: int) -> int:
        """How far, at most up to `end`, a file may reach before the disk is full."""
        if self.capacity is None:
            return end
        return min(end, max(len(node.content), self.capacity - self._used() + len(node.content)))

    def put(self, node: Node, data: bytes, offset: int) -> None:
        """Write; the effects are the new size and one for each sector touched."""
        end = offset + len(data)
        if end > len(node.content):
            node.content.extend(bytes(end - len(node.content)))
            node.effects.append(Effect(node, size=end))
        node.content[offset:end] = data
        at = offset
        while at < end:
            stop = min(end, (at // self.sector + 1) * self.sector)
            node.effects.append(Effect(node, offset=at, data=data[at - offset : stop - offset]))
            at = stop

    def _used(self) -> int:
        return sum(len(content) for content in self.snapshot().values() if content is not None)

    def _name(self, parent: Node, name: str, node: Node | None) -> None:
        parent.effects.append(Effect(parent, name=name, target=node))
        parent.names.pop(name, None)
        if node is not None:
            parent.names[name] = node

    def _there(self, parent: Node, name: str) -> Node:
        if name not in parent.names:
            raise OSError(errno.ENOENT, "")
        return parent.names[name]

    def _find(self, path: StrPath) -> Node | None:
        node = self._root
        for part in _parts(path):
            if part not in node.names:
                return None
            node = node.names[part]
        return node

    def _directory(self, path: StrPath) -> Node:
        node = self._find(path)
        if node is None or not node.directory:
            raise OSError(errno.ENOENT, "")
        return node

    def _place(self, path: StrPath) -> tuple[Node, str]:
        *parents, name = _parts(path)
        return self._directory("/".join(parents)), name


def after_power_cuts(
    before: SimulatedDisk,
    program: Callable[[SimulatedDisk, Callable[[object], None]], None],
    most: int = 1 << 10,
) -> Iterator[tuple[SimulatedDisk, list[object]]]:
    """Run `program(disk, acknowledge)` on copies of `before`, cutting the power at each of its operations.

    Yields each state the disk may be found in, with what the program had acknowledged until then; the last
    ones are those of a cut right after its end.
    """
    for operations in itertools.count():
        disk, acknowledged = before.synced(), list[object]()
        disk.cut_after(operations)
        try:
            program(disk, acknowledged.append)
            ended = True
        except PowerCut:
            ended = False
        for state in disk.crash_states(most):
            yield state, acknowledged
        if ended:
            return


def _parts(path: StrPath) -> list[str]:
    return [part for part in os.path.normpath(os.fspath(path)).split("/") if part not in ("", ".")]


def _walk(node: Node, path: str) -> Iterator[tuple[str, bytes | None]]:
    for name, child in sorted(node.names.items()):
        yield f"{path}/{name}", None if child.directory else bytes(child.content)
        yield from _walk(child, f"{path}/{name}")
