"""Wallet files: the Go wallet's, ours, damaged ones; words of seeds."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from coin.chain.address import address_text
from coin.wallet.wallet import WalletError, create_wallet, decode_wallet, load_wallet, new_wallet, save_wallet
from coin.wallet.words import checked, english, words_of
from meshnet.errors import StorageError, UsageError
from meshnet.storage.disk import ExistingFileError, RealDisk
from tests.support.vectors import vectors

SEED = "a seed of the tests"


class GoldenTests(SynchronousTestCase):
    def test_load(self) -> None:
        """Files of versions 0.1 to 0.4 load with all their addresses, and write the same again."""
        for name in (
            "wallets/deterministic/test1.wlt",
            "wallets/deterministic/wallet_serialize.wlt",
            "wallets/wallet/v2_no_encrypt.wlt",
            "wallets/wallet/test1.wlt",
            "cli-golden/integration-test.wlt",
        ):
            data = vectors(f"skycoin/{name}").read_bytes()
            wallet = decode_wallet(data, name)
            self.assertEqual(json.loads(wallet.encode()), json.loads(data), name)

    def test_grow(self) -> None:
        """From the seed alone come the same keys, in the same order, with the same next seed."""
        data = vectors("skycoin/wallets/deterministic/wallet_serialize.wlt").read_bytes()
        known = decode_wallet(data)
        made = new_wallet(known.seed, known.label, known.meta["filename"], 0, len(known.entries))
        self.assertEqual(made.encode(), known.encode())
        before = new_wallet(known.seed, known.label, known.meta["filename"], 0)
        again = decode_wallet(before.encode())
        again.grow(len(known.entries) - 1)
        self.assertEqual(again.encode(), known.encode())

    def test_refused(self) -> None:
        """Encrypted wallets, other types and files without what they need are refused with a sentence."""
        for name in (
            "wallet/scrypt-chacha20poly1305-encrypted.wlt",
            "wallet/sha256xor-encrypted.wlt",
            "wallet/test4-collection.wlt",
            "wallet/test5-bip44.wlt",
            "wallet/xpub-test.wlt",
            "wallet/invalid_wallets/err_type.wlt",
            "wallet/invalid_wallets/no_coin.wlt",
            "wallet/invalid_wallets/no_seed.wlt",
            "wallet/invalid_wallets/no_type.wlt",
        ):
            data = vectors(f"skycoin/wallets/{name}").read_bytes()
            error = self.assertRaises(WalletError, decode_wallet, data, name)
            self.assertTrue(str(error).endswith("."))

    def test_words(self) -> None:
        """BIP 39's own vectors; one wrong word is seen."""
        right = "legal winner thank year wave sausage worth useful legal winner thank yellow"
        self.assertEqual(words_of(b"\x7f" * 16), right)
        self.assertTrue(checked(right))
        self.assertFalse(checked(right.replace("wave", "year")))
        self.assertFalse(checked("seed"))
        self.assertEqual(len(english()), 2_048)
        self.assertEqual(words_of(bytes(16)), "abandon " * 11 + "about")
        self.assertEqual(words_of(b"\xff" * 16), "zoo " * 11 + "wrong")
        self.assertEqual(words_of(bytes(32)), "abandon " * 23 + "art")
        self.assertRaises(UsageError, words_of, bytes(15))


class FileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="meshnet-test-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = str(self.folder / "mine.wlt")

    def test_round(self) -> None:
        """Made, grown, saved, loaded; nobody else may read it, and it is not overwritten by a new one."""
        disk, wallet = RealDisk(), new_wallet(SEED, "mine", "mine.wlt", 7, 2)
        create_wallet(disk, self.path, wallet)
        self.assertEqual(Path(self.path).stat().st_mode & 0o777, 0o600)
        wallet.grow(3)
        save_wallet(disk, self.path, wallet)
        again = load_wallet(disk, self.path)
        self.assertEqual(again.addresses, wallet.addresses)
        self.assertEqual(again.key_of(wallet.addresses[4]), wallet.entries[4].key)
        self.assertRaises(ExistingFileError, create_wallet, disk, self.path, wallet)
        Path(self.path).chmod(0o644)
        self.assertRaises(StorageError, load_wallet, disk, self.path)

    def test_damaged(self) -> None:
        """A file cut anywhere, or with a key that is not its address's, is refused, without showing keys."""
        wallet = new_wallet(SEED, "mine", "mine.wlt", 7, 2)
        data = wallet.encode()
        for size in range(0, len(data), 7):
            self.assertRaises(WalletError, decode_wallet, data[:size])
        secret = wallet.entries[0].key.secret.hex()
        other = data.replace(secret.encode(), ("11" * 32).encode())
        error = self.assertRaises(WalletError, decode_wallet, other)
        self.assertIn("Address 1", str(error))
        self.assertNotIn("11" * 32, str(error))

    def test_no_secrets_shown(self) -> None:
        """A wallet's repr has neither seed nor keys."""
        wallet = new_wallet(SEED, "mine", "mine.wlt", 7)
        shown = repr(wallet)
        self.assertNotIn(SEED, shown)
        self.assertNotIn(wallet.entries[0].key.secret.hex(), shown)
        self.assertNotIn(wallet.last.hex(), shown)
        self.assertTrue(address_text(wallet.addresses[0]))
