"""The key file: the secret key, mode 0600, as 64 hex digits or under a password (`meshnet.cipher.sealed`).

A file that others may read is refused: whoever has read it can be this node. Neither secret nor password ever
appears in an error, a log line or a repr. Beside a key that has never run lies a mark.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from meshnet.cipher.keys import PublicKey, SecretKey
from meshnet.cipher.sealed import LARGEST, Cost, SealedKey, decode, is_sealed, seal
from meshnet.errors import CodecError, LocalError, StorageError, UsageError
from meshnet.limits import SECRET_FILE
from meshnet.storage.disk import Disk, MissingFileError
from meshnet.storage.files import read_file, read_secret, write_file, write_secret

CREDENTIAL: Final = "meshnet.password"
"""Name of the systemd credential that holds the password."""


class KeyFileError(LocalError):
    """A key file is missing, readable by others, or no key."""

    exit_code = 2


def write_key(disk: Disk, path: Path, secret: SecretKey) -> None:
    """A new key file, 0600, durable on return; raises StorageError, also if one is there already."""
    write_secret(disk, path, _text(secret))
    write_file(disk, _mark(path), b"This key has never run; its first start removes this file.\n")


def never_ran(disk: Disk, path: Path) -> bool:
    """Whether this key is certainly new: written by `write_key`, and `ran` was not called since."""
    return disk.exists(_mark(path))


def ran(disk: Disk, path: Path) -> None:
    """Removes the mark of a new key, and sees that the key stays; raises StorageError.

    Whoever wrote the key may have been killed before its name was durable, and from now on others know us.
    """
    mark = _mark(path)
    if disk.exists(mark):
        disk.unlink(mark)
    disk.fsyncdir(mark.parent)


def _mark(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


Password = Callable[[Path], bytes]
"""Given the key file, returns its password; raises KeyFileError where nobody can be asked."""


def no_password(path: Path) -> bytes:
    """Where there is nobody to ask. Always raises KeyFileError."""
    raise KeyFileError(
        f"The key {path} is encrypted and nobody is there to type its password: name a file that holds it in "
        f"[node] password_file, or give the service the credential {CREDENTIAL}."
    )


def password_from(disk: Disk, file: Path | None, environ: Mapping[str, str], ask: Password) -> Password:
    """Where the password comes from: `file` (0600) if the config names one, else the service's credential,
    else `ask`. A file's first line counts, without its end."""

    def password(path: Path) -> bytes:
        credential = Path(environ.get("CREDENTIALS_DIRECTORY", "")) / CREDENTIAL
        try:
            if file is not None:
                return _first_line(read_secret(disk, file))
            if environ.get("CREDENTIALS_DIRECTORY") and disk.exists(credential):
                # systemd guards it by an ACL, whose mask looks like a group's permission
                return _first_line(read_file(disk, credential, SECRET_FILE))
        except MissingFileError:
            raise KeyFileError(f"There is no password file {file}.") from None
        except StorageError as error:
            raise KeyFileError(f"The password cannot be read: {error}.") from None
        return ask(path)

    return password


def _first_line(data: bytes) -> bytes:
    return data.split(b"\n", 1)[0].rstrip(b"\r")


def read_key(disk: Disk, path: Path, password: Password = no_password) -> SecretKey:
    """The node's key pair; `password` is asked if the file is encrypted. Raises KeyFileError."""
    data = _read(disk, path)
    if not is_sealed(data):
        return _plain(path, data)
    sealed = _sealed(path, data)
    try:
        return sealed.open(password(path))
    except UsageError as error:
        raise KeyFileError(f"{path} cannot be opened: {error}") from None
    except (MemoryError, RuntimeError):  # what libsodium's failure is
        megabytes = sealed.cost.memory >> 20
        raise KeyFileError(f"{path} cannot be opened: there are no {megabytes} MiB of free memory.") from None


def read_public(disk: Disk, path: Path) -> PublicKey:
    """Whose key it is, without its password; raises KeyFileError."""
    data = _read(disk, path)
    return _sealed(path, data).public if is_sealed(data) else _plain(path, data).public


def is_encrypted(disk: Disk, path: Path) -> bool:
    """Whether the key lies under a password; raises KeyFileError."""
    return is_sealed(_read(disk, path))


def encrypt_key(
    disk: Disk,
    path: Path,
    secret: SecretKey,
    password: bytes,
    random: Callable[[int], bytes],
    cost: Cost | None = None,
) -> None:
    """Puts the key under a password, in place of the file that is there; durable on return. Raises
    StorageError and, for an empty password, UsageError: then the old file stands."""
    write_secret(disk, path, seal(secret, password, random, cost).encode(), replace=True)


def decrypt_key(disk: Disk, path: Path, secret: SecretKey) -> None:
    """Puts the key in the clear, in place of the file that is there; durable on return."""
    write_secret(disk, path, _text(secret), replace=True)


def _read(disk: Disk, path: Path) -> bytes:
    try:
        return read_secret(disk, path, maximum=LARGEST)
    except MissingFileError:
        raise KeyFileError(f"There is no key at {path}; meshnet init makes one.") from None
    except StorageError as error:
        raise KeyFileError(str(error)) from None


def _plain(path: Path, data: bytes) -> SecretKey:
    try:
        return SecretKey(bytes.fromhex(data.strip().decode("ascii")))
    except (ValueError, UsageError):
        raise KeyFileError(
            f"{path} is no key file: it must hold 64 hex digits, or a key under a password."
        ) from None


def _sealed(path: Path, data: bytes) -> SealedKey:
    try:
        return decode(data)
    except CodecError as error:
        raise KeyFileError(f"{path} is damaged: {error}; put back a copy of it.") from None


def _text(secret: SecretKey) -> bytes:
    return secret.secret.hex().encode() + b"\n"
