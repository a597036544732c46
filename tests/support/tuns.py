"""TUN devices, streams and a reactor for tests that want no kernel."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from twisted.internet.task import Clock

from apps.vpn.tun.device import CSUM, TSO4, TSO6, USO4, USO6
from apps.vpn.tun.flow import PacketFlow


class FakeDevice:
    """A device in memory: `frames` are to be read, `written` has been written."""

    def __init__(self, offloads: int = CSUM | TSO4 | TSO6 | USO4 | USO6) -> None:
        self.name = "fake0"
        self.index = 7
        self.mtu = 1_500
        self.offloads = offloads
        self.frames: deque[bytes] = deque()
        self.written: list[bytes] = []
        self.refuses: OSError | None = None
        self.broken: OSError | None = None
        self.closed = False

    def fileno(self) -> int:
        return -1 if self.closed else 7

    def read(self, buffers: Sequence[memoryview | bytearray]) -> int:
        if self.broken is not None:
            raise self.broken
        if not self.frames:
            raise BlockingIOError
        rest = frame = self.frames.popleft()
        for buffer in buffers:
            part = rest[: len(buffer)]
            buffer[: len(part)] = part
            rest = rest[len(part) :]
        return len(frame)

    def write(self, frame: memoryview) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.written.append(bytes(frame))

    def alive(self) -> bool:
        return not self.closed

    def close(self) -> None:
        self.closed = True


class FakeReactor(Clock):
    """A clock that knows who reads."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()

    def addReader(self, reader: Any) -> None:
        self.readers.add(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.discard(reader)

    def read(self) -> None:
        """One event for each reader."""
        for reader in list(self.readers):
            reader.doRead()


class FakeCarrier:
    """A stream that carries packets as far as its cells are large; `woken` counts `packets_ready`."""

    def __init__(self, largest: int = 60_900) -> None:
        self.largest = largest
        self.woken = 0

    @property
    def largest_packets(self) -> int:
        return self.largest

    def packets_ready(self) -> None:
        self.woken += 1


def bodies(flow: PacketFlow, size: int, now: float = 0.0) -> list[bytes]:
    """All that a flow has to say, in cells of `size` bytes, or as large as it needs."""
    found = []
    while needed := flow.waiting():
        room = memoryview(bytearray(max(size, needed)))
        written = flow.pour(room, now)
        if not written:
            break
        found.append(bytes(room[:written]))
    return found


def frames(body: bytes) -> list[bytes]:
    """The frames of a body."""
    found, at = [], 0
    while at < len(body):
        size = int.from_bytes(body[at : at + 2], "big")
        found.append(body[at + 2 : at + 2 + size])
        at += 2 + size
    return found
