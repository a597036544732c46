"""The wrapper `mesh` without a network: what it says where an environment cannot be made."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.sources import ROOT

TOOLS = ("sh", "dirname", "readlink", "sed", "cat", "cksum", "mkdir", "rm", "ln", "chmod")
PRETENDER = """#!/bin/sh
case $2 in
    *version_info*) echo {version} ;;
    *ensurepip*) exit {lacks} ;;
    venv) mkdir -p "$3/bin"; echo "echo 'ERROR: No such package'; exit 1" >"$3/bin/python" ;;
    *) exec "{python}" "$@" ;;
esac
[ "$2" != venv ] || chmod 755 "$3/bin/python"
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
    text = PRETENDER.format(version=version, lacks=int(lacks), python=sys.executable)
    script = checkout.parent / "bin" / name
    script.write_text(text)
    script.chmod(0o755)


def mesh(
    checkout: Path, called: Path | None = None, unprivileged: bool = False
) -> subprocess.CompletedProcess[str]:
    """Runs `./mesh status` there, from another folder, with an empty home."""
    environ = {"PATH": str(checkout.parent / "bin"), "HOME": str(checkout.parent)}
    command = [str(called or checkout / "mesh"), "status"]
    if unprivileged and os.geteuid() == 0:  # root without what lets it write anywhere
        found = shutil.which("setpriv")
        assert found
        command = [found, "--bounding-set=-all", "--inh-caps=-all", *command]
    return subprocess.run(command, env=environ, cwd=os.sep, capture_output=True, text=True, timeout=60)


def test_no_python(checkout: Path) -> None:
    """Without a Python it says what to install."""
    done = mesh(checkout)
    assert (done.returncode, done.stdout) == (3, "")
    assert "no Python 3.11, 3.12 or 3.13 found" in done.stderr


def test_only_a_newer_python(checkout: Path) -> None:
    """A Python that is not supported is none; it is named."""
    for version in ("3.14", "3.10"):
        pretend(checkout, "python3", version, lacks=False)
        done = mesh(checkout)
        assert done.returncode == 3
        assert f"Python {version} is not supported; install 3.11, 3.12 or 3.13" in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root may write anywhere")
def test_read_only(checkout: Path) -> None:
    """A checkout of somebody else: one sentence, nothing is tried."""
    pretend(checkout, "python3", "3.12", lacks=False)
    checkout.chmod(0o555)
    done = mesh(checkout, unprivileged=True)
    checkout.chmod(0o755)
    assert done.returncode == 3
    assert "cannot write to " in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_a_network(checkout: Path) -> None:
    """What pip says in short, where its log is, and what to do; what is half made counts as nothing."""
    pretend(checkout, "python3", "3.12", lacks=False)
    for _ in range(2):
        done = mesh(checkout)
        first, second = done.stderr.splitlines()
        assert (done.returncode, first) == (3, "mesh: pip: No such package")
        assert "is there a network? Then try again" in second
        assert "pip.log" in second


def test_by_a_link(checkout: Path) -> None:
    """Called by links from elsewhere it finds its checkout."""
    (checkout.parent / "first").symlink_to("my checkout/mesh")
    (checkout.parent / "second").symlink_to(checkout.parent / "first")
    assert "sed" not in mesh(checkout, checkout.parent / "second").stderr
    assert "no Python" in mesh(checkout, checkout.parent / "second").stderr


def test_without_ensurepip(checkout: Path) -> None:
    """A Python that cannot make environments: it names the package of that version."""
    pretend(checkout, "python3", "3.12", lacks=True)
    done = mesh(checkout)
    assert done.returncode == 3
    assert "sudo apt install python3.12-venv" in done.stderr
    assert done.stderr.count("\n") == 1
