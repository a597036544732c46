"""Route blinding: the published paths and onions, and what is not for us."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.blinding import BlindedPath, Step, blind, enter
from meshnet.cipher.keys import SecretKey, public_key
from meshnet.cipher.sphinx import BadOnion, build, peel
from tests.support.vectors import vectors

HOPS = [SecretKey(bytes([0x42 + n]) * 32) for n in range(4)]


def published(name: str) -> Any:
    """One of BOLT 4's files."""
    return json.loads(vectors(f"bolt/bolt04-{name}.json").read_text())


def octets(text: str) -> bytes:
    """Hex digits as bytes."""
    return bytes.fromhex(text)


def record(data: bytes, wanted: int) -> bytes | None:
    """A TLV with short type and length in the clear data, as the published files have them."""
    position = 0
    while position < len(data) and data[position] < 0xFD:
        stop = position + 2 + data[position + 1]
        if data[position] == wanted:
            return data[position + 2 : stop]
        position = stop
    return None


class PublishedPaths(SynchronousTestCase):
    """The route of four nodes that is two paths in one."""

    def parts(self) -> tuple[list[Any], list[BlindedPath]]:
        """Bob to Carol with one session key, Dave to Eve with another."""
        hops = published("route-blinding-test")["generate"]["hops"]
        paths = []
        for part in (hops[:2], hops[2:]):
            route = [(public_key(octets(hop["node_id"])), octets(hop["encoded_tlvs"])) for hop in part]
            paths.append(blind(SecretKey(octets(part[0]["session_key"])), route))
        return hops, paths

    def test_made(self) -> None:
        """Blinded ids, data and secrets, byte for byte."""
        hops, paths = self.parts()
        made = [hop for path in paths for hop in path.hops]
        secrets = [ss for path in paths for ss in path.shared_secrets]
        self.assertEqual([hop.key.hex() for hop in made], [hop["blinded_node_id"] for hop in hops])
        self.assertEqual([hop.data.hex() for hop in made], [hop["encrypted_data"] for hop in hops])
        self.assertEqual([ss.hex() for ss in secrets], [hop["shared_secret"] for hop in hops])
        self.assertEqual([path.path_key.hex() for path in paths], [hops[0]["path_key"], hops[2]["path_key"]])
        route = published("route-blinding-test")["route"]
        self.assertEqual(paths[0].path_key.hex(), route["first_path_key"])

    def test_walked(self) -> None:
        """Each node tweaks its key, reads its data, and finds the next path key or the one named there."""
        vector = published("route-blinding-test")
        path_key = octets(vector["route"]["first_path_key"])
        for hop, sealed in zip(vector["unblind"]["hops"], vector["route"]["hops"], strict=True):
            secret = SecretKey(octets(hop["node_privkey"]))
            self.assertEqual(path_key.hex(), hop["path_key"])
            step = enter(secret, path_key)
            self.assertEqual(step.tweaked(secret).secret.hex(), hop["blinded_privkey"])
            self.assertEqual(step.tweaked(secret).public.hex(), sealed["blinded_node_id"])
            data = step.open(octets(sealed["encrypted_data"]))
            self.assertEqual(data.hex(), hop["decrypted_data"])
            self.assertEqual(step.next_path_key.hex(), hop["next_path_key"])
            named = record(data, 8)
            self.assertEqual(None if named is None else named.hex(), hop.get("next_path_key_override"))
            path_key = named or step.next_path_key


