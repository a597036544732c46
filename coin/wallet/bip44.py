"""Wallets with accounts (BIP 32, 39, 44): words of the standard, which other wallets read too.

    m / 44' / coin' / account' / 0 paid at, 1 change / number          coin: 8000 Skycoin, 0 Bitcoin

    "accounts": [{"private_key": xprv, not where it is encrypted, "name", "index", "coin_type",
                  "chains": [{"public_key": xpub, "chain": "external" or "change",
                              "entries": [{"address", "public", "secret", "child_number"}]}]}]

The chains' xpubs stay readable in an encrypted wallet, so that it makes addresses without the password; the
keys of these come back with the account's key. In `secrets`: seed, seedPassphrase, bip44AccountPrivateKey-N.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Self

from attrs import define, evolve, field

from coin.chain.address import Address
from coin.chain.derivation import HARDENED, ExtendedKey, parse_extended, root_key
from coin.wallet.base import MOST_ADDRESSES, Entry, Wallet, entry_row, read_entry, unknown
from coin.wallet.errors import DamagedWalletError, WalletError
from coin.wallet.forms import Form, form_of, parse_hex_secret
from coin.wallet.kinds import check_children, derive, next_number, parse_public
from coin.wallet.words import seed_of
from meshnet.errors import UsageError

EXTERNAL: Final = "external"
CHANGE: Final = "change"
CHAINS: Final = (EXTERNAL, CHANGE)
"""The names of the chains; their places are their numbers in the path."""
MOST_ACCOUNTS: Final = 100
FIRST_NAME: Final = "default"


@define(eq=False)
class Chain:
    """The addresses of one use."""

    parent: ExtendedKey
    name: str
    entries: list[Entry] = field(factory=list)
    more: Mapping[str, Any] = field(factory=dict, repr=False)

    @property
    def number(self) -> int:
        """In the path."""
        return CHAINS.index(self.name)


@define(eq=False)
class Account:
    """One account. `key` is None while the wallet is encrypted."""

    name: str
    index: int
    coin: str
    chains: list[Chain]
    key: ExtendedKey | None = field(default=None, repr=False)
    more: Mapping[str, Any] = field(factory=dict, repr=False)

    def copy(self) -> Account:
        """One that may be changed alone."""
        return evolve(self, chains=[evolve(each, entries=list(each.entries)) for each in self.chains])

    def state(self) -> object:
        """All that is written."""
        chains = [(each.name, each.parent, list(each.entries)) for each in self.chains]
        return self.name, self.index, self.coin, self.key, chains


@define(eq=False)
class Bip44(Wallet):
    """A wallet of accounts; what grows is the first of them."""

    kind: ClassVar[str] = "bip44"
    body: ClassVar[str] = "accounts"

    accounts: list[Account] = field(factory=list)

    @property
    def entries(self) -> Sequence[Entry]:
        """See `Wallet`."""
        return [entry for name in CHAINS for chain in self.chains(name) for entry in chain.entries]

    def chains(self, name: str) -> list[Chain]:
        """The chains of that name, of all accounts."""
        return [each for account in self.accounts for each in account.chains if each.name == name]

    @property
    def passphrase(self) -> str:
        """What was added to the words; raises EncryptedError."""
        self.need_secrets()
        return self.meta.get("seedPassphrase", "")

    @property
    def number(self) -> int:
        """Its coin's number in the path."""
        return int(self.meta["bip44Coin"])

    def copy(self) -> Self:
        """See `Wallet`."""
        return evolve(self, meta=dict(self.meta), accounts=[each.copy() for each in self.accounts])

    def grow(self, count: int, *, change: bool = False) -> Sequence[Address]:
        """See `Wallet`; an encrypted wallet grows too."""
        self._room(count)
        if not self.accounts:
            self.add_account(FIRST_NAME)
        return [each.address for each in self.extend(self.accounts[0], CHANGE if change else EXTERNAL, count)]

    def _grow(self, count: int) -> Sequence[Entry]:
        return self.extend(self.accounts[0], EXTERNAL, count)

    def extend(self, account: Account, name: str, count: int) -> list[Entry]:
        """So many entries more on a chain of an account, which are its own now."""
        chain = self.chain(account, name)
        parent = chain.parent if account.key is None else account.key.child(chain.number)
        made = derive(parent, next_number(chain.entries), count, self.form, change=name == CHANGE)
        chain.entries += made
        return made

    def chain(self, account: Account, name: str) -> Chain:
        """A chain of an account; raises DamagedWalletError."""
        for each in account.chains:
            if each.name == name:
                return each
        raise DamagedWalletError(f"Account {account.index} of the wallet has no chain {name}.")

    def state(self) -> object:
        """See `Wallet`."""
        return dict(self.meta), [each.state() for each in self.accounts]

    def add_account(self, name: str) -> Account:
        """The next account, without addresses; raises EncryptedError, WordsError."""
        self.need_secrets()
        index = len(self.accounts)
        if index >= MOST_ACCOUNTS:
            raise WalletError(f"A wallet has at most {MOST_ACCOUNTS} accounts.")
        root = root_key(seed_of(self.meta["seed"], self.meta.get("seedPassphrase", "")))
        key = root.at(f"m/44'/{self.number}'/{index}'")
        chains = [Chain(key.child(place).public_half(), each) for place, each in enumerate(CHAINS)]
        account = Account(name, index, self.form.name, chains, key)
        self.accounts.append(account)
        return account

    # -- encryption

    @classmethod
    def _seeds(cls) -> Sequence[str]:
        return ("seed", "seedPassphrase")

    def _pack(self) -> dict[str, str]:
        keys = {_secret_name(each): each.key.xprv for each in self.accounts if each.key is not None}
        return {**super()._pack(), **keys}

    def _unpack(self, secrets: Mapping[str, str]) -> None:
        self.meta.update(seed=secrets["seed"], seedPassphrase=secrets.get("seedPassphrase", ""))
        for account in self.accounts:
            key = parse_extended(secrets[_secret_name(account)])
            check_account(account, key)
            account.key = key
            for chain in account.chains:
                parent = key.child(chain.number)
                chain.entries = [self._with_key(each, parent, secrets) for each in chain.entries]

    def _with_key(self, entry: Entry, parent: ExtendedKey, secrets: Mapping[str, str]) -> Entry:
        """An entry with its key, which an encrypted wallet may not have yet."""
        packed = secrets.get(entry.text)
        if packed is not None:
            return entry.with_key(parse_hex_secret(packed))
        assert entry.number is not None
        found = parent.child(entry.number).secret
        assert found is not None
        return entry.with_key(found)

    def _strip(self) -> None:
        super()._strip()
        for account in self.accounts:
            account.key = None
            for chain in account.chains:
                chain.entries = [each.without_key() for each in chain.entries]

    # -- the file

    def _body(self) -> dict[str, Any]:
        return {"accounts": [_account_row(each, self.form) for each in self.accounts]}

    @classmethod
    def _read(cls, meta: dict[str, str], table: Mapping[str, Any], form: Form) -> Self:
        number = meta.get("bip44Coin", "")
        if not (number.isascii() and number.isdigit() and int(number[:11]) < HARDENED):
            raise DamagedWalletError("It does not say the number of its coin, bip44Coin.")
        rows = table.get("accounts") or []
        if table.get("entries"):
            raise DamagedWalletError("It has addresses that belong to no account.")
        if not isinstance(rows, list) or len(rows) > MOST_ACCOUNTS:
            raise DamagedWalletError(f"It has no list of accounts, or more than {MOST_ACCOUNTS}.")
        made = cls(meta)
        made.accounts = [_read_account(row, made.encrypted) for row in rows]
        if not made.encrypted and not meta.get("seed"):
            raise DamagedWalletError("It has no seed.")
        return made


