"""What the wallet verbs ask a person for, so that no secret stands on a command line: passwords, seeds, keys.

On a terminal they are typed unseen. Without one they are lines of standard input, in the order they are asked
for, or for passwords the first line of `--password-file`.
"""

from __future__ import annotations

import getpass
import hmac
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Final

from coin.wallet.base import Wallet
from coin.wallet.errors import PasswordError
from coin.wallet.words import WordsError, entropy_of
from meshnet.errors import UsageError

LONGEST_LINE: Final = 4_096
"""Characters of a line that are read."""
MOST_LINES: Final = 10_000


def password_argument(parser: ArgumentParser) -> None:
    """`--password-file`."""
    parser.add_argument(
        "--password-file", metavar="PATH", help="the wallet's password is its first line (-: standard input)"
    )


def ask_line(what: str) -> str:
    """One line: typed unseen, or from standard input; empty at its end."""
    try:
        if sys.stdin.isatty():
            return getpass.getpass(f"{what}: ")
        return _first_line(sys.stdin.readline(LONGEST_LINE))
    except EOFError:
        return ""
    except UnicodeDecodeError:
        raise UsageError(f"The {what} is no text in this machine's encoding.") from None


def ask_lines(what: str) -> list[str]:
    """Lines up to an empty one or the end."""
    found: list[str] = []
    while len(found) < MOST_LINES and (line := ask_line(f"{what} (nothing: no more)")):
        found.append(line)
    return found


def ask_password(arguments: Namespace, what: str = "password") -> str:
    """The password of a wallet that is there."""
    named = arguments.password_file
    if named not in (None, "-"):
        path = Path(named).expanduser()
        try:
            with path.open(encoding="utf-8", errors="surrogateescape") as file:
                return _first_line(file.readline(LONGEST_LINE))
        except OSError as error:
            raise UsageError(f"The password file {path} cannot be read: {error.strerror}.") from None
    return ask_line(what)


def new_password(arguments: Namespace) -> str:
    """A password for a wallet: typed twice, so that it is what was meant."""
    password = ask_password(arguments, "new password")
    typed = sys.stdin.isatty() and not arguments.password_file
    if typed and not hmac.compare_digest(_raw(ask_line("the same again")), _raw(password)):
        raise PasswordError("The two passwords are not the same.")
    if not password:
        raise PasswordError("The password must not be empty.")
    return password


def password_for(wallet: Wallet, arguments: Namespace) -> str | None:
    """The password if the wallet is encrypted, else None."""
    return ask_password(arguments, f"password of {wallet.filename}") if wallet.encrypted else None


def ask_seed(*, words: bool) -> str:
    """A seed. `words`: it must be those of BIP 39; else anything may be one, and a person is warned."""
    seed = ask_line("seed")
    if not seed:
        raise UsageError("A seed must not be empty.")
    try:
        entropy_of(seed)
    except WordsError as error:
        if words:
            raise
        if sys.stderr.isatty():
            print(f"{error} It is taken as it is.", file=sys.stderr)
    return seed


def _first_line(text: str) -> str:
    return text.removesuffix("\n").removesuffix("\r")


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
