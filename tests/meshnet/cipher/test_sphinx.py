"""The onion: the published one, routes of every length, changed and random packets."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.hashing import hmac256
from meshnet.cipher.keys import BadKeyError, PublicKey, SecretKey, public_key
from meshnet.cipher.sphinx import (
    ONION_SIZE,
    PAYLOADS_SIZE,
    BadOnion,
    build,
    derive,
    keystream,
    peel,
    xor_stream,
)
from meshnet.errors import UsageError
from tests.support.vectors import vectors

SESSION = SecretKey(b"\x41" * 32)
HOPS = tuple(SecretKey(bytes([0x51 + n]) * 32) for n in range(20))
BOUND = b"\0\0\0\x01circ\x65\x00\x00\x00"  # network id, "circ", expiry: as docs/wire-format.md §3


def without_length(payload: bytes) -> bytes:
    """The published payloads carry their BigSize length."""
    return payload[3:] if payload[0] == 0xFD else payload[1:]


def forged(area: bytes) -> bytes:
    """A packet for HOPS[0] whose hmac fits but whose clear area is `area`: only its maker can do this."""
    shared = SESSION.ecdh(HOPS[0].public)
    sealed = xor_stream(derive(b"rho", shared), area.ljust(PAYLOADS_SIZE, b"\0"))
    return b"\0" + SESSION.public + sealed + hmac256(derive(b"mu", shared), sealed + BOUND)


class PublishedTests(SynchronousTestCase):
    """BOLT 4's onion over five hops, one payload of 275 bytes."""

    def test_build_and_peel(self) -> None:
        """The packet byte for byte; each hop's key peels to its payload, the last finds no next packet."""
        vector = json.loads(vectors("bolt/bolt04-onion-test.json").read_text())
        given_, associated = vector["generate"], bytes.fromhex(vector["generate"]["associated_data"])
        route = [
            (public_key(bytes.fromhex(hop["pubkey"])), without_length(bytes.fromhex(hop["payload"])))
            for hop in given_["hops"]
        ]
        built = build(SecretKey(bytes.fromhex(given_["session_key"])), route, associated)
        self.assertEqual(built.packet.hex(), vector["onion"])
        packet: bytes | None = built.packet
        for index, text in enumerate(vector["decode"]):
            assert packet is not None
            peeled = peel(SecretKey(bytes.fromhex(text)), packet, associated)
            self.assertEqual(peeled.payload, route[index][1])
            packet = peeled.next_packet
        self.assertIsNone(packet)

    def test_shared_secrets(self) -> None:
        """The secrets of the error vector, which belong to the same route and session key."""
        hops = json.loads(vectors("bolt/bolt04-onion-error-test.json").read_text())["generate"]["hops"]
        route = [(public_key(bytes.fromhex(hop["pubkey"])), b"\x02\0") for hop in hops]
        built = build(SESSION, route, b"")
        self.assertEqual(
            [ss.hex() for ss in built.shared_secrets], [hop["hop_shared_secret"] for hop in hops]
        )
        self.assertEqual(
            [derive(b"ammag", ss).hex() for ss in built.shared_secrets], [hop["ammag_key"] for hop in hops]
        )


