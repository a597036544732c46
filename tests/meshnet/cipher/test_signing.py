"""Signatures: the vectors of BIP 340, and what must not pass."""

from __future__ import annotations

import csv
import io

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher import signing
from meshnet.cipher.keys import SecretKey
from tests.support.vectors import vectors

KEY = SecretKey(bytes(31) + b"\x07")


class Published(SynchronousTestCase):
    """BIP 340."""

    def test_vectors(self) -> None:
        """Every vector with a message of 32 bytes signs or verifies as it says."""
        rows = [
            row
            for row in csv.DictReader(io.StringIO(vectors("bitcoin/bip340-schnorr.csv").read_text()))
            if len(row["message"]) == 64
        ]
        self.assertGreater(len(rows), 10)
        for row in rows:
            digest, signature = bytes.fromhex(row["message"]), bytes.fromhex(row["signature"])
            good = row["verification result"] == "TRUE"
            public = bytes.fromhex(row["public key"])
            self.assertEqual(signing.verify_digest(public, digest, signature), good, row["index"])
            if row["secret key"]:
                key = SecretKey(bytes.fromhex(row["secret key"]))
                self.assertEqual(key.public[1:], public)
                made = signing.sign_digest(key, digest, bytes.fromhex(row["aux_rand"]))
                self.assertEqual(made, signature, row["index"])


class Tags(SynchronousTestCase):
    """What a signature is good for."""

    @given(st.binary(max_size=200), st.binary(min_size=1, max_size=20))
    def test_only_its_own(self, data: bytes, tag: bytes) -> None:
        """A signature holds for its data, tag and key, and for no others."""
        signature = signing.sign(KEY, tag, data)
        self.assertTrue(signing.verify(KEY.public, tag, data, signature))
        self.assertFalse(signing.verify(KEY.public, tag + b"x", data, signature))
        self.assertFalse(signing.verify(KEY.public, tag, data + b"x", signature))
        other = SecretKey(bytes(31) + b"\x08").public
        self.assertFalse(signing.verify(other, tag, data, signature))

    @given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=80))
    def test_anything(self, key: bytes, data: bytes, signature: bytes) -> None:
        """Arbitrary bytes are no signature, and raise nothing."""
        self.assertFalse(signing.verify(key, b"tag", data, signature))
