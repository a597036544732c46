"""Attribution data: the published packets, and who is blamed for changed ones."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.attribution import ATTRIBUTION_SIZE, extend, hold_times
from meshnet.cipher.hashing import sha256
from meshnet.cipher.onion_error import add_layer, create, open_error, sealed
from meshnet.errors import CodecError, UsageError
from tests.support.vectors import vectors

SECRETS = tuple(sha256(bytes([n])) for n in range(20))


class PublishedTests(SynchronousTestCase):
    """BOLT 4's route of five hops, an error of 1,024 bytes made by the last."""

    def test_error_and_success(self) -> None:
        """At each hop the error onion, its attribution data and those of a success, byte for byte."""
        vector = json.loads(vectors("bolt/bolt04-attribution-data.json").read_text())
        created = vector["create"]
        # The published message is the failure, its pad length and its pad.
        failure = bytes.fromhex(created["encoded_failure_message"])[:320]
        packet = sealed(bytes.fromhex(created["shared_secret"]), failure, 1024)
        self.assertEqual(packet.hex(), created["raw_error_packet"])
        attribution = success = b""
        secrets = [bytes.fromhex(step["shared_secret"]) for step in vector["forward"]]
        for step, secret, time in zip(vector["forward"], secrets, vector["hold_times"], strict=True):
            attribution = extend(secret, packet, time, attribution)
            success = extend(secret, b"", time, success)
            packet = add_layer(secret, packet)
            self.assertEqual(packet.hex(), step["error_packet"])
            self.assertEqual(attribution.hex(), step["attribution_data"])
            self.assertEqual(success.hex(), vector["success_attribution"][str(step["node"])])
        secrets.reverse()
        times = tuple(reversed(vector["hold_times"]))
        self.assertEqual(hold_times(secrets, packet, attribution), times)
        self.assertEqual(hold_times(secrets, b"", success), times)
        self.assertEqual(open_error(secrets, packet), (4, failure))


class BlameTests(SynchronousTestCase):
    """Who proves its hold time, and who does not."""

    @given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20))
    def test_there_and_back(self, times: list[int]) -> None:
        """Up to 20 hops prove their times, in path order."""
        secrets = SECRETS[: len(times)]
        packet, data = sealed(secrets[-1], b"no"), b""
        for secret, time in zip(reversed(secrets), reversed(times), strict=True):
            data = extend(secret, packet, time, data)
            packet = add_layer(secret, packet)
        self.assertEqual(hold_times(secrets, packet, data), tuple(times))

    @given(st.integers(0, 4), st.integers(0, ATTRIBUTION_SIZE * 8 - 1), st.booleans())
    def test_a_change_is_placed(self, culprit: int, bit: int, garble: bool) -> None:
        """Hops before the one that changed something prove their times; it or the next one does not.

        Many bits are of HMACs for longer routes, which a hop throws away or the origin still checks.
        """
        packet, data = create(SECRETS[4], b"no"), b""
        packet = add_layer(SECRETS[4], packet)
        for hop in range(4, -1, -1):
            data = extend(SECRETS[hop], packet, hop, data)
            packet = add_layer(SECRETS[hop], packet)
            if hop == culprit:
                if garble:
                    packet = packet[:-1] + bytes([packet[-1] ^ 1])
                else:
                    changed = bytearray(data)
                    changed[bit // 8] ^= 1 << bit % 8
                    data = bytes(changed)
        proven = hold_times(SECRETS[:5], packet, data)
        self.assertEqual(proven, tuple(range(len(proven))))
        self.assertGreaterEqual(len(proven), culprit)
        if garble:
            self.assertEqual(len(proven), culprit)

    @given(st.binary(max_size=80) | st.binary(min_size=ATTRIBUTION_SIZE, max_size=ATTRIBUTION_SIZE))
    def test_random_bytes(self, data: bytes) -> None:
        """Random data prove nothing; of wrong size they raise CodecError."""
        if len(data) == ATTRIBUTION_SIZE:
            self.assertEqual(hold_times(SECRETS[:3], b"packet", data), ())
            self.assertEqual(len(extend(SECRETS[0], b"packet", 1, data)), ATTRIBUTION_SIZE)
        else:
            self.assertRaises(CodecError, hold_times, SECRETS[:3], b"packet", data)
            if data:
                self.assertRaises(CodecError, extend, SECRETS[0], b"packet", 1, data)

    def test_refused(self) -> None:
        """More than 20 hops, and times beyond a u32."""
        self.assertRaises(UsageError, hold_times, [bytes(32)] * 21, b"", bytes(ATTRIBUTION_SIZE))
        for time in (-1, 1 << 32):
            self.assertRaises(UsageError, extend, SECRETS[0], b"", time)
