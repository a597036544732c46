"""Wallets on the disk: under a lock, migrated with a backup, through power cuts, by several processes."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Hashable
from pathlib import Path

import pytest
from twisted.trial.unittest import SynchronousTestCase

from coin.wallet.encryption import SCRYPT, SCRYPT_INSECURE
from coin.wallet.errors import (
    BusyWalletError,
    EncryptedError,
    MissingWalletError,
    NotEncryptedError,
    PasswordError,
    UnsuitableError,
    WalletError,
)
from coin.wallet.keeping import (
    Opened,
    changing,
    create_wallet,
    decrypt,
    encrypt,
    held,
    load_wallet,
    save_wallet,
    with_secrets,
)
from coin.wallet.wallet import decode_wallet, new_bip44, new_wallet, new_watching
from lab.crash.search import Search, Workload
from lab.crash.witness import Witness
from lab.simulation.disk import SimulatedDisk
from lab.simulation.models import MODELS, STRICT, Model
from meshnet.errors import StorageError
from meshnet.storage.disk import ExistingFileError, RealDisk
from meshnet.storage.files import write_file
from tests.coin.wallet.test_encryption import QUICK, counted
from tests.coin.wallet.test_wallet import SEED, WORDS, XPUB, fixture

PATH = "/w/mine.wlt"
BACKUP = f"{PATH}.v0.1.bak"


def disk_with(data: bytes) -> SimulatedDisk:
    """A disk with a wallet of these bytes."""
    disk = SimulatedDisk()
    disk.mkdir("/w")
    write_file(disk, PATH, data)
    return disk


class FileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.disk = disk_with(new_wallet(SEED, "mine", "mine.wlt", 7, 2).encode())

    def test_round(self) -> None:
        """Made, grown, saved, loaded; nobody else may read it, and no new one is written over it."""
        disk, path = RealDisk(), str(Path(tempfile.mkdtemp(prefix="meshnet-test-")) / "mine.wlt")
        self.addCleanup(shutil.rmtree, Path(path).parent)
        wallet = new_wallet(SEED, "mine", "mine.wlt", 7, 2)
        create_wallet(disk, path, wallet)
        self.assertEqual(Path(path).stat().st_mode & 0o777, 0o600)
        wallet.grow(3)
        save_wallet(disk, path, wallet)
        self.assertEqual(load_wallet(disk, path).encode(), wallet.encode())
        self.assertRaises(ExistingFileError, create_wallet, disk, path, wallet)
        Path(path).chmod(0o644)
        self.assertRaises(StorageError, load_wallet, disk, path)

    def test_lock(self) -> None:
        """While one changes a wallet, another is told at once; reading goes on; afterwards it is free."""
        with held(self.disk, PATH):
            self.assertRaises(BusyWalletError, held(self.disk, PATH).__enter__)
            self.assertEqual(len(load_wallet(self.disk, PATH).entries), 2)
        with changing(self.disk, PATH) as opened:
            opened.wallet.grow(1)
        self.assertEqual(len(load_wallet(self.disk, PATH).entries), 3)

    def test_missing(self) -> None:
        """A wallet that is not there is said to be missing, and leaves no lock."""
        self.assertRaises(MissingWalletError, load_wallet, self.disk, "/w/other.wlt")
        self.assertRaises(MissingWalletError, held(self.disk, "/w/other.wlt").__enter__)
        self.assertEqual(self.disk.listdir("/w"), ["mine.wlt"])

    def test_nothing_changed(self) -> None:
        """A file that is only looked at stays as it is, also one that nobody's program would write so."""
        data = new_wallet(SEED, "mine", "mine.wlt", 7, 2).encode().replace(b"    ", b"\t") + b"\n\n"
        disk = disk_with(data)
        with changing(disk, PATH):
            pass
        self.assertEqual(disk.snapshot()[PATH], data)

        def fail() -> None:
            with changing(disk, PATH) as opened:
                opened.wallet.grow(1)
                raise ValueError

        self.assertRaises(ValueError, fail)
        self.assertEqual(disk.snapshot()[PATH], data)

    def test_left_behind(self) -> None:
        """What a crash left of the wallet, with secrets, goes when somebody changes it; of others not."""
        for name in ("/w/.mine.wlt.0123.tmp", "/w/.other.wlt.0123.tmp"):
            write_file(self.disk, name, b"secret")
        with held(self.disk, PATH):
            pass
        self.assertNotIn(".mine.wlt.0123.tmp", self.disk.listdir("/w"))
        self.assertIn(".other.wlt.0123.tmp", self.disk.listdir("/w"))

    def test_migration(self) -> None:
        """Old versions become today's when they change, their old form is kept, and only the first one."""
        for name, version in (("test2", "0.1"), ("v2_no_encrypt", "0.2"), ("test4-collection", "0.2")):
            data = fixture(f"wallets/wallet/{name}.wlt")
            disk, old = disk_with(data), decode_wallet(data)
            for label in ("one", "two"):
                with changing(disk, PATH) as opened:
                    opened.wallet.label = label
            files = disk.snapshot()
            self.assertEqual(files[f"{PATH}.v{version}.bak"], data)
            made = load_wallet(disk, PATH)
            self.assertEqual((made.version, made.label, made.meta["coin"]), ("0.4", "two", "skycoin"))
            self.assertEqual(made.addresses, old.addresses)
            self.assertEqual(disk.stat(f"{PATH}.v{version}.bak").permissions, 0o600)

    def test_encrypting_hides(self) -> None:
        """An old wallet that gets a password leaves no copy with its seed."""
        data = fixture("wallets/wallet/test1.wlt")
        disk = disk_with(data)
        with changing(disk, PATH) as opened:
            opened.wallet.label = "other"
        self.assertEqual(disk.snapshot()[BACKUP], data)
        with changing(disk, PATH) as opened:
            opened.wallet = opened.wallet.locked(QUICK, counted())
        for name, content in disk.snapshot().items():
            self.assertNotIn(b"buddy fossil", content or b"", name)
        again = load_wallet(disk, PATH).unlocked("pwd")
        self.assertEqual(again.addresses, decode_wallet(data).addresses)


