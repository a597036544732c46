"""Scanning ahead: which addresses of a seed were ever used, so that a wallet of words alone finds its coins.

So many addresses are made behind the last one and asked for; those up to the last with any history are kept.
While one was found, as many more are looked at: a gap as long as that ends it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from coin.chain.address import Address
from coin.wallet.base import MOST_ADDRESSES, Wallet
from coin.wallet.bip44 import Bip44
from coin.wallet.errors import UnsuitableError, WalletError

AHEAD: Final = 20
"""Unused addresses behind the last used one that are looked at."""
MOST_AHEAD: Final = 10_000

Active = Callable[[Sequence[Address]], Sequence[bool]]
"""Which of these addresses have any history, in a block or waiting."""


def scan(wallet: Wallet, active: Active, ahead: int = AHEAD, *, again: bool = True) -> Sequence[Address]:
    """Grows the wallet up to its last address with any history, on the chain of change too; the new addresses
    without those of change. `again`: goes on until `ahead` unused ones follow each other; else looks at
    `ahead` once, as the Go node does. Raises WalletError, EncryptedError, UnsuitableError."""
    if not wallet.grows:
        raise UnsuitableError(f"A wallet of type {wallet.kind} has no addresses ahead of it.")
    if not 0 < ahead <= MOST_AHEAD:
        raise WalletError(f"Between 1 and {MOST_AHEAD} addresses are scanned ahead.")
    found = _scan(wallet, active, ahead, again, change=False)
    if isinstance(wallet, Bip44):
        _scan(wallet, active, ahead, again, change=True)
    return found


def _scan(wallet: Wallet, active: Active, ahead: int, again: bool, *, change: bool) -> list[Address]:
    kept: list[Address] = []
    while len(wallet.entries) + ahead <= MOST_ADDRESSES:
        looked = wallet.copy().grow(ahead, change=change)
        last = max((place for place, each in enumerate(active(looked), 1) if each), default=0)
        if last:
            kept += wallet.grow(last, change=change)
        if not last or not again:
            break
    return kept
