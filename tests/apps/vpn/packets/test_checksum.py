"""Sums in one's complement, against published examples and the plain way to add."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from apps.vpn.packets.checksum import changed, checksum, fold, ones_sum, pseudo_sum


def added(data: bytes) -> int:
    """The sum as RFC 1071 §1 tells it: word by word, carries around the end."""
    data += bytes(len(data) % 2)
    total = 0
    for at in range(0, len(data), 2):
        total += data[at] << 8 | data[at + 1]
        total = (total & 0xFFFF) + (total >> 16)
    return total


class ChecksumTests(SynchronousTestCase):
    """`checksum`."""

    def test_rfc_1071(self) -> None:
        """The example of §3: 00 01 f2 03 f4 f5 f6 f7 sums up to ddf2."""
        self.assertEqual(ones_sum(bytes.fromhex("0001f203f4f5f6f7")), 0xDDF2)

    def test_published_header(self) -> None:
        """A well-known IPv4 header: with its checksum it sums up to all ones; without, it gives b861."""
        header = bytes.fromhex("45000073000040004011b861c0a80001c0a800c7")
        self.assertEqual(ones_sum(header), 0xFFFF)
        self.assertEqual(checksum(header[:10] + b"\0\0" + header[12:]), 0xB861)

    def test_rfc_1624(self) -> None:
        """The example of §4: cd7a − 5555 + 3285 in an old checksum of dd2f gives 0000."""
        self.assertEqual(changed(0xDD2F, 0x5555, 0x3285), 0x0000)

    @given(st.binary(max_size=200))
    def test_as_words(self, data: bytes) -> None:
        """Python's integers add what words do."""
        self.assertEqual(ones_sum(data), added(data))

    @given(st.binary(min_size=4, max_size=60), st.binary(min_size=2, max_size=2))
    def test_changed(self, data: bytes, word: bytes) -> None:
        """Mending a checksum is as good as making it anew."""
        data += bytes(len(data) % 2)
        new = data[:2] + word + data[4:]
        field = changed(checksum(data), int.from_bytes(data[2:4], "big"), int.from_bytes(word, "big"))
        self.assertEqual(fold(0xFFFF ^ field), fold(ones_sum(new)) if any(new) else fold(0xFFFF ^ field))

    def test_pseudo(self) -> None:
        """RFC 8200 §8.1 and RFC 9293 §3.1: addresses, protocol, length."""
        six = bytes(8) + bytes(range(32))
        self.assertEqual(pseudo_sum(b"\x60" + six[1:], 17, 300), added(bytes(range(32)) + b"\0\x11\x01\x2c"))
        four = b"\x45" + bytes(11) + bytes([10, 0, 0, 1, 10, 0, 0, 2])
        self.assertEqual(pseudo_sum(four, 6, 20), added(bytes([10, 0, 0, 1, 10, 0, 0, 2, 0, 6, 0, 20])))
