"""The three acts: the published handshakes and all their failures, by name."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.aead import BACKENDS, Backend, backend
from meshnet.cipher.bolt8 import ACT_ONE_SIZE, ACT_THREE_SIZE, ACT_TWO_SIZE, Initiator, Responder
from meshnet.cipher.keys import SecretKey, public_key
from meshnet.errors import HandshakeError, UsageError
from tests.support.vectors import vectors

OPENSSL = backend("openssl")
PROLOGUE = b"meshnet/1\0\0\0\x01"

# The names of BOLT 8's failures, and what our errors say.
SENTENCES = {
    f"ACT{number}_{name}": f"act {word}: {text}"
    for number, word in ((1, "one"), (2, "two"), (3, "three"))
    for name, text in (
        ("READ_FAILED", "wrong length"),
        ("BAD_VERSION", "bad version 1"),
        ("BAD_PUBKEY", "bad public key"),
        ("BAD_CIPHERTEXT", "bad ciphertext"),
        ("BAD_TAG", "bad tag"),
    )
}


def secret(number: int) -> SecretKey:
    return SecretKey(bytes([number]) * 32)


class PublishedTests(SynchronousTestCase):
    """BOLT 8, Appendix A: two handshakes that succeed, 13 that fail."""

    def initiator(self, case: dict[str, Any], chosen: Backend) -> tuple[bytes, bytes, bytes]:
        one, two, *three = case["steps"]
        remote = public_key(bytes.fromhex(case["rs_pub"]))
        static, ephemeral = (SecretKey(bytes.fromhex(case[key])) for key in ("ls_priv", "e_priv"))
        noise = Initiator(static, remote, b"lightning", ephemeral, chosen)
        self.assertEqual(noise.act_one().hex(), one["output"])
        answer = noise.act_two(bytes.fromhex(two["input"]))
        self.assertEqual(answer.hex(), three[0]["output"])
        return noise.keys

    def responder(self, case: dict[str, Any], chosen: Backend) -> tuple[bytes, bytes, bytes]:
        static, ephemeral = (SecretKey(bytes.fromhex(case[key])) for key in ("ls_priv", "e_priv"))
        noise = Responder(static, b"lightning", ephemeral, chosen)
        answer = noise.act_one(bytes.fromhex(case["steps"][0]["input"]))
        self.assertEqual(answer.hex(), case["steps"][1]["output"])
        remote = noise.act_three(bytes.fromhex(case["steps"][2]["input"]))
        self.assertEqual(remote, secret(0x11).public)
        return noise.keys

    def test_all(self) -> None:
        """Each case ends with its keys, or with the failure of its name, by either backend."""
        cases = json.loads(vectors("bolt/bolt08-transport.json").read_text())["handshake"]
        failures = 0
        for case in cases:
            for name in BACKENDS:
                run = self.initiator if case["role"] == "initiator" else self.responder
                if "expect_error" in case:
                    error = self.assertRaises(HandshakeError, run, case, backend(name))
                    self.assertEqual(str(error), SENTENCES[case["expect_error"]], case["name"])
                    failures += 1
                else:
                    sending, receiving, _ = run(case, backend(name))
                    self.assertEqual((sending.hex(), receiving.hex()), (case["sk"], case["rk"]))
        self.assertEqual((len(cases), failures), (15, 13 * len(BACKENDS)))


class HandshakeTests(SynchronousTestCase):
    """Our own prologue, wrong keys, hostile bytes."""

    def make(self, prologue: bytes = PROLOGUE, acceptor: int = 0x21) -> tuple[Initiator, Responder]:
        dialler = Initiator(secret(0x11), secret(0x21).public, PROLOGUE, secret(0x12), OPENSSL)
        return dialler, Responder(secret(acceptor), prologue, secret(0x22), OPENSSL)

    def test_success(self) -> None:
        """Acts of 50, 50 and 66 bytes; keys cross over, chaining key and hash are shared."""
        dialler, acceptor = self.make()
        one = dialler.act_one()
        two = acceptor.act_one(memoryview(one))
        three = dialler.act_two(bytearray(two))
        self.assertEqual(
            [len(act) for act in (one, two, three)], [ACT_ONE_SIZE, ACT_TWO_SIZE, ACT_THREE_SIZE]
        )
        self.assertEqual(acceptor.act_three(three), secret(0x11).public)
        sending, receiving, chaining = dialler.keys
        self.assertEqual(acceptor.keys, (receiving, sending, chaining))
        self.assertEqual(dialler.hash, acceptor.hash)
        self.assertNotEqual(sending, receiving)

    def test_nothing_before_the_end(self) -> None:
        """Keys and hash are not handed out before act three."""
        dialler, acceptor = self.make()
        acceptor.act_one(dialler.act_one())
        for one in (dialler, acceptor):
            self.assertRaises(UsageError, lambda one=one: one.keys)
            self.assertRaises(UsageError, lambda one=one: one.hash)

    def test_another_network(self) -> None:
        """Nodes of another network id fail at act one."""
        dialler, acceptor = self.make(prologue=PROLOGUE[:-1] + b"\x02")
        error = self.assertRaises(HandshakeError, acceptor.act_one, dialler.act_one())
        self.assertEqual(str(error), "act one: bad tag")

    def test_wrong_key_on_the_far_side(self) -> None:
        """An acceptor with another key than the dialler asked for fails at act one."""
        dialler, acceptor = self.make(acceptor=0x31)
        error = self.assertRaises(HandshakeError, acceptor.act_one, dialler.act_one())
        self.assertEqual(str(error), "act one: bad tag")

    @given(st.binary(max_size=80) | st.binary(min_size=50, max_size=50).map(lambda b: b"\0\x02" + b[2:]))
    def test_hostile_acts(self, data: bytes) -> None:
        """Random bytes as any act raise HandshakeError naming the act, and nothing else."""
        dialler, acceptor = self.make()
        error = self.assertRaises(HandshakeError, acceptor.act_one, data)
        self.assertTrue(str(error).startswith("act one: "))
        dialler, acceptor = self.make()
        acceptor.act_one(dialler.act_one())
        self.assertTrue(str(self.assertRaises(HandshakeError, dialler.act_two, data)).startswith("act two: "))
        data = data.ljust(66, b"\0")[:66]
        self.assertTrue(
            str(self.assertRaises(HandshakeError, acceptor.act_three, data)).startswith("act three: ")
        )
