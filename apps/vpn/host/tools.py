"""The programs of the system that make the changes: where they are, and how they are run.

They are `ip` (iproute2), `nft` (nftables) and `resolvectl` (systemd). They run without a shell, with their
input on stdin and an environment of their own; what they say becomes one sentence. A call blocks for some
milliseconds: whoever runs on a reactor does this in a thread.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Final

from attrs import frozen

from meshnet.errors import LocalError, MissingDependencyError

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where they are looked for: not where an unprivileged user's PATH says."""
PATIENCE: Final = 20.0  # seconds for one call
LONGEST_ANSWER: Final = 16 << 20
"""Characters of an answer that are read; a table of routes may be long."""


@frozen
class Answer:
    """What a program said."""

    code: int
    output: str = ""
    errors: str = ""

    @property
    def why(self) -> str:
        """The first of what it complained of, without a stop."""
        lines = [line.strip() for line in self.errors.splitlines() if line.strip()]
        return (lines[0] if lines else f"it ended with code {self.code}")[:200].rstrip(".")


Run = Callable[[Sequence[str], str], Answer]
"""Runs a program (its path and arguments) with this text on stdin."""


def run(command: Sequence[str], text: str = "") -> Answer:
    """Runs it; raises LocalError if it cannot be run, or does not end."""
    try:
        done = subprocess.run(  # noqa: S603  # no shell; our own words and checked values
            command,
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            env={"PATH": PATH, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        raise LocalError(f"The program {command[0]} did not end within {PATIENCE:.0f} s.") from None
    except OSError as problem:
        raise LocalError(f"The program {command[0]} cannot be run: {problem.strerror}.") from None
    return Answer(done.returncode, done.stdout[:LONGEST_ANSWER], done.stderr[:LONGEST_ANSWER])


@frozen
class Tools:
    """Paths of the programs; None where one is missing."""

    ip: str | None
    nft: str | None
    resolvectl: str | None

    def require_ip(self) -> str:
        """Raises MissingDependencyError."""
        if self.ip is None:
            raise MissingDependencyError("The program ip is missing; install iproute2.")
        return self.ip

    def require_nft(self) -> str:
        """Raises MissingDependencyError."""
        if self.nft is None:
            raise MissingDependencyError("The program nft is missing; install nftables.")
        return self.nft


def find_tools() -> Tools:
    """Those of this machine; none of them where the system is not Linux."""
    if not sys.platform.startswith("linux"):
        return Tools(None, None, None)
    return Tools(*(_find(name) for name in ("ip", "nft", "resolvectl")))


def _find(name: str) -> str | None:
    places = (os.path.join(folder, name) for folder in PATH.split(os.pathsep))
    return next((place for place in places if os.access(place, os.X_OK)), None)
