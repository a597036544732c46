"""Keys, hashes, addresses and amounts against published figures."""

from __future__ import annotations

import base64
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from coin.chain import base58, hashing, seeds
from coin.chain.address import (
    ADDRESS_SIZE,
    Address,
    BadAddressError,
    address_of,
    address_text,
    from_text_order,
    parse_address,
    text_order,
)  # fmt: skip
from coin.chain.amounts import BadAmountError, coins_text, parse_coins
from coin.chain.hours import HoursError, hours_at, required_fee, share_hours
from coin.chain.rules import fee_refusal
from coin.chain.signatures import UNSIGNED, BadSignatureError, recover, sign
from meshnet.cipher.keys import SecretKey
from meshnet.errors import UsageError
from tests.support.vectors import vectors


def inline(name: str) -> Any:
    """The published cases of that name."""
    return json.loads(vectors("skycoin/inline-vectors.json").read_text())[name]


class Hashing(SynchronousTestCase):
    def test_ripemd160_of_our_own(self) -> None:
        """The fallback gives the figures of the algorithm's authors."""
        for text, digest in (
            (b"", "9c1185a5c5e9fc54612808977ee8f548b2258d31"),
            (b"abc", "8eb208f7e05d987a9b044a8e98c6b087f15a0bfc"),
            (b"1234567890" * 8, "9b752e45573d4b39f4dbd3323cab82bf63326bfb"),
        ):
            self.assertEqual(hashing.plain_ripemd160(text).hex(), digest)
            self.assertEqual(hashing.ripemd160(text).hex(), digest)

    @given(st.binary(max_size=200))
    def test_both_ripemd160_agree(self, data: bytes) -> None:
        """OpenSSL's and ours are the same function."""
        self.assertEqual(hashing.plain_ripemd160(data), hashing.ripemd160(data))

    def test_merkle_roots(self) -> None:
        """One hash is its own root; three are filled up with a zero hash."""
        a, b, c = (hashing.sha256(bytes([n])) for n in range(3))
        self.assertEqual(hashing.merkle_root([a]), a)
        self.assertEqual(hashing.merkle_root([]), hashing.ZERO)
        whole = hashing.sha256(hashing.sha256(a + b) + hashing.sha256(c + hashing.ZERO))
        self.assertEqual(hashing.merkle_root([a, b, c]), whole)


class Base58(SynchronousTestCase):
    def test_published_texts(self) -> None:
        """A thousand addresses decode and encode to themselves."""
        for text in inline("base58_known_addrs"):
            self.assertEqual(base58.encode(base58.decode(text)), text)

    @given(st.binary(min_size=1, max_size=60))
    def test_round_trip(self, data: bytes) -> None:
        """Any bytes, leading zeros too."""
        self.assertEqual(base58.decode(base58.encode(data)), data)

    @given(st.text(max_size=200))
    def test_any_text(self, text: str) -> None:
        """Decodes canonically, or is refused in a sentence."""
        try:
            self.assertEqual(base58.encode(base58.decode(text)), text)
        except base58.Base58Error:
            pass


class Keys(SynchronousTestCase):
    def test_iterator(self) -> None:
        """Seeds lead to the published keys."""
        for case in inline("deterministic_iterator"):
            following, key = seeds.next_key(bytes.fromhex(case["seed"]))
            self.assertEqual(following.hex(), case["nextSeed"])
            self.assertEqual(key.secret.hex(), case["seckey"])
            self.assertEqual(key.public.hex(), case["pubkey"])
        for case in inline("secp256k1_hash"):
            self.assertEqual(seeds.point_hash(bytes.fromhex(case["seed"])).hex(), case["hash"])

    def test_words_as_seed(self) -> None:
        """A wallet's seed is the text itself."""
        for case in inline("deterministic_keypair_from_ascii_seed"):
            self.assertEqual(seeds.next_key(case["seed"].encode())[1].secret.hex(), case["seckey"])

    def test_no_seed(self) -> None:
        """Nothing cannot be a seed."""
        self.assertRaises(UsageError, seeds.next_key, b"")

    def test_key_files(self) -> None:
        """Ten keys of each of the published seeds: secrets, public keys, addresses, others' signatures."""
        folder = vectors("skycoin/cipher-testsuite")
        hashes = [
            bytes.fromhex(line) for line in json.loads((folder / "input-hashes.golden").read_text())["hashes"]
        ]
        for file in sorted(folder.glob("seed-[0-9]*.golden")):
            table = json.loads(file.read_text())
            for case, (_, key) in zip(
                table["keys"], seeds.keys(base64.b64decode(table["seed"])), strict=False
            ):
                self.assertEqual(key.secret.hex(), case["secret"])
                self.assertEqual(key.public.hex(), case["public"])
                self.assertEqual(address_text(address_of(key.public)), case["address"])
                for digest, signature in zip(hashes, case["signatures"], strict=True):
                    self.assertEqual(recover(bytes.fromhex(signature), digest), key.public)

    def test_many_addresses(self) -> None:
        """A thousand public keys and their addresses."""
        table = json.loads(vectors("skycoin/cipher-testsuite/many-addresses.golden").read_text())
        for case in table["keys"]:
            self.assertEqual(address_text(address_of(bytes.fromhex(case["public"]))), case["address"])


