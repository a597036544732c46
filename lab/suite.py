"""`./mesh test [--long] [pytest arguments]`: the whole suite, as CI runs it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: list[str]) -> int:
    """Runs pytest in the project's root with -bb (mixing bytes and text is an error); does not return."""
    os.chdir(ROOT)
    sys.stdout.flush()
    command = [sys.executable, "-bb", "-m", "pytest", *(arguments or ["-q"])]
    os.execv(sys.executable, command)  # pytest's closing line and exit code are ours
