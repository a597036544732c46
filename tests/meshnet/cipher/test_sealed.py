"""A secret key under a password."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt
from nacl.pwhash import argon2id
from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.keys import SecretKey
from meshnet.cipher.sealed import LARGEST, Cost, PasswordError, decode, is_sealed, seal
from meshnet.errors import CodecError, UsageError
from meshnet.limits import PASSWORD, PASSWORD_MEMORY, PASSWORD_PASSES

CHEAP = Cost(1, 8_192)
SECRET = SecretKey(b"\x07" * 32)
SEALED = seal(SECRET, b"correct horse", lambda size: b"\x05" * size, CHEAP)
FILE = SEALED.encode()


class SealedKeyTests(SynchronousTestCase):
    def test_round_trip(self) -> None:
        """The password opens what it sealed, and the file says whose key it is."""
        found = decode(FILE)
        self.assertEqual(found.public, SECRET.public)
        self.assertEqual(found.open(b"correct horse"), SECRET)
        self.assertLessEqual(len(FILE), LARGEST)
        self.assertNotIn(SECRET.secret.hex().encode(), FILE)

    def test_anybody_can_open_it(self) -> None:
        """The layout of the docstring, read with PyNaCl alone."""
        head, sealed, _ = FILE.split(b"\n")
        _, _, _, passes, memory, salt, nonce, _ = head.split(b" ")
        key = argon2id.kdf(32, b"correct horse", bytes.fromhex(salt.decode()), int(passes), int(memory))
        opened = crypto_aead_xchacha20poly1305_ietf_decrypt(
            bytes.fromhex(sealed.decode()), head, bytes.fromhex(nonce.decode()), key
        )
        self.assertEqual(opened, SECRET.secret)

    def test_wrong_password(self) -> None:
        """One sentence, which holds neither password."""
        error = self.assertRaises(PasswordError, decode(FILE).open, b"battery staple")
        self.assertNotIn("staple", str(error))
        self.assertEqual(error.exit_code, 2)

    def test_every_change_is_seen(self) -> None:
        """Each byte of the file belongs to it: another one is no sealed key, or does not open."""
        for place in range(0, len(FILE), 3):
            changed = bytearray(FILE)
            changed[place] ^= 1
            with self.assertRaises((CodecError, PasswordError)):
                decode(bytes(changed)).open(b"correct horse")

    def test_costs_are_bounded(self) -> None:
        """A file cannot ask for more than the limits, nor for less than Argon2id needs."""
        for passes, memory in ((PASSWORD_PASSES + 1, 8_192), (1, PASSWORD_MEMORY + 1), (0, 8_192), (1, 1)):
            asked = FILE.replace(b" 1 8192 ", b" %d %d " % (passes, memory))
            self.assertNotEqual(asked, FILE)
            self.assertRaises(CodecError, decode, asked)

    def test_passwords_that_are_none(self) -> None:
        """An empty one and one that is too long are refused."""
        for password in (b"", b"x" * (PASSWORD + 1)):
            self.assertRaises(UsageError, seal, SECRET, password, bytes, CHEAP)

    @settings(max_examples=200)
    @given(st.binary(max_size=600) | st.binary(max_size=400).map(lambda rest: FILE[:60] + rest))
    def test_hostile_bytes(self, data: bytes) -> None:
        """Whatever the file holds, reading it raises CodecError only."""
        try:
            decode(data)
        except CodecError:
            return
        self.assertTrue(is_sealed(data))