class RouteTests(SynchronousTestCase):
    """Whatever the route, what goes in comes out."""

    @given(st.lists(st.binary(min_size=2, max_size=400), min_size=1, max_size=20), st.binary(max_size=40))
    def test_there(self, payloads: list[bytes], associated: bytes) -> None:
        """Each hop finds its payload, secret and ephemeral key, and the size never changes."""
        route = [(hop.public, payload) for hop, payload in zip(HOPS, payloads, strict=False)]
        used = sum(len(p) + (35 if len(p) >= 0xFD else 33) for p in payloads)
        if used > PAYLOADS_SIZE:
            self.assertRaises(UsageError, build, SESSION, route, associated)
            return
        built = build(SESSION, route, associated)
        packet = built.packet
        for index, payload in enumerate(payloads):
            self.assertEqual(len(packet), ONION_SIZE)
            peeled = peel(HOPS[index], memoryview(packet), associated)
            self.assertEqual(peeled.payload, payload)
            self.assertEqual(peeled.shared_secret, built.shared_secrets[index])
            self.assertEqual(peeled.ephemeral, built.ephemerals[index].public)
            self.assertEqual(built.ephemerals[index].ecdh(HOPS[index].public), peeled.shared_secret)
            self.assertEqual(peeled.next_packet is None, index == len(payloads) - 1)
            packet = peeled.next_packet or b""

    def test_full(self) -> None:
        """Payloads may fill the 1,300 bytes exactly, in one hop or in eight."""
        one = build(SESSION, [(HOPS[0].public, b"x" * (PAYLOADS_SIZE - 35))], BOUND)
        self.assertEqual(len(peel(HOPS[0], one.packet, BOUND).payload), PAYLOADS_SIZE - 35)
        sizes = [129] * 7 + [1300 - 7 * 162 - 33]
        route = [(hop.public, b"y" * size) for hop, size in zip(HOPS, sizes, strict=False)]
        packet = build(SESSION, route, BOUND).packet
        for hop, size in zip(HOPS, sizes, strict=False):
            peeled = peel(hop, packet, BOUND)
            self.assertEqual(len(peeled.payload), size)
            packet = peeled.next_packet or b""

    def test_refused_routes(self) -> None:
        """No hop, payloads too short or too long, keys off the curve."""
        key = HOPS[0].public
        for route in ([], [(key, b"")], [(key, b"x")], [(key, bytes(1300))], [(key, bytes(600))] * 3):
            self.assertRaises(UsageError, build, SESSION, route, BOUND)
        off = PublicKey(b"\x02" + b"\xff" * 32)
        self.assertRaises(BadKeyError, build, SESSION, [(off, b"ok")], BOUND)

    def test_the_session_key_decides(self) -> None:
        """The same input gives the same packet, another session key another one throughout."""
        route = [(HOPS[0].public, b"payload"), (HOPS[1].public, b"payload")]
        self.assertEqual(build(SESSION, route, BOUND).packet, build(SESSION, route, BOUND).packet)
        other = build(HOPS[5], route, BOUND).packet
        same = sum(a == b for a, b in zip(build(SESSION, route, BOUND).packet, other, strict=True))
        self.assertLess(same, 40)

    def test_secrecy(self) -> None:
        """No repr shows a secret."""
        built = build(SESSION, [(HOPS[0].public, b"payload")], BOUND)
        peeled = peel(HOPS[0], built.packet, BOUND)
        for secret in (built.shared_secrets[0], SESSION.secret):
            self.assertNotIn(repr(secret), f"{built!r}{peeled!r}")
            self.assertNotIn(secret.hex(), f"{built!r}{peeled!r}")

    def test_keystream(self) -> None:
        """Block counter 0: RFC 8439 §A.1, test vector 1 (key and nonce zero)."""
        self.assertEqual(keystream(bytes(32), 16).hex(), "76b8e0ada0f13d90405d6ae55386bd28")


class HostileTests(SynchronousTestCase):
    """Packets that were changed, replayed elsewhere, or made to hurt."""

    def setUp(self) -> None:
        """A packet over two hops."""
        route = [(HOPS[0].public, b"first"), (HOPS[1].public, b"second")]
        self.packet = build(SESSION, route, BOUND).packet

    @given(st.binary(max_size=80) | st.binary(min_size=ONION_SIZE, max_size=ONION_SIZE))
    def test_random_bytes(self, data: bytes) -> None:
        """Random bytes of any length raise BadOnion only."""
        self.assertRaises(BadOnion, peel, HOPS[0], data, BOUND)
        self.assertRaises(BadOnion, peel, HOPS[0], self.packet[:1] + SESSION.public + data, BOUND)

    @given(st.integers(0, ONION_SIZE * 8 - 1))
    def test_any_changed_bit(self, bit: int) -> None:
        """One bit changed anywhere: BadOnion."""
        packet = bytearray(self.packet)
        packet[bit // 8] ^= 1 << bit % 8
        self.assertRaises(BadOnion, peel, HOPS[0], packet, BOUND)

    def test_other_key_or_data(self) -> None:
        """Another hop's key, or other associated data (network, expiry): BadOnion."""
        self.assertRaises(BadOnion, peel, HOPS[1], self.packet, BOUND)
        self.assertRaises(BadOnion, peel, HOPS[0], self.packet, BOUND[:-1] + b"\x01")

    def test_lengths(self) -> None:
        """Reserved, padded and impossible lengths are refused though the hmac fits."""
        bad = ("00", "01", "fd0000", "fd00fc", "fd04f4", "fdffff", "fe00010000", "ff0000000100000000")
        for head in bad:
            self.assertRaises(BadOnion, peel, HOPS[0], forged(bytes.fromhex(head)), BOUND)

    def test_largest_length(self) -> None:
        """1,265 is the largest payload of three length bytes that leaves room for the hmac."""
        self.assertEqual(len(peel(HOPS[0], forged(bytes.fromhex("fd04f1")), BOUND).payload), 1265)
        self.assertRaises(BadOnion, peel, HOPS[0], forged(bytes.fromhex("fd04f2")), BOUND)

    @given(st.binary(max_size=60))
    def test_random_areas(self, area: bytes) -> None:
        """Whatever a maker seals for us: a payload within the area, or BadOnion."""
        try:
            peeled = peel(HOPS[0], forged(area), BOUND)
        except BadOnion:
            return
        self.assertGreaterEqual(len(peeled.payload), 2)
        if peeled.next_packet is not None:
            self.assertEqual(len(peeled.next_packet), ONION_SIZE)
