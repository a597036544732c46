"""What is a packet, and what only claims to be one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from apps.vpn.packets.faults import Fault
from apps.vpn.packets.headers import check, flow_key, source, target
from apps.vpn.packets.virtio import Gso
from tests.support.packets import plain, superpacket, tcp, udp, vouched

FOUR = "10.0.0.1", "10.0.0.2"
SIX = "fc00::1", "fc00::2"


def good(ends: tuple[str, str] = FOUR) -> list[bytes]:
    """Frames with nothing wrong."""
    one, many = udp(*ends, (1, 2), b"x"), tcp(*ends, (1, 2), bytes(5_000), options=bytes(12))
    datagrams = udp(*ends, (1, 2), bytes(5_000))
    return [plain(one), vouched(one), superpacket(many, 1_400, ecn=True), superpacket(datagrams, 1_000)]


def looked(frame: bytes) -> Fault:
    return check(memoryview(frame))


class CheckTests(SynchronousTestCase):
    """`check`."""

    def test_good(self) -> None:
        """Plain, with a sum left to do, superpackets; both families."""
        for frame in (*good(FOUR), *good(SIX)):
            self.assertEqual(looked(frame), Fault.NONE)

    def test_named(self) -> None:
        """Each fault has its name."""
        frame = good()[0]
        self.assertEqual(looked(frame[:29]), Fault.SHORT)
        self.assertEqual(looked(b""), Fault.SHORT)
        self.assertEqual(looked(bytes(60)), Fault.NOT_IP)
        self.assertEqual(looked(frame + b"x"), Fault.LENGTH)
        self.assertEqual(looked(frame[:-1]), Fault.LENGTH)
        self.assertEqual(looked(frame[:10] + b"\x44" + frame[11:]), Fault.HEADER)
        self.assertEqual(looked(frame[:10] + b"\x4f" + frame[11:]), Fault.LENGTH)
        self.assertEqual(looked(good(SIX)[0][:49]), Fault.SHORT)
        self.assertEqual(looked(good(SIX)[0] + b"x"), Fault.LENGTH)

    def test_offloads(self) -> None:
        """A virtio header that does not fit its packet is never given to a kernel."""
        sums, many, datagrams = good()[1:]
        wrong = [
            b"\x04" + sums[1:],  # a flag nobody knows
            sums[:6] + b"\xff\xff" + sums[8:],  # a checksum behind the end
            sums[:6] + b"\x01\x00" + sums[8:],  # one inside the IP header
            sums[:1] + b"\x80" + sums[2:],  # ECN of nothing
            b"\x00" + many[1:],  # without a sum
            many[:1] + b"\x03" + many[2:],  # fragments of UDP, which are no more
            many[:1] + bytes([Gso.TCP6]) + many[2:],  # the other family
            many[:1] + bytes([Gso.UDP]) + many[2:],  # the other protocol
            many[:4] + b"\x00\x00" + many[6:],  # segments of nothing
            many[:4] + b"\x09\x00" + many[6:],  # so small that a few bytes become many
            many[:8] + b"\x06\x00" + many[10:],  # the checksum of the other protocol
            many[:42] + b"\x10" + many[43:],  # a TCP header of 4 bytes
            many[:16] + b"\x20\x00" + many[18:],  # a fragment
            many[:19] + b"\x11" + many[20:],  # UDP with TCP's place
            datagrams[:1] + bytes([Gso.TCP4]) + datagrams[2:],
        ]
        for frame in wrong:
            self.assertEqual(looked(frame), Fault.OFFLOAD, frame[:60].hex())
        self.assertEqual(looked(superpacket(tcp(*FOUR, (1, 2), b""), 1_000)), Fault.OFFLOAD)

    @given(st.binary(max_size=120))
    def test_any_bytes(self, data: bytes) -> None:
        """Whatever comes has an answer, and never an exception."""
        self.assertIsInstance(looked(data), Fault)

    @given(st.data())
    def test_changed_bytes(self, data: st.DataObject) -> None:
        """The same of good frames in which some bytes are others."""
        frame = bytearray(data.draw(st.sampled_from([*good(FOUR), *good(SIX)])))
        for _ in range(data.draw(st.integers(1, 4))):
            frame[data.draw(st.integers(0, 70)) % len(frame)] = data.draw(st.integers(0, 255))
        self.assertIsInstance(looked(bytes(frame)), Fault)

    def test_addresses(self) -> None:
        """Whose it is, and whose it will be."""
        self.assertEqual(source(memoryview(good()[0])), bytes([10, 0, 0, 1]))
        self.assertEqual(target(memoryview(good()[0])), bytes([10, 0, 0, 2]))
        self.assertEqual(source(memoryview(good(SIX)[0])), bytes.fromhex("fc" + "00" * 14 + "01"))
        self.assertEqual(target(memoryview(good(SIX)[0])), bytes.fromhex("fc" + "00" * 14 + "02"))
        self.assertEqual(target(memoryview(bytes(70))), b"")

    def test_flows(self) -> None:
        """Ports tell flows apart, payloads do not."""
        for ends in (FOUR, SIX):
            keys = [
                flow_key(memoryview(plain(udp(*ends, ports, payload))))
                for ports, payload in (((1, 2), b"x"), ((1, 2), b"yy"), ((1, 3), b"x"))
            ]
            self.assertEqual(keys[0], keys[1])
            self.assertNotEqual(keys[0], keys[2])
