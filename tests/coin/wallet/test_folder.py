"""A folder of wallets, as a node serves it: what is read, what is left out, every change, and in a thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from coin.chain.address import Address
from coin.wallet.encryption import SCRYPT_INSECURE
from coin.wallet.errors import (
    DuplicateWalletError,
    EncryptedError,
    MissingWalletError,
    NotEncryptedError,
    PasswordError,
    UnsuitableError,
    WalletError,
)
from coin.wallet.folder import MOST_TEMPORARY, Folder, NewWallet
from coin.wallet.keeping import changing, load_wallet
from coin.wallet.service import WalletService
from coin.wallet.wallet import new_bip44, new_wallet
from coin.wallet.words import words_of
from lab.simulation.disk import SimulatedDisk
from meshnet.storage.files import write_file
from tests.coin.wallet.test_encryption import QUICK, counted
from tests.coin.wallet.test_wallet import SEED, WORDS, XPUB, fixture
from tests.support.reactors import OwnReactor

KEY = "11" * 32
LOCKED = "2021_01_01_0000.wlt"


class FolderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.disk = SimulatedDisk()
        self.folder = Folder(self.disk, "/w", counted(), lambda: 1_600_000_000.0)
        self.folder.open()

    def put(self, name: str, data: bytes) -> None:
        """A file in the folder."""
        write_file(self.disk, f"/w/{name}", data)

    def put_locked(self) -> None:
        """A wallet whose password costs nothing."""
        wallet = new_wallet(SEED, "locked", LOCKED, 0, 2)
        self.put(LOCKED, wallet.locked(QUICK, counted()).encode())
        self.folder.open()

    def test_reading(self) -> None:
        """All that can be read are there by file name; bad, empty and second ones are told and cost only
        themselves."""
        for name in ("test1", "test3", "test5-bip44", "xpub-test", "sha256xor-encrypted"):
            self.put(f"{name}.wlt", fixture(f"wallets/wallet/{name}.wlt"))
        self.put("second.wlt", fixture("wallets/wallet/duplicate_wallets/test3.1.wlt"))
        self.put("zempty.wlt", fixture("wallets/wallet/empty_wallet/empty.wlt"))
        self.put("zempty44.wlt", fixture("wallets/wallet/empty_bip44_wallet/empty.wlt"))
        self.put("broken.wlt", b"{}")
        self.put("notes.txt", b"no wallet")
        self.put("open.wlt", fixture("wallets/wallet/test2.wlt"))
        self.disk.chmod("/w/open.wlt", 0o644)
        self.folder.open()
        self.assertEqual(
            self.folder.ids(),
            ["second.wlt", "sha256xor-encrypted.wlt", "test1.wlt", "test5-bip44.wlt", "xpub-test.wlt"],
        )
        self.assertEqual(len(self.folder.notes), 5)
        for word, note in zip(
            ("broken", "open", "test3", "zempty", "zempty44"), self.folder.notes, strict=True
        ):
            self.assertIn(word, note)
        self.assertEqual(self.folder.get("second.wlt").filename, "second.wlt")
        self.assertRaises(MissingWalletError, self.folder.get, "test3.wlt")
        self.assertRaises(MissingWalletError, self.folder.get, "../w/test1.wlt")

    def test_every_kind(self) -> None:
        """Each kind is made, is in a file of the usual name, and is read again."""
        for wanted in (
            NewWallet("deterministic", "a", seed=SEED, count=2),
            NewWallet("bip44", "b", seed=WORDS, passphrase="more"),
            NewWallet("collection", "c", keys=[KEY]),
            NewWallet("xpub", "d", xpub=XPUB, count=3),
        ):
            wallet = self.folder.create(wanted)
            self.assertRegex(wallet.filename, r"^2020_09_13_[0-9a-f]{4}\.wlt$")
            self.assertEqual(load_wallet(self.disk, f"/w/{wallet.filename}").encode(), wallet.encode())
        before = {name: each.encode() for name, each in self.folder.all().items()}
        self.folder.open()
        self.assertEqual({name: each.encode() for name, each in self.folder.all().items()}, before)
        self.assertEqual(self.folder.notes, [])

    def test_refused(self) -> None:
        """What is no wallet is not made: no file is left."""
        self.folder.create(NewWallet("deterministic", "a", seed=SEED))
        for kind, error in (
            (NewWallet("deterministic", "b", seed=SEED), DuplicateWalletError),
            (NewWallet("deterministic", "b"), WalletError),
            (NewWallet("deterministic", "", seed="x"), WalletError),
            (NewWallet("deterministic", "\ud800", seed="x"), WalletError),
            (NewWallet("deterministic", "b", seed="\udcff"), WalletError),
            (NewWallet("deterministic", "b", seed="x", password="\ud800"), PasswordError),
            (NewWallet("bip44", "b", seed=WORDS, passphrase="\ud800"), WalletError),
            (NewWallet("deterministic", "b", seed="x", passphrase="y"), UnsuitableError),
            (NewWallet("bip44", "b", seed="not words"), WalletError),
            (NewWallet("xpub", "b", xpub="xpub"), WalletError),
            (NewWallet("xpub", "b", xpub=XPUB, password="pwd"), UnsuitableError),
            (NewWallet("collection", "b", keys=["zz"]), Exception),
            (NewWallet("paper", "b"), WalletError),
            (NewWallet("deterministic", "b", seed="x", scan=5), WalletError),
            (NewWallet("deterministic", "b", seed="x", filename="../x.wlt"), WalletError),
            (NewWallet("deterministic", "b", seed="x", filename="x.txt"), WalletError),
        ):
            self.assertRaises(error, self.folder.create, kind)
        self.assertEqual(len(self.disk.listdir("/w")), 1)
        self.assertNotIn(SEED, repr(NewWallet("bip44", "b", seed=SEED, keys=[KEY], password=SEED)))

    def test_temporary(self) -> None:
        """A temporary wallet is in no file, works as any, and is gone when it is unloaded."""
        wallet = self.folder.create(NewWallet("bip44", "t", seed=WORDS, temporary=True))
        name = wallet.filename
        self.assertTrue(wallet.temporary)
        self.assertEqual(self.disk.listdir("/w"), [])
        self.assertEqual(len(self.folder.new_addresses(name, 2)), 2)
        self.folder.relabel(name, "other")
        self.folder.open()
        self.assertEqual((self.folder.get(name).label, len(self.folder.get(name).entries)), ("other", 4))
        self.folder.encrypt(name, "pwd", SCRYPT_INSECURE)
        self.assertEqual(self.folder.seed(name, "pwd"), (WORDS, ""))
        self.folder.decrypt(name, "pwd")
        self.folder.unload(name)
        self.assertRaises(MissingWalletError, self.folder.get, name)

    def test_changes(self) -> None:
        """Labels, addresses and keys are on the disk when the call returns."""
        name = self.folder.create(NewWallet("deterministic", "a", seed=SEED)).filename
        made = self.folder.new_addresses(name, 2)
        self.folder.relabel(name, "b")
        kept = load_wallet(self.disk, f"/w/{name}")
        self.assertEqual((kept.addresses[1:], kept.label), (tuple(made), "b"))
        self.assertEqual(self.folder.owner_of(made[0]), name)
        for label in ("", "x" * 257, "\udc80"):
            self.assertRaises(WalletError, self.folder.relabel, name, label)
        self.assertRaises(UnsuitableError, self.folder.import_keys, name, [KEY])
        other = self.folder.create(NewWallet("collection", "c")).filename
        self.assertEqual(len(self.folder.import_keys(other, [KEY, "22" * 32])), 2)
        self.assertRaises(WalletError, self.folder.import_keys, other, ["33" * 32, KEY])
        self.assertEqual(len(load_wallet(self.disk, f"/w/{other}").entries), 2)
        self.folder.unload(name)
        self.assertIn(name, self.disk.listdir("/w"))
        self.assertRaises(MissingWalletError, self.folder.relabel, name, "x")

    def test_changed_by_others(self) -> None:
        """What another program did to a file is seen, and not undone."""
        name = self.folder.create(NewWallet("deterministic", "a", seed=SEED)).filename
        with changing(self.disk, f"/w/{name}") as opened:
            opened.wallet.grow(3)
        self.assertEqual(len(self.folder.get(name).entries), 4)
        with changing(self.disk, f"/w/{name}") as opened:
            opened.wallet.label = "theirs"
        self.folder.new_addresses(name, 1)
        kept = load_wallet(self.disk, f"/w/{name}")
        self.assertEqual((kept.label, len(kept.entries)), ("theirs", 5))
        self.disk.unlink(f"/w/{name}")
        self.assertRaises(MissingWalletError, self.folder.get, name)

    def test_password(self) -> None:
        """With a password: needed, wrong, not needed; every change leaves the wallet encrypted."""
        self.put_locked()
        self.assertRaises(EncryptedError, self.folder.new_addresses, LOCKED, 1)
        self.assertRaises(PasswordError, self.folder.new_addresses, LOCKED, 1, "wrong")
        self.folder.new_addresses(LOCKED, 1, "pwd")
        self.folder.relabel(LOCKED, "other")
        wallet = load_wallet(self.disk, f"/w/{LOCKED}")
        self.assertTrue(wallet.encrypted)
        self.assertEqual(wallet.unlocked("pwd").addresses, new_wallet(SEED, "x", "x", 0, 3).addresses)
        self.assertEqual(self.folder.seed(LOCKED, "pwd"), (SEED, ""))
        self.assertRaises(EncryptedError, self.folder.encrypt, LOCKED, "pwd")
        plain = self.folder.decrypt(LOCKED, "pwd")
        self.assertEqual((plain.encrypted, plain.sealing), (False, None))
        self.assertRaises(NotEncryptedError, self.folder.decrypt, LOCKED, "pwd")
        self.assertRaises(NotEncryptedError, self.folder.seed, LOCKED, "pwd")
        self.assertRaises(NotEncryptedError, self.folder.new_addresses, LOCKED, 1, "pwd")

    def test_recover(self) -> None:
        """A wallet whose password is lost comes back from its seed, with all addresses; not from another."""
        self.put_locked()
        accounts = new_bip44(WORDS, "b", "b.wlt", 0, 3, passphrase="more")
        accounts.grow(2, change=True)
        accounts.extend(accounts.add_account("savings"), "external", 2)
        self.put("b.wlt", accounts.locked(QUICK, counted()).encode())
        self.folder.open()
        self.assertRaises(PasswordError, self.folder.recover, LOCKED, "other seed")
        self.folder.recover(LOCKED, SEED)
        kept = load_wallet(self.disk, f"/w/{LOCKED}")
        self.assertEqual((kept.encrypted, kept.label, len(kept.entries)), (False, "locked", 2))
        self.assertRaises(NotEncryptedError, self.folder.recover, LOCKED, SEED)
        self.assertRaises(PasswordError, self.folder.recover, "b.wlt", WORDS)
        self.folder.recover("b.wlt", WORDS, "more")
        again = load_wallet(self.disk, "/w/b.wlt")
        self.assertEqual(again.addresses, accounts.addresses)

    def test_scan(self) -> None:
        """Scanning asks for the addresses ahead, and keeps those up to the last one used."""
        used = new_wallet(SEED, "x", "x", 0, 5).addresses[3:4]
        name = self.folder.create(NewWallet("deterministic", "a", seed=SEED)).filename
        self.assertEqual(len(self.folder.scan(name, among(used), 10)), 3)
        self.assertEqual(len(load_wallet(self.disk, f"/w/{name}").entries), 4)
        self.assertEqual(self.folder.scan(name, among(used), 10), [])
        other = NewWallet("deterministic", "b", seed="other", scan=3)
        self.assertEqual(len(self.folder.create(other, among(())).entries), 1)
        # Of `scan` addresses the first ones are there already, as the Go node counts.
        far = new_wallet("far", "x", "x", 0, 4).addresses
        for reach, found in ((3, 1), (4, 4)):
            made = self.folder.create(
                NewWallet("deterministic", "c", seed="far", scan=reach, temporary=True), among(far[3:])
            )
            self.assertEqual(len(made.entries), found)
            self.folder.unload(made.filename)

    def test_crowd(self) -> None:
        """There is an end to temporary wallets."""
        self.patch(__import__("coin.wallet.folder", fromlist=["x"]), "MOST_TEMPORARY", 2)
        self.assertGreater(MOST_TEMPORARY, 2)
        for number in range(2):
            self.folder.create(NewWallet("deterministic", "a", seed=str(number), temporary=True))
        crowd = NewWallet("deterministic", "a", seed="9", temporary=True)
        self.assertRaises(WalletError, self.folder.create, crowd)


def among(used: Sequence[Address]) -> Any:
    """As a node would answer that knows these."""
    return lambda asked: [each in used for each in asked]


class ServiceTests(SynchronousTestCase):
    def test_in_threads(self) -> None:
        """The folder's methods answer as Deferreds, in the order they were asked, and fail as they do."""
        world = OwnReactor()
        self.addCleanup(world.close)
        folder = Folder(SimulatedDisk(), "/w", counted())
        service = WalletService(world.reactor, folder)
        world.result(service.call(Folder.open))
        seed = words_of(bytes(16))
        made = world.result(service.call(Folder.create, NewWallet("bip44", "a", seed=seed)))
        growing = [service.call(Folder.new_addresses, made.filename, 1) for _ in range(3)]
        addresses = [world.result(each)[0] for each in growing]
        self.assertEqual(addresses, list(new_bip44(seed, "a", "a", 0, 4).addresses[1:4]))
        self.assertEqual(list(service.known()), [made.filename])
        missing = service.call(Folder.get, "x.wlt")
        self.assertRaises(MissingWalletError, world.result, missing)
        world.result(service.close())
