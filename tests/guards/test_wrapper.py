"""The wrapper `mesh` without a network: what it says where an environment cannot be made."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.sources import ROOT

TOOLS = ("sh", "dirname", "sed", "cat", "cksum", "mkdir", "rm", "ln")
PRETENDER = """#!/bin/sh
case $2 in
    *version_info*) echo {version} ;;
    *ensurepip*) exit {lacks} ;;
    *) exec {python} "$@" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the wrapper and a path of few commands beside it."""
    folder = tmp_path / "my checkout"
    folder.mkdir()
    for name in ("mesh", "setup.cfg", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found
        (tmp_path / "bin" / tool).symlink_to(found)
    return folder


def pretend(checkout: Path, name: str, version: str, lacks: bool) -> None:
    """A python of this version on the path, with or without what makes environments."""
    text = PRETENDER.format(version=version, lacks=int(lacks), python=shutil.which("python3"))
    script = checkout.parent / "bin" / name
    script.write_text(text)
    script.chmod(0o755)


def mesh(checkout: Path) -> subprocess.CompletedProcess[str]:
    """Runs `./mesh status` there, from another folder, with an empty home."""
    environ = {"PATH": str(checkout.parent / "bin"), "HOME": str(checkout.parent)}
    command = [str(checkout / "mesh"), "status"]
    return subprocess.run(command, env=environ, cwd=os.sep, capture_output=True, text=True, timeout=60)


def test_no_python(checkout: Path) -> None:
    """Without a Python it says what to install."""
    done = mesh(checkout)
    assert (done.returncode, done.stdout) == (3, "")
    assert "no Python 3.11, 3.12 or 3.13 found" in done.stderr


def test_only_a_newer_python(checkout: Path) -> None:
    """A Python that is not supported is none."""
    pretend(checkout, "python3", "3.14", lacks=False)
    assert "no Python 3.11, 3.12 or 3.13 found" in mesh(checkout).stderr


def test_without_ensurepip(checkout: Path) -> None:
    """A Python that cannot make environments: it names the package of that version."""
    pretend(checkout, "python3", "3.12", lacks=True)
    done = mesh(checkout)
    assert done.returncode == 3
    assert "sudo apt install python3.12-venv" in done.stderr
    assert done.stderr.count("\n") == 1
