"""End-to-end handshakes and the proofs of AUTH."""

from __future__ import annotations

import hashlib
import hmac

from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.aead import backend
from meshnet.errors import HandshakeError
from meshnet.session import keys
from tests.meshnet.session.pair import NETWORK, circuit_keys, key


class KeysTests(SynchronousTestCase):
    def test_both_agree(self) -> None:
        """Each side's sending key is the other's receiving key; the directions differ."""
        one, two = circuit_keys()
        self.assertEqual((one.send, one.receive), (two.receive, two.send))
        self.assertNotEqual(one.send, one.receive)
        self.assertEqual((one.hash, one.chaining_key), (two.hash, two.chaining_key))
        self.assertEqual((one.send_ad, one.receive_ad, two.send_ad, two.receive_ad), (b"f", b"b", b"b", b"f"))
        self.assertEqual(one.remote_ephemeral, two.ephemeral.public)
        self.assertNotIn(one.send.hex(), repr(one))

    def test_messages(self) -> None:
        """Both messages are 49 bytes, and an ephemeral key's public half stands in front."""
        opening = keys.start(key("service").public, NETWORK, key("e"), backend())
        self.assertEqual((len(opening.first), opening.first[:33]), (49, key("e").public))
        reply, _ = keys.respond(key("service"), NETWORK, opening.first, key("r"), backend())
        self.assertEqual((len(reply), reply[:33]), (49, key("r").public))

    def test_backends_agree(self) -> None:
        """Either backend on either side."""
        opening = keys.start(key("service").public, NETWORK, key("e"), backend("sodium"))
        reply, last = keys.respond(key("service"), NETWORK, opening.first, key("r"), backend())
        self.assertEqual(opening.finish(reply).send, last.receive)

    def test_faults(self) -> None:
        """A wrong key, another network, a changed or cut message: HandshakeError that says which message."""
        opening = keys.start(key("service").public, NETWORK, key("e"), backend())
        good = opening.first

        def respond(secret: str = "service", network: int = NETWORK, first: bytes = good) -> object:
            return keys.respond(key(secret), network, first, key("r"), backend())

        changed = good[:-1] + bytes((good[-1] ^ 1,))
        for call in (
            lambda: respond(secret="other"),
            lambda: respond(network=NETWORK + 1),
            lambda: respond(first=changed),
            lambda: respond(first=good[:-1]),
            lambda: respond(first=b"\x05" + good[1:]),
        ):
            error = self.assertRaises(HandshakeError, call)
            self.assertTrue(str(error).startswith("end-to-end message one: "), str(error))
        reply, _ = keys.respond(key("service"), NETWORK, good, key("r"), backend())
        error = self.assertRaises(HandshakeError, opening.finish, reply[:-1] + b"\0")
        self.assertTrue(str(error).startswith("end-to-end message two: "), str(error))

    def test_caller(self) -> None:
        """The proof is the HMAC of docs/wire-format.md §5; nobody else's key passes."""
        one, two = circuit_keys()
        caller = key("caller")
        item = keys.caller_auth(one, caller)
        body = item[2:]
        shared = two.ephemeral.ecdh(caller.public)
        mac = hmac.new(shared, b"meshnet/caller" + one.hash + caller.public, hashlib.sha256).digest()
        self.assertEqual(item, b"\x06\x01" + caller.public + mac)
        self.assertEqual(keys.check_caller(two, body), caller.public)
        other = circuit_keys("other")[1]
        for wrong in (key("thief").public + mac, caller.public + bytes(32), bytes(65)):
            self.assertIsNone(keys.check_caller(two, wrong))
        self.assertIsNone(keys.check_caller(other, body), "bound to its circuit")

    def test_join(self) -> None:
        """A second circuit proves the session it joins, and only with that session's secret."""
        first_a, first_b = circuit_keys()
        second_a, second_b = circuit_keys("second")
        body = keys.join_auth(second_a, first_a)[2:]
        self.assertEqual(body[:16], hmac.new(first_a.chaining_key, b"sid", hashlib.sha256).digest()[:16])
        self.assertTrue(keys.check_join(second_b, first_b, body))
        self.assertFalse(keys.check_join(first_b, first_b, body), "bound to the joining circuit")
        self.assertFalse(keys.check_join(second_b, second_b, body))
        self.assertFalse(keys.check_join(second_b, first_b, body[:-1] + bytes((body[-1] ^ 1,))))
