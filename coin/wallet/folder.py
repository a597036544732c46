"""A folder of wallets: what a node serves. Each is known by its file's name; temporary ones are in no file.

The folder is read when it is opened, and what cannot be read, has no address, or has the same first address
as another is left out and told in `notes`: a bad file costs itself only. Each question about a wallet looks
whether the file has changed since, because commands change the same files; each change is made under the
file's lock (`keeping`). Calls block, some for seconds: `service` puts them into a thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from attrs import field, frozen

from coin.chain.address import Address
from coin.chain.hashing import sha256
from coin.wallet.base import Wallet
from coin.wallet.bip44 import Bip44
from coin.wallet.encryption import Random
from coin.wallet.errors import (
    DuplicateWalletError,
    MissingWalletError,
    NotEncryptedError,
    PasswordError,
    UnsuitableError,
    WalletError,
)
from coin.wallet.forms import SKYCOIN
from coin.wallet.keeping import (
    Opened,
    changing,
    create_wallet,
    decrypt,
    encrypt,
    read_wallet,
    settle,
    with_secrets,
)
from coin.wallet.kinds import Collection, Deterministic, Watching
from coin.wallet.scanning import AHEAD, Active, scan
from coin.wallet.wallet import KINDS, decode_wallet, new_bip44, new_collection, new_wallet, new_watching
from meshnet.errors import StorageError
from meshnet.storage.disk import Disk, ExistingFileError, StrPath, base_of, join
from meshnet.storage.files import make_directory

SUFFIX: Final = ".wlt"
MOST_WALLETS: Final = 10_000
"""Wallets of a folder; further files are not read."""
MOST_TEMPORARY: Final = 1_000
T = TypeVar("T")


@frozen
class NewWallet:
    """What a wallet is to be. By kind: `seed` (deterministic, bip44), `passphrase` and `number` (bip44),
    `xpub` (xpub), `keys` in the coin's form (collection). `password`: encrypted with it. `scan` addresses are
    looked at for history, with the `count` first ones (as the Go node counts them)."""

    kind: str
    label: str
    seed: str = field(default="", repr=False)
    passphrase: str = field(default="", repr=False)
    number: int | None = None
    xpub: str = ""
    keys: Sequence[str] = field(default=(), repr=False)
    count: int = 1
    scan: int = 0
    password: str = field(default="", repr=False)
    crypto: str = ""
    temporary: bool = False
    filename: str = ""


def make_wallet(wanted: NewWallet, filename: str, unix: int, active: Active | None = None) -> Wallet:
    """The wallet, in no file and not encrypted yet; `unix` is now. Raises WalletError."""
    if wanted.passphrase and wanted.kind != Bip44.kind:
        raise UnsuitableError(f"A passphrase belongs to wallets of type bip44, not {wanted.kind[:40]}.")
    name, label, count = filename, wanted.label, wanted.count
    made: Wallet
    if wanted.kind == Deterministic.kind:
        made = new_wallet(wanted.seed, label, name, unix, max(count, 1))
    elif wanted.kind == Bip44.kind:
        made = new_bip44(
            wanted.seed, label, name, unix, count, passphrase=wanted.passphrase, number=wanted.number
        )
    elif wanted.kind == Collection.kind:
        collection = made = new_collection(label, name, unix)
        for text in wanted.keys:
            collection.add(SKYCOIN.parse_secret(text))
    elif wanted.kind == Watching.kind:
        made = new_watching(wanted.xpub, label, name, unix, max(count, 1))
    else:
        raise WalletError(f"There are no wallets of type {wanted.kind[:40]!r}; known are {', '.join(KINDS)}.")
    if wanted.temporary:
        made.meta["temp"] = "true"
    if wanted.scan:
        if active is None:
            raise WalletError("Scanning asks a node which addresses were used, and none was named.")
        first = max(count, 1)
        scan(made, active, wanted.scan - first if wanted.scan > first else wanted.scan, again=False)
    return made


class Folder:
    """The wallets of a directory. `random` gives so many bytes of chance, `unix` is the wall clock."""

    def __init__(self, disk: Disk, path: str, random: Random, unix: Callable[[], float] = time.time) -> None:
        self.path = path
        self.notes: list[str] = []
        self._disk = disk
        self._random = random
        self._unix = unix
        self._wallets: dict[str, Wallet] = {}
        self._digests: dict[str, bytes] = {}

    def open(self) -> None:
        """Reads all; makes the directory if need be. Raises StorageError."""
        make_directory(self._disk, self.path)
        self._wallets = {name: each for name, each in self._wallets.items() if each.temporary}
        self.notes = []
        names = [name for name in self._disk.listdir(self.path) if name.endswith(SUFFIX)]
        if len(names) > MOST_WALLETS:
            self.notes.append(f"Only {MOST_WALLETS} of {len(names)} wallets in {self.path} are read.")
        for name in names[:MOST_WALLETS]:
            try:
                self._adopt(name)
            except (WalletError, StorageError) as error:
                self.notes.append(str(error))
        settle(self._disk, join(self.path, SUFFIX))

    def _adopt(self, name: str) -> None:
        """Reads one; raises DuplicateWalletError, WalletError, StorageError."""
        data = read_wallet(self._disk, join(self.path, name))
        wallet = decode_wallet(data, join(self.path, name))
        if not wallet.entries and not isinstance(wallet, Collection):
            raise WalletError(f"{join(self.path, name)} has no addresses, so it is left out.")
        other = self._twin(name, wallet)
        if other is not None:
            raise DuplicateWalletError(f"{name} is the same wallet as {other}, so it is left out.")
        self._keep(name, wallet, sha256(data))

    def _twin(self, name: str, wallet: Wallet) -> str | None:
        """Another wallet of the same seed."""
        mark = wallet.fingerprint
        for other, each in self._wallets.items():
            if mark and other != name and each.fingerprint == mark:
                return other
        return None

    # -- questions

    def ids(self) -> Sequence[str]:
        """The names of all, sorted."""
        return sorted(self._wallets)

    def all(self) -> Mapping[str, Wallet]:
        """All by name; not to be changed."""
        return {name: self._wallets[name] for name in self.ids()}

    def get(self, name: str) -> Wallet:
        """One, as its file has it now; not to be changed. Raises WalletError, StorageError."""
        wallet = self._known(name)
        return wallet if wallet.temporary else self._load(self._disk, join(self.path, name))

    def _load(self, disk: Disk, path: StrPath) -> Wallet:
        """The wallet of a file: known, if its bytes are those that were read last."""
        name, data = base_of(path), read_wallet(disk, path)
        digest = sha256(data)
        if self._digests.get(name) != digest:
            settle(disk, path)
            self._keep(name, decode_wallet(data, str(path)), digest)
        return self._wallets[name]

    def _known(self, name: str) -> Wallet:
        wallet = self._wallets.get(name)
        if wallet is None:
            raise MissingWalletError(f"There is no wallet {name[:100]!r}.")
        return wallet

    def _keep(self, name: str, wallet: Wallet, digest: bytes = b"") -> Wallet:
        """Remembers a wallet, and the hash of its file where that is known."""
        wallet.meta["filename"] = name
        self._wallets[name], self._digests[name] = wallet, digest
        return wallet

    def owner_of(self, address: Address) -> str | None:
        """Which wallet has this address."""
        for name, wallet in self._wallets.items():
            if wallet.form is SKYCOIN and address in wallet.addresses:
                return name
        return None

    # -- changes

    def create(self, wanted: NewWallet, active: Active | None = None) -> Wallet:
        """A new wallet, durable on return; raises WalletError, DuplicateWalletError, StorageError."""
        self._room(wanted)
        name = wanted.filename or self._new_name()
        if "/" in name or not name.endswith(SUFFIX) or name in self._wallets:
            raise WalletError(f"{name[:100]!r} is taken, or no name of a wallet; they end with {SUFFIX}.")
        wallet = make_wallet(wanted, name, int(self._unix()), active)
        other = self._twin(name, wallet)
        if other is not None:
            raise DuplicateWalletError(f"A wallet of this seed is there already: {other}.")
        if wanted.password:
            wallet = encrypt(wallet, wanted.password, self._random, wanted.crypto)
        if not wanted.temporary:
            try:
                create_wallet(self._disk, join(self.path, name), wallet)
            except ExistingFileError:
                raise WalletError(f"There is a file {name} already.") from None
        return self._keep(name, wallet)

    def _room(self, wanted: NewWallet) -> None:
        temporary = sum(each.temporary for each in self._wallets.values())
        if wanted.temporary and temporary >= MOST_TEMPORARY:
            raise WalletError(f"There are {MOST_TEMPORARY} temporary wallets already; unload some.")
        if not wanted.temporary and len(self._wallets) - temporary >= MOST_WALLETS:
            raise WalletError(f"There are {MOST_WALLETS} wallets already.")

    def _new_name(self) -> str:
        day = time.strftime("%Y_%m_%d", time.gmtime(self._unix()))
        while (name := f"{day}_{self._random(2).hex()}{SUFFIX}") in self._wallets:
            pass
        return name

    def unload(self, name: str) -> None:
        """Forgets one; its file stays, a temporary one is gone. Raises MissingWalletError."""
        self._known(name)
        del self._wallets[name], self._digests[name]

    def change(self, name: str, work: Callable[[Wallet], T], password: str | None = None) -> T:
        """What `work` says of the wallet, with its secrets if there is a password; what it changed is durable
        on return. Raises what `with_secrets` and `work` raise, StorageError."""
        known = self._known(name)
        if known.temporary:
            result, changed = with_secrets(known, password, self._random, work)
            self._keep(name, changed)
            return result
        with changing(self._disk, join(self.path, name), self._load) as opened:
            result, opened.wallet = with_secrets(opened.wallet, password, self._random, work)
        self._changed(name, opened)
        return result

    def _changed(self, name: str, opened: Opened) -> Wallet:
        """Remembers what is in the file now."""
        written = opened.written
        return opened.wallet if written is None else self._keep(name, opened.wallet, sha256(written))

    def replace(self, name: str, work: Callable[[Wallet], Wallet]) -> Wallet:
        """Puts what `work` makes of a wallet in its place. Raises as `change`."""
        known = self._known(name)
        if known.temporary:
            return self._keep(name, work(known))
        with changing(self._disk, join(self.path, name), self._load) as opened:
            opened.wallet = work(opened.wallet.copy())
        return self._changed(name, opened)

    def view(self, name: str, work: Callable[[Wallet], T], password: str | None = None) -> T:
        """What `work` says of the wallet with its secrets; nothing is written. Raises as `change`."""
        return with_secrets(self.get(name), password, self._random, work)[0]

    def relabel(self, name: str, label: str) -> Wallet:
        """Gives it another label."""

        def work(wallet: Wallet) -> None:
            wallet.label = label

        self.change(name, work)
        return self._known(name)

    def new_addresses(
        self, name: str, count: int, password: str | None = None, *, change: bool = False
    ) -> Sequence[Address]:
        """So many more; an encrypted deterministic wallet needs its password."""
        return self.change(name, lambda wallet: wallet.grow(count, change=change), password)

    def import_keys(self, name: str, keys: Sequence[str], password: str | None = None) -> Sequence[Address]:
        """Puts keys into a collection."""

        def work(wallet: Wallet) -> Sequence[Address]:
            if not isinstance(wallet, Collection):
                raise UnsuitableError(f"A wallet of type {wallet.kind} takes no keys from elsewhere.")
            return [wallet.add(wallet.form.parse_secret(text)).address for text in keys]

        return self.change(name, work, password)

    def scan(
        self, name: str, active: Active, ahead: int = AHEAD, password: str | None = None
    ) -> Sequence[Address]:
        """Looks ahead once, as the Go node does; the addresses that are new."""
        return self.change(name, lambda wallet: scan(wallet, active, ahead, again=False), password)

    def encrypt(self, name: str, password: str, kind: str = "") -> Wallet:
        """Puts it under a password. Raises EncryptedError, UnsuitableError."""
        return self.replace(name, lambda wallet: encrypt(wallet, password, self._random, kind))

    def decrypt(self, name: str, password: str) -> Wallet:
        """Takes the password away. Raises NotEncryptedError, PasswordError."""
        return self.replace(name, lambda wallet: decrypt(wallet, password))

    def seed(self, name: str, password: str) -> tuple[str, str]:
        """Seed and passphrase of an encrypted wallet (only of those, as the Go node has it)."""
        if not self.get(name).encrypted:
            raise NotEncryptedError(f"The wallet {name} is not encrypted.")
        return self.view(name, seed_of_wallet, password)

    def recover(self, name: str, seed: str, passphrase: str = "", password: str | None = None) -> Wallet:
        """Makes an encrypted wallet, whose password is lost, anew from its seed, under another password or
        none. Raises NotEncryptedError, UnsuitableError, and PasswordError if the seed is another's."""

        def work(old: Wallet) -> Wallet:
            made = recovered(old, seed, passphrase)
            return made if not password else encrypt(made, password, self._random)

        return self.replace(name, work)