class Signatures(SynchronousTestCase):
    def test_published(self) -> None:
        """Recovers what others recover, and nothing where they cannot."""
        for case in inline("recover"):
            signature, digest = bytes.fromhex(case["sig"]), bytes.fromhex(case["msg"])
            if "pubkey" in case:
                self.assertEqual(recover(signature, digest).hex(), case["pubkey"])
            else:
                self.assertRaises(BadSignatureError, recover, signature, digest)

    def test_top_bit_of_s(self) -> None:
        """Of the two signatures that are right for a key, the one with the high S is refused."""
        case = inline("high_s")
        digest = bytes.fromhex(case["hash"])
        recover(bytes.fromhex(case["sig_low_s_accepted"]), digest)
        self.assertRaises(BadSignatureError, recover, bytes.fromhex(case["sig_high_s_rejected"]), digest)

    @given(st.binary(min_size=32, max_size=32).filter(any))
    def test_round_trip(self, digest: bytes) -> None:
        """What is signed is recovered."""
        key = SecretKey(b"\x07" * 32)
        self.assertEqual(recover(sign(key, digest), digest), key.public)

    @given(st.binary(max_size=70), st.binary(min_size=32, max_size=32))
    def test_any_bytes(self, signature: bytes, digest: bytes) -> None:
        """Any bytes give a key or an error of ours."""
        try:
            recover(signature, digest)
        except BadSignatureError:
            pass

    def test_recovery_ids(self) -> None:
        """Ids above 3 are refused, and a signature that is still to be made is none."""
        good = sign(SecretKey(b"\x07" * 32), b"\x01" * 32)
        for number in (4, 29, 255):
            self.assertRaises(BadSignatureError, recover, good[:64] + bytes([number]), b"\x01" * 32)
        self.assertRaises(BadSignatureError, recover, UNSIGNED, b"\x01" * 32)
        self.assertRaises(BadSignatureError, sign, SecretKey(b"\x07" * 32), bytes(32))


class Addresses(SynchronousTestCase):
    @given(st.binary(min_size=20, max_size=20))
    def test_round_trip(self, key: bytes) -> None:
        """Text and the 25 bytes below it lead back."""
        address = Address(b"\0" + key)
        self.assertEqual(parse_address(address_text(address)), address)
        self.assertEqual(from_text_order(text_order(address)), address)
        self.assertEqual(len(address), ADDRESS_SIZE)

    def test_what_is_wrong(self) -> None:
        """Each sort of damage has its own sentence, in the order they are looked for."""
        good = address_text(Address(bytes(21)))
        body = bytes(20) + b"\x01"
        other = base58.encode(body + hashing.sha256(body)[:4])
        for text, words in (
            ("", "empty"),
            ("0OIl", "base58 character"),
            (good[:-2], "bytes instead of 25"),
            (good[:-1] + ("2" if good[-1] != "2" else "3"), "checksum"),
            (other, "version 1"),
        ):
            error = self.assertRaises(BadAddressError, parse_address, text)
            self.assertIn(words, str(error))


class Amounts(SynchronousTestCase):
    def test_published(self) -> None:
        """Texts that are amounts, and texts that are none."""
        for case in inline("droplet_from_string"):
            if "n" in case:
                self.assertEqual(parse_coins(case["s"]), case["n"])
            else:
                self.assertRaises(BadAmountError, parse_coins, case["s"])

    @given(st.integers(0, (1 << 63) - 1))
    def test_round_trip(self, droplets: int) -> None:
        """What is shown is read."""
        self.assertEqual(parse_coins(coins_text(droplets)), droplets)


class Hours(SynchronousTestCase):
    def test_published(self) -> None:
        """What outputs earn, and three ways in which it does not fit."""
        for case in inline("coin_hours"):
            if isinstance(case["want"], int):
                self.assertEqual(hours_at(case["coins"], case["hours"], 0, case["dt"]), case["want"])
            else:
                self.assertRaises(HoursError, hours_at, case["coins"], case["hours"], 0, case["dt"])
        self.assertEqual(hours_at(10**6, 7, 100, 99), 7)

    def test_fees(self) -> None:
        """What is burnt at least, rounded up; and whether a fee is enough."""
        for burn, cases in inline("required_fee").items():
            for hours, fee in cases:
                self.assertEqual(required_fee(hours, int(burn)), fee)
        for burn, cases in inline("verify_fee").items():
            for case in cases:
                hours = case["input_hours"]
                refused = bool(fee_refusal(hours, hours - case["output_hours"], int(burn)))
                self.assertEqual(refused, case["error"] is not None, case)

    def test_shares(self) -> None:
        """Hours are divided by coins, the rest one by one."""
        for case in inline("distribute_hours_proportional"):
            self.assertEqual(share_hours(case["coins"], case["hours"]), case["output"])

    @given(st.lists(st.integers(1, 10**15), min_size=1, max_size=9), st.integers(0, 10**9))
    def test_shares_are_whole(self, coins: list[int], hours: int) -> None:
        """Nothing is lost and nobody gets less than nothing."""
        shares = share_hours(coins, hours)
        self.assertEqual(sum(shares), hours)
        self.assertTrue(all(share >= 0 for share in shares))
