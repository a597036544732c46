"""The packets of one stream at a TUN device: what waits to leave over it, what comes from it.

    device ─ Tun.doRead ─▶ offer ─▶ queue ─▶ pour ─▶ cell …… cell ─▶ packets_received ─▶ admit ─▶ device

A flow may stand before its stream does: packets wait until `carry`. It holds at most TUN_FLOW_BYTES, shared
fairly by what runs inside (`apps.vpn.packets.queue`). A superpacket that is larger than the cell which the
path wishes now is cut; what may not be cut and fits into no cell of the path is dropped, and its sender told
how much would fit (`too_large`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from attrs import define, field

from apps.vpn.packets.cut import Pieces
from apps.vpn.packets.ecn import mark
from apps.vpn.packets.faults import Fault, named, new_counts
from apps.vpn.packets.headers import check
from apps.vpn.packets.queue import Frame, PacketQueue
from apps.vpn.packets.virtio import HEADER, SIZE
from meshnet.limits import TUN_FLOW_BYTES

if TYPE_CHECKING:
    from apps.vpn.tun.reader import Tun

Admit = Callable[[memoryview], int]
"""Looks at a frame from the mesh that `check` has passed: a `Fault`, 0 to let it in."""

LARGE: Final = 16 << 10
"""Bytes of a frame that is worth to be read into its place; small ones are joined and told apart first."""
WORTH_CUTTING: Final = 8 << 10
"""A superpacket is cut for the rest of a cell only if that is so many bytes: every cell costs all nodes of a
circuit something, every piece only the last one."""


class Carrier(Protocol):
    """What a flow needs of its stream (`meshnet.streams.Stream`)."""

    @property
    def largest_packets(self) -> int:
        """Bytes of body that one `pour` may write at most."""

    def packets_ready(self) -> None:
        """The source has packets again."""


def admit_all(frame: memoryview) -> int:
    """Lets everything in."""
    return Fault.NONE


@define
class Totals:
    """Counts of flows, those that have ended too; as the flows' own."""

    frames_in: int = 0
    bytes_in: int = 0
    frames_out: int = 0
    bytes_out: int = 0
    marked: int = 0
    dropped_in: list[int] = field(factory=new_counts)
    dropped_out: list[int] = field(factory=new_counts)

    def add(self, other: PacketFlow | Totals) -> None:
        """Adds those of a flow, or of several."""
        self.frames_in += other.frames_in
        self.bytes_in += other.bytes_in
        self.frames_out += other.frames_out
        self.bytes_out += other.bytes_out
        self.marked += other.marked
        for fault in Fault:
            self.dropped_in[fault] += other.dropped_in[fault]
            self.dropped_out[fault] += other.dropped_out[fault]


