"""A folder of wallets under a reactor: every call of `Folder` in a thread, one after the other.

Deriving a password's key takes seconds and up to 1 GiB; in one thread there is never more than one of them.
Questions that need no file (`known`) are answered at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Concatenate, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorThreads

from coin.wallet.base import Wallet
from coin.wallet.folder import Folder
from meshnet.storage.service import DiskThread

P = ParamSpec("P")
T = TypeVar("T")


class WalletService:
    """`Folder` for programs that must not wait. The folder belongs to this service from now on."""

    def __init__(self, reactor: IReactorThreads | IReactorFromThreads, folder: Folder) -> None:
        self.folder = folder
        self._thread = DiskThread(reactor)

    def call(
        self, method: Callable[Concatenate[Folder, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        """The result of a method of the folder, such as `call(Folder.new_addresses, name, 3, password)`, or
        of any function that takes it first; fails with what it raises."""
        return self._thread.call(method, self.folder, *args, **kwargs)

    def known(self) -> Mapping[str, Wallet]:
        """All wallets as they were read last, by name; not to be changed."""
        return self.folder.all()

    def close(self) -> Deferred[None]:
        """Takes no more calls; fires when those that wait are done."""
        return self._thread.close()
