"""What all wallets have in common: their entries, their encryption, the Go wallet's file format.

    {"meta": {text: text, …}, "entries": […]}                 or, for bip44, "accounts" (see `bip44`)

    meta     version, filename, label, tm (unix seconds), type, coin, encrypted, cryptoType, secrets; by type
             seed, lastSeed (deterministic), seed, seedPassphrase, bip44Coin (bip44), xpub (xpub)
    entry    {"address", "public_key", "secret_key"}          deterministic, collection
             {"address", "public", "child_number"}            xpub

All values of `meta` are texts, sorted by key; four spaces a step. An encrypted wallet has no seeds and no
secret keys but in `secrets` (`encryption`): a JSON object of texts, sorted. A file that was read and not
changed is written byte for byte as it was; what is not known here stays where it was.

Every key is checked against its address when one is read. Seeds and secret keys show in no repr and no
error. Which kinds there are, `wallet` knows. Nothing here knows files, clocks or chance.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final, Self

from attrs import define, evolve, field, frozen

from coin.chain.address import Address, address_text
from coin.wallet.document import INDENT, go_json, is_shallow
from coin.wallet.encryption import NONCE_SIZE, Random, Sealing, open_sealed
from coin.wallet.errors import (
    DamagedWalletError,
    EncryptedError,
    NotEncryptedError,
    UnsuitableError,
    WalletError,
)
from coin.wallet.forms import SKYCOIN, Form, form_of, parse_hex_secret
from meshnet.cipher.keys import PublicKey, SecretKey, parse_public_key
from meshnet.errors import UsageError

LARGEST: Final = 64 << 20
"""Bytes of a wallet's file."""
MOST_ADDRESSES: Final = 100_000
"""Addresses of a wallet, on all its chains together."""
LONGEST_LABEL: Final = 256
"""Characters of a label."""
DEEPEST: Final = 32
"""How deep what is not known here may nest."""
VERSION: Final = "0.4"
"""What is written."""
VERSIONS: Final = ("0.1", "0.2", "0.3", "0.4")
_TRUE: Final = ("1", "t", "T", "TRUE", "true", "True")
_FALSE: Final = ("0", "f", "F", "FALSE", "false", "False", "")


@frozen
class Entry:
    """An address and its keys. `text` is the address as its coin writes it; `key` is None where the wallet is
    encrypted or only watches; `number` is that of BIP 32 where there is one; `change` says that it stands on
    the chain of change."""

    address: Address
    text: str
    public: PublicKey
    key: SecretKey | None = field(default=None, repr=False)
    number: int | None = None
    change: bool = False
    more: tuple[tuple[str, Any], ...] = field(default=(), repr=False)

    def without_key(self) -> Entry:
        """The same, of an encrypted wallet."""
        return evolve(self, key=None)

    def with_key(self, key: SecretKey) -> Entry:
        """The same with its key; raises DamagedWalletError if it is another's."""
        if key.public != self.public:
            raise DamagedWalletError("A secret key of the wallet belongs to another address.")
        return evolve(self, key=key)


def new_entry(
    form: Form,
    public: PublicKey,
    key: SecretKey | None = None,
    number: int | None = None,
    *,
    change: bool = False,
    more: tuple[tuple[str, Any], ...] = (),
) -> Entry:
    """The entry of a public key, in the form of a coin."""
    return Entry(form.address(public), form.text(public), public, key, number, change, more)


