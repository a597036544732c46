"""The kinds of wallets whose addresses stand in one list.

    deterministic  one seed of any text; each key comes from the one before (`coin.chain.seeds`); `lastSeed`
                   is what the next comes from
    collection     keys from anywhere, imported; makes none
    xpub           one extended public key, child after child: addresses to watch and to be paid at

The fourth kind, with accounts, is in `bip44`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from attrs import define, field

from coin.chain.derivation import HARDENED, DerivationError, ExtendedKey, parse_extended
from coin.chain.seeds import next_key
from coin.wallet.base import Entry, ListWallet, new_entry, read_entries
from coin.wallet.errors import DamagedWalletError, DuplicateWalletError, WalletError
from coin.wallet.forms import Form
from meshnet.cipher.keys import SecretKey
from meshnet.errors import UsageError


@define(eq=False)
class Deterministic(ListWallet):
    """One seed, any number of addresses, each from the one before."""

    kind: ClassVar[str] = "deterministic"

    def _grow(self, count: int) -> Sequence[Entry]:
        self.need_secrets()
        last = self._last()
        for _ in range(count):
            last, key = next_key(last)
            self._entries.append(new_entry(self.form, key.public, key))
        self.meta["lastSeed"] = last.hex()
        return self._entries[-count:]

    def _last(self) -> bytes:
        """What the next key comes from. Some old files do not say it rightly: then it is found again."""
        if not self._entries:
            return self.meta["seed"].encode()
        try:
            last = bytes.fromhex(self.meta.get("lastSeed", ""))
        except ValueError:
            last = b""
        return last if len(last) == 32 else self._replay()

    def _replay(self) -> bytes:
        last = self.meta["seed"].encode()
        for each in self._entries:
            last, key = next_key(last)
            if key.public != each.public:
                raise DamagedWalletError("The wallet's addresses do not come from its seed.")
        return last

    @classmethod
    def _seeds(cls) -> Sequence[str]:
        return ("seed", "lastSeed")

    @classmethod
    def _read(cls, meta: dict[str, str], table: Mapping[str, Any], form: Form) -> Self:
        made = cls(meta)
        if not made.encrypted and not meta.get("seed"):
            raise DamagedWalletError("It has no seed.")
        made._entries = read_entries(table.get("entries"), form, cls.names, made.encrypted)
        return made


@define(eq=False)
class Collection(ListWallet):
    """Keys that were made elsewhere."""

    kind: ClassVar[str] = "collection"
    grows: ClassVar[bool] = False

    def _grow(self, count: int) -> Sequence[Entry]:
        raise NotImplementedError  # `grows` says so

    @property
    def fingerprint(self) -> str:
        """Empty: any two may have a key in common."""
        return ""

    def add(self, key: SecretKey) -> Entry:
        """Takes a key; raises EncryptedError, and DuplicateWalletError if it has it."""
        self.need_secrets()
        self._room(1)
        entry = new_entry(self.form, key.public, key)
        if any(each.public == key.public for each in self._entries):
            raise DuplicateWalletError(f"{entry.text} is in this wallet already.")
        self._entries.append(entry)
        return entry

    @classmethod
    def _read(cls, meta: dict[str, str], table: Mapping[str, Any], form: Form) -> Self:
        made = cls(meta)
        if meta.get("seed") or meta.get("lastSeed"):
            raise DamagedWalletError("A collection has no seed, but this one has.")
        made._entries = read_entries(table.get("entries"), form, cls.names, made.encrypted)
        return made


@define(eq=False)
class Watching(ListWallet):
    """Addresses of an extended public key: it can watch and be paid, but not pay."""

    kind: ClassVar[str] = "xpub"
    names: ClassVar[tuple[str, str]] = ("public", "")
    encryptable: ClassVar[bool] = False

    parent: ExtendedKey = field(kw_only=True)

    def _grow(self, count: int) -> Sequence[Entry]:
        number = next_number(self._entries)
        self._entries += derive(self.parent, number, count, self.form)
        return self._entries[-count:]

    @classmethod
    def _read(cls, meta: dict[str, str], table: Mapping[str, Any], form: Form) -> Self:
        made = cls(meta, parent=parse_public(meta.get("xpub", "")))
        if made.encrypted:
            raise DamagedWalletError("It only watches, but says that it is encrypted.")
        made._entries = read_entries(table.get("entries"), form, cls.names, encrypted=False)
        check_children(made._entries, made.parent)
        return made


def parse_public(text: str) -> ExtendedKey:
    """The key of an xpub; raises WalletError for other text, which it does not show: it may be an xprv."""
    try:
        key = parse_extended(text)
    except UsageError:
        raise WalletError("The text is no extended public key; it begins with xpub.") from None
    if key.secret is not None:
        raise WalletError("This is an extended private key, a secret; a wallet that watches takes the xpub.")
    return key


def derive(parent: ExtendedKey, number: int, count: int, form: Form, *, change: bool = False) -> list[Entry]:
    """The entries of so many children from `number` on; the one in 2¹²⁷ that does not exist is left out."""
    made: list[Entry] = []
    while len(made) < count:
        if number >= HARDENED:
            raise WalletError("There are no more addresses of this key.")
        try:
            child = parent.child(number)
            made.append(new_entry(form, child.public, child.secret, number, change=change))
        except DerivationError:
            pass
        number += 1
    return made


def next_number(entries: Sequence[Entry]) -> int:
    """The number behind the last."""
    last = entries[-1].number if entries else -1
    assert last is not None
    return last + 1


def check_children(entries: Sequence[Entry], parent: ExtendedKey) -> None:
    """Raises DamagedWalletError unless each is the child of its number, in order."""
    before = -1
    for each in entries:
        if each.number is None or each.number <= before or parent.child(each.number).public != each.public:
            raise DamagedWalletError("An address does not come from the wallet's extended key.")
        before = each.number
