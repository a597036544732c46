"""Wallets on the disk: read, made, changed by one at a time, never half written.

    NAME              the wallet, mode 0600, replaced as a whole
    NAME.lock         locked while somebody changes it, whichever process that is
    NAME.v0.1.bak     as an older version of the format had it, before it was written in this one

A wallet is never kept in memory across a change: who changes it holds the lock, reads the file, changes what
it read, writes. So two programs may use one wallet, and neither undoes what the other did. When a wallet
gets a password, copies of it that still show its seed are removed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from attrs import define, field

from coin.wallet.base import LARGEST, VERSION, Wallet
from coin.wallet.encryption import SCRYPT, XOR, Random, new_sealing
from coin.wallet.errors import (
    BusyWalletError,
    MissingWalletError,
    NotEncryptedError,
    WalletError,
)
from coin.wallet.wallet import decode_wallet
from meshnet.errors import StorageError
from meshnet.storage.disk import (
    CorruptFileError,
    Disk,
    ExistingFileError,
    LockedError,
    MissingFileError,
    StrPath,
    base_of,
    directory_of,
    join,
    name_of,
)
from meshnet.storage.files import create_file, discard, read_secret, write_file

LOCK: Final = ".lock"
BACKUP: Final = ".bak"
T = TypeVar("T")


def load_wallet(disk: Disk, path: StrPath) -> Wallet:
    """The wallet of a file that nobody else may read; raises WalletError, StorageError. What it says is
    durable."""
    data = read_wallet(disk, path)
    settle(disk, path)
    return decode_wallet(data, str(path))


def settle(disk: Disk, path: StrPath) -> None:
    """Makes durable what was read: who wrote it may have been killed before its name was on the medium, and
    an address that was told to somebody must not be gone after a power cut."""
    with contextlib.suppress(StorageError):  # it may lie where we may not write
        disk.fsyncdir(directory_of(path))


Load = Callable[[Disk, StrPath], Wallet]
"""`load_wallet`, or what answers as it would and remembers files that have not changed."""


def read_wallet(disk: Disk, path: StrPath) -> bytes:
    """The bytes of a wallet's file; raises MissingWalletError, WalletError, StorageError."""
    try:
        return read_secret(disk, path, LARGEST)
    except CorruptFileError as error:
        raise WalletError(f"{error}.") from None
    except MissingFileError:
        raise MissingWalletError(f"There is no wallet {path}; make one with coin wallet new.") from None


def create_wallet(disk: Disk, path: StrPath, wallet: Wallet) -> None:
    """Writes a new file; ExistingFileError if there is one already. Durable on return."""
    create_file(disk, path, wallet.encode(), 0o600)


def save_wallet(disk: Disk, path: StrPath, wallet: Wallet) -> bytes:
    """Replaces the file by the wallet in today's format, and returns its bytes: the old one or the new one is
    there whatever happens. Durable on return. What an older format had is kept beside it. The caller holds
    the lock, if others may use the file."""
    wallet.meta.setdefault("filename", base_of(str(path)))
    old = wallet.version
    if old != VERSION:
        _back_up(disk, path, old)
        wallet.meta.update(version=VERSION, coin=wallet.form.name)
    data = wallet.encode()
    write_file(disk, path, data, 0o600)
    if wallet.encrypted:
        _forget_plain(disk, path)
    return data


def _back_up(disk: Disk, path: StrPath, version: str) -> None:
    """A copy of the file as it is; one that is there already stays: it is older."""
    with contextlib.suppress(MissingFileError, ExistingFileError):
        create_file(disk, f"{name_of(path)}.v{version}{BACKUP}", read_secret(disk, path, LARGEST), 0o600)


def _forget_plain(disk: Disk, path: StrPath) -> None:
    """Removes backups that show the seed of a wallet that is encrypted now."""
    folder, begin = directory_of(path), f"{base_of(path)}.v"
    gone = False
    for name in disk.listdir(folder):
        if name.startswith(begin) and name.endswith(BACKUP):
            try:
                hidden = load_wallet(disk, join(folder, name)).encrypted
            except WalletError:
                hidden = False
            if not hidden:
                discard(disk, join(folder, name))
                gone = True
    if gone:
        disk.fsyncdir(folder)


@contextlib.contextmanager
def held(disk: Disk, path: StrPath) -> Iterator[None]:
    """Holds the lock of a wallet's file; raises BusyWalletError at once if another does. Temporary files that
    a crash left of it, which hold secrets, are removed."""
    name = name_of(path)
    if not disk.exists(name):
        raise MissingWalletError(f"There is no wallet {path}; make one with coin wallet new.")
    try:
        lock = disk.lock(name + LOCK)
    except LockedError:
        raise BusyWalletError(
            f"Another program is changing the wallet {path}; try again in a moment."
        ) from None
    try:
        folder, begin = directory_of(name), f".{base_of(name)}."
        for each in disk.listdir(folder):
            if each.startswith(begin) and each.endswith(".tmp"):
                discard(disk, join(folder, each))
        yield
    finally:
        lock.release()


@define
class Opened:
    """A wallet that is being changed: `wallet` is what may be changed, and what is written if it was; then
    `written` are its bytes."""

    wallet: Wallet
    written: bytes | None = field(default=None, repr=False)


@contextlib.contextmanager
def changing(disk: Disk, path: StrPath, load: Load = load_wallet) -> Iterator[Opened]:
    """The wallet of a file under its lock, as it lies there now. When the block ends, what it left in
    `wallet` is written, if that is another; when it raises, nothing is."""
    with held(disk, path):
        wallet = load(disk, path)
        opened, before = Opened(wallet), wallet.state()
        yield opened
        if opened.wallet.state() != before:
            opened.written = save_wallet(disk, path, opened.wallet)


def with_secrets(
    wallet: Wallet, password: str | None, random: Random, work: Callable[[Wallet], T]
) -> tuple[T, Wallet]:
    """What `work` says of a copy of the wallet that has its secrets, and the wallet as it is then, encrypted
    as it was. Without a password an encrypted wallet is worked on as it is. Raises NotEncryptedError for a
    password that is not needed, PasswordError, and what `work` raises."""
    if not password:
        copy = wallet.copy()
        return work(copy), copy
    if not wallet.encrypted:
        raise NotEncryptedError(f"The wallet {wallet.filename} is not encrypted; leave the password out.")
    plain = wallet.unlocked(password)
    before = plain.state()
    result = work(plain)
    if plain.state() == before:
        return result, wallet
    sealing = plain.sealing or new_sealing(password, random)
    return result, plain.locked(sealing, random)


def decrypt(wallet: Wallet, password: str) -> Wallet:
    """The wallet without a password; about 3 s. Raises NotEncryptedError, PasswordError."""
    plain = wallet.unlocked(password)
    plain.sealing = None
    return plain


def encrypt(wallet: Wallet, password: str, random: Random, kind: str = "") -> Wallet:
    """The wallet under a password; about 3 s. Raises EncryptedError, UnsuitableError, PasswordError."""
    wallet.need_plain()
    wanted = kind or wallet.meta.get("cryptoType", "")
    sealing = new_sealing(password, random, SCRYPT if wanted in ("", XOR) else wanted)
    return wallet.locked(sealing, random)
