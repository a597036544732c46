"""A TUN device under the reactor: read in bursts, each frame handed to the flow that carries it.

Who carries what is one of two things:

- `single`: everything goes to one flow, as at a client of the VPN;
- `routed`: a table tells the flow by the destination address, as at an exit and in the mesh.

Superpackets are read straight into cells where that can be: while a cell is made for the flow that had the
last ones, and nothing of it waits. Otherwise packets wait where they can be told apart, in the flows' queues.
While one flow holds half of what it may and no other holds anything, the device is not read: then the
kernel's queue waits, and a program that floods is stopped by its own kernel instead of by work done here.
With several flows that would make one wait for another; after PATIENCE the device is read on, and the flow
that is full drops its own.

While one flow brings much, the kernel's answers gather: they are acknowledgements, of which the last says it
all. They are read after ANSWER_BYTES or ANSWER_SECONDS, or when a cell leaves anyway; the first of a burst
are read at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from apps.vpn.packets.faults import Fault, new_counts
from apps.vpn.packets.merge import Intake
from apps.vpn.packets.virtio import PLAIN
from apps.vpn.tun.device import USO4, Device
from apps.vpn.tun.flow import Admit, PacketFlow, admit_all
from meshnet.errors import LinkLostError, MeshError

FRAMES_PER_TURN: Final = 16
BYTES_PER_TURN: Final = 256 << 10
"""Read in one turn of the reactor, so much that what was read is still near when it is sent."""
PATIENCE: Final = 0.02
"""Seconds that the device is not read for the sake of one flow, where others may wait behind it."""

ANSWER_BYTES: Final = 480_000
"""From one flow, after which its answers are read at the latest."""
ANSWER_SECONDS: Final = 0.002

_log = Logger()

Find = Callable[[memoryview], PacketFlow | None]
"""The flow that carries a frame; None: it has been seen to."""


@implementer(IReadDescriptor)
class Tun:
    """A device and its flows. `now` gives monotonic seconds; `gone` is called if the interface vanishes.

    `turn` runs an event so that what it has to send leaves at its end (`meshnet.node.app.MeshNode.turn`).
    Say `single` or `routed`, then `start`. `too_large` is called with a frame that fits into no cell and the
    bytes that would; set it where its sender can be told. `strays` counts what no flow carries, by `Fault`.
    """

    direct = True  # meshnet/cli/reactor.py

    def __init__(
        self,
        device: Device,
        reactor: Any,
        now: Callable[[], float],
        gone: Callable[[MeshError], None] = lambda why: None,
        turn: Callable[[Callable[[float], None]], None] | None = None,
    ) -> None:
        self.device = device
        self.now = now
        self.too_large: Callable[[memoryview, int], None] = lambda frame, most: None
        self.strays = new_counts()
        self.waits_for: PacketFlow | None = None
        self._recent: PacketFlow | None = None
        self._reactor = reactor
        self._turn = turn if turn is not None else lambda call: call(now())
        self._gone = gone
        self._intake = Intake(device.read, merges=bool(device.offloads & USO4))
        self._find: Find = self._unfound
        self._alone = False
        self._reading = False
        self._resume: Any = None
        self._gathering = False  # answers: the device is not read
        self._answered = 0.0  # when they were read last
        self._unanswered = 0  # bytes that came since
        self._alarm: Any = None

    @property
    def superseded(self) -> int:
        """Acknowledgements that were left out for later ones (`apps.vpn.packets.merge`)."""
        return self._intake.superseded

    # who carries what

    def single(self, admit: Admit = admit_all) -> PacketFlow:
        """One flow that carries everything."""
        flow = PacketFlow(self, admit)
        self._find = lambda frame: flow
        self._alone = True
        return flow

    def routed(self, find: Find) -> None:
        """`find` tells the flow of each frame. It may keep a frame only as a copy, and gets one that the
        kernel has made: an IP packet whose headers are whole."""
        self._find = find
        self._alone = False

    def flow(self, admit: Admit = admit_all) -> PacketFlow:
        """One of several flows."""
        return PacketFlow(self, admit)

    def write(self, packet: bytes) -> bool:
        """Gives the kernel a complete packet of our own making; false if it did not take it."""
        try:
            self.device.write(memoryview(bytearray(PLAIN + packet)))
        except OSError:
            return False
        return True

    # answers

    def gathers(self, flow: PacketFlow, size: int, now: float) -> bool:
        """So many bytes came over `flow` and were written: whether what they are answered by is left to
        gather."""
        self._unanswered += size
        if (
            self._unanswered >= ANSWER_BYTES
            or now - self._answered >= ANSWER_SECONDS
            or self._recent is not flow
            or self.waits_for is not None
        ):
            self.gathered(now)
            return False
        if not self._gathering and self._reading:
            self._gathering = True
            self._reactor.removeReader(self)
            if self._alarm is None:
                self._alarm = self._reactor.callLater(ANSWER_SECONDS, self._late)
        return True

    def gathered(self, now: float) -> bool:
        """Answers are read now; whether they had gathered."""
        self._answered = now
        self._unanswered = 0
        if not self._gathering:
            return False
        self._gathering = False
        if self._reading and self.waits_for is None:
            self._reactor.addReader(self)
        return True

    def _late(self) -> None:
        self._alarm = None
        self.gathered(self.now())

    # life

    def start(self) -> None:
        """Reads from now on."""
        self._reading = True
        self._reactor.addReader(self)

    def stop(self) -> None:
        """Closes the device; the interface goes. Twice is once."""
        self._wake()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._reading:
            self._reading = self._gathering = False
            self._reactor.removeReader(self)
        self.device.close()

    # the reactor's side

    def fileno(self) -> int:
        """For the reactor."""
        return self.device.fileno()

    def look(self) -> None:
        """Reads what waits, without having been told that anything does."""
        if self._reading and self.waits_for is None:
            self._take(self.now())

    def straight(self, flow: PacketFlow, room: memoryview) -> int:
        """The next superpacket, read into a cell of `flow`: its size. 0 if there is none, or none for there:
        then what came lies in the queue of the flow that carries it."""
        if not self._reading or self.waits_for is not None:
            return 0
        try:
            size = self._intake.straight(room)
        except OSError as problem:
            self._lost(problem.strerror or "it cannot be read")
            return 0
        if size < 0:
            self._take(self.now())
            return 0
        if size and (found := self._find(room[:size])) is not flow:
            if found is not None:
                found.offer(room[:size], self.now())
                found.ready()
            return 0
        return size

    def doRead(self) -> None:
        """Frames wait."""
        self._turn(self._event)

    def _event(self, now: float) -> None:
        """The flow that had the last frames may read these as its next cell is made."""
        flow = self._recent
        if flow is None or not flow.invited():
            self._take(now)

    def _take(self, now: float) -> None:
        """Frames to the flows that carry them: as many as make a turn."""
        take, find = self._intake.take, self._find
        touched: dict[PacketFlow, None] = {}
        frames, size = FRAMES_PER_TURN, BYTES_PER_TURN
        try:
            while frames and size > 0 and (frame := take()) is not None:
                frames -= 1
                size -= len(frame)
                flow = find(frame)
                if flow is None:
                    continue
                touched[flow] = None
                self._recent = flow
                if not flow.offer(frame, now) and (self._alone or flow.patient):
                    self._pause(flow)
                    break
        except OSError as problem:
            self._lost(problem.strerror or "it cannot be read")
        for flow in touched:
            flow.ready()

    def connectionLost(self, reason: Failure) -> None:
        """The interface is gone, or the reactor is stopping."""
        self._lost("it was removed")

    def logPrefix(self) -> str:
        """For the reactor's log."""
        return "tun"

    def _unfound(self, frame: memoryview) -> PacketFlow | None:
        self.strays[Fault.GONE] += 1
        return None

    def _lost(self, why: str) -> None:
        if not self._reading:
            return
        self.stop()
        self._gone(LinkLostError(f"The interface {self.device.name} is gone: {why}."))

    # back-pressure

    def _pause(self, flow: PacketFlow) -> None:
        self.waits_for = flow
        self._reactor.removeReader(self)
        if not self._alone:
            self._resume = self._reactor.callLater(PATIENCE, self._impatient, flow)

    def _impatient(self, flow: PacketFlow) -> None:
        self._resume = None
        flow.patient = False
        self._wake()

    def eased(self, flow: PacketFlow) -> None:
        """A flow that the device waits for, or waited for too long, has sent something."""
        if flow.easy:
            self.relax(flow)

    def relax(self, flow: PacketFlow) -> None:
        """A flow takes packets again."""
        flow.patient = True
        if self.waits_for is flow:
            self._wake()

    def _wake(self) -> None:
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None
        if self.waits_for is not None:
            self.waits_for = None
            if self._reading and not self._gathering:
                self._reactor.addReader(self)
