"""Packets for tests: a source that has them in a list, a sink that keeps them, framed as those of a TUN are.

size u16 | bytes        the size counts the bytes
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

FRAME = 2


class Pile:
    """A source. `dropped` are packets that fit no cell, `moments` when it was asked."""

    def __init__(self, packets: Iterable[bytes] = (), largest: int = 60_000) -> None:
        self.packets = deque(packets)
        self.largest = largest
        self.dropped: list[bytes] = []
        self.moments: list[float] = []
        self.poured: list[int] = []

    def waiting(self) -> int:
        return FRAME + len(self.packets[0]) if self.packets else 0

    def accompany(self) -> None:
        pass

    def pour(self, room: memoryview, now: float) -> int:
        self.moments.append(now)
        pos = 0
        while self.packets:
            packet = self.packets[0]
            end = pos + FRAME + len(packet)
            if end - pos > self.largest:
                self.dropped.append(self.packets.popleft())
                continue
            if end > len(room):
                break
            room[pos : pos + FRAME] = len(packet).to_bytes(FRAME, "big")
            room[pos + FRAME : end] = packet
            self.packets.popleft()
            pos = end
        self.poured.append(pos)
        return pos


class Kept:
    """A sink. `bodies` are as many sizes as there were calls, `marked` how many of them were."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []
        self.bodies: list[int] = []
        self.marked = 0

    def packets_received(self, body: memoryview, marked: bool) -> None:
        self.bodies.append(len(body))
        self.marked += marked
        pos = 0
        while pos + FRAME <= len(body):
            size = int.from_bytes(body[pos : pos + FRAME], "big")
            self.packets.append(bytes(body[pos + FRAME : pos + FRAME + size]))
            pos += FRAME + size
