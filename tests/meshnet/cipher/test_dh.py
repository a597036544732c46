"""Both groups: agreement, sizes, refused keys."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_scalarmult
from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.dh import SECP256K1, X25519, X25519Key
from meshnet.cipher.keys import BadKeyError, SecretKey

secrets = st.binary(min_size=32, max_size=32)


class DhTests(SynchronousTestCase):
    """What a handshake needs of a group."""

    def test_rfc_7748(self) -> None:
        """The iterated example of §5.2, first round."""
        nine = b"\x09" + bytes(31)
        expected = "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
        self.assertEqual(X25519Key(nine).ecdh(nine).hex(), expected)

    @given(secrets, secrets)
    def test_x25519(self, one: bytes, other: bytes) -> None:
        """Both sides agree, and libsodium agrees with them."""
        mine, theirs = X25519Key(one), X25519Key(other)
        shared = mine.ecdh(memoryview(theirs.public))
        self.assertEqual(shared, theirs.ecdh(mine.public))
        self.assertEqual(shared, crypto_scalarmult(one, theirs.public))

    def test_refused(self) -> None:
        """Short keys, points of small order, points off the curve."""
        key = X25519Key(b"\x07" * 32)
        for public in (b"", bytes(31), bytes(32), b"\x01" + bytes(31)):
            self.assertRaises(BadKeyError, key.ecdh, public)
        self.assertRaises(BadKeyError, X25519().check, bytes(31))
        self.assertRaises(BadKeyError, X25519Key, bytes(31))
        self.assertRaises(BadKeyError, SECP256K1.check, b"\x02" + b"\xff" * 32)

    def test_sizes_and_names(self) -> None:
        """As in Noise protocol names; checked keys come back as they are."""
        self.assertEqual((SECP256K1.name, SECP256K1.size), ("secp256k1", 33))
        self.assertEqual((X25519().name, X25519().size), ("25519", 32))
        public = SecretKey(b"\x01" * 32).public
        self.assertEqual(SECP256K1.check(public), public)
        self.assertEqual(X25519().check(bytes(32)), bytes(32))

    def test_secrecy(self) -> None:
        """The repr shows the public key only."""
        key = X25519Key(b"\x07" * 32)
        self.assertEqual(repr(key), f"<X25519Key of {key.public.hex()}>")
