"""Keys: what is accepted, what is refused, and that two ways of computing agree."""

from __future__ import annotations

import hashlib
from ipaddress import IPv6Address

import coincurve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.keys import (
    ORDER,
    BadKeyError,
    PublicKey,
    SecretKey,
    dns_label,
    mesh_ipv6,
    multiply,
    parse_dns_label,
    parse_public_key,
    public_key,
)

BASE_POINT = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"  # SEC 2, secp256k1
scalars = st.integers(1, ORDER - 1).map(lambda n: n.to_bytes(32, "big"))
secrets = scalars.map(SecretKey)


class PublicKeyTests(SynchronousTestCase):
    """Reading public keys and the names made from them."""

    def test_text_in_either_case(self) -> None:
        """Hex digits of either case are read; the base point is a key."""
        expected = PublicKey(bytes.fromhex(BASE_POINT))
        self.assertEqual(parse_public_key(BASE_POINT), expected)
        self.assertEqual(parse_public_key(BASE_POINT.upper()), expected)
        self.assertEqual(SecretKey((1).to_bytes(32, "big")).public, expected)

    def test_refused_text(self) -> None:
        """Wrong lengths, blanks, and letters that are no digits are refused with a sentence."""
        for text in ("", "02", BASE_POINT[:-2], BASE_POINT + "00", " " + BASE_POINT[1:], "g" * 66, "é" * 66):
            self.assertRaises(BadKeyError, parse_public_key, text)

    def test_refused_bytes(self) -> None:
        """Other lengths, other first bytes, an x off the curve and an x beyond the field are refused."""
        good = bytes.fromhex(BASE_POINT)
        uncompressed = coincurve.PublicKey(good).format(compressed=False)
        bad = [b"", good[:-1], good + b"\0", b"\x04" + good[1:], b"\x02" + b"\xff" * 32, b"\x02" + bytes(32)]
        for data in [*bad, uncompressed]:
            self.assertRaises(BadKeyError, public_key, data)

    def test_any_buffer(self) -> None:
        """Keys are read from borrowed memory and copied."""
        memory = bytearray.fromhex(BASE_POINT)
        key = public_key(memoryview(memory))
        memory[1:] = bytes(32)
        self.assertEqual(key.hex(), BASE_POINT)

    @given(st.binary(max_size=70))
    def test_random_bytes(self, data: bytes) -> None:
        """Random bytes are a key or raise BadKeyError, and nothing else."""
        try:
            self.assertEqual(public_key(data), coincurve.PublicKey(data).format())
        except BadKeyError:
            pass

    def test_names(self) -> None:
        """The DNS label and the IPv6 address of a known key (docs/wire-format.md §0)."""
        key = parse_public_key(BASE_POINT)
        self.assertEqual(dns_label(key), "aj434zt67holxlcvubrjltuhbmdqfg743mw44kgzlhzicwyw7alzq")
        self.assertEqual(mesh_ipv6(key), IPv6Address("fc0f:715b:af5d:4c2e:d329:785c:ef29:e562"))

    @given(secrets)
    def test_label_there_and_back(self, secret: SecretKey) -> None:
        """A label fits a DNS label (63) and gives the key back, in either case."""
        label = dns_label(secret.public)
        self.assertEqual((len(label), label), (53, label.lower()))
        self.assertEqual(parse_dns_label(label.upper()), secret.public)

    @given(st.text(max_size=60))
    def test_random_labels(self, label: str) -> None:
        """Random text is no label, and raises only BadKeyError."""
        self.assertRaises(BadKeyError, parse_dns_label, label)

    def test_one_label_per_key(self) -> None:
        """The unused last bit must be zero, so that a key has one name only."""
        label = dns_label(parse_public_key(BASE_POINT))
        alphabet = "abcdefghijklmnopqrstuvwxyz234567"
        other = label[:-1] + alphabet[alphabet.index(label[-1]) + 1]
        self.assertRaises(BadKeyError, parse_dns_label, other)


class SecretKeyTests(SynchronousTestCase):
    """Secret keys: bounds, agreement with coincurve's own classes, and secrecy."""

    def test_bounds(self) -> None:
        """1 … ORDER − 1 are keys, all else is refused."""
        SecretKey((ORDER - 1).to_bytes(32, "big"))
        for data in (bytes(32), ORDER.to_bytes(32, "big"), b"\xff" * 32, b"", b"\x01" * 31, b"\x01" * 33):
            self.assertRaises(BadKeyError, SecretKey, data)

    @given(secrets, secrets)
    def test_ecdh(self, mine: SecretKey, other: SecretKey) -> None:
        """Both sides agree, and so does coincurve; the secret is SHA-256 of the compressed point."""
        shared = mine.ecdh(other.public)
        self.assertEqual(shared, other.ecdh(mine.public))
        self.assertEqual(shared, coincurve.PrivateKey(mine.secret).ecdh(other.public))
        self.assertEqual(shared, hashlib.sha256(multiply(other.public, mine.secret)).digest())

    @given(secrets, scalars)
    def test_multiply(self, secret: SecretKey, scalar: bytes) -> None:
        """Scaling the secret and scaling the point give the same key pair."""
        product = secret.multiply(scalar)
        expected = int.from_bytes(secret.secret, "big") * int.from_bytes(scalar, "big") % ORDER
        self.assertEqual(int.from_bytes(product.secret, "big"), expected)
        self.assertEqual(product.public, multiply(secret.public, scalar))

    def test_bad_scalars(self) -> None:
        """Zero, the order and short scalars are refused by both."""
        secret = SecretKey(b"\x01" * 32)
        for scalar in (bytes(32), ORDER.to_bytes(32, "big"), b"\x01" * 31, b""):
            self.assertRaises(BadKeyError, secret.multiply, scalar)
            self.assertRaises(BadKeyError, multiply, secret.public, scalar)

    @given(st.binary(max_size=40))
    def test_ecdh_with_random_bytes(self, data: bytes) -> None:
        """What is no key raises BadKeyError only."""
        try:
            SecretKey(b"\x07" * 32).ecdh(data)
        except BadKeyError:
            pass

    def test_secrecy(self) -> None:
        """No repr or str shows the secret; equal keys are equal, and hash alike."""
        secret = SecretKey(b"\x0b" * 32)
        self.assertNotIn("0b0b0b", f"{secret!r} {secret}")
        self.assertIn(secret.public.hex(), repr(secret))
        self.assertEqual(secret, SecretKey(b"\x0b" * 32))
        self.assertEqual(hash(secret), hash(SecretKey(b"\x0b" * 32)))
        self.assertNotEqual(secret, SecretKey(b"\x0c" * 32))
        self.assertNotEqual(secret, secret.secret)

    def test_drawn(self) -> None:
        """Randomness is asked for 32 bytes; generated keys differ."""
        asked: list[int] = []

        def random(size: int) -> bytes:
            asked.append(size)
            return b"\x05" * size

        self.assertEqual(SecretKey.draw(random), SecretKey(b"\x05" * 32))
        self.assertEqual(asked, [32])
        self.assertNotEqual(SecretKey.generate(), SecretKey.generate())