def check_text(text: str, what: str) -> None:
    """Raises WalletError for what no file can hold: half of a surrogate pair, bytes that were no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise WalletError(
            f"The {what} is no text: it has bytes or half characters that mean nothing."
        ) from None


def check_label(text: str) -> None:
    """Raises WalletError for a label that is none."""
    check_text(text, "label")
    if not 0 < len(text) <= LONGEST_LABEL:
        raise WalletError(f"A label has 1 to {LONGEST_LABEL} characters.")


@define(eq=False)
class Wallet(ABC):
    """What all kinds have in common. `tail` is what stands behind the last brace of the file."""

    kind: ClassVar[str]
    grows: ClassVar[bool] = True
    """Whether it makes addresses of its own."""
    encryptable: ClassVar[bool] = True

    meta: dict[str, str] = field(repr=False)
    tail: str = field(default="", kw_only=True, repr=False)
    more: Mapping[str, Any] = field(factory=dict, kw_only=True, repr=False)
    """What else stands in the file beside meta and addresses: not known here, and kept."""
    sealing: Sealing | None = field(default=None, kw_only=True, repr=False)
    """In a copy with its secrets: what it was encrypted with."""

    # -- what it is

    @property
    def label(self) -> str:
        """What its owner calls it."""
        return self.meta.get("label", "")

    @label.setter
    def label(self, text: str) -> None:
        check_label(text)
        self.meta["label"] = text

    @property
    def filename(self) -> str:
        """The name that the file says; where it lies may be another."""
        return self.meta.get("filename", "")

    @property
    def version(self) -> str:
        """Of the file's format."""
        return self.meta.get("version", VERSIONS[0])

    @property
    def encrypted(self) -> bool:
        """Whether its secrets are under a password now."""
        return self.meta.get("encrypted", "") in _TRUE

    @property
    def temporary(self) -> bool:
        """Whether it is never to be written."""
        return self.meta.get("temp", "") in _TRUE

    @property
    def created(self) -> int:
        """Unix seconds; 0 if the file does not say."""
        return int(self.meta.get("tm") or 0)

    @property
    def form(self) -> Form:
        """How its coin writes addresses and keys."""
        found = form_of(self.meta["coin"])
        assert found is not None  # checked when it was read
        return found

    @property
    @abstractmethod
    def entries(self) -> Sequence[Entry]:
        """All of its addresses, those of change last."""

    @property
    def addresses(self) -> tuple[Address, ...]:
        """All, in order. Raises UnsuitableError for a wallet of another coin: they would be nobody's here."""
        if self.form is not SKYCOIN:
            raise UnsuitableError(f"This is a wallet of {self.form.name}; it owns nothing on this chain.")
        return tuple(each.address for each in self.entries)

    @property
    def texts(self) -> list[str]:
        """Its addresses as people write them."""
        return [each.text for each in self.entries]

    @property
    def fingerprint(self) -> str:
        """What two wallets of the same seed have in common: kind and first address; empty where that says
        nothing."""
        return f"{self.kind}-{self.entries[0].text}" if self.entries else ""

    @property
    def seed(self) -> str:
        """The words that everything comes from: whoever has them has the coins. Raises UnsuitableError,
        EncryptedError."""
        if "seed" not in self.meta:
            raise UnsuitableError(f"A wallet of type {self.kind} has no seed.")
        self.need_secrets()
        return self.meta["seed"]

    def key_of(self, address: Address) -> SecretKey:
        """The key of one; raises WalletError, EncryptedError, UnsuitableError."""
        for each in self.entries:
            if each.address == address:
                if each.key is not None:
                    return each.key
                self.need_secrets()
                raise UnsuitableError("This wallet only watches: it has no secret keys.")
        raise WalletError(f"{address_text(address)} is not an address of this wallet.")

    def need_secrets(self) -> None:
        """Raises EncryptedError while they are under a password."""
        if self.encrypted:
            raise EncryptedError(f"The wallet {self.filename} is encrypted; its password is needed.")

    def need_plain(self) -> None:
        """Raises UnsuitableError, EncryptedError unless it has secrets that are not under a password."""
        self.need_encryptable()
        if self.encrypted:
            raise EncryptedError(f"The wallet {self.filename} is encrypted already.")

    def need_encrypted(self) -> None:
        """Raises NotEncryptedError unless it is."""
        if not self.encrypted:
            raise NotEncryptedError(f"The wallet {self.filename} is not encrypted.")

    def need_encryptable(self) -> None:
        """Raises UnsuitableError where there are no secrets."""
        if not self.encryptable:
            raise UnsuitableError(f"A wallet of type {self.kind} has no secrets to encrypt.")

    # -- what changes it

    def grow(self, count: int, *, change: bool = False) -> Sequence[Address]:
        """So many addresses more, also on the chain of change where there is one. Raises WalletError,
        EncryptedError, UnsuitableError."""
        if not self.grows:
            raise UnsuitableError(f"A wallet of type {self.kind} makes no addresses; import keys into it.")
        if change:
            raise UnsuitableError(f"A wallet of type {self.kind} has no chain of change.")
        self._room(count)
        return [each.address for each in self._grow(count)]

    def _room(self, count: int) -> None:
        if not 0 < count <= MOST_ADDRESSES - len(self.entries):
            raise WalletError(f"A wallet has 1 to {MOST_ADDRESSES} addresses.")

    @abstractmethod
    def _grow(self, count: int) -> Sequence[Entry]:
        """The new entries, which are its own now."""

    @abstractmethod
    def copy(self) -> Self:
        """One that may be changed alone."""

    @abstractmethod
    def state(self) -> object:
        """All that is written, to compare with what it is later; quickly, if little has changed."""

    # -- encryption

    def locked(self, sealing: Sealing, random: Random) -> Self:
        """A copy whose secrets are under a password. Raises EncryptedError, UnsuitableError."""
        self.need_plain()
        made = self.copy()
        secrets = go_json(dict(sorted(made._pack().items()))).encode()
        made._strip()
        made.meta.update(
            encrypted="true", cryptoType=sealing.kind, secrets=sealing.seal(secrets, random(NONCE_SIZE))
        )
        made.sealing = None
        return made

    def unlocked(self, password: str) -> Self:
        """A copy with its secrets; takes as long as the file's scrypt does. Raises PasswordError,
        NotEncryptedError, DamagedWalletError."""
        self.need_encrypted()
        data, sealing = open_sealed(self.meta["secrets"], self.meta["cryptoType"], password)
        made = self.copy()
        try:
            secrets = json.loads(data)
            assert isinstance(secrets, dict) and all(isinstance(each, str) for each in secrets.values())
            made._unpack(secrets)
        except (ValueError, KeyError, AssertionError, RecursionError, UsageError):
            raise DamagedWalletError("The wallet's secrets do not fit to its addresses.") from None
        made.meta.update(encrypted="false", secrets="")
        made.sealing = sealing
        return made

    def _pack(self) -> dict[str, str]:
        """Its secrets by name: the seeds, and each key by its address."""
        packed = {each.text: each.key.secret.hex() for each in self.entries if each.key is not None}
        return {**{name: self.meta.get(name, "") for name in self._seeds()}, **packed}

    def _unpack(self, secrets: Mapping[str, str]) -> None:
        """Takes its secrets back; raises KeyError, UsageError."""
        self.meta.update({name: secrets[name] for name in self._seeds()})

    def _strip(self) -> None:
        """Forgets its secrets."""
        self.meta.update(dict.fromkeys(self._seeds(), ""))

    @classmethod
    def _seeds(cls) -> Sequence[str]:
        """Which keys of `meta` are secrets."""
        return ()

    # -- the file

    def encode(self) -> bytes:
        """As the file has it."""
        table = {"meta": dict(sorted(self.meta.items())), **self._body(), **self.more}
        return (go_json(table, INDENT) + self.tail).encode()

    @abstractmethod
    def _body(self) -> dict[str, Any]:
        """What stands beside `meta`."""

    body: ClassVar[str] = "entries"
    """Under which key of the file its addresses stand."""

    @classmethod
    @abstractmethod
    def _read(cls, meta: dict[str, str], table: Mapping[str, Any], form: Form) -> Self:
        """The wallet of a file whose meta is checked; raises DamagedWalletError, KeyError, TypeError,
        ValueError, UsageError."""


