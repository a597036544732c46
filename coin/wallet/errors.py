"""What can be wrong with a wallet, or with what is asked of one. No text holds a secret."""

from __future__ import annotations

from meshnet.errors import UsageError


class WalletError(UsageError):
    """A wallet that cannot be read or used."""


class DamagedWalletError(WalletError):
    """A file that is no wallet, or not all of one."""


class MissingWalletError(WalletError):
    """There is no such wallet."""


class BusyWalletError(WalletError):
    """Another process is changing the wallet."""


class DuplicateWalletError(WalletError):
    """A wallet of the same seed, or of the same name, is there already."""


class PasswordError(WalletError):
    """The password is wrong."""


class EncryptedError(WalletError):
    """The wallet is encrypted: what was asked needs the password."""


class NotEncryptedError(WalletError):
    """The wallet is not encrypted, so there is nothing to decrypt and no password."""


class UnsuitableError(WalletError):
    """Wallets of this kind cannot do that."""
