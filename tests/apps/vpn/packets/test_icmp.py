"""Answers to senders whose packets go no further."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from apps.vpn.packets.faults import Fault
from apps.vpn.packets.headers import check, source, target
from apps.vpn.packets.icmp import NO_ROUTE, too_big, unreachable
from tests.support.packets import ip, plain, pseudo, tcp, udp, words

FOUR = "10.0.0.1", "10.0.0.2"
SIX = "fc00::1", "fc00::2"
OWN4, OWN6 = ip_address("10.0.0.9").packed, ip_address("fc00::9").packed


def frame(ends: tuple[str, str], size: int = 9, **more: int) -> memoryview:
    return memoryview(plain(udp(*ends, (1, 2), bytes(size), **more)))


class IcmpTests(SynchronousTestCase):
    """`unreachable`, `too_big`."""

    def test_six(self) -> None:
        """RFC 4443 §3.1 and §3.2: type, code, MTU, as much of the packet as 1,280 bytes leave; a good sum."""
        for size in (9, 3_000):
            asked = frame(SIX, size)
            for answer, kind, value in (
                (unreachable(asked, OWN6, NO_ROUTE), 1, 0),
                (too_big(asked, OWN6, 1_400), 2, 1_400),
            ):
                assert answer is not None
                self.assertEqual(check(memoryview(plain(answer))), Fault.NONE)
                self.assertEqual((answer[40], answer[41]), (kind, 0))
                self.assertEqual(int.from_bytes(answer[44:48], "big"), value)
                self.assertEqual(answer[48:], bytes(asked[10:])[: 1_280 - 48])
                self.assertEqual(source(memoryview(plain(answer))), OWN6)
                self.assertEqual(target(memoryview(plain(answer))), ip_address(SIX[0]).packed)
                body, total = answer[40:], pseudo("fc00::9", SIX[0], 58, len(answer) - 40)
                self.assertEqual(words(body + bytes(len(body) % 2) + total.to_bytes(2, "big")), 0xFFFF)

    def test_four(self) -> None:
        """RFC 792 and RFC 1191: host unreachable; fragmentation needed, for packets with DF."""
        asked = frame(FOUR, 3_000)
        for answer, code, value in (
            (unreachable(asked, OWN4), 1, 0),
            (too_big(asked, OWN4, 1_400), 4, 1_400),
        ):
            assert answer is not None
            self.assertEqual(check(memoryview(plain(answer))), Fault.NONE)
            self.assertEqual((answer[20], answer[21]), (3, code))
            self.assertEqual(int.from_bytes(answer[26:28], "big"), value)
            self.assertEqual((words(answer[:20]), words(answer[20:])), (0xFFFF, 0xFFFF))
            self.assertEqual(len(answer), 576)
        self.assertIsNone(too_big(frame(FOUR, flags=0), OWN4, 1_400))

    def test_silence(self) -> None:
        """Errors, what many get or seem to have sent, and later fragments are never answered."""
        echo6, error6 = bytes([128, 0, 0, 0, 0, 0, 0, 0]), bytes([1, 0, 0, 0, 0, 0, 0, 0])
        echo4, error4 = bytes([8, 0, 0, 0, 0, 0, 0, 0]), bytes([3, 0, 0, 0, 0, 0, 0, 0])
        self.assertIsNotNone(unreachable(memoryview(plain(ip(*SIX, 58, echo6))), OWN6))
        self.assertIsNotNone(unreachable(memoryview(plain(ip(*FOUR, 1, echo4))), OWN4))
        for packet, own in (
            (ip(*SIX, 58, error6), OWN6),
            (ip(*SIX, 58, bytes([137]) + echo6[1:]), OWN6),
            (ip(*SIX, 58, b""), OWN6),
            (ip("::", SIX[1], 17, echo6), OWN6),
            (ip("ff02::1", SIX[1], 17, echo6), OWN6),
            (ip(SIX[0], "ff02::1", 17, echo6), OWN6),
            (ip(*FOUR, 1, error4), OWN4),
            (ip(*FOUR, 1, b""), OWN4),
            (ip("0.0.0.0", FOUR[1], 17, echo4), OWN4),
            (ip("224.0.0.1", FOUR[1], 17, echo4), OWN4),
            (ip(FOUR[0], "255.255.255.255", 17, echo4), OWN4),
            (ip(*FOUR, 17, echo4, flags=0x0010), OWN4),
        ):
            self.assertIsNone(unreachable(memoryview(plain(packet)), own), packet.hex())
            self.assertIsNone(too_big(memoryview(plain(packet)), own, 1_400))

    def test_least(self) -> None:
        """IPv6 has a least MTU; to tell less would help nobody."""
        self.assertIsNone(too_big(frame(SIX), OWN6, 1_279))
        self.assertIsNotNone(too_big(frame(SIX), OWN6, 1_280))

    @given(st.binary(max_size=100), st.sampled_from([4, 6]))
    def test_any_packet(self, data: bytes, version: int) -> None:
        """Whatever the kernel hands us, an answer is a packet or nothing."""
        packet = tcp(*(FOUR if version == 4 else SIX), (1, 2), data)
        changed = memoryview(plain(packet[:9] + data[:1].ljust(1, b"\0") + packet[10:]))
        answer = unreachable(changed, OWN4 if version == 4 else OWN6)
        if answer is not None:
            self.assertEqual(check(memoryview(plain(answer))), Fault.NONE)
