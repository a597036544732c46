"""Packets that belong together, read as one: what a kernel's receive offload does, on our side of a device.

A program that sends many packets of one flow at once makes the kernel hand us each of them alone. Reading,
sealing and writing are paid per packet, so they are joined while they are read: the first goes whole into the
buffer; of those that follow, the headers go into a scratch buffer and the payload right behind the payload
before. If the headers say that it is the next packet of the same flow, it is in its place already. The
kernel at the far end takes the superpacket apart again, with the same boundaries.

Joined are UDP packets of equal size and TCP segments in sequence, the last one perhaps shorter, whose headers
are equal otherwise (that is RFC 9293's ACK or PSH-ACK, no fragments, no IPv4 options, no IPv6 extension
headers), and only if the kernel vouches for their checksums; a wrong one would be made right.
Identification and checksum of IPv4 are made anew. Nothing ever waits for a packet that is not there yet.

Of acknowledgements of one TCP connection that wait behind each other only the last is taken, since it says
what those before it said (RFC 3449 §5.2.1): if it acknowledges more and they differ in nothing else but
window and timestamps. Each costs all nodes of a circuit as much as a superpacket does, save for the bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from apps.vpn.packets.checksum import pseudo_sum
from apps.vpn.packets.cut import set_lengths
from apps.vpn.packets.headers import TCP, UDP
from apps.vpn.packets.virtio import HEADER, LARGEST_PACKET, SUM, VALID, Gso, write

LARGEST_RUN: Final = 60_000
"""Bytes of a packet that several were joined to, as the devices' own superpackets."""
MOST_SEGMENTS: Final = 64
"""Packets of one run; older kernels take no more of UDP."""

ReadInto = Callable[[Sequence[memoryview]], int]
"""Reads one frame into buffers, one behind the other; its size. Raises BlockingIOError if none waits."""

_ACK: Final = 0x10
_TIMESTAMPS: Final = bytes.fromhex("0101080a")  # how all senders put this option alone (RFC 7323, appendix A)
_PSH: Final = 0x08


class _Shape:
    """Which bytes of the headers of one kind of packet say that two are of one flow.

    `head` counts the virtio header too. `same` masks what differs from packet to packet, `last` also what
    differs in a shorter last one, `acks` what differs from one acknowledgement to the next.
    """

    __slots__ = ("acks", "head", "last", "protocol", "same", "start", "version")

    def __init__(self, version: int, protocol: int, head: int) -> None:
        self.version = version
        self.protocol = protocol
        self.head = head
        self.start = HEADER + (20 if version == 4 else 40)
        same = bytearray(b"\xff" * head)
        lengths = [(HEADER + 2, 2) if version == 4 else (HEADER + 4, 2)]
        if version == 4:
            _clear(same, (HEADER + 4, 2), (HEADER + 10, 2))
        if protocol == UDP:
            _clear(same, (self.start + 6, 2))
            lengths.append((self.start + 4, 2))
        else:
            _clear(same, (self.start + 4, 4), (self.start + 16, 2))
            same[self.start + 13] = 0xFF ^ _PSH
        self.same = int.from_bytes(same, "big")
        acks = bytearray(same)
        _clear(same, *lengths)
        self.last = int.from_bytes(same, "big")
        if protocol == TCP:
            start = self.start
            acks[start + 4 : start + 8] = b"\xff" * 4
            _clear(acks, (start + 8, 4), (start + 14, 2), *([(start + 24, 8)] if head == start + 32 else []))
        self.acks = int.from_bytes(acks, "big")


def _clear(mask: bytearray, *places: tuple[int, int]) -> None:
    for at, size in places:
        mask[at : at + size] = bytes(size)


_SHAPES: Final = {
    (version, protocol, head): _Shape(version, protocol, head)
    for version, start in ((4, HEADER + 20), (6, HEADER + 40))
    for protocol, heads in ((UDP, [start + 8]), (TCP, range(start + 20, start + 61, 4)))
    for head in heads
}


