"""Deterministic wallets: one seed, any number of addresses, in the Go wallet's file format.

    {"meta": {"coin", "cryptoType", "encrypted", "filename", "label", "lastSeed", "seed", "tm", "type",
              "version"}, "entries": [{"address", "public_key", "secret_key"}, …]}

All values of `meta` are texts; `lastSeed` is what the next key comes from. Files are 0600, replaced as a
whole, and every key is checked when one is read. Encrypted wallets and wallets of other types are refused,
never touched. Seeds and secret keys show in no repr.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from attrs import define, field

from coin.chain.address import Address, address_of, address_text
from coin.chain.seeds import next_key
from meshnet.cipher.keys import SecretKey
from meshnet.errors import UsageError
from meshnet.storage.disk import CorruptFileError, Disk, StrPath, base_of
from meshnet.storage.files import create_file, read_secret, write_file

LARGEST: Final = 64 << 20
"""Bytes of a wallet's file."""
MOST_ADDRESSES: Final = 100_000
VERSIONS: Final = ("0.1", "0.2", "0.3", "0.4")
_COINS: Final = ("skycoin", "sky")


class WalletError(UsageError):
    """A wallet that cannot be read or used."""


@define
class Entry:
    """An address and its key."""

    address: Address
    key: SecretKey = field(repr=False)


@define
class Wallet:
    """A deterministic wallet. `last` is the seed of the next key; `meta` all texts of the file."""

    meta: dict[str, str] = field(repr=False)
    entries: list[Entry]
    last: bytes = field(repr=False)

    @property
    def label(self) -> str:
        """What its owner calls it."""
        return self.meta.get("label", "")

    @property
    def seed(self) -> str:
        """The words that everything comes from: whoever has them has the coins."""
        return self.meta["seed"]

    @property
    def addresses(self) -> tuple[Address, ...]:
        """All, in order."""
        return tuple(each.address for each in self.entries)

    def key_of(self, address: Address) -> SecretKey:
        """The key of one; raises WalletError."""
        for each in self.entries:
            if each.address == address:
                return each.key
        raise WalletError(f"{address_text(address)} is not an address of this wallet.")

    def grow(self, count: int) -> Sequence[Address]:
        """So many addresses more."""
        if not 0 < count <= MOST_ADDRESSES - len(self.entries):
            raise WalletError(f"A wallet has 1 to {MOST_ADDRESSES} addresses.")
        for _ in range(count):
            self.last, key = next_key(self.last)
            self.entries.append(Entry(address_of(key.public), key))
        self.meta["lastSeed"] = self.last.hex()
        return self.addresses[-count:]

    def encode(self) -> bytes:
        """As the file has it."""
        entries = [
            {
                "address": address_text(each.address),
                "public_key": each.key.public.hex(),
                "secret_key": each.key.secret.hex(),
            }
            for each in self.entries
        ]
        return json.dumps({"meta": dict(sorted(self.meta.items())), "entries": entries}, indent=4).encode()


def new_wallet(seed: str, label: str, filename: str, time: int, count: int = 1) -> Wallet:
    """A wallet of a seed, with its first addresses; `time` is unix seconds."""
    if not seed:
        raise WalletError("A seed must not be empty.")
    meta = {
        "coin": "skycoin",
        "cryptoType": "scrypt-chacha20poly1305",
        "encrypted": "false",
        "filename": filename,
        "label": label,
        "lastSeed": "",
        "seed": seed,
        "tm": str(time),
        "type": "deterministic",
        "version": "0.4",
    }
    wallet = Wallet(meta, [], seed.encode())
    wallet.grow(count)
    return wallet


def decode_wallet(data: bytes, name: str = "The wallet") -> Wallet:
    """Reads and checks a file's content; raises WalletError that says what is wrong, never a secret."""
    try:
        table = json.loads(data)
        meta, rows = table["meta"], table.get("entries", [])
        if not all(isinstance(each, str) for pair in meta.items() for each in pair):
            raise TypeError
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise WalletError(f"{name} is no wallet file.") from None
    _check_meta(meta, name)
    if not isinstance(rows, list) or len(rows) > MOST_ADDRESSES:
        raise WalletError(f"{name} has no list of addresses, or more than {MOST_ADDRESSES}.")
    entries = [_entry(row, number, name) for number, row in enumerate(rows)]
    last = meta.get("lastSeed", "")
    try:
        return Wallet(dict(meta), entries, bytes.fromhex(last) if last else meta["seed"].encode())
    except ValueError:
        raise WalletError(f"{name} has a lastSeed that is not hex.") from None


def _check_meta(meta: dict[str, str], name: str) -> None:
    for key in ("type", "coin"):
        if key not in meta:
            raise WalletError(f"{name} does not say its {key}.")
    if meta["type"] != "deterministic":
        raise WalletError(
            f"{name} is a wallet of type {meta['type'][:40]!r}; only deterministic ones are read."
        )
    if meta["coin"] not in _COINS:
        raise WalletError(f"{name} is a wallet of {meta['coin'][:40]!r}, not of this coin.")
    if meta.get("version", "0.1") not in VERSIONS:
        raise WalletError(f"{name} has version {meta['version'][:40]!r}; {VERSIONS[-1]} is the newest known.")
    if meta.get("encrypted", "false") != "false":
        raise WalletError(f"{name} is encrypted; decrypt it with the wallet that made it first.")
    if not meta.get("seed"):
        raise WalletError(f"{name} has no seed.")


def _entry(row: Any, number: int, name: str) -> Entry:
    """An address whose three parts belong together."""
    try:
        key = SecretKey(bytes.fromhex(row["secret_key"]))
        address = address_of(key.public)
        right = row["public_key"] == key.public.hex() and row["address"] == address_text(address)
    except (UsageError, ValueError, TypeError, KeyError):
        right = False
    if not right:
        raise WalletError(f"Address {number + 1} of {name} is damaged: its keys do not belong together.")
    return Entry(address, key)


def load_wallet(disk: Disk, path: StrPath) -> Wallet:
    """The wallet of a file that nobody else may read; raises WalletError, StorageError."""
    try:
        data = read_secret(disk, path, LARGEST)
    except CorruptFileError as error:
        raise WalletError(f"{error}.") from None
    return decode_wallet(data, str(path))


def create_wallet(disk: Disk, path: StrPath, wallet: Wallet) -> None:
    """Writes a new file; ExistingFileError if there is one already. Durable on return."""
    create_file(disk, path, wallet.encode(), 0o600)


def save_wallet(disk: Disk, path: StrPath, wallet: Wallet) -> None:
    """Replaces the file: the old one or the new one is there whatever happens. Durable on return."""
    wallet.meta.setdefault("filename", base_of(str(path)))
    write_file(disk, path, wallet.encode(), 0o600)