class SecretTests(SynchronousTestCase):
    def test_with_secrets(self) -> None:
        """An encrypted wallet is worked on with its password and encrypted again, without a new wait."""
        locked = new_wallet(SEED, "mine", "mine.wlt", 7).locked(QUICK, counted())
        asked: list[object] = []
        self.patch(sys.modules["coin.wallet.keeping"], "new_sealing", lambda *args: asked.append(args))
        made, changed = with_secrets(locked, "pwd", counted(), lambda wallet: wallet.grow(2))
        self.assertEqual((len(made), len(changed.entries), asked), (2, 3, []))
        self.assertTrue(changed.encrypted)
        self.assertNotEqual(changed.meta["secrets"], locked.meta["secrets"])
        self.assertEqual(len(changed.unlocked("pwd").entries), 3)
        seed, same = with_secrets(locked, "pwd", counted(), lambda wallet: wallet.seed)
        self.assertEqual((seed, same), (SEED, locked))
        self.assertRaises(PasswordError, with_secrets, locked, "other", counted(), repr)
        self.assertRaises(
            EncryptedError, with_secrets, locked, None, counted(), lambda wallet: wallet.grow(1)
        )

    def test_plain(self) -> None:
        """A wallet without a password wants none, and is changed as a copy."""
        wallet = new_wallet(SEED, "mine", "mine.wlt", 7)
        self.assertRaises(NotEncryptedError, with_secrets, wallet, "pwd", counted(), repr)
        _, changed = with_secrets(wallet, None, counted(), lambda copy: copy.grow(1))
        self.assertEqual((len(wallet.entries), len(changed.entries)), (1, 2))

    def test_there_and_back(self) -> None:
        """Encrypting and decrypting; an old cipher is not written again."""
        wallet = new_bip44(WORDS, "mine", "mine.wlt", 7)
        self.assertRaises(NotEncryptedError, decrypt, wallet, "pwd")
        locked = encrypt(wallet, "pwd", counted(), SCRYPT_INSECURE)
        self.assertRaises(EncryptedError, encrypt, locked, "pwd", counted())
        plain = decrypt(locked, "pwd")
        self.assertEqual((plain.addresses, plain.sealing), (wallet.addresses, None))
        self.assertRaises(UnsuitableError, encrypt, new_watching(XPUB, "x", "x.wlt", 0), "pwd", counted())
        old = decode_wallet(fixture("wallets/wallet/sha256xor-encrypted.wlt")).unlocked("pwd")
        kinds: list[str] = []

        def sealing(password: str, random: object, kind: str) -> object:
            kinds.append(kind)
            return QUICK

        self.patch(sys.modules["coin.wallet.keeping"], "new_sealing", sealing)
        encrypt(old, "pwd", counted())
        self.assertEqual(kinds, [SCRYPT])