def seed_of_wallet(wallet: Wallet) -> tuple[str, str]:
    """Its seed, and what was added to it."""
    return wallet.seed, wallet.passphrase if isinstance(wallet, Bip44) else ""


def recovered(old: Wallet, seed: str, passphrase: str = "") -> Wallet:
    """An encrypted wallet out of its seed alone, not encrypted, with as many addresses: `Folder.recover`."""
    if not old.encrypted:
        raise NotEncryptedError(f"The wallet {old.filename} is not encrypted; nothing needs to be recovered.")
    made: Wallet
    if isinstance(old, Deterministic):
        made = new_wallet(seed, old.label, old.filename, old.created, len(old.entries), form=old.form)
    elif isinstance(old, Bip44):
        made = _recovered_bip44(old, seed, passphrase)
    else:
        raise UnsuitableError(f"A wallet of type {old.kind} has no seed to recover it from.")
    if made.fingerprint != old.fingerprint:
        raise PasswordError(f"This is not the seed of {old.filename}: its first address is another.")
    return made


def _recovered_bip44(old: Bip44, seed: str, passphrase: str) -> Bip44:
    made = new_bip44(
        seed,
        old.label,
        old.filename,
        old.created,
        passphrase=passphrase,
        number=old.number,
        form=old.form,
    )
    for _ in old.accounts[1:]:
        made.add_account("")
    for account, before in zip(made.accounts, old.accounts, strict=True):
        account.name = before.name
        for was in before.chains:
            made.extend(account, was.name, len(was.entries) - len(made.chain(account, was.name).entries))
    return made
