"""Packets joined while they are read, and taken apart again."""

from __future__ import annotations

from collections.abc import Sequence
from struct import pack
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from apps.vpn.packets.cut import singles
from apps.vpn.packets.faults import Fault
from apps.vpn.packets.headers import check
from apps.vpn.packets.merge import LARGEST_RUN, MOST_SEGMENTS, Intake
from tests.support.packets import plain, superpacket, tcp, udp, vouched

FOUR = "10.0.0.1", "10.0.0.2"
SIX = "fc00::1", "fc00::2"


class Frames:
    """A device with these frames in it."""

    def __init__(self, frames: Sequence[bytes]) -> None:
        self.frames = list(frames)

    def read(self, buffers: Sequence[memoryview | bytearray]) -> int:
        """As `os.readv`."""
        if not self.frames:
            raise BlockingIOError
        frame = self.frames.pop(0)
        rest = frame
        for buffer in buffers:
            part = rest[: len(buffer)]
            buffer[: len(part)] = part
            rest = rest[len(part) :]
        assert not rest, "the buffers must take any packet whole"
        return len(frame)


def taken(frames: Sequence[bytes], merges: bool = True) -> list[bytes]:
    """What an intake makes of them."""
    intake, found = Intake(Frames(frames).read, merges), []
    while (frame := intake.take()) is not None:
        found.append(bytes(frame))
    assert intake.packets == len(frames)
    return found


def apart(frames: Sequence[bytes]) -> list[bytes]:
    """The single packets of frames, complete, without what IPv4 counts."""
    found = []
    for frame in frames:
        assert check(memoryview(frame)) is Fault.NONE
        found += [bytes(each)[10:] for each in singles(memoryview(bytearray(frame)))]
    return [each if each[0] >> 4 == 6 else each[:4] + each[6:10] + each[12:] for each in found]


def segments(sizes: Sequence[int], **more: int) -> list[bytes]:
    """TCP segments in sequence."""
    found, at = [], 0xFFFFFF00
    for size in sizes:
        packet = tcp(
            *FOUR, (1, 2), bytes([size & 255]) * size, seq=at & 0xFFFFFFFF, options=bytes(12), **more
        )
        found.append(vouched(packet))
        at += size
    return found