@define(eq=False)
class ListWallet(Wallet):
    """A wallet whose addresses stand in one list."""

    _entries: list[Entry] = field(factory=list, alias="entries")

    names: ClassVar[tuple[str, str]] = ("public_key", "secret_key")

    @property
    def entries(self) -> Sequence[Entry]:
        """See `Wallet`."""
        return self._entries

    def copy(self) -> Self:
        """See `Wallet`."""
        return evolve(self, meta=dict(self.meta), entries=list(self._entries))

    def state(self) -> object:
        """See `Wallet`."""
        return dict(self.meta), list(self._entries)

    def _unpack(self, secrets: Mapping[str, str]) -> None:
        super()._unpack(secrets)
        self._entries = [with_secret(each, secrets) for each in self._entries]

    def _strip(self) -> None:
        super()._strip()
        self._entries = [each.without_key() for each in self._entries]

    def _body(self) -> dict[str, Any]:
        public, secret = self.names
        return {"entries": [entry_row(each, self.form, public, secret) for each in self._entries]}


def with_secret(entry: Entry, secrets: Mapping[str, str]) -> Entry:
    """An entry with its key out of decrypted secrets; raises KeyError, UsageError."""
    return entry.with_key(parse_hex_secret(secrets[entry.text]))


def entry_row(entry: Entry, form: Form, public: str, secret: str) -> dict[str, Any]:
    """An entry as files have it; no key of the name `secret` where that is empty."""
    row: dict[str, Any] = {"address": entry.text, public: entry.public.hex()}
    if secret:
        row[secret] = form.secret_text(entry.key) if entry.key is not None else ""
    if entry.number is not None:
        row["child_number"] = entry.number
    return {**row, **dict(entry.more)}