def check_account(account: Account, key: ExtendedKey) -> None:
    """Raises DamagedWalletError unless the chains come from the account's key."""
    if key.secret is None or any(key.child(each.number).xpub != each.parent.xpub for each in account.chains):
        raise DamagedWalletError(f"Account {account.index} is damaged: its chains do not come from its key.")


def _secret_name(account: Account) -> str:
    return f"bip44AccountPrivateKey-{account.index}"


def _account_row(account: Account, form: Form) -> dict[str, Any]:
    row: dict[str, Any] = {} if account.key is None else {"private_key": account.key.xprv}
    chains = [
        {
            "public_key": each.parent.xpub,
            "chain": each.name,
            "entries": [_entry_row(entry, form) for entry in each.entries] or None,
            **each.more,
        }
        for each in account.chains
    ]
    row.update(name=account.name, index=account.index, coin_type=account.coin, chains=chains)
    return {**row, **account.more}


def _entry_row(entry: Entry, form: Form) -> dict[str, Any]:
    return entry_row(entry, form, "public", "secret")


def _read_account(row: Any, encrypted: bool) -> Account:
    """An account whose keys belong together; raises DamagedWalletError."""
    try:
        index, form = row["index"], form_of(row["coin_type"])
        if type(index) is not int or not 0 <= index < HARDENED or form is None:
            raise ValueError
        chains = [_read_chain(each, form, encrypted) for each in row["chains"]]
        more = unknown(row, "private_key", "name", "index", "coin_type", "chains")
        account = Account(str(row["name"]), index, row["coin_type"], chains, more=more)
        if len({each.name for each in chains}) != len(chains):
            raise ValueError
        hidden = row.get("private_key", "")
        if hidden:
            account.key = parse_extended(hidden)
            check_account(account, account.key)
        elif not encrypted:
            raise ValueError
    except DamagedWalletError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, UsageError):
        raise DamagedWalletError("An account is damaged: its keys do not belong together.") from None
    return account


def _read_chain(row: Any, form: Form, encrypted: bool) -> Chain:
    more = unknown(row, "public_key", "chain", "entries")
    chain = Chain(parse_public(row["public_key"]), row["chain"], more=more)
    rows = row.get("entries") or []
    if chain.name not in CHAINS or len(rows) > MOST_ADDRESSES:
        raise ValueError
    change = chain.name == CHANGE
    chain.entries = [
        read_entry(each, form, "public", "secret", encrypted=encrypted, change=change) for each in rows
    ]
    check_children(chain.entries, chain.parent)
    return chain
