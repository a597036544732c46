"""Addresses of services that hide: their text, and what is refused."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from meshnet.cipher.address import (
    DATA_SIZE,
    PREFIX,
    Address,
    AddressError,
    BlindedHop,
    looks_like_address,
    node_key,
    parse_address,
    parse_target,
    proves,
    sign_address,
)
from meshnet.cipher.keys import SecretKey
from meshnet.errors import UsageError
from meshnet.limits import TAIL_HOPS

SERVICE = SecretKey(bytes([7] * 32))
KEYS = [SecretKey(bytes([number] * 32)).public for number in range(1, 6)]
EXPIRY = 1_900_000_000


def address(hops: int = 3, network: int = 5, expiry: int = EXPIRY) -> Address:
    """An address whose tail leads nowhere."""
    tail = [BlindedHop(key, bytes([9] * DATA_SIZE)) for key in KEYS[:hops]]
    return sign_address(SERVICE, network, expiry, KEYS[4], tail)


class TextTests(TestCase):
    """The word that people copy."""

    def test_round_trip(self) -> None:
        """1 to 4 hops, read again in either case, safe wherever words are."""
        for hops in range(1, TAIL_HOPS + 1):
            made = address(hops)
            self.assertEqual(parse_address(made.text), made)
            self.assertEqual(parse_address(made.text.upper()), made)
            self.assertEqual(parse_address(made.text).signature, made.signature)
            self.assertRegex(made.text, r"^mesh1[a-z2-7]{408,951}$")

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        """Any text is an address or refused in a sentence."""
        for each in (text, PREFIX + text):
            try:
                parse_address(each)
            except UsageError as problem:
                self.assertTrue(str(problem).endswith("."))

    @given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz234567", min_size=400, max_size=960))
    def test_any_word(self, word: str) -> None:
        """Words of the right letters are no addresses by chance."""
        self.assertRaises(AddressError, parse_address, PREFIX + word)

    @given(st.integers(0, 500), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"))
    def test_one_letter(self, place: int, letter: str) -> None:
        """One wrong letter makes it damaged."""
        text = address(2).text
        place = len(PREFIX) + place % (len(text) - len(PREFIX))
        assume(text[place] != letter)
        problem = self.assertRaises(AddressError, parse_address, text[:place] + letter + text[place + 1 :])
        self.assertIn("damaged", str(problem))

    def test_cut(self) -> None:
        """Part of an address is damaged, not another address."""
        text = address().text
        for size in range(105, len(text), 7):
            self.assertRaises(AddressError, parse_address, text[:size])
        self.assertIn("damaged", str(self.assertRaises(AddressError, parse_address, text + "a")))

    def test_versions(self) -> None:
        """An address of another version says so."""
        text = "mesh2" + address().text[5:]
        self.assertTrue(looks_like_address(text))
        self.assertIn("version 2", str(self.assertRaises(AddressError, parse_target, text)))


class SignatureTests(TestCase):
    """An address is the service's own word."""

    def test_forged(self) -> None:
        """Whoever changes an address and mends the checksum has not the service's key."""
        made, other = address(), address(network=6)
        forged = Address(6, made.expiry, made.service, made.path_key, made.tail, made.signature)
        self.assertNotEqual(forged.text, other.text)
        problem = self.assertRaises(AddressError, parse_address, forged.text)
        self.assertIn("not made by the service", str(problem))
        self.assertEqual(parse_address(other.text), other)

    def test_no_key(self) -> None:
        """What is no point of the curve is no key, whoever signed it."""
        bad = BlindedHop(bytes(33), bytes(DATA_SIZE))  # type: ignore[arg-type]
        made = sign_address(SERVICE, 5, EXPIRY, KEYS[4], [bad])
        self.assertRaises(AddressError, parse_address, made.text)

    def test_tails(self) -> None:
        """No tail of no or five hops, or with data of another size."""
        hop = BlindedHop(KEYS[0], bytes(DATA_SIZE))
        for tail in ([], [hop] * (TAIL_HOPS + 1), [BlindedHop(KEYS[0], b"")]):
            self.assertRaises(UsageError, sign_address, SERVICE, 5, EXPIRY, KEYS[4], tail)


class UseTests(TestCase):
    """Where an address may be used, and where not."""

    def test_refusal(self) -> None:
        """Of another network, and expired; the sentence says which."""
        made = address()
        self.assertEqual(made.refusal(5, EXPIRY - 1), "")
        self.assertIn("network 5", made.refusal(6, EXPIRY - 1))
        self.assertIn("expired less than a minute ago", made.refusal(5, EXPIRY))
        self.assertIn("expired 2 days ago", made.refusal(5, EXPIRY + 200_000))

    def test_targets(self) -> None:
        """Keys and addresses are read by the same call, and told apart."""
        made = address()
        self.assertEqual(parse_target(made.text), made)
        self.assertEqual(parse_target(KEYS[0].hex()), KEYS[0])
        self.assertEqual(node_key(KEYS[0]), KEYS[0])
        self.assertRaises(UsageError, node_key, made)
        self.assertEqual([proves(made), proves(KEYS[0])], [SERVICE.public, KEYS[0]])
        self.assertEqual(made.introduction, KEYS[0])

    def test_shown(self) -> None:
        """A repr shows the key, not the tail."""
        self.assertNotIn(repr(KEYS[0]), repr(address()))
