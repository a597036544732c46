"""mypy --strict and ruff find nothing."""

from __future__ import annotations

import subprocess
import sys

from tests.support.sources import ROOT


def check(*command: str) -> None:
    """Runs a module of the test tools in the root; fails with what it printed."""
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_mypy() -> None:
    """Types hold, strictly, with zope interfaces understood."""
    check("mypy")


def test_ruff() -> None:
    """The linter finds nothing."""
    check("ruff", "check", "--output-format", "concise", ".")