class MergeTests(SynchronousTestCase):
    """`Intake`."""

    def test_datagrams(self) -> None:
        """Equal ones of a flow become one frame, with a shorter one at its end."""
        for ends in (FOUR, SIX):
            sizes = [1_200] * 10 + [300] + [1_200] * 2
            frames = [vouched(udp(*ends, (1, 2), bytes([i]) * n, number=i)) for i, n in enumerate(sizes)]
            found = taken(frames)
            self.assertEqual(len(found), 2)
            self.assertEqual(apart(found), apart(frames))

    def test_segments(self) -> None:
        """TCP in sequence, over the wrap of its numbers."""
        frames = segments([1_000] * 5 + [10])
        found = taken(frames)
        self.assertEqual(len(found), 1)
        self.assertEqual(apart(found), apart(frames))

    def test_push(self) -> None:
        """PSH ends a run and stays with its end."""
        first, second = segments([1_000] * 3), segments([1_000] * 3, flags=0x18)
        frames = [*first[:2], second[2], first[0]]
        found = taken(frames)
        self.assertEqual(len(found), 2)
        self.assertEqual(apart(found), apart(frames))

    def test_kept_apart(self) -> None:
        """What differs in anything but what every packet differs in is another's."""
        first = vouched(udp(*FOUR, (1, 2), b"abcd"))
        others = [
            vouched(udp(*FOUR, (1, 3), b"abcd")),
            vouched(udp(*SIX, (1, 2), b"abcd")),
            vouched(udp(*FOUR, (1, 2), b"abcde")),
            vouched(udp(*FOUR, (1, 2), b"abcd", hops=63)),
            vouched(udp(*FOUR, (1, 2), b"abcd", tos=2)),
            vouched(udp(*FOUR, (1, 2), b"abcd", flags=0)),
            vouched(udp(*FOUR, (1, 2), b"abcd", flags=0x2000)),
            vouched(udp(*FOUR, (1, 2), b"")),
            plain(udp(*FOUR, (1, 2), b"abcd")),
            superpacket(udp(*FOUR, (1, 2), b"abcdefgh"), 4),
            vouched(tcp(*FOUR, (1, 2), b"abcd")),
            plain(b"\x45"),
        ]
        for other in others:
            self.assertEqual(taken([first, other]), [first, other])
        one, two, three = segments([1_000] * 3)
        for pair in ([one, three], [two, one], segments([10, 1_000])):
            self.assertEqual(taken(pair), pair)
        for more in ({"flags": 0x11}, {"flags": 0x30}, {"ack": 7}):
            self.assertEqual(
                taken([one, segments([1_000] * 2, **more)[1]]), [one, segments([1_000] * 2, **more)[1]]
            )

    def test_checksums_nobody_vouches_for(self) -> None:
        """A wrong checksum must stay wrong: such packets are never joined."""
        frames = [plain(udp(*FOUR, (1, 2), b"abcd"))] * 2
        self.assertEqual(taken(frames), frames)

    def test_vouched_by_the_kernel(self) -> None:
        """Packets that the kernel looked at (VALID) are joined with their sum made anew."""
        frames = [b"\x02" + bytes(9) + udp(*FOUR, (1, 2), bytes([i]) * 9) for i in range(4)]
        found = taken(frames)
        self.assertEqual(len(found), 1)
        self.assertEqual(apart(found), apart(frames))

    def acks(self, *numbers: int, **more: Any) -> list[bytes]:
        """Acknowledgements, each with a timestamp of its own."""
        return [
            vouched(
                tcp(*SIX, (1, 2), b"", ack=n, options=bytes.fromhex("0101080a") + pack(">II", n, n), **more)
            )
            for n in numbers
        ]

    def test_superseded(self) -> None:
        """Of acknowledgements that wait only the last is taken, over the wrap of their numbers too."""
        frames = self.acks(0xFFFFFFF0, 5, 9)
        self.assertEqual(taken(frames), frames[-1:])
        bare = [vouched(tcp(*FOUR, (1, 2), b"", ack=n)) for n in (1, 2, 3)]
        self.assertEqual(taken([*bare, *frames, bare[0]]), [bare[-1], frames[-1], bare[0]])

    def test_acknowledgements_that_stay(self) -> None:
        """Those that say something that the next one does not: again the same, less, SACK, flags, data."""
        one, two = self.acks(1, 2)
        data = vouched(tcp(*SIX, (1, 2), b"x", ack=3, options=bytes.fromhex("0101080a") + bytes(8)))
        sacks = [
            vouched(tcp(*SIX, (1, 2), b"", ack=n, options=bytes.fromhex("0101050a") + bytes(8)))
            for n in (1, 2)
        ]
        for frames in (
            [one, one],
            [two, one],
            sacks,
            [one, data],
            [one, *self.acks(2, flags=0x11)],
            [one, *self.acks(2, flags=0x50)],
            [one, *self.acks(2, seq=1)],
            [one, *self.acks(2, hops=3)],
            [plain(frame[10:]) for frame in (one, two)],
        ):
            self.assertEqual(taken(frames), frames)

    def test_dry(self) -> None:
        """Once the device was found empty it is not asked again in the same burst."""
        device = Frames([vouched(udp(*FOUR, (1, 2), b"abcd"))])
        asked = []

        def read(buffers: Sequence[memoryview | bytearray]) -> int:
            asked.append(1)
            return device.read(buffers)

        intake = Intake(read)
        self.assertEqual([intake.take() is None for _ in range(2)], [False, True])
        self.assertEqual(len(asked), 2)
        device.frames.append(vouched(udp(*FOUR, (1, 2), b"abcd")))
        self.assertIsNotNone(intake.take())

    def test_bounds(self) -> None:
        """A run has an end: in segments and in bytes."""
        many = taken([vouched(udp(*FOUR, (1, 2), b"abcd"))] * 100)
        self.assertEqual(len(many), 2)
        self.assertEqual(len(many[0]), 10 + 28 + 4 * MOST_SEGMENTS)
        large = taken([vouched(udp(*FOUR, (1, 2), bytes(1_400)))] * 60)
        self.assertEqual([len(each) - 10 <= LARGEST_RUN for each in large], [True] * 2)

    def test_off(self) -> None:
        """Devices whose kernels take no superpackets of UDP give packets as they are."""
        frames = [vouched(udp(*FOUR, (1, 2), b"abcd"))] * 3
        self.assertEqual(taken(frames, merges=False), frames)

    @given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([1, 7, 500, 1_200])), max_size=40))
    def test_any_mix(self, mix: list[tuple[int, int]]) -> None:
        """Whatever runs side by side, each packet comes through, in order, with its own bytes."""
        frames, sent = [], 0
        for number, (kind, size) in enumerate(mix):
            payload = bytes([number]) * size
            if kind < 2:
                frames.append(vouched(udp(*FOUR, (kind, 2), payload, number=number)))
            elif kind == 2:
                frames.append(vouched(udp(*SIX, (1, 2), payload)))
            else:
                frames.append(vouched(tcp(*FOUR, (1, 2), payload, seq=sent)))
                sent += size
        self.assertEqual(apart(taken(frames)), apart(frames))
