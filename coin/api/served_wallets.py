"""The wallets that the node itself serves: a folder of them in a thread of its own, beside the chain's store.

Every call of the folder runs in that thread, one after the other; scanning asks the store from there, over a
connection of its own. What can be wrong with a wallet is told in the words of the Go node where it has some.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar

from twisted.internet.defer import Deferred

from coin.api.refusals import ApiError, bad
from coin.chain.address import Address
from coin.store.reading import SteadyReader
from coin.wallet.base import Wallet
from coin.wallet.errors import (
    BusyWalletError,
    DuplicateWalletError,
    EncryptedError,
    MissingWalletError,
    NotEncryptedError,
    PasswordError,
    WalletError,
)
from coin.wallet.folder import Folder
from coin.wallet.service import WalletService
from meshnet.node.app import Clock
from meshnet.storage.disk import Disk

if TYPE_CHECKING:
    from coin.api.service import Api
    from coin.store.store import ChainStore

P = ParamSpec("P")
T = TypeVar("T")
NO_WALLETS: Final = "This node serves no wallets; name a folder of them, wallets, in [coin.api]."
GONE: Final = "wallet doesn't exist"
_TEXTS: Final[tuple[tuple[type[WalletError], int, str], ...]] = (
    (MissingWalletError, 404, GONE),
    (EncryptedError, 400, "wallet is encrypted"),
    (NotEncryptedError, 400, "wallet is not encrypted"),
    (PasswordError, 400, "invalid password"),
    (DuplicateWalletError, 400, "a wallet already exists with this seed"),
)


def refusal_of_wallet(error: WalletError) -> ApiError:
    """Why a wallet could not do what was asked, for who asked."""
    if isinstance(error, BusyWalletError):
        return ApiError(503, str(error), headers=((b"Retry-After", b"1"),))
    for kind, status, text in _TEXTS:
        if isinstance(error, kind):
            return ApiError(status, text)
    return bad(str(error))


class ServedWallets:
    """The wallets of a folder under a reactor. `open` comes first, `close` last."""

    def __init__(self, reactor: Any, disk: Disk, path: str, clock: Clock, store: ChainStore) -> None:
        self.path = path
        self.service = WalletService(reactor, Folder(disk, path, secrets.token_bytes, clock.unix))
        self._store = store
        self._reader: SteadyReader | None = None

    def open(self) -> Deferred[None]:
        """Reads all wallets; fails with StorageError."""
        return self.service.call(Folder.open)

    async def call(self, method: Callable[Concatenate[Folder, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of a method of the folder; raises ApiError, StorageError."""
        try:
            return await self.service.call(method, *args, **kwargs)
        except WalletError as error:
            raise refusal_of_wallet(error) from None

    async def get(self, name: str) -> Wallet:
        """A wallet; raises ApiError."""
        return await self.call(Folder.get, name)

    def active(self, addresses: Sequence[Address]) -> Sequence[bool]:
        """Which of these have any history, in a block or waiting. In the wallets' thread."""
        if self._reader is None:
            self._reader = self._store.beside()
        with self._reader.steadily() as reader:
            return [
                reader.transaction_count(each) > 0 or bool(reader.pool.touching(each)) for each in addresses
            ]

    async def close(self) -> None:
        """Takes no more calls."""

        def close(folder: Folder) -> None:
            if self._reader is not None:
                self._reader.close()

        last = self.service.call(close)
        await self.service.close()
        await last


def served(api: Api) -> ServedWallets:
    """The wallets of an API; raises ApiError where there are none."""
    if api.wallets is None:
        raise ApiError(403, NO_WALLETS)
    return api.wallets
