"""The package in docs/transports.md, built, installed beside ours as its reader would, tested, and used."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from meshnet.transports import conformance
from tests.docs.installed import install, linked, new_node, run, running, shown_files

PAGE = "docs/transports.md"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that holds our package and the reader's, installed by pip."""
    return install(PAGE, tmp_path_factory.mktemp("package"))


def test_files() -> None:
    """The page shows four."""
    assert list(shown_files(PAGE)) == [
        "pyproject.toml",
        "meshnet_abstract.py",
        "twisted/plugins/meshnet_abstract_dropin.py",
        "test_meshnet_abstract.py",
    ]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="abstract sockets are Linux'")
def test_its_tests(site: Path, tmp_path: Path) -> None:
    """The reader's test runs our suite, from what is installed."""
    shutil.copy(site.parent / "theirs" / "test_meshnet_abstract.py", tmp_path)
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{tmp_path}"}
    command = [sys.executable, "-P", "-m", "twisted.trial", "test_meshnet_abstract"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    promises = [name for name in dir(conformance.TransportTests) if name.startswith("test_")]
    assert f"PASSED (successes={len(promises)})" in done.stdout, done.stdout
    where = run(site, tmp_path, "-c", "import meshnet; print(meshnet.__file__)").stdout
    assert where.startswith(str(site)), "what is installed, not the checkout"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="abstract sockets are Linux'")
def test_a_node_uses_it(site: Path, tmp_path: Path) -> None:
    """Two installed nodes link over the reader's transport."""
    name = f"meshnet-{uuid4().hex}"
    key = new_node(site, tmp_path, "one", "--listen", f"abstract:{name}")
    new_node(site, tmp_path, "two", "--peer", f"{key}@abstract:{name}")
    with running(site, tmp_path, "one", "two"):
        link = linked(site, tmp_path, "two")
        assert link["up"] and link["address"] == f"abstract:{name}", link
