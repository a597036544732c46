"""Wallets of every kind: read from a file's bytes, or made.

What a wallet is and can do stands in `base`, the kinds in `kinds` and `bip44`.
"""

from __future__ import annotations

import json
from typing import Final

from coin.wallet.base import LARGEST, VERSION, Entry, Wallet, check_label, check_meta, check_text, unknown
from coin.wallet.bip44 import FIRST_NAME, Bip44
from coin.wallet.encryption import SCRYPT
from coin.wallet.errors import DamagedWalletError, WalletError
from coin.wallet.forms import SKYCOIN, Form, form_of
from coin.wallet.kinds import Collection, Deterministic, Watching, parse_public
from coin.wallet.words import entropy_of
from meshnet.errors import UsageError

__all__ = [
    "Entry",
    "Wallet",
    "WalletError",
    "decode_wallet",
    "new_bip44",
    "new_collection",
    "new_wallet",
    "new_watching",
]

KINDS: Final[dict[str, type[Wallet]]] = {
    each.kind: each for each in (Deterministic, Collection, Bip44, Watching)
}
"""By what files call them."""


def decode_wallet(data: bytes, name: str = "The wallet") -> Wallet:
    """Reads and checks a file's content; raises DamagedWalletError: what is wrong, never a secret."""
    try:
        text = data.decode()
        body = text.rstrip()
        table = json.loads(body)
        meta = table["meta"]
        if len(data) > LARGEST or not all(isinstance(each, str) for pair in meta.items() for each in pair):
            raise TypeError
        if b"\\u" in data:  # half of a surrogate pair is no text, and could not be written again
            json.dumps(table, ensure_ascii=False).encode()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise DamagedWalletError(f"{name} is no wallet file.") from None
    try:
        check_meta(meta)
        kind = KINDS.get(meta["type"])
        if kind is None:
            choices = ", ".join(KINDS)
            raise DamagedWalletError(f"It is of type {meta['type'][:40]!r}; known are {choices}.")
        form = form_of(meta["coin"])
        assert form is not None
        wallet = kind._read(meta, table, form)
        wallet.more = unknown(table, "meta", kind.body)
    except DamagedWalletError as error:
        raise DamagedWalletError(f"{name} cannot be read: {_begun(str(error))}") from None
    except (UsageError, ValueError, TypeError, KeyError, AttributeError):
        raise DamagedWalletError(f"{name} is no wallet file, or a damaged one.") from None
    wallet.tail = text[len(body) :]
    return wallet


def _begun(text: str) -> str:
    """A sentence that goes on behind a colon."""
    return text[0].lower() + text[1:]


def new_wallet(
    seed: str, label: str, filename: str, time: int, count: int = 1, *, form: Form = SKYCOIN
) -> Deterministic:
    """A deterministic wallet of a seed, with its first addresses; `time` is unix seconds."""
    if not seed:
        raise WalletError("A seed must not be empty.")
    check_text(seed, "seed")
    meta = _meta(Deterministic.kind, label, filename, time, form)
    meta.update(cryptoType=SCRYPT, encrypted="false", seed=seed, lastSeed=seed)
    wallet = Deterministic(meta)
    if count:
        wallet.grow(count)
    return wallet


def new_bip44(
    seed: str,
    label: str,
    filename: str,
    time: int,
    count: int = 1,
    *,
    passphrase: str = "",
    number: int | None = None,
    form: Form = SKYCOIN,
) -> Bip44:
    """A wallet of the words of BIP 39: account 0, `count` addresses and one of change. `number` is the coin's
    in the path, if not the usual one. Raises WordsError."""
    entropy_of(seed)
    check_text(passphrase, "passphrase")
    meta = _meta(Bip44.kind, label, filename, time, form)
    meta.update(cryptoType=SCRYPT, encrypted="false", seed=seed, seedPassphrase=passphrase)
    meta["bip44Coin"] = str(form.number if number is None else number)
    wallet = Bip44(meta)
    wallet.add_account(FIRST_NAME)
    wallet.grow(max(count, 1))
    wallet.grow(1, change=True)
    return wallet


def new_collection(label: str, filename: str, time: int, *, form: Form = SKYCOIN) -> Collection:
    """A wallet for keys from elsewhere, empty."""
    meta = _meta(Collection.kind, label, filename, time, form)
    meta.update(cryptoType=SCRYPT, encrypted="false")
    return Collection(meta)


def new_watching(
    xpub: str, label: str, filename: str, time: int, count: int = 1, *, form: Form = SKYCOIN
) -> Watching:
    """A wallet that watches the children of an extended public key; raises WalletError."""
    parent = parse_public(xpub)
    meta = _meta(Watching.kind, label, filename, time, form)
    wallet = Watching({**meta, "xpub": xpub}, parent=parent)
    if count:
        wallet.grow(count)
    return wallet


def _meta(kind: str, label: str, filename: str, time: int, form: Form) -> dict[str, str]:
    check_label(label)
    check_text(filename, "name")
    return {
        "coin": form.name,
        "filename": filename,
        "label": label,
        "tm": str(time),
        "type": kind,
        "version": VERSION,
    }
