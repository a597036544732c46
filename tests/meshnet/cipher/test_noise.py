"""Noise: the cacophony and snow vectors, NK over secp256k1 against a second writing, hostile messages."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import coincurve
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.aead import BACKENDS, Backend, backend, nonce96
from meshnet.cipher.dh import SECP256K1, X25519, X25519Key
from meshnet.cipher.keys import SecretKey
from meshnet.cipher.noise import NK, XK, Handshake, pattern
from meshnet.errors import HandshakeError, UsageError
from tests.support.vectors import vectors

OPENSSL = backend("openssl")
PROLOGUE = b"meshnet/e2e/1\0\0\0\x01"


def unhex(vector: dict[str, Any], name: str) -> bytes:
    return bytes.fromhex(vector.get(name, ""))


def side(vector: dict[str, Any], who: str, chosen: Backend) -> Handshake:
    """One side of a published vector; `who` is init or resp."""
    static, ephemeral = unhex(vector, f"{who}_static"), unhex(vector, f"{who}_ephemeral")
    return Handshake(
        pattern(vector["protocol_name"].split("_")[1]),
        X25519(),
        chosen,
        initiator=who == "init",
        prologue=unhex(vector, f"{who}_prologue"),
        e=X25519Key(ephemeral or bytes(32)),
        s=X25519Key(static) if static else None,
        rs=unhex(vector, f"{who}_remote_static"),
        psks=[bytes.fromhex(psk) for psk in vector.get(f"{who}_psks", ())],
    )


class PublishedTests(SynchronousTestCase):
    """Every vector of two other implementations: all base, deferred and psk patterns, byte for byte."""

    def run_vector(self, vector: dict[str, Any], chosen: Backend) -> None:
        sides = side(vector, "init", chosen), side(vector, "resp", chosen)
        name = vector["protocol_name"]
        keys: tuple[bytes, bytes] = b"", b""
        sent = [0, 0]
        for index, message in enumerate(vector["messages"]):
            speaker = index % 2 if len(pattern(name.split("_")[1]).messages) > 1 else 0
            payload, expected = unhex(message, "payload"), unhex(message, "ciphertext")
            if not sides[0].finished:
                self.assertEqual(sides[speaker].write(payload), expected, name)
                self.assertEqual(sides[1 - speaker].read(expected), payload, name)
                keys = (b"", b"")
            else:
                keys = sides[0].split()
                self.assertEqual(keys, sides[1].split())
                n, sent[speaker] = sent[speaker], sent[speaker] + 1
                self.assertEqual(chosen.aead(keys[speaker]).encrypt(nonce96(n), payload, b""), expected, name)
        self.assertEqual(sides[0].hash, sides[1].hash)
        if "handshake_hash" in vector:
            self.assertEqual(sides[0].hash.hex(), vector["handshake_hash"], name)

    def run_file(self, name: str, count: int) -> None:
        found = json.loads(vectors(name).read_text())["vectors"]
        self.assertEqual(len(found), count)
        for vector in found:
            for chosen in BACKENDS:
                self.run_vector(vector, backend(chosen))

    def test_cacophony(self) -> None:
        """59 vectors, with handshake hashes."""
        self.run_file("noise/cacophony-25519-chachapoly-sha256.json", 59)

    def test_snow(self) -> None:
        """51 vectors, among them several pre-shared keys at once."""
        self.run_file("noise/snow-25519-chachapoly-sha256.json", 51)


def pair(chosen: Backend = OPENSSL, responder: bytes = b"\x21" * 32) -> tuple[Handshake, Handshake]:
    """Both sides of NK as circuits use it; the initiator believes in the key 0x2121…"""
    service = SecretKey(b"\x21" * 32).public
    return (
        Handshake(
            NK, SECP256K1, chosen, initiator=True, prologue=PROLOGUE, e=SecretKey(b"\x12" * 32), rs=service
        ),
        Handshake(
            NK,
            SECP256K1,
            chosen,
            initiator=False,
            prologue=PROLOGUE,
            e=SecretKey(b"\x22" * 32),
            s=SecretKey(responder),
        ),
    )


def straight_nk() -> tuple[bytes, bytes, bytes, bytes, bytes]:
    """NK written down line by line from the specification: both messages, h, and the two keys."""

    def kdf(salt: bytes, ikm: bytes) -> tuple[bytes, bytes]:
        prk = hmac.new(salt, ikm, "sha256").digest()
        first = hmac.new(prk, b"\x01", "sha256").digest()
        return first, hmac.new(prk, first + b"\x02", "sha256").digest()

    def digest(*parts: bytes) -> bytes:
        return hashlib.sha256(b"".join(parts)).digest()

    s, e, re = (coincurve.PrivateKey(bytes([x]) * 32) for x in (0x21, 0x12, 0x22))
    s_pub, e_pub, re_pub = (key.public_key.format() for key in (s, e, re))
    ck = h = digest(b"Noise_NK_secp256k1_ChaChaPoly_SHA256")
    h = digest(digest(h, PROLOGUE), s_pub)
    h = digest(h, e_pub)
    ck, k = kdf(ck, s.ecdh(e_pub))
    tag1 = ChaCha20Poly1305(k).encrypt(bytes(12), b"", h)
    h = digest(digest(h, tag1), re_pub)
    ck, k = kdf(ck, e.ecdh(re_pub))
    tag2 = ChaCha20Poly1305(k).encrypt(bytes(12), b"", h)
    return e_pub + tag1, re_pub + tag2, digest(h, tag2), *kdf(ck, b"")


class NkTests(SynchronousTestCase):
    """The pattern of circuits, over our curve."""

    def test_against_a_second_writing(self) -> None:
        """Messages of 49 bytes, hash and keys as the specification read line by line gives them."""
        first, second, h, forward, back = straight_nk()
        for name in BACKENDS:
            origin, service = pair(backend(name))
            self.assertEqual(origin.write(), first)
            self.assertEqual(service.read(memoryview(first)), b"")
            self.assertEqual(service.write(), second)
            self.assertEqual(origin.read(bytearray(second)), b"")
            for one in (origin, service):
                self.assertEqual((one.hash, one.split()), (h, (forward, back)))
            self.assertEqual(service.remote_ephemeral, SecretKey(b"\x12" * 32).public)
            self.assertEqual(origin.remote_ephemeral, SecretKey(b"\x22" * 32).public)
            self.assertEqual(origin.chaining_key, service.chaining_key)
            self.assertEqual((len(first), len(second)), (49, 49))

    def test_payloads(self) -> None:
        """Payloads travel encrypted and arrive."""
        origin, service = pair()
        message = origin.write(b"first words")
        self.assertNotIn(b"first words", message)
        self.assertEqual(service.read(message), b"first words")
        self.assertEqual(origin.read(service.write(memoryview(b"answer"))), b"answer")

    def test_wrong_static_key(self) -> None:
        """Who does not hold the key the origin asked for cannot read its first message."""
        origin, service = pair(responder=b"\x23" * 32)
        error = self.assertRaises(HandshakeError, service.read, origin.write())
        self.assertEqual(str(error), "message 1: bad tag")

    def test_wrong_prologue(self) -> None:
        """Another network id: the first message does not open."""
        origin, _ = pair()
        service = Handshake(
            NK,
            SECP256K1,
            OPENSSL,
            initiator=False,
            prologue=PROLOGUE[:-1] + b"\x02",
            e=SecretKey(b"\x22" * 32),
            s=SecretKey(b"\x21" * 32),
        )
        self.assertRaises(HandshakeError, service.read, origin.write())


class FaultTests(SynchronousTestCase):
    """What goes wrong, and who is blamed."""

    def test_turns(self) -> None:
        """Speaking out of turn, splitting early and going on at the end are our own faults."""
        origin, service = pair()
        self.assertRaises(UsageError, origin.read, bytes(49))
        self.assertRaises(UsageError, service.write)
        self.assertRaises(UsageError, origin.split)
        service.read(origin.write())
        self.assertFalse(origin.finished)
        origin.read(service.write())
        self.assertTrue(origin.finished and service.finished)
        self.assertRaises(UsageError, origin.write)
        self.assertRaises(UsageError, origin.read, b"")

    def test_a_failure_is_final(self) -> None:
        """After a bad message the right one is not taken any more."""
        origin, service = pair()
        good = origin.write()
        self.assertRaises(HandshakeError, service.read, good[:-1] + bytes([good[-1] ^ 1]))
        self.assertRaises(UsageError, service.read, good)

    def test_needs(self) -> None:
        """Keys that the pattern needs must be given, pre-shared ones in number and length."""
        e, s = SecretKey(b"\x01" * 32), SecretKey(b"\x02" * 32)

        def make(name: str, initiator: bool, **given: Any) -> Callable[[], Handshake]:
            chosen = pattern(name)
            return lambda: Handshake(
                chosen, SECP256K1, OPENSSL, initiator=initiator, prologue=b"", e=e, **given
            )

        self.assertRaises(UsageError, make("XK", True, s=s))
        self.assertRaises(UsageError, make("XK", True, rs=s.public))
        self.assertRaises(UsageError, make("NK", False))
        self.assertRaises(UsageError, make("NKpsk0", True, rs=s.public))
        self.assertRaises(UsageError, make("NKpsk0", True, rs=s.public, psks=[b"short"]))
        self.assertRaises(UsageError, make("NK", True, rs=s.public, psks=[bytes(32)]))
        make("NKpsk0", True, rs=s.public, psks=[bytes(32)])()

    def test_large_messages(self) -> None:
        """65,535 bytes are the most, written or read."""
        origin, service = pair()
        self.assertRaises(UsageError, origin.write, bytes(65_535))
        error = self.assertRaises(HandshakeError, service.read, bytes(65_536))
        self.assertEqual(str(error), "message 1: wrong length")

    def test_small_order(self) -> None:
        """An X25519 key of small order has no secret with ours and ends the handshake."""
        responder = Handshake(
            pattern("NN"), X25519(), OPENSSL, initiator=False, prologue=b"", e=X25519Key(b"\x07" * 32)
        )
        responder.read(bytes(32))
        error = self.assertRaises(HandshakeError, responder.write)
        self.assertEqual(str(error), "message 2: bad public key")

    @given(st.binary(max_size=120), st.booleans(), st.sampled_from(BACKENDS))
    def test_random_messages(self, data: bytes, second: bool, name: str) -> None:
        """Random bytes for either message raise HandshakeError only."""
        origin, service = pair(backend(name))
        if second:
            service.read(origin.write())
            self.assertRaises(HandshakeError, origin.read, data)
        else:
            self.assertRaises(HandshakeError, service.read, data)

    @given(st.integers(0, 2), st.integers(0, 10_000), st.binary(max_size=9))
    def test_any_changed_bit(self, which: int, bit: int, payload: bytes) -> None:
        """One bit changed in any message of XK: its reader raises HandshakeError."""
        s, rs = SecretKey(b"\x11" * 32), SecretKey(b"\x21" * 32)
        dialler = Handshake(
            XK,
            SECP256K1,
            OPENSSL,
            initiator=True,
            prologue=b"",
            e=SecretKey(b"\x12" * 32),
            s=s,
            rs=rs.public,
        )
        acceptor = Handshake(
            XK, SECP256K1, OPENSSL, initiator=False, prologue=b"", e=SecretKey(b"\x22" * 32), s=rs
        )
        for index in range(3):
            writer, reader = (dialler, acceptor) if index % 2 == 0 else (acceptor, dialler)
            message = bytearray(writer.write(payload))
            if index == which:
                bit %= len(message) * 8
                message[bit // 8] ^= 1 << bit % 8
                self.assertRaises(HandshakeError, reader.read, message)
                return
            self.assertEqual(reader.read(message), payload)

    def test_secrecy(self) -> None:
        """The repr of a handshake shows no key."""
        self.assertEqual(repr(pair()[0]), "<Handshake NK initiator at message 1>")
