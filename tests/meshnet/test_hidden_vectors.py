"""Our own vectors of blinded tails, `tests/vectors/hidden.json`: what §6 adds to BOLT 4.

The tail and the address are computed a second time here, from docs/wire-format.md alone.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path

from coincurve import PrivateKey, PublicKey, PublicKeyXOnly
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.address import parse_address, sign_address
from meshnet.cipher.blinding import enter
from meshnet.cipher.keys import SecretKey
from meshnet.circuit.origin import payloads, seals
from meshnet.circuit.shared import nothing_stated
from meshnet.circuit.tail import find_way, make_tail, read_hidden

VECTOR = json.loads((Path(__file__).parents[1] / "vectors" / "hidden.json").read_text())
NODES = [SecretKey(bytes.fromhex(text)) for text in VECTOR["nodes"]]
SERVICE = SecretKey(bytes.fromhex(VECTOR["service"]))
SESSION = SecretKey(bytes.fromhex(VECTOR["session_key"]))
PATH = bytes.fromhex(VECTOR["path_id"])
DOMAIN = b"meshnet/address/1"


def mac(key: bytes, data: bytes) -> bytes:
    """HMAC-SHA-256."""
    return hmac.digest(key, data, "sha256")


class TailTests(SynchronousTestCase):
    """Three nodes, the last one the service's."""

    def test_made(self) -> None:
        """Path key, keys and data of the tail, and the address."""
        keys = [node.public for node in NODES]
        path_key, tail = make_tail(SESSION, keys[:-1], keys[-1], PATH)
        self.assertEqual(path_key.hex(), VECTOR["path_key"])
        self.assertEqual([hop.key.hex() for hop in tail], [hop["key"] for hop in VECTOR["hops"]])
        self.assertEqual([hop.data.hex() for hop in tail], [hop["encrypted"] for hop in VECTOR["hops"]])
        address = sign_address(SERVICE, VECTOR["network"], VECTOR["expiry"], path_key, tail)
        self.assertEqual(address.text, VECTOR["address"])
        self.assertEqual(parse_address(VECTOR["address"]), address)

    def test_by_hand(self) -> None:
        """The same from the tables of the page."""
        secret = PrivateKey(SESSION.secret)
        keys = [node.public for node in NODES]
        clear = [b"\x01\x1b" + bytes(27) + b"\x04\x21" + key for key in keys[1:]]
        clear.append(b"\x01\x2c" + bytes(44) + b"\x06\x10" + PATH)
        for index, (key, told, hop) in enumerate(zip(keys, clear, VECTOR["hops"], strict=True)):
            self.assertEqual((len(told), told.hex()), (64, hop["clear"]))
            self.assertEqual(secret.public_key.format().hex(), hop["path_key"])
            ss = secret.ecdh(key)
            blinded = PublicKey(key).multiply(mac(b"blinded_node_id", ss)).format()
            self.assertEqual(hop["key"], (blinded if index else key).hex())
            data = ChaCha20Poly1305(mac(b"rho", ss)).encrypt(bytes(12), told, None)
            self.assertEqual(data.hex(), hop["encrypted"])
            secret = secret.multiply(hashlib.sha256(secret.public_key.format() + ss).digest())

    def test_address_by_hand(self) -> None:
        """The layout of the text, its checksum, and whose signature it has."""
        word = VECTOR["address"].removeprefix("mesh1").upper()
        data = base64.b32decode(word + "=" * (-len(word) % 8))
        body, signature, checksum = data[:-68], data[-68:-4], data[-4:]
        head = VECTOR["network"].to_bytes(4, "big") + VECTOR["expiry"].to_bytes(4, "big")
        parts = [bytes.fromhex(hop["key"] + hop["encrypted"]) for hop in VECTOR["hops"]]
        path_key = bytes.fromhex(VECTOR["path_key"])
        self.assertEqual(body, head + SERVICE.public + path_key + b"".join(parts))
        self.assertEqual(checksum, hashlib.sha256(DOMAIN + body + signature).digest()[:4])
        digest = hashlib.sha256(DOMAIN + body).digest()
        self.assertTrue(PublicKeyXOnly(SERVICE.public[1:]).verify(signature, digest))

    def test_payloads(self) -> None:
        """What the onion tells a relay before the tail and each node of it."""
        address, own = parse_address(VECTOR["address"]), SecretKey(b"\x7f" * 32)
        way = find_way([SecretKey(b"\x7e" * 32).public, address], own)
        layers = seals(way, nothing_stated, 0.0)
        made = payloads(way, bytes.fromhex(VECTOR["first_message"]), VECTOR["idle"], layers)
        self.assertEqual([payload.hex() for _, payload in made], VECTOR["payloads"])
        self.assertEqual([key.hex() for key, _ in made[1:]], [hop["key"] for hop in VECTOR["hops"]])

    def test_walked(self) -> None:
        """Each node reads its terms and finds the path key of the next CREATE."""
        path_key = bytes.fromhex(VECTOR["path_key"])
        for node, hop, following in zip(NODES, VECTOR["hops"], [*NODES[1:], None], strict=True):
            self.assertEqual(path_key.hex(), hop["path_key"])
            step = enter(node, path_key)
            terms = read_hidden(step, bytes.fromhex(hop["encrypted"]))
            self.assertEqual(terms.next_node, None if following is None else following.public)
            self.assertEqual(terms.path_id, PATH if following is None else None)
            path_key = step.next_path_key
