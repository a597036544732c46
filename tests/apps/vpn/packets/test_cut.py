"""Superpackets in pieces: whatever they are cut into, the ends see the same segments."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from apps.vpn.packets.cut import Pieces, complete, singles
from apps.vpn.packets.faults import Fault
from apps.vpn.packets.headers import check
from tests.support.packets import plain, superpacket, tcp, udp, vouched

VECTORS = json.loads((Path(__file__).parents[3] / "vectors" / "vpn.json").read_text())["frames"]
FOUR = "10.0.0.1", "10.0.0.2"
SIX = "fc00::1", "fc00::2"


def payloads(size: int) -> bytes:
    return bytes((number * 7 + number // 251) & 0xFF for number in range(size))


def expected(ends: tuple[str, str], protocol: str, data: bytes, segment: int, flags: int) -> list[bytes]:
    """The single packets, built one by one."""
    found = []
    for at in range(0, len(data), segment):
        piece, last = data[at : at + segment], at + segment >= len(data)
        number = 65_530 + at // segment & 0xFFFF
        if protocol == "udp":
            found.append(udp(*ends, (1, 2), piece, number=number))
        else:
            bits = flags & (0xFF if last else 0xF6) & (0xFF if at == 0 else 0x7F)
            seq = 0xFFFFF000 + at & 0xFFFFFFFF
            found.append(tcp(*ends, (1, 2), piece, seq=seq, flags=bits, options=b"\x01" * 12, number=number))
    return found


def whole(ends: tuple[str, str], protocol: str, data: bytes, segment: int, flags: int) -> bytes:
    """The same as a superpacket."""
    if protocol == "udp":
        return superpacket(udp(*ends, (1, 2), data, number=65_530), segment)
    packet = tcp(*ends, (1, 2), data, seq=0xFFFFF000, flags=flags, options=b"\x01" * 12, number=65_530)
    return superpacket(packet, segment, ecn=bool(flags & 0x80))


SHAPES = st.tuples(
    st.sampled_from([FOUR, SIX]),
    st.sampled_from(["udp", "tcp"]),
    st.integers(1, 9_000).map(payloads),
    st.integers(200, 2_000),
    st.sampled_from([0x10, 0x18, 0x19, 0x98]),
)


class CutTests(SynchronousTestCase):
    """`Pieces`, `singles`, `complete`."""

    @given(SHAPES)
    def test_singles(self, shape: tuple[tuple[str, str], str, bytes, int, int]) -> None:
        """Segmented here, every byte is as if the packets had been made one by one, checksums included."""
        frame = memoryview(bytearray(whole(*shape)))
        found = [bytes(each) for each in singles(frame)]
        self.assertEqual([each[:10] for each in found], [bytes(10)] * len(found))
        self.assertEqual([each[10:] for each in found], expected(*shape))

    @given(SHAPES, st.data())
    def test_pieces(self, shape: tuple[tuple[str, str], str, bytes, int, int], data: st.DataObject) -> None:
        """Cut into superpackets of any size first, it is the same in the end."""
        pieces, found = Pieces(memoryview(whole(*shape))), []
        while pieces.least:
            room = memoryview(bytearray(data.draw(st.integers(pieces.least, 10_000))))
            size = pieces.next(room)
            self.assertTrue(0 < size <= len(room))
            self.assertEqual(check(room[:size]), Fault.NONE)
            found += [bytes(each)[10:] for each in singles(room[:size])]
        self.assertEqual(found, expected(*shape))

    def test_vectors(self) -> None:
        """The frames of our vectors, and the packets that they stand for."""
        for name, vector in VECTORS.items():
            framed = bytes.fromhex(vector["frame"])
            self.assertEqual(int.from_bytes(framed[:2], "big"), len(framed) - 2)
            frame = memoryview(bytearray(framed[2:]))
            self.assertEqual(check(frame), Fault.NONE, name)
            self.assertEqual([bytes(each)[10:].hex() for each in singles(frame)], vector["packets"], name)

    def test_no_room(self) -> None:
        """Room for less than a segment takes nothing and loses nothing."""
        pieces = Pieces(memoryview(whole(FOUR, "tcp", payloads(3_000), 1_000, 0x10)))
        self.assertEqual(pieces.least, 10 + 52 + 1_000)
        self.assertEqual(pieces.next(memoryview(bytearray(pieces.least - 1))), 0)
        self.assertTrue(pieces.whole)
        self.assertEqual(pieces.next(memoryview(bytearray(pieces.least))), pieces.least)
        self.assertFalse(pieces.whole)

    def test_single_packet(self) -> None:
        """What is no superpacket is not cut."""
        self.assertRaises(ValueError, Pieces, memoryview(plain(udp(*FOUR, (1, 2), b"x"))))

    @given(st.sampled_from([FOUR, SIX]), st.binary(max_size=300))
    def test_complete(self, ends: tuple[str, str], payload: bytes) -> None:
        """A sum left to do is done; so is the one of UDP that would be 0."""
        for packet in (udp(*ends, (1, 2), payload), tcp(*ends, (1, 2), payload)):
            frame = memoryview(bytearray(vouched(packet)))
            complete(frame)
            self.assertEqual(bytes(frame), plain(packet))

    def test_zero_sum(self) -> None:
        """RFC 768: a computed checksum of zero is sent as all ones."""
        bare = udp(*FOUR, (1, 2), b"\0\0")
        packet = udp(*FOUR, (1, 2), bare[26:28])
        self.assertEqual(packet[26:28], b"\xff\xff")
        frame = memoryview(bytearray(vouched(packet)))
        complete(frame)
        self.assertEqual(bytes(frame), plain(packet))
