"""HKDF against RFC 5869 and against another implementation."""

from __future__ import annotations

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.hashing import hkdf, hkdf2, hkdf3, hmac256, same, sha256


class HashingTests(SynchronousTestCase):
    """Each function against a published or foreign result."""

    def test_rfc_5869_case_3(self) -> None:
        """HKDF with empty salt and info."""
        expected = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
        self.assertEqual(hkdf(b"", b"\x0b" * 22).hex(), expected)

    def test_rfc_4231_case_2(self) -> None:
        """HMAC-SHA-256."""
        expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        self.assertEqual(hmac256(b"Jefe", b"what do ya want for nothing?").hex(), expected)

    def test_sha256(self) -> None:
        """FIPS 180, the one-block example, from borrowed memory."""
        expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        self.assertEqual(sha256(memoryview(b"abc")).hex(), expected)

    @given(st.binary(max_size=80), st.binary(max_size=80))
    def test_against_cryptography(self, salt: bytes, ikm: bytes) -> None:
        """All three lengths are prefixes of one another and equal another implementation's."""
        expected = HKDF(SHA256(), 96, salt, b"").derive(ikm)
        self.assertEqual(hkdf(salt, ikm), expected[:32])
        self.assertEqual(b"".join(hkdf2(salt, ikm)), expected[:64])
        self.assertEqual(b"".join(hkdf3(salt, ikm)), expected)

    def test_same(self) -> None:
        """Equal, unequal and of unequal length."""
        self.assertTrue(same(b"tag", memoryview(b"tag")))
        self.assertFalse(same(b"tag", b"tap"))
        self.assertFalse(same(b"tag", b"ta"))