def read_entry(
    row: Any, form: Form, public: str, secret: str, *, encrypted: bool, change: bool = False
) -> Entry:
    """An entry whose parts belong together; raises KeyError, TypeError, ValueError, UsageError."""
    key = parse_public_key(row[public])
    hidden = row.get(secret, "") if secret else ""
    number = row.get("child_number")
    if number is not None and (type(number) is not int or not 0 <= number < 1 << 31):
        raise ValueError
    more = tuple(unknown(row, "address", public, secret, "child_number").items())
    entry = new_entry(form, key, None, number, change=change, more=more)
    if row["address"] != entry.text or row[public] != key.hex():
        raise ValueError
    if hidden:
        return entry.with_key(form.parse_secret(hidden))
    if secret and not encrypted:
        raise ValueError
    return entry


def unknown(row: Mapping[str, Any], *known: str) -> dict[str, Any]:
    """What else stands in a part of a file, to be written again; ValueError where it nests too deep."""
    found = {name: value for name, value in row.items() if name not in known}
    if not is_shallow(found, DEEPEST):
        raise ValueError
    return found


def read_entries(rows: Any, form: Form, names: Iterable[str], encrypted: bool) -> list[Entry]:
    """All of a list; raises DamagedWalletError, which says which is wrong."""
    public, secret = names
    if rows is None:  # an empty list of Go
        return []
    if not isinstance(rows, list) or len(rows) > MOST_ADDRESSES:
        raise DamagedWalletError(f"It has no list of addresses, or more than {MOST_ADDRESSES}.")
    found = []
    for number, row in enumerate(rows, 1):
        try:
            found.append(read_entry(row, form, public, secret, encrypted=encrypted))
        except (KeyError, TypeError, ValueError, AttributeError, UsageError):
            raise DamagedWalletError(
                f"Address {number} is damaged: its keys do not belong together."
            ) from None
    if len({each.address for each in found}) != len(found):
        raise DamagedWalletError("The same address stands in it twice.")
    return found


def check_meta(meta: Mapping[str, str]) -> None:
    """What holds for every kind; raises DamagedWalletError."""
    for key in ("type", "coin"):
        if key not in meta:
            raise DamagedWalletError(f"It does not say its {key}.")
    if form_of(meta["coin"]) is None:
        raise DamagedWalletError(f"It is of the coin {meta['coin'][:40]!r}, which is not known here.")
    if meta.get("version", "0.1") not in VERSIONS:
        raise DamagedWalletError(f"It has version {meta['version'][:40]!r}; {VERSION} is the newest known.")
    encrypted = meta.get("encrypted", "")
    if encrypted not in _TRUE + _FALSE:
        raise DamagedWalletError(f"Its key encrypted is {encrypted[:40]!r}, neither true nor false.")
    if meta.get("tm") and not _is_number(meta["tm"]):
        raise DamagedWalletError(f"Its time, tm, is {meta['tm'][:40]!r}, not seconds.")
    secrets = meta.get("secrets", "")
    if encrypted in _TRUE:
        if not secrets or not meta.get("cryptoType"):
            raise DamagedWalletError("It is encrypted, but has no secrets or does not say how.")
        if meta.get("seed") or meta.get("lastSeed") or meta.get("seedPassphrase"):
            raise DamagedWalletError("It is encrypted, but its seed stands there for all to read.")
    elif secrets:
        raise DamagedWalletError("It is not encrypted, but has encrypted secrets.")


def _is_number(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 19
