"""The verbs of a node's key file: show, encrypt, decrypt, change-password. No running node is needed.

A password is typed twice on a terminal or read from a file; it is never an argument, which every user of
the machine could read.
"""

from __future__ import annotations

import getpass
import os
import secrets
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Final

from meshnet.cipher.keys import dns_label, mesh_ipv6
from meshnet.cipher.sealed import check_password
from meshnet.cli.files import directory_argument, load_settings
from meshnet.cli.show import print_json
from meshnet.control.find import named_path
from meshnet.errors import UsageError
from meshnet.node.dropins import Dropins
from meshnet.node.identity import (
    Password,
    decrypt_key,
    encrypt_key,
    is_encrypted,
    no_password,
    password_from,
    read_key,
    read_public,
)
from meshnet.storage.disk import RealDisk


def ask_password(path: Path) -> bytes:
    """The password of `path`, typed on a terminal; raises KeyFileError where there is none."""
    if not sys.stdin.isatty():
        return no_password(path)
    return getpass.getpass(f"Password of {path}: ", sys.stderr).encode()


def _new_password(path: Path) -> bytes:
    if not sys.stdin.isatty():
        raise UsageError(
            "Nobody is there to type a new password: name a file that holds it with --new-password-file."
        )
    first = getpass.getpass(f"New password of {path}: ", sys.stderr)
    if first != getpass.getpass("The same again: ", sys.stderr):
        raise UsageError("The two passwords differ; nothing was changed.")
    return first.encode()


def _arguments(parser: ArgumentParser) -> None:
    directory_argument(parser)
    parser.add_argument(
        "--password-file", metavar="FILE", help="holds the password (0600); else it is asked for"
    )


def _new_arguments(parser: ArgumentParser) -> None:
    directory_argument(parser)
    parser.add_argument(
        "--new-password-file", metavar="FILE", help="holds the new one (0600); else it is asked for"
    )


def _both_arguments(parser: ArgumentParser) -> None:
    _arguments(parser)
    parser.add_argument("--new-password-file", metavar="FILE", help="the same for the new one")


def _key_file(arguments: Namespace, found: Dropins) -> tuple[Path, Password]:
    """The key file, and where its password comes from. A directory, a config or the key itself is named."""
    path = named_path(arguments.directory or arguments.node or ".")
    named = Path(given) if (given := getattr(arguments, "password_file", None)) else None
    if path.is_dir() or path.suffix == ".toml":
        settings = load_settings(str(path), found)
        path, named = settings.node.key, named or settings.node.password_file
    return path, password_from(RealDisk(), named, os.environ, ask_password)


def _new(arguments: Namespace, path: Path) -> bytes:
    named = Path(arguments.new_password_file) if arguments.new_password_file else None
    password = password_from(RealDisk(), named, {}, _new_password)(path)
    check_password(password)
    return password


def key_show(arguments: Namespace, found: Dropins) -> int:
    """Prints the public key and the names derived from it; never the secret, and without the password."""
    path, _ = _key_file(arguments, found)
    public, encrypted = read_public(RealDisk(), path), is_encrypted(RealDisk(), path)
    names = {"public_key": public.hex(), "dns": f"{dns_label(public)}.mesh", "ipv6": str(mesh_ipv6(public))}
    if arguments.json:
        print_json({**names, "encrypted": encrypted})
    else:
        print("\n".join(names.values()))
    return 0


def key_encrypt(arguments: Namespace, found: Dropins) -> int:
    """Puts the key under a password."""
    path, _ = _key_file(arguments, found)
    if is_encrypted(RealDisk(), path):
        raise UsageError(
            f"{path} is encrypted already; meshnet key change-password gives it another password."
        )
    secret = read_key(RealDisk(), path)
    encrypt_key(RealDisk(), path, secret, _new(arguments, path), secrets.token_bytes)
    return _done(arguments, path, True, "is encrypted now; without its password it is lost, also for you")


def key_decrypt(arguments: Namespace, found: Dropins) -> int:
    """Puts the key in the clear."""
    path, password = _key_file(arguments, found)
    _require_encrypted(path)
    decrypt_key(RealDisk(), path, read_key(RealDisk(), path, password))
    return _done(arguments, path, False, "is in the clear now; who can read it is this node")


def key_change(arguments: Namespace, found: Dropins) -> int:
    """Puts the key under another password."""
    path, password = _key_file(arguments, found)
    _require_encrypted(path)
    secret = read_key(RealDisk(), path, password)
    encrypt_key(RealDisk(), path, secret, _new(arguments, path), secrets.token_bytes)
    return _done(arguments, path, True, "has a new password")


def _require_encrypted(path: Path) -> None:
    if not is_encrypted(RealDisk(), path):
        raise UsageError(f"{path} is not encrypted; meshnet key encrypt does that.")


def _done(arguments: Namespace, path: Path, encrypted: bool, text: str) -> int:
    if arguments.json:
        print_json({"key": str(path), "encrypted": encrypted})
    else:
        print(f"{path} {text}")
    return 0


KeyVerb = tuple[str, str, Callable[[ArgumentParser], None], Callable[[Namespace, Dropins], int]]
KEY_VERBS: Final[tuple[KeyVerb, ...]] = (
    ("show", "print the public key", directory_argument, key_show),
    ("encrypt", "put the key under a password", _new_arguments, key_encrypt),
    ("decrypt", "put the key in the clear", _arguments, key_decrypt),
    ("change-password", "put the key under another password", _both_arguments, key_change),
)
"""Name, summary, arguments, and what runs."""