def grow(disk: SimulatedDisk, witness: Witness) -> None:
    """An old wallet gets a label, which migrates it, then an address, then a password."""

    def change(work: Callable[[Opened], object]) -> None:
        with changing(disk, PATH) as opened:
            work(opened)
            witness.begins(content(opened.wallet.encode()))
        witness.holds()

    def label(opened: Opened) -> None:
        opened.wallet.label = "other"

    def password(opened: Opened) -> None:
        opened.wallet = opened.wallet.locked(QUICK, counted())

    change(label)
    change(lambda opened: opened.wallet.grow(1))
    change(password)


def content(data: bytes) -> Hashable:
    """What must not be lost: label, addresses, whether it is encrypted."""
    wallet = decode_wallet(data)
    return wallet.label, tuple(wallet.texts), wallet.encrypted


def found(disk: SimulatedDisk) -> Hashable:
    """What a restart finds; the old form is whole wherever a new one took its place. Once the wallet is
    encrypted the old form goes, at the latest with the next change."""
    wallet = load_wallet(disk, PATH)
    old = fixture("wallets/wallet/test1.wlt")
    if wallet.version != "0.1" and not wallet.encrypted:
        assert disk.exists(BACKUP), "the old form is lost"
    if disk.exists(BACKUP):
        assert load_wallet(disk, BACKUP).encode() == old
    return content(wallet.encode())


def go_on(disk: SimulatedDisk, state: Hashable) -> None:
    """The wallet can be changed after the cut."""
    with changing(disk, PATH) as opened:
        opened.wallet.label = "after"
    assert load_wallet(disk, PATH).label == "after"
    assert not (load_wallet(disk, PATH).encrypted and disk.exists(BACKUP))


def made(disk: SimulatedDisk) -> None:
    """The old wallet."""
    disk.mkdir("/w")
    write_file(disk, PATH, fixture("wallets/wallet/test1.wlt"))


def test_power_cuts() -> None:
    """Whenever the power goes, the wallet is one of those that were written, with what was acknowledged."""
    first = content(fixture("wallets/wallet/test1.wlt"))
    workload = Workload("wallet", grow, found, made, first, go_on)
    report = Search(workload, STRICT.with_sector(64), most=24, deeper=4).run()
    print(report)
    assert not report.lost, "\n".join(map(str, report.losses))


@pytest.mark.long
@pytest.mark.parametrize("model", MODELS, ids=str)
def test_more_power_cuts(model: Model) -> None:
    """The same with more states at each point, cuts while a cut is recovered from, and kills."""
    first = content(fixture("wallets/wallet/test1.wlt"))
    report = Search(Workload("wallet", grow, found, made, first, go_on), model, most=200, deeper=8).run()
    print(report)
    assert not report.lost, "\n".join(map(str, report.losses))


ADDS = """
import sys
from coin.wallet.errors import BusyWalletError
from coin.wallet.keeping import changing
from meshnet.storage.disk import RealDisk
added = 0
sys.stdin.readline()
while added < 20:
    try:
        with changing(RealDisk(), sys.argv[1]) as opened:
            opened.wallet.grow(1)
    except BusyWalletError:
        continue
    added += 1
print(added)
"""

HOLDS = """
import sys
from coin.wallet.keeping import held
from meshnet.storage.disk import RealDisk
with held(RealDisk(), sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
"""


class ProcessTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="meshnet-test-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = str(self.folder / "mine.wlt")
        create_wallet(RealDisk(), self.path, new_wallet(SEED, "mine", "mine.wlt", 7))

    def start(self, program: str) -> subprocess.Popen[str]:
        """Another process at work on the wallet."""
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", program, self.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            self.addCleanup(pipe.close)
        return process

    def test_two_that_add(self) -> None:
        """Two processes that add addresses at once: none is lost, none is there twice."""
        processes = [self.start(ADDS) for _ in range(2)]
        for each in processes:
            assert each.stdin is not None
            each.stdin.write("\n")
            each.stdin.flush()
        self.assertEqual([each.communicate(timeout=60)[0] for each in processes], ["20\n"] * 2)
        wallet = load_wallet(RealDisk(), self.path)
        self.assertEqual(wallet.encode(), new_wallet(SEED, "mine", "mine.wlt", 7, 41).encode())

    def test_one_that_dies(self) -> None:
        """A process that holds the lock keeps others out; when it is killed, the lock is free."""
        process = self.start(HOLDS)
        assert process.stdout is not None
        self.assertEqual(process.stdout.readline(), "held\n")
        error = self.assertRaises(BusyWalletError, changing(RealDisk(), self.path).__enter__)
        self.assertIsInstance(error, WalletError)
        self.assertTrue(str(error).endswith("."))
        process.kill()
        process.wait()
        with changing(RealDisk(), self.path) as opened:
            opened.wallet.grow(1)
