"""A disk in memory that forgets at a power cut whatever a real one may forget.

`SimulatedDisk` is a `meshnet.storage.disk.Disk`. It keeps what programs see at once, and beside it the
effects that are not durable yet (`medium.py`): each write cut at sector borders, the size apart from the
bytes, the names in directories. Which of them a sync makes durable, and which must come before which, says
its model (`models.py`); by default the strictest legal one, in which nothing is ordered but by a sync.

    crash     `crash(keep)` makes one state, `crash_states()` all of them, or a sample when they are too many
    death     `fork()`: the programs died, the machine runs on; what is not durable stays so
    cut       `cut_after(n)`: the n-th operation from now raises `PowerCut` and does nothing
    faults    `fail(operation, code, after)`, `capacity` (bytes, then ENOSPC), `short_writes` (bytes a call)
    log       what was done, in order, each with its effects; `watch` is called before each next operation

A failing fsync is as on Linux: the kernel calls the pages clean, so no later fsync makes them durable. A call
that a signal interrupts (EINTR) is done again, as Python does it (PEP 475). The disk knows no symbolic links,
no times, and one user.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Iterator

from attrs import define, field, frozen

from lab.simulation import subsets
from lab.simulation.medium import Change, Effect, Medium, Node, fork, pending, rebuild
from lab.simulation.models import STRICT, Model
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


@frozen(eq=False)
class Operation:
    """One thing that a program did to the disk: a word, what to, and the effects it left."""

    word: str
    path: str
    effects: tuple[Effect, ...] = ()

    def __str__(self) -> str:
        return f"{self.word} {self.path}"


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
        self._disk.put(self._node, bytes(data[:taken]), offset, self.path)
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
            self._disk.cut(self._node, size, self.path)

    def fsync(self) -> None:
        """See `File`."""
        with failing("sync", self.path):
            if not self._open:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            self._disk.sync(self._node, "sync", self.path)

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
    """See the module. `sector` is the size in bytes at which a write may tear, by default the model's."""

    def __init__(
        self, *, sector: int | None = None, capacity: int | None = None, model: Model = STRICT
    ) -> None:
        self.model = model if sector is None else model.with_sector(sector, torn=model.torn)
        self.capacity = capacity
        self.short_writes = 0
        self.met: list[bool] = []
        """One entry for each fault that came."""
        self.operations = 0
        self.boots = 0
        """How often the machine has fallen: with a `fork` it runs on."""
        self.log: list[Operation] = []
        self.watch: Callable[[], object] | None = None
        self.root = Node(directory=True, permissions=0o700)
        self._medium = Medium(self.model)
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
                self._name("make", path, (parent, name, node))
            if node.directory:
                raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
            return SimulatedFile(os.fspath(path), self, node, mode != "read")

    def fsyncdir(self, path: StrPath) -> None:
        """See `Disk`."""
        with failing("sync", path):
            self.sync(self._directory(path), "syncdir", os.fspath(path))

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
            word = f"rename {os.fspath(old)} to"
            self._name(word, new, (there, target, node), (here, name, None), replacing=replaced and node)

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
            self._name(f"link {os.fspath(old)} as", new, (there, target, node))

    def unlink(self, path: StrPath) -> None:
        """See `Disk`."""
        with failing("remove", path):
            self.begin("remove")
            parent, name = self._place(path)
            if self._there(parent, name).directory:
                raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
            self._name("remove", path, (parent, name, None))

    def mkdir(self, path: StrPath, permissions: int = 0o700) -> None:
        """See `Disk`."""
        with failing("make", path):
            self.begin("make")
            parent, name = self._place(path)
            if name in parent.names:
                raise OSError(errno.EEXIST, "")
            node = Node(directory=True, permissions=permissions)
            self._name("make directory", path, (parent, name, node))

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

    def spoil(self, path: StrPath, offset: int, mask: int) -> None:
        """Flip bits of one byte of a file, on the medium."""
        node = self._find(path)
        assert node is not None
        content = node.own()
        content[offset] ^= mask
        node.base = bytes(content)

    def fail(self, operation: str, code: int = errno.EIO, after: int = 0) -> None:
        """Let the operation ("write", "sync", "syncdir", "rename", …) fail once, after `after` that work."""
        self._faults.append(_Fault(operation, code, after))

    def cut_after(self, operations: int) -> None:
        """Cut the power when this many more operations have been done."""
        self._cut_at = self.operations + operations

    def pending(self) -> list[Effect]:
        """All effects that a power cut now may lose."""
        return pending(self.root)

    def snapshot(self) -> dict[str, bytes | None]:
        """Every path with its content; None for directories."""
        return dict(_walk(self.root, ""))

    def crash(self, keep: Callable[[Effect], bool], fill: bytes = b"") -> SimulatedDisk:
        """The disk as it is found after a power cut now, of the pending effects those that `keep` picks.

        What lacks something that it needs is lost too. `fill` is what grown files hold where no bytes came.
        """
        kept, lost = set[Effect](), set[Effect]()
        for effect in self.pending():
            there = keep(effect) and lost.isdisjoint(effect.needs)
            (kept if there else lost).add(effect)
        return self.found(rebuild(self.root, kept.__contains__, fill))

    def found(self, root: Node) -> SimulatedDisk:
        """A disk like this one that holds this tree, after a fall of the machine."""
        after = SimulatedDisk(capacity=self.capacity, model=self.model)
        after.root = root
        after.boots = self.boots + 1
        after._tokens = self._tokens
        return after

    def fork(self) -> SimulatedDisk:
        """The disk as the next program finds it when all programs were killed and the machine runs on."""
        after = SimulatedDisk(capacity=self.capacity, model=self.model)
        after.root, after._medium, twin = fork(self.root, self._medium)
        after.boots = self.boots
        after._tokens = self._tokens
        after.log = [Operation(one.word, one.path, tuple(map(twin, one.effects))) for one in self.log]
        return after

    def synced(self) -> SimulatedDisk:
        """The disk after an orderly stop: a copy with everything on the medium."""
        return self.crash(lambda _: True)

    def crash_states(self, most: int = 1 << 10, seed: int = 0) -> Iterator[SimulatedDisk]:
        """Every different state that a power cut now may leave, or about `most` of them (`subsets.py`)."""
        lost = self.pending()
        bits = {effect: 1 << place for place, effect in enumerate(lost)}
        needs = [sum({bits.get(one, 0) for one in effect.needs}) for effect in lost]
        seen = set[frozenset[tuple[str, bytes | None]]]()
        for mask in subsets.all_or_some(needs, most, seed):
            state = self.crash(lambda effect, mask=mask: bool(bits[effect] & mask))  # type: ignore[misc]
            mark = frozenset(state.snapshot().items())
            if mark not in seen:
                seen.add(mark)
                yield state

    # What files call

    def begin(self, operation: str) -> None:
        """Count an operation unless it only reads; raises `PowerCut`, or a fault asked for as OSError."""
        if self._cut_at is not None and self.operations >= self._cut_at:
            raise PowerCut
        if operation not in _READS:
            self.operations += 1
            if self.watch is not None:
                self.watch()
        if self._faults:
            self._fault(operation)

    def _fault(self, operation: str) -> None:
        for fault in self._faults:
            if fault.operation == operation:
                fault.after -= 1
                if fault.after < 0:
                    self._faults.remove(fault)
                    self.met.append(True)
                    if fault.code == errno.EINTR:
                        return  # done again at once
                    self.log.append(Operation(f"{errno.errorcode[fault.code]} instead of", operation))
                    raise OSError(fault.code, os.strerror(fault.code))

    def room(self, node: Node, end: int) -> int:
        """How far, at most up to `end`, a file may reach before the disk is full."""
        if self.capacity is None:
            return end
        return min(end, max(len(node.content), self.capacity - self._used() + len(node.content)))

    def put(self, node: Node, data: bytes, offset: int, path: str) -> None:
        """Write; the effects are the new size and one for each sector touched."""
        effects = self._medium.write(node, data, offset)
        end, content = offset + len(data), node.own()
        if end > len(content):
            content.extend(bytes(end - len(content)))
        content[offset:end] = data
        self.log.append(Operation(f"write {len(data)} bytes at {offset} of", path, tuple(effects)))

    def cut(self, node: Node, size: int, path: str) -> None:
        """Make a file so long."""
        if size == len(node.content):
            return
        effects = self._medium.cut(node, size)
        content = node.own()
        del content[size:]
        content.extend(bytes(size - len(content)))
        self.log.append(Operation(f"cut to {size} bytes", path, tuple(effects)))

    def sync(self, node: Node, operation: str, path: str) -> None:
        """Make durable what the model says, or fail at it."""
        try:
            self.begin(operation)
        except OSError:
            self._medium.fail_sync(node)
            raise
        self._medium.sync(node)
        self.log.append(Operation("sync", path))

    def _used(self) -> int:
        return sum(len(content) for content in self.snapshot().values() if content is not None)

    def _name(self, word: str, path: StrPath, *changes: Change, replacing: Node | None = None) -> None:
        effects = self._medium.rename(changes, replacing)
        for parent, name, node in changes:
            parent.names.pop(name, None)
            if node is not None:
                parent.names[name] = node
        self.log.append(Operation(word, os.fspath(path), tuple(effects)))

    def _there(self, parent: Node, name: str) -> Node:
        if name not in parent.names:
            raise OSError(errno.ENOENT, "")
        return parent.names[name]

    def _find(self, path: StrPath) -> Node | None:
        node = self.root
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
