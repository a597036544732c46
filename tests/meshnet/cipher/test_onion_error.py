"""Error onions: the published one, every hop of every route, changed and random packets."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.hashing import hmac256, sha256
from meshnet.cipher.onion_error import ERROR_SIZE, FAILURE_SIZE, add_layer, create, open_error, sealed
from meshnet.cipher.sphinx import derive
from meshnet.errors import UsageError
from tests.support.vectors import vectors

SECRETS = tuple(sha256(bytes([n])) for n in range(8))


def travelled(packet: bytes, hop: int) -> bytes:
    """What the origin gets of a packet that hop `hop` made."""
    for secret in reversed(SECRETS[:hop]):
        packet = add_layer(secret, packet)
    return packet


class ErrorTests(SynchronousTestCase):
    """Made at a hop, read at the origin."""

    def test_published(self) -> None:
        """BOLT 4's error over five hops, byte for byte, there and back."""
        vector = json.loads(vectors("bolt/bolt04-onion-error-test.json").read_text())
        hops = vector["generate"]["hops"]
        secrets = [bytes.fromhex(hop["hop_shared_secret"]) for hop in hops]
        failure = bytes.fromhex(vector["generate"]["failure_message"])
        self.assertEqual(sealed(secrets[-1], failure)[32:].hex(), hops[-1]["payload"])
        self.assertEqual(derive(b"um", secrets[-1]).hex(), hops[-1]["um_key"])
        packet = create(secrets[-1], failure)
        for secret in reversed(secrets[:-1]):
            packet = add_layer(secret, packet)
        self.assertEqual(packet.hex(), vector["errorpacket"])
        self.assertEqual(open_error(secrets, packet), (4, failure))

    @given(st.integers(0, 7), st.binary(max_size=FAILURE_SIZE))
    def test_every_hop(self, hop: int, failure: bytes) -> None:
        """Always 292 bytes; the origin learns which hop, and its words; a shorter route learns nothing."""
        packet = travelled(create(SECRETS[hop], failure), hop)
        self.assertEqual(len(packet), ERROR_SIZE)
        self.assertEqual(open_error(SECRETS, memoryview(packet)), (hop, failure))
        self.assertIsNone(open_error(SECRETS[:hop], packet))

    def test_long_routes(self) -> None:
        """Beyond the mesh's 8 hops too, as BOLT 4 allows."""
        secrets = [sha256(bytes([1, n])) for n in range(27)]
        packet = create(secrets[26], b"far away")
        for secret in reversed(secrets[:26]):
            packet = add_layer(secret, packet)
        self.assertEqual(open_error(secrets, packet), (26, b"far away"))

    def test_too_long(self) -> None:
        """More than 256 bytes are the caller's fault, unless he asks for a larger onion."""
        self.assertRaises(UsageError, create, SECRETS[0], bytes(FAILURE_SIZE + 1))
        packet = create(SECRETS[0], b"x" * 300, size=1024)
        self.assertEqual(len(packet), 1060)
        self.assertEqual(open_error(SECRETS, packet), (0, b"x" * 300))


class HostileTests(SynchronousTestCase):
    """Packets nobody of the route made."""

    @given(st.binary(max_size=400))
    def test_random_bytes(self, data: bytes) -> None:
        """Random bytes of any length are nobody's error."""
        self.assertIsNone(open_error(SECRETS, data))

    @given(st.integers(0, ERROR_SIZE * 8 - 1), st.integers(0, 7))
    def test_any_changed_bit(self, bit: int, hop: int) -> None:
        """A packet changed on its way names nobody, and so blames nobody."""
        packet = bytearray(travelled(create(SECRETS[hop], b"no"), hop))
        packet[bit // 8] ^= 1 << bit % 8
        self.assertIsNone(open_error(SECRETS, packet))

    @given(st.binary(max_size=260))
    def test_malformed_but_authentic(self, body: bytes) -> None:
        """A hop that seals nonsense is named; its words are then empty or what its length says."""
        packet = add_layer(SECRETS[2], hmac256(derive(b"um", SECRETS[2]), body) + body)
        found = open_error(SECRETS, travelled(packet, 2))
        assert found is not None
        self.assertEqual(found[0], 2)
        self.assertIn(found[1], body)