class PublishedOnions(SynchronousTestCase):
    """Onions over blinded paths, built and peeled."""

    def walk(
        self, packet: bytes, bound: bytes, keys: list[SecretKey], path_key: bytes | None, sealed: int
    ) -> list[tuple[bytes, bytes, bytes | None]]:
        """Each node's onion, its payload and the next path key; `sealed` is the TLV of the encrypted data."""
        found: list[tuple[bytes, bytes, bytes | None]] = []
        onward: bytes | None = packet
        for secret in keys:
            assert onward is not None
            step: Step | None = None if path_key is None else enter(secret, path_key)
            peeled = peel(secret if step is None else step.tweaked(secret), onward, bound)
            if step is None:
                named = record(peeled.payload, 12)  # the introduction node's
                step = None if named is None else enter(secret, named)
            if step is not None:
                data = record(peeled.payload, sealed)
                assert data is not None
                path_key = record(step.open(data), 8) or step.next_path_key
            found.append((onward, peeled.payload, path_key))
            onward = peeled.next_packet
        self.assertIsNone(onward)
        return found

    def test_payment(self) -> None:
        """A hop in the clear, then the introduction node, then three behind it, as listed."""
        vector = published("blinded-payment-onion-test")
        made, hops = vector["generate"], vector["generate"]["full_route"]["hops"]
        route = [(public_key(octets(hop["pubkey"])), octets(hop["payload"])[1:]) for hop in hops]
        bound = octets(made["associated_data"])
        packet = build(SecretKey(octets(made["session_key"])), route, bound).packet
        self.assertEqual(packet.hex(), made["onion"])
        listed = vector["decrypt"]["hops"]
        keys = [SecretKey(octets(hop["node_privkey"])) for hop in listed]
        found = self.walk(packet, bound, keys, None, 10)
        self.assertEqual([payload for _, payload, _ in found], [payload for _, payload in route])
        self.assertEqual([onion.hex() for onion, _, _ in found], [hop["onion"] for hop in listed])
        following = [None if path_key is None else path_key.hex() for _, _, path_key in found]
        self.assertEqual(following, [hop.get("next_path_key") for hop in listed])

    def test_message(self) -> None:
        """A message over two joined paths; every node has a path key, the first too."""
        vector = published("blinded-onion-message-onion-test")
        listed = vector["decrypt"]["hops"]
        keys = [SecretKey(octets(hop["privkey"])) for hop in listed]
        packet = octets(vector["onionmessage"]["onion_message_packet"])
        path_key: bytes | None = octets(vector["route"]["first_path_key"])
        data = [hop["encrypted_recipient_data"] for hop in vector["generate"]["hops"]]
        found = self.walk(packet, b"", keys, path_key, 4)
        for hop, wanted, (onion, payload, following) in zip(listed, data, found, strict=True):
            self.assertIn(wanted, payload.hex())
            assert path_key is not None
            head = "0201" + path_key.hex() + f"{len(onion):04x}"  # the message's type, 513
            self.assertEqual(head + onion.hex(), hop["onion_message"])
            path_key = following

    def test_message_path(self) -> None:
        """The two paths of the message, byte for byte."""
        hops = published("blinded-onion-message-onion-test")["generate"]["hops"]
        nodes = [SecretKey(bytes([0x41 + n]) * 32).public for n in range(4)]
        for begin, end in ((0, 1), (1, 4)):
            part = hops[begin:end]
            route = [
                (node, octets(hop["encrypted_data_tlv"]))
                for node, hop in zip(nodes[begin:end], part, strict=True)
            ]
            path = blind(SecretKey(octets(part[0]["path_key_secret"])), route)
            self.assertEqual([hop.key.hex() for hop in path.hops], [hop["blinded_node_id"] for hop in part])
            self.assertEqual(
                [hop.data.hex() for hop in path.hops], [hop["encrypted_recipient_data"] for hop in part]
            )


class OwnTests(SynchronousTestCase):
    """What does not open."""

    def path(self, session: int = 9) -> BlindedPath:
        """A path over all HOPS."""
        return blind(
            SecretKey(bytes([session]) * 32), [(hop.public, bytes([n]) * 64) for n, hop in enumerate(HOPS)]
        )

    def test_wrong_key(self) -> None:
        """Another node, another path, changed data: none of it opens."""
        path, other = self.path(), self.path(10)
        step = enter(HOPS[0], path.path_key)
        self.assertEqual(step.open(path.hops[0].data), bytes(64))
        for data in (path.hops[1].data, other.hops[0].data, path.hops[0].data[:-1] + b"\0", b"", bytes(15)):
            self.assertRaises(BadOnion, step.open, data)
        self.assertRaises(BadOnion, enter(HOPS[1], path.path_key).open, path.hops[0].data)
        self.assertRaises(BadOnion, enter(HOPS[0], other.path_key).open, path.hops[0].data)

    @given(st.binary(max_size=40))
    def test_any_path_key(self, path_key: bytes) -> None:
        """Bytes that are no point are refused as an onion is."""
        try:
            step = enter(HOPS[0], path_key)
        except BadOnion:
            return
        self.assertEqual(len(step.next_path_key), 33)

    def test_no_secret_shown(self) -> None:
        """A repr shows no shared secret."""
        path = self.path()
        for ss in path.shared_secrets:
            self.assertNotIn(repr(ss), repr(path))
            self.assertNotIn(repr(ss), repr(enter(HOPS[0], path.path_key)))