class PacketFlow:
    """Source and sink of one stream (`meshnet.streams.PacketSource`, `PacketSink`).

    Counts are of frames, superpackets being one: `frames_out` and `bytes_out` went to the mesh, `frames_in`
    and `bytes_in` came from it and were written to the device. `dropped_out` and `dropped_in` are indexed by
    `Fault`. `used` is when the last packet went or came. Packets that come before `admit` lets them in are
    checked whole; a frame that is wrong ends nothing but itself.
    """

    __slots__ = (
        "_answers", "_head", "_large", "_largest", "_pieces", "_queue", "_stream", "_tun", "_write", "admit",
        "bytes_in", "bytes_out", "dropped_in", "dropped_out", "frames_in", "frames_out", "least", "patient",
        "used",
    )  # fmt: skip

    def __init__(self, tun: Tun, admit: Admit = admit_all) -> None:
        self._tun = tun
        self._write = tun.device.write
        self.admit = admit
        self._stream: Carrier | None = None
        self.dropped_out = new_counts()
        self.dropped_in = new_counts()
        self._queue = PacketQueue(TUN_FLOW_BYTES, self.dropped_out)
        self._head: Frame | None = None
        self._largest = tun.device.mtu + HEADER
        self._pieces: Pieces | None = None
        self.least = 0
        self.patient = True
        self._answers = False  # the device is to be looked at as the next cell is made
        self._large = False  # the last frame was so large that the next one is read straight into a cell
        self.frames_in = self.bytes_in = self.frames_out = self.bytes_out = 0
        self.used = tun.now()

    def carry(self, stream: Carrier) -> None:
        """From now on packets go over this stream, whose source and sink this is."""
        self._stream = stream
        if self.least:
            stream.packets_ready()

    def uncarry(self) -> None:
        """The stream is gone; packets wait for another."""
        self._stream = None

    def refuse(self, told: Callable[[memoryview], None]) -> None:
        """There will be no stream: what waits is dropped, the sender of the first told."""
        if self._head is not None:
            told(memoryview(self._head))
        self.stop()

    def stop(self) -> None:
        """The stream is gone; what waits is dropped."""
        self._stream = None
        if self.least:
            self.dropped_out[Fault.GONE] += 1
        self._head = self._pieces = None
        self.least = 0
        self._queue.clear()
        self._tun.relax(self)

    @property
    def held(self) -> int:
        """Bytes that wait."""
        return self._queue.held + self.least

    @property
    def easy(self) -> bool:
        """Whether so little waits that the device may be read on."""
        return self._queue.held * 4 < self._queue.most

    @property
    def marked(self) -> int:
        """Packets marked for congestion here."""
        return self._queue.marked

    # from the device

    def offer(self, frame: memoryview, now: float) -> bool:
        """Takes a frame of the device (copied); false if more than half of what may wait does."""
        if self.least:
            queue = self._queue
            queue.push(bytes(frame), now)
            return queue.held * 2 < queue.most
        self._lead(bytes(frame))
        return True

    def ready(self) -> None:
        """What `offer` took may leave."""
        if self._stream is not None and self.least:
            self._stream.packets_ready()

    def _lead(self, frame: Frame) -> None:
        """This frame leaves next."""
        self._head = frame
        self._pieces = None
        size = len(frame)
        self._large = size >= LARGE
        # What a piece of a superpacket needs is looked up when it must be cut; no segment exceeds the MTU.
        self.least = SIZE + (min(size, self._largest) if frame[1] else size)

    # to the mesh (PacketSource)

    def waiting(self) -> int:
        """Bytes that the next frame needs at least; 0 if none waits.

        After packets have come the device is looked at: what its programs and its kernel answer (an
        acknowledgement, as a rule) is there by now, and leaves in one cell with our own acknowledgements.
        """
        if self._answers and not self.least:
            if self._large:  # as large again, as a rule: `pour` will see
                return SIZE + self._largest
            self._answers = False
            self._tun.look()
        return self.least

    def invited(self) -> bool:
        """The device has frames: whether this flow reads them itself, as its next cell is made."""
        if not self._large or self._answers or self.least or self._stream is None:
            return False
        self._answers = True
        self._stream.packets_ready()
        return True

    def pour(self, room: memoryview, now: float) -> int:
        """Writes frames into `room`; bytes written."""
        end, size = 0, len(room)
        straight = self._answers and self._large
        if straight and self._head is None and size >= LARGE:
            end = self._read(room, 0)
            straight = False
        if straight and size < LARGE and not self.least:
            self._answers = straight = False
            self._tun.look()
        while (head := self._head) is not None:
            whole = len(head)
            start = end + SIZE
            if start + whole <= size and self._pieces is None:
                room[end] = whole >> 8
                room[end + 1] = whole & 0xFF
                end = start + whole
                room[start:end] = head
                self.frames_out += 1
            elif not end or (head[1] and size - end >= WORTH_CUTTING):
                written = self._cut(head, room[start:])
                if not written:
                    if not end and self._unfit(size, now):
                        continue
                    break
                room[end] = written >> 8
                room[end + 1] = written & 0xFF
                end = start + written
                self.frames_out += 1
                if self._pieces is not None:
                    continue
            else:
                break
            self._advance(now)
        if straight and self._head is None:
            end = self._read(room, end)
        if end:
            self.bytes_out += end
            self.used = now
        if self._tun.waits_for is self or not self.patient:
            self._tun.eased(self)
        return end

    def _read(self, room: memoryview, end: int) -> int:
        """Superpackets of the device straight into `room` from `end` on, while they will fit; the end."""
        size, least = len(room), LARGE
        while size - end - SIZE >= least:
            start = end + SIZE
            read = self._tun.straight(self, room[start:])
            if not read:
                self._answers = False
                break
            room[end] = read >> 8
            room[end + 1] = read & 0xFF
            end = start + read
            self.frames_out += 1
            least = read  # those of one flow are of one size, as a rule
        return end

    def _cut(self, head: Frame, room: memoryview) -> int:
        """Writes as much of a superpacket as fits; bytes written."""
        pieces = self._pieces
        if pieces is None:
            if not head[1]:
                return 0
            try:
                pieces = self._pieces = Pieces(memoryview(head))
            except ValueError:  # of a kind that this kernel should not have made: whole or not at all
                self.least = SIZE + len(head)
                return 0
        written = pieces.next(room)
        self.least = SIZE + pieces.least
        if not pieces.least:
            self._pieces = None
        return written

    def _advance(self, now: float) -> None:
        """The next one of the queue leads."""
        frame = self._queue.pull(now)
        if frame is None:
            self._head = self._pieces = None
            self.least = 0
        else:
            self._lead(frame)

    def _unfit(self, size: int, now: float) -> bool:
        """The head does not fit into an empty cell of `size` bytes. True if it never will: then it is
        dropped, and the next one leads."""
        stream = self._stream
        if stream is None or self.least <= max(stream.largest_packets, size):
            return False
        self.dropped_out[Fault.TOO_LARGE] += 1
        if self._head is not None:
            self._tun.too_large(memoryview(self._head), stream.largest_packets)
        self._advance(now)
        return True

    # from the mesh (PacketSink)

    def packets_received(self, body: memoryview, marked: bool) -> None:
        """Checks and writes what came in one cell."""
        at, size, write = 0, len(body), self._write
        dropped = self.dropped_in
        while at < size:
            start = at + SIZE
            at = start + (body[at] << 8 | body[at + 1]) if start <= size else size + 1
            if at > size:
                dropped[Fault.SHORT] += 1
                break
            frame = body[start:at]
            fault = check(frame) or self.admit(frame)
            if fault:
                dropped[fault] += 1
                continue
            if marked:
                mark(frame)
            try:
                write(frame)
            except OSError:
                dropped[Fault.KERNEL] += 1
                continue
            self.frames_in += 1
        self.bytes_in += size
        self.used = now = self._tun.now()
        if self._stream is None or self.least or self._answers:
            return
        if size >= LARGE and not self._large and self._tun.gathers(self, size, now):
            return
        self._answers = True
        self._stream.packets_ready()

    def accompany(self) -> None:
        """A cell leaves: answers that gather go with it (`meshnet.streams.PacketSource`)."""
        if self._tun.gathered(self._tun.now()) and self._stream is not None and not self.least:
            self._answers = True
            self._stream.packets_ready()

    def as_json(self) -> dict[str, object]:
        """For `status`."""
        return {
            "frames_out": self.frames_out,
            "bytes_out": self.bytes_out,
            "frames_in": self.frames_in,
            "bytes_in": self.bytes_in,
            "waiting_bytes": self.held,
            "marked": self.marked,
            "dropped_out": named(self.dropped_out),
            "dropped_in": named(self.dropped_in),
        }
