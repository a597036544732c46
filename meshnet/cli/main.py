"""The command `meshnet`: so far it knows its version."""

from __future__ import annotations

import sys

from meshnet import __version__


def console() -> None:
    """The console script; exits with the command's code."""
    if sys.argv[1:] == ["--version"]:
        print(__version__)
        sys.exit(0)
    print("meshnet: no such command yet; try ./mesh demo", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    console()
