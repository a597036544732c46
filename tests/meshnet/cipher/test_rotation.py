"""BOLT 8 key rotation, and the published message vector of 1,002 records."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.aead import BACKENDS, Backend, backend
from meshnet.cipher.rotation import NONCES, NONCES_PER_KEY, RotatingKey
from tests.support.vectors import vectors

# What both sides hold after the published handshake (BOLT 8, Appendix A).
SENDING = bytes.fromhex("969ab31b4d288cedf6218839b27a3e2140827047f2c0f01bf5c04435d43511a9")
CHAINING = bytes.fromhex("919219dbb2920afa8db80f9a51787a840bcf111ed8d588caf9ab4be716e42b01")


class Records:
    """A record layer as small as can be: what `link.record` does, without its speed."""

    def __init__(self, chosen: Backend) -> None:
        self.key = RotatingKey(SENDING, CHAINING, chosen)
        self.n = 0

    def seal(self, body: bytes) -> bytes:
        """One record: sealed length, sealed body."""
        return self._one(len(body).to_bytes(2, "big")) + self._one(body)

    def _one(self, data: bytes) -> bytes:
        sealed = self.key.aead.encrypt(NONCES[self.n], data, b"")
        self.n += 1
        if self.n == NONCES_PER_KEY:
            self.key.rotate()
            self.n = 0
        return sealed


class RotationTests(SynchronousTestCase):
    """Nonces and keys."""

    def test_published_messages(self) -> None:
        """1,002 times `hello`: the records before, at and after both rotations, by either backend."""
        published = json.loads(vectors("bolt/bolt08-transport.json").read_text())["message"]
        body, expected = bytes.fromhex(published["message"]), published["outputs"]
        for name in BACKENDS:
            records = Records(backend(name))
            for index in range(published["count"]):
                record = records.seal(body)
                if str(index) in expected:
                    self.assertEqual(record.hex(), expected[str(index)], f"record {index}")

    def test_nonces(self) -> None:
        """1,000 different ones, 0 to 999, little-endian behind four zero bytes."""
        self.assertEqual((len(NONCES), len(set(NONCES))), (1000, 1000))
        self.assertEqual(NONCES[999].hex(), "00000000e703000000000000")

    def test_rotation_changes_the_cipher(self) -> None:
        """`rotate` returns the new `aead`, which gives other bytes; two that start alike stay alike."""
        one, other = (RotatingKey(SENDING, CHAINING, backend(name)) for name in BACKENDS)
        before = one.aead.encrypt(NONCES[0], b"x", None)
        self.assertIs(one.rotate(), one.aead)
        other.rotate()
        after = one.aead.encrypt(NONCES[0], b"x", None)
        self.assertNotEqual(before, after)
        self.assertEqual(after, other.aead.encrypt(NONCES[0], b"x", None))
        self.assertNotIn(SENDING.hex(), repr(one))