def _ack_of(frame: memoryview | bytearray, start: int) -> int:
    """The acknowledgement number of a segment whose TCP header begins there."""
    return int.from_bytes(frame[start + 8 : start + 12], "big")


class Intake:
    """Frames of a device, one at a time, joined where they can be.

    `frames` counts what `take` returned, `packets` what was read of the device, `superseded` of these the
    acknowledgements that a later one made needless.
    """

    __slots__ = (
        "_buffer", "_dry", "_kept", "_merges", "_read", "_scratch", "_view", "frames", "packets",
        "superseded",
    )  # fmt: skip

    def __init__(self, read: ReadInto, merges: bool = True) -> None:
        self._read = read
        self._merges = merges
        self._buffer = bytearray(LARGEST_RUN + HEADER + LARGEST_PACKET)
        self._view = memoryview(self._buffer)
        self._scratch = {shape.head: bytearray(shape.head) for shape in _SHAPES.values()}
        self._kept = b""
        self._dry = False
        self.frames = self.packets = self.superseded = 0

    def take(self) -> memoryview | None:
        """The next frame, borrowed until the next call; None if none waits. Raises OSError of the device."""
        kept = self._kept
        if kept:
            size = len(kept)
            self._view[:size] = kept
            self._kept = b""
        elif self._dry:  # as was found while the last frame was read; who asks again later asks the device
            self._dry = False
            return None
        else:
            try:
                size = self._read((self._view,))
            except BlockingIOError:
                return None
            self.packets += 1
        self.frames += 1
        buffer = self._buffer
        if self._merges and buffer[0] & (SUM | VALID) and not buffer[1] and size < LARGEST_RUN // 2:
            shape = self._shape(size)
            if shape is not None:
                size = self._join(shape, size) if size > shape.head else self._newest(shape, size)
        return self._view[:size]

    def straight(self, room: memoryview) -> int:
        """A superpacket, or what is as large, straight into `room`: its size. 0 if none waits; -1 if what
        came is small or does not fit: then `take` gives it. Raises OSError of the device."""
        if self._kept:
            return -1
        self._dry = False
        try:
            size = self._read((room, self._view))
        except BlockingIOError:
            return 0
        self.packets += 1
        fits = len(room)
        if size > fits:
            self._kept = bytes(room) + self._buffer[: size - fits]
        elif size < LARGEST_RUN // 2 and not room[1]:
            self._kept = bytes(room[:size])
        else:
            self.frames += 1
            return size
        return -1

    def _shape(self, size: int) -> _Shape | None:
        """What kind of packet lies in the buffer, if others may be joined to it."""
        buffer = self._buffer
        first = buffer[HEADER]
        if first == 0x45:
            start, protocol = HEADER + 20, buffer[HEADER + 9]
            if buffer[HEADER + 6] & 0x3F or buffer[HEADER + 7]:
                return None
            length = buffer[HEADER + 2] << 8 | buffer[HEADER + 3]
        elif first >> 4 == 6:
            start, protocol = HEADER + 40, buffer[HEADER + 6]
            length = (buffer[HEADER + 4] << 8 | buffer[HEADER + 5]) + 40
        else:
            return None
        if length != size - HEADER:
            return None
        if protocol == UDP:
            head = start + 8
            if size <= head or (buffer[start + 4] << 8 | buffer[start + 5]) != size - start:
                return None
        elif protocol == TCP and size >= start + 20 and buffer[start + 13] == _ACK:
            head = start + (buffer[start + 12] >> 4) * 4
            if size < head:
                return None
        else:
            return None
        return _SHAPES.get((first >> 4, protocol, head))

    def _join(self, shape: _Shape, size: int) -> int:
        """Reads on while what comes belongs to the packet in the buffer; the size of it all."""
        head, same, view, read = shape.head, shape.same, self._view, self._read
        scratch = self._scratch[head]
        target = memoryview(scratch)
        template = int.from_bytes(view[:head], "big") & same
        payload = size - head
        end, most = size, 1 + min(MOST_SEGMENTS - 1, (LARGEST_RUN + HEADER - size) // payload)
        count, pushed = 1, False
        while count < most:
            try:
                got = read((target, view[end:]))
            except BlockingIOError:
                self._dry = True
                break
            self.packets += 1
            follows = got == size and int.from_bytes(scratch, "big") & same == template
            if not follows and not self._is_last(shape, got, size):
                self._keep(scratch, end, got)
                break
            if shape.protocol == TCP:
                if not self._in_sequence(shape, end - head):
                    self._keep(scratch, end, got)
                    break
                pushed = bool(scratch[shape.start + 13] & _PSH)
            end += got - head
            count += 1
            if not follows or pushed:
                break
        if count > 1:
            self._finish(shape, end, payload, pushed)
        return end

    def _newest(self, shape: _Shape, size: int) -> int:
        """The last of the acknowledgements of one connection, the first of which lies in the buffer."""
        view, scratch, start = self._view, self._scratch[size], shape.start
        if size > start + 20 and view[start + 20 : size - 8] != _TIMESTAMPS:
            return size  # options that say something of their own, as SACK does
        target = memoryview(scratch)
        template = int.from_bytes(view[:size], "big") & shape.acks
        for _ in range(MOST_SEGMENTS):
            try:
                got = self._read((target, view[size:]))
            except BlockingIOError:
                self._dry = True
                break
            self.packets += 1
            same = got == size and int.from_bytes(scratch, "big") & shape.acks == template
            if not same or not 0 < _ack_of(scratch, start) - _ack_of(view, start) & 0xFFFFFFFF < 1 << 31:
                self._keep(scratch, size, got)
                break
            view[:size] = scratch
            self.superseded += 1
        return size

    def _is_last(self, shape: _Shape, got: int, size: int) -> bool:
        """Whether a packet of the flow has come that is shorter than those before."""
        scratch, start = self._scratch[shape.head], shape.start
        if not shape.head < got < size:
            return False
        if (int.from_bytes(scratch, "big") ^ int.from_bytes(self._view[: shape.head], "big")) & shape.last:
            return False
        at, length = (HEADER + 2, got - HEADER) if shape.version == 4 else (HEADER + 4, got - start)
        if (scratch[at] << 8 | scratch[at + 1]) != length:
            return False
        return shape.protocol == TCP or (scratch[start + 4] << 8 | scratch[start + 5]) == got - start

    def _in_sequence(self, shape: _Shape, sent: int) -> bool:
        at, scratch = shape.start + 4, self._scratch[shape.head]
        first = int.from_bytes(self._view[at : at + 4], "big")
        return first + sent & 0xFFFFFFFF == int.from_bytes(scratch[at : at + 4], "big")

    def _keep(self, scratch: bytearray, end: int, got: int) -> None:
        """What was read belongs to something else: it is the next frame."""
        head = len(scratch)
        self._kept = bytes(scratch[:got]) + self._view[end : end + max(got - head, 0)]

    def _finish(self, shape: _Shape, end: int, payload: int, pushed: bool) -> None:
        """Headers of a first packet become those of all together."""
        view, start = self._view, shape.start
        if shape.protocol == UDP:
            kind, offset = Gso.UDP, 6
            view[start + 4 : start + 6] = (end - start).to_bytes(2, "big")
        else:
            kind, offset = Gso.TCP4 if shape.version == 4 else Gso.TCP6, 16
            if pushed:
                view[start + 13] |= _PSH
        write(view, 0, SUM, kind, shape.head - HEADER, payload, start - HEADER, offset)
        set_lengths(view, end)
        total = pseudo_sum(view[HEADER:start], shape.protocol, end - start)
        view[start + offset : start + offset + 2] = total.to_bytes(2, "big")
