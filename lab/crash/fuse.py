"""A file system of the lab that forgets at command what was not synced: the simulated disk behind FUSE.

    real program ── system calls ── Linux ── /dev/fuse ── a child process with a `SimulatedDisk`

So stock programs (Python's own SQLite, with its memory maps and locks) meet the same power cuts. `Mounted`
mounts it on a folder; `cut()` leaves of what was not durable a random legal part, as the next boot finds it.
It speaks the kernel's protocol itself (linux/fuse.h, version 7.31) and needs no library, but root and
/dev/fuse; `why_not()` says what is missing. Times are not kept, and there are no symbolic links.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import random
import select
import socket
import stat as modes
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from lab.crash.states import States
from lab.simulation import subsets
from lab.simulation.disk import SimulatedDisk
from lab.simulation.medium import Node
from lab.simulation.models import Model
from meshnet.errors import LocalError, StorageError

DEVICE: Final = "/dev/fuse"
_MAJOR, _MINOR = 7, 31
_MOST_WRITTEN: Final = 1 << 17
_BIG_WRITES: Final = 1 << 5
_NOSUID_NODEV: Final = 2 | 4
_DETACH: Final = 2
_ROOT: Final = 1
_VALID: Final = 3600  # seconds for which names hold: nobody but the kernel changes them

_IN = struct.Struct("<IIQQIIII")
_OUT = struct.Struct("<IiQ")
_ATTR = struct.Struct("<QQQQQQIIIIIIIIII")
_ENTRY = struct.Struct("<QQQQII")


def why_not() -> str | None:
    """Why it cannot be mounted here, in a sentence; None if it can."""
    if not sys.platform.startswith("linux"):
        return "FUSE is tried on Linux only."
    if not os.path.exists(DEVICE):
        return f"There is no {DEVICE} here."
    if os.geteuid() != 0:
        return "Only root may mount."
    try:
        os.close(os.open(DEVICE, os.O_RDWR))
    except OSError as fault:
        return f"{DEVICE} cannot be opened: {fault.strerror}."
    return None


class Mounted:
    """The file system, mounted on `folder`, which must exist. As a context it is unmounted at the end."""

    def __init__(self, folder: Path, model: Model, seed: int = 0) -> None:
        self._folder = folder
        self._control, other = socket.socketpair()
        self._child = os.fork()
        if self._child == 0:
            try:
                self._control.close()
                _Server(folder, model, random.Random(seed)).run(other)
            finally:
                os._exit(0)
        other.close()
        try:
            self._ask(b"mount")
        except BaseException:
            self.close()
            raise

    def cut(self) -> None:
        """The power goes, and comes again. Nobody may have a file open there."""
        self._unmount()
        self._ask(b"cut")

    def close(self) -> None:
        """Unmount it; everything in it is gone."""
        with contextlib.suppress(OSError):
            self._unmount()
        self._control.close()
        os.waitpid(self._child, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, what: bytes) -> None:
        self._control.sendall(what)
        answer = self._control.recv(1000).decode()
        if answer != "ok":
            raise LocalError(f"The lab's file system could not be mounted: {answer or 'its process died'}.")

    def _unmount(self) -> None:
        if _libc().umount2(os.fsencode(self._folder), _DETACH) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _mount(folder: Path) -> int:
    """The device, over which the kernel asks."""
    device = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    if _libc().mount(b"simulated", os.fsencode(folder), b"fuse", ctypes.c_ulong(_NOSUID_NODEV), options):
        os.close(device)
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return device


_ROOM = struct.pack("<QQQQQIIII24x", *[1 << 20] * 3, 0, 0, 4096, 255, 4096, 0)

Answer = Callable[[int, bytes], bytes]


class _Server:
    """Answers the kernel from a simulated disk; runs in a process of its own."""

    def __init__(self, folder: Path, model: Model, chance: random.Random) -> None:
        self._folder = folder
        self._chance = chance
        self._device = -1
        self._take(SimulatedDisk(model=model))
        self._answers: dict[int, Answer] = {
            1: self._lookup,
            3: lambda node, _: self._attr(node),
            4: self._setattr,
            9: self._mkdir,
            10: self._unlink,
            12: lambda node, data: self._rename(node, data[:8], data[8:]),
            13: self._link,
            14: lambda _node, _: struct.pack("<QII", 0, 0, 0),
            15: self._read,
            16: self._write,
            17: lambda _node, _: _ROOM,
            18: lambda _node, _: b"",
            20: lambda node, _: self._sync(node, "sync"),
            25: lambda _node, _: b"",
            26: self._init,
            27: lambda _node, _: struct.pack("<QII", 0, 0, 0),
            28: self._readdir,
            29: lambda _node, _: b"",
            30: lambda node, _: self._sync(node, "syncdir"),
            34: lambda _node, _: b"",
            35: self._create,
            45: lambda node, data: self._rename(node, data[:8], data[16:]),
        }

    def run(self, control: socket.socket) -> None:
        """Until the other end of `control` is closed, if only because its process was killed."""
        try:
            self._until_closed(control)
        finally:
            _libc().umount2(os.fsencode(self._folder), _DETACH)  # it may be unmounted already

    def _until_closed(self, control: socket.socket) -> None:
        while True:
            waiting = [control.fileno(), *([self._device] if self._device >= 0 else [])]
            ready, _, _ = select.select(waiting, [], [])
            if control.fileno() in ready:
                command = control.recv(100)
                if not command:
                    return
                control.sendall(self._obey(command).encode())
            elif self._device in ready:
                self._serve()

    def _obey(self, command: bytes) -> str:
        try:
            if command == b"cut":
                self._hang_up()
                self._take(self._after())
            self._device = _mount(self._folder)
        except OSError as fault:
            return str(fault.strerror or fault)
        return "ok"

    def _hang_up(self) -> None:
        device, self._device = self._device, -1
        if device >= 0:
            os.close(device)

    def _take(self, disk: SimulatedDisk) -> None:
        self._disk = disk
        self._nodes: dict[int, tuple[Node, str]] = {_ROOT: (disk.root, "/")}
        self._numbers: dict[Node, int] = {disk.root: _ROOT}

    def _after(self) -> SimulatedDisk:
        """One of the states that a cut now may leave."""
        chance, states = self._chance, States(self._disk)
        odds = chance.choice((0.0, 1.0, 0.5, chance.random()))
        mask = sum(1 << place for place in range(len(states.lost)) if chance.random() < odds)
        garbage = self._disk.model.garbage and chance.random() < 0.5
        return states.disk(subsets.without(states.needs, mask), garbage)

    def _serve(self) -> None:
        """One request."""
        try:
            request = os.read(self._device, _MOST_WRITTEN + 8192)
        except OSError as fault:
            if fault.errno == errno.ENODEV:  # unmounted
                self._hang_up()
            return
        _, code, unique, node, *_ = _IN.unpack_from(request)
        if code in (2, 36, 42):  # FORGET, INTERRUPT, BATCH_FORGET: nothing is answered
            return
        try:
            found = self._answers.get(code)
            if found is None:
                raise OSError(errno.ENOSYS, "")
            answer, fault_code = found(node, request[_IN.size :]), 0
        except OSError as fault:
            answer, fault_code = b"", fault.errno or errno.EIO
        except StorageError as fault:
            cause = fault.__cause__
            answer, fault_code = b"", (cause.errno if isinstance(cause, OSError) else None) or errno.EIO
        with contextlib.suppress(OSError):  # it was interrupted meanwhile
            os.write(self._device, _OUT.pack(_OUT.size + len(answer), -fault_code, unique) + answer)

    # What the kernel asks; numbers of nodes in, packed answers out

    def _init(self, _node: int, data: bytes) -> bytes:
        most = struct.unpack_from("<II", data)
        if most[0] != _MAJOR:
            raise OSError(errno.EPROTO, "")
        return struct.pack(
            "<IIIIHHIIHHI28x", _MAJOR, _MINOR, 1 << 17, _BIG_WRITES, 12, 9, _MOST_WRITTEN, 1, 0, 0, 0
        )

    def _lookup(self, node: int, data: bytes) -> bytes:
        return self._entry(node, _name(data))

    def _entry(self, parent: int, name: str) -> bytes:
        directory, path = self._nodes[parent]
        child = directory.names.get(name)
        if child is None:
            raise OSError(errno.ENOENT, "")
        number = self._numbers.setdefault(child, len(self._numbers) + 1)
        self._nodes[number] = child, os.path.join(path, name)
        return _ENTRY.pack(number, 0, _VALID, 0, 0, 0) + self._packed(number, child)

    def _packed(self, number: int, node: Node) -> bytes:
        size = len(node.content)
        mode = (modes.S_IFDIR if node.directory else modes.S_IFREG) | node.permissions
        times = (0, 0, 0, 0, 0, 0)
        return _ATTR.pack(number, size, -(-size // 512), *times, mode, 1, 0, 0, 0, 4096, 0)

    def _attr(self, node: int) -> bytes:
        return struct.pack("<QII", 0, 0, 0) + self._packed(node, self._nodes[node][0])

    def _setattr(self, node: int, data: bytes) -> bytes:
        valid, _, _, size, *_ = struct.unpack_from("<IIQQ", data)
        (mode,) = struct.unpack_from("<I", data, 68)
        target, path = self._nodes[node]
        if valid & 1:
            target.permissions = modes.S_IMODE(mode)
        if valid & 8:
            self._disk.begin("cut")
            self._disk.cut(target, size, path)
        return self._attr(node)

    def _mkdir(self, node: int, data: bytes) -> bytes:
        mode, _ = struct.unpack_from("<II", data)
        name = _name(data[8:])
        self._disk.mkdir(self._path(node, name), modes.S_IMODE(mode))
        return self._entry(node, name)

    def _create(self, node: int, data: bytes) -> bytes:
        flags, mode, _, _ = struct.unpack_from("<IIII", data)
        name = _name(data[16:])
        path = self._path(node, name)
        how = "create" if flags & os.O_EXCL else "write"
        self._disk.open(path, how, modes.S_IMODE(mode)).close()  # type: ignore[arg-type]
        return self._entry(node, name) + struct.pack("<QII", 0, 0, 0)

    def _unlink(self, node: int, data: bytes) -> bytes:
        self._disk.unlink(self._path(node, _name(data)))
        return b""

    def _link(self, node: int, data: bytes) -> bytes:
        (old,) = struct.unpack_from("<Q", data)
        name = _name(data[8:])
        self._disk.link(self._nodes[old][1], self._path(node, name))
        return self._entry(node, name)

    def _rename(self, node: int, where: bytes, names: bytes) -> bytes:
        old, new, *_ = names.split(b"\0")
        (there,) = struct.unpack("<Q", where)
        moved = self._nodes[node][0].names.get(os.fsdecode(old))
        target = self._path(there, os.fsdecode(new))
        self._disk.rename(self._path(node, os.fsdecode(old)), target)
        if moved in self._numbers:
            self._nodes[self._numbers[moved]] = moved, target
        return b""

    def _read(self, node: int, data: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", data)
        return bytes(self._nodes[node][0].content[offset : offset + size])

    def _write(self, node: int, data: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", data)
        target, path = self._nodes[node]
        self._disk.begin("write")
        self._disk.put(target, data[40 : 40 + size], offset, path)
        return struct.pack("<II", size, 0)

    def _sync(self, node: int, operation: str) -> bytes:
        target, path = self._nodes[node]
        self._disk.sync(target, operation, path)
        return b""

    def _readdir(self, node: int, data: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", data)
        entries = b""
        for place, (name, child) in enumerate(sorted(self._nodes[node][0].names.items())):
            if place < offset:
                continue
            text, kind = os.fsencode(name), 4 if child.directory else 8
            entry = struct.pack("<QQII", place + 2, place + 1, len(text), kind) + text
            entry += bytes(-len(entry) % 8)
            if len(entries) + len(entry) > size:
                break
            entries += entry
        return entries

    def _path(self, node: int, name: str) -> str:
        return os.path.join(self._nodes[node][1], name)


def _name(data: bytes) -> str:
    return os.fsdecode(data.partition(b"\0")[0])
