"""The key file: 64 hex digits of the secret key, mode 0600. Beside a key that has never run lies a mark.

A file that others may read is refused: whoever has read it can be this node. The secret never appears in
an error, a log line or a repr.
"""

from __future__ import annotations

from pathlib import Path

from meshnet.cipher.keys import SecretKey
from meshnet.errors import LocalError, StorageError, UsageError
from meshnet.storage.disk import Disk, MissingFileError
from meshnet.storage.files import read_secret, write_file, write_secret


class KeyFileError(LocalError):
    """A key file is missing, readable by others, or no key."""

    exit_code = 2


def write_key(disk: Disk, path: Path, secret: SecretKey) -> None:
    """A new key file, 0600, durable on return; raises StorageError, also if one is there already."""
    write_secret(disk, path, secret.secret.hex().encode() + b"\n")
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


def read_key(disk: Disk, path: Path) -> SecretKey:
    """The node's key pair; raises KeyFileError."""
    try:
        text = read_secret(disk, path, maximum=200).strip()
    except MissingFileError:
        raise KeyFileError(f"There is no key at {path}; meshnet init makes one.") from None
    except StorageError as error:
        raise KeyFileError(str(error)) from None
    try:
        return SecretKey(bytes.fromhex(text.decode("ascii")))
    except (ValueError, UsageError):
        raise KeyFileError(f"{path} is no key file: it must hold 64 hex digits.") from None
