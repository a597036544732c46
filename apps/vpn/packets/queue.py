"""Packets that wait: a queue that is fair to flows and keeps none of them standing (RFC 8290, RFC 8289).

Flows share by turns of `QUANTUM` bytes, and one that has just begun to wait goes first: a ping or the first
packets of a page do not wait behind a download. A flow whose packets have waited longer than TARGET for a
whole INTERVAL loses one now and then, or has it marked if its ends understand that (ECN), until it keeps its
queue short. Beyond `most` bytes the flow that holds the most loses its oldest.

Flows are told apart by a hash of addresses and ports into BUCKETS; two of one bucket share a turn. Time is an
argument.
"""

from __future__ import annotations

from collections import deque
from math import sqrt
from typing import Final

from apps.vpn.packets import ecn
from apps.vpn.packets.faults import Fault
from apps.vpn.packets.headers import flow_key

TARGET: Final = 0.005
"""Seconds that packets may wait as a rule."""
INTERVAL: Final = 0.1
"""Seconds for which longer waits are taken for a burst."""
QUANTUM: Final = 16 << 10
BUCKETS: Final = 256

Frame = bytes | bytearray


class _Flow:
    """Packets of one bucket, and where CoDel is with it."""

    __slots__ = ("above", "bucket", "count", "credit", "dropping", "frames", "held", "last", "next")

    def __init__(self, bucket: int) -> None:
        self.bucket = bucket
        self.frames: deque[tuple[float, Frame]] = deque()
        self.held = 0
        self.credit = QUANTUM
        self.above = 0.0  # when it will have been above the target for an interval; 0: it is below
        self.dropping = False
        self.next = 0.0
        self.count = self.last = 0


class PacketQueue:
    """Frames that wait for a stream. `held` is their bytes; `marked` counts those that were marked.

    What is dropped is counted in `faults`, by `Fault`.
    """

    __slots__ = ("_flows", "_new", "_old", "faults", "held", "marked", "most")

    def __init__(self, most: int, faults: list[int]) -> None:
        self._flows: dict[int, _Flow] = {}
        self._new: deque[_Flow] = deque()
        self._old: deque[_Flow] = deque()
        self.most = most
        self.faults = faults
        self.held = 0
        self.marked = 0

    def __len__(self) -> int:
        return sum(len(flow.frames) for flow in self._flows.values())

    def push(self, frame: Frame, now: float) -> None:
        """One more waits, which `headers.check` has passed, or the kernel has made."""
        bucket = hash(flow_key(frame)) % BUCKETS  # type: ignore[arg-type]  # a slice is all it takes
        flow = self._flows.get(bucket)
        if flow is None:
            flow = self._flows[bucket] = _Flow(bucket)
            self._new.append(flow)
        flow.frames.append((now, frame))
        size = len(frame)
        flow.held += size
        self.held += size
        if self.held > self.most:
            self._shorten()

    def pull(self, now: float) -> Frame | None:
        """The frame whose turn it is; None if none waits."""
        while True:
            turn = self._new or self._old
            if not turn:
                return None
            flow = turn[0]
            if flow.credit <= 0:
                flow.credit += QUANTUM
                turn.popleft()
                self._old.append(flow)
                continue
            frame = self._next(flow, now)
            if frame is not None:
                flow.credit -= len(frame)
                return frame
            turn.popleft()
            if turn is self._new and self._old:
                self._old.append(flow)  # not at once new again: it would always go first
            else:
                del self._flows[flow.bucket]

    def clear(self) -> None:
        """Nobody wants them any more."""
        self.faults[Fault.GONE] += len(self)
        self._flows.clear()
        self._new.clear()
        self._old.clear()
        self.held = 0

    def _shorten(self) -> None:
        """Takes from the flow that holds the most half of what it holds, so that this is rare."""
        flow = max(self._flows.values(), key=lambda each: each.held)
        least = min(flow.held // 2, self.most)
        while flow.held > least:
            _, frame = flow.frames.popleft()
            flow.held -= len(frame)
            self.held -= len(frame)
            self.faults[Fault.FULL] += 1

    def _pop(self, flow: _Flow, now: float) -> tuple[Frame | None, bool]:
        """The oldest frame of a flow, and whether it could go for having stood too long."""
        if not flow.frames:
            flow.above = 0.0
            return None, False
        since, frame = flow.frames.popleft()
        flow.held -= len(frame)
        self.held -= len(frame)
        if now - since < TARGET or not flow.frames:
            flow.above = 0.0
            return frame, False
        if not flow.above:
            flow.above = now + INTERVAL
            return frame, False
        return frame, now >= flow.above

    def _next(self, flow: _Flow, now: float) -> Frame | None:
        """The frame that leaves next (RFC 8289 §5.5)."""
        frame, standing = self._pop(flow, now)
        if flow.dropping:
            if not standing:
                flow.dropping = False
            while flow.dropping and now >= flow.next and frame is not None:
                flow.count += 1
                flow.next += INTERVAL / sqrt(flow.count)
                if (marked := self._mark(frame)) is not None:
                    return marked
                self.faults[Fault.STANDING] += 1
                frame, standing = self._pop(flow, now)
                flow.dropping = standing
        elif standing and frame is not None:
            flow.dropping = True
            delta = flow.count - flow.last
            recent = delta > 1 and now - flow.next < 16 * INTERVAL
            flow.count = flow.last = delta if recent else 1
            flow.next = now + INTERVAL / sqrt(flow.count)
            if (marked := self._mark(frame)) is not None:
                return marked
            self.faults[Fault.STANDING] += 1
            frame, _ = self._pop(flow, now)
        return frame

    def _mark(self, frame: Frame) -> Frame | None:
        """The frame marked, where its ends understand that."""
        copy = bytearray(frame)
        if ecn.mark(copy):
            self.marked += 1
            return copy
        return None
