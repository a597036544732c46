"""Trees of keys, and Bitcoin's forms of keys, against published ones."""

from __future__ import annotations

import base64
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from coin.chain.address import address_of, address_text
from coin.chain.bitcoin import bitcoin_address, parse_wif, wif
from coin.chain.derivation import DEEPEST, HARDENED, DerivationError, ExtendedKey, parse_extended, root_key
from coin.chain.signatures import recover
from meshnet.cipher.keys import SecretKey, multiply
from meshnet.errors import UsageError
from tests.support.vectors import vectors


def inline(name: str) -> Any:
    """The published cases of that name."""
    return json.loads(vectors("skycoin/inline-vectors.json").read_text())[name]


class Derivation(SynchronousTestCase):
    def test_key_files(self) -> None:
        """Nine children of each of ten seeds: every form of every key, and signatures by others."""
        folder = vectors("skycoin/cipher-testsuite")
        hashes = list(map(bytes.fromhex, json.loads((folder / "input-hashes.golden").read_text())["hashes"]))
        files = sorted(folder.glob("seed-bip32-*.golden"))
        self.assertEqual(len(files), 10)
        for file in files:
            table = json.loads(file.read_text())
            base = root_key(base64.b64decode(table["seed"])).at(table["base_path"])
            self.assertEqual(len(table["keys"]), 9)
            for number, case in zip(table["child_numbers"], table["keys"], strict=True):
                self.check(base.child(number), case, hashes)
                self.assertEqual(base.public_half().child(number).xpub, case["xpub"])

    def check(self, key: ExtendedKey, case: dict[str, Any], hashes: list[bytes]) -> None:
        """All that is published of one key."""
        assert key.secret is not None
        self.assertEqual((key.xprv, key.xpub), (case["xpriv"], case["xpub"]))
        self.assertEqual((key.depth, key.number), (case["depth"], case["child_number"]))
        self.assertEqual(key.identifier.hex(), case["identifier"])
        self.assertEqual((key.secret.secret.hex(), key.public.hex()), (case["secret"], case["public"]))
        self.assertEqual(address_text(address_of(key.public)), case["address"])
        self.assertEqual(bitcoin_address(key.public), case["bitcoin_address"])
        for digest, signature in zip(hashes, case["signatures"], strict=True):
            self.assertEqual(recover(bytes.fromhex(signature), digest), key.public)
        self.assertEqual(parse_extended(key.xprv), key)
        self.assertEqual(parse_extended(key.xpub), key.public_half())

    def test_specification(self) -> None:
        """The chains of BIP 32 itself."""
        for case in inline("bip32_spec"):
            root = root_key(bytes.fromhex(case["seed"]))
            self.assertEqual((root.xprv, root.xpub), (case["xprv"], case["xpub"]))
            for child in case["children"]:
                key = root.at(child["path"])
                self.assertEqual((key.xprv, key.xpub), (child["xprv"], child["xpub"]))

    def test_refusals(self) -> None:
        """What has no child, is no path, no seed or no extended key; nothing secret is shown."""
        root = root_key(bytes(16))
        self.assertRaises(DerivationError, root.public_half().child, HARDENED)
        self.assertRaises(DerivationError, lambda: root.public_half().xprv)
        deep = ExtendedKey(root.public, root.code, root.secret, DEEPEST)
        for call in (lambda: deep.child(0), lambda: root.child(-1), lambda: root.child(1 << 32)):
            self.assertRaises(DerivationError, call)
        for path in ("", "0", "m/", "m/x", "m/01", "m/-1", "m/2147483648", "m/0''", "M/0", "m/0h"):
            self.assertRaises(DerivationError, root.at, path)
        for size in (0, 15, 65):
            self.assertRaises(DerivationError, root_key, bytes(size))
        for text in (root.xprv[:-1], "y" + root.xprv[1:], "", wif(SecretKey(b"\1" * 32))):
            error = self.assertRaises(UsageError, parse_extended, text)
            self.assertNotIn(root.xprv[20:40], str(error))
        self.assertNotIn(root.xprv[20:40], repr(root))

    @given(st.text(max_size=130))
    def test_any_text(self, text: str) -> None:
        """Any text is an extended key or refused."""
        for read in (parse_extended, parse_wif):
            try:
                read(text)
            except UsageError:
                pass


class Bitcoin(SynchronousTestCase):
    def test_wif(self) -> None:
        """Keys as wallets exchange them, both ways."""
        for case in inline("wif"):
            key = parse_wif(case["wif"])
            self.assertEqual(key.public.hex(), case["pubkey"])
            self.assertEqual(wif(key), case["wif"])
            self.assertEqual(bitcoin_address(key.public), case["addr"])

    def test_addresses(self) -> None:
        """Addresses of secrets."""
        for case in inline("bitcoin_address"):
            key = SecretKey(bytes.fromhex(case["seckey"]))
            self.assertEqual((key.public.hex(), bitcoin_address(key.public)), (case["pubkey"], case["addr"]))

    def test_abnormal_keys(self) -> None:
        """Points that other implementations got wrong once."""
        keys = inline("abnormal_keys")
        for one in keys:
            secret = bytes.fromhex(one["sec"])
            self.assertEqual(SecretKey(secret).public.hex(), one["pub"])
            for other, point in zip(keys, one["ecdh_compressed_point"], strict=True):
                if point:
                    self.assertEqual(multiply(bytes.fromhex(other["pub"]), secret).hex(), point)
