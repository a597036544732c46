"""The package in docs/transports.md, built, installed beside ours as its reader would, tested, and used."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from meshnet.transports import conformance
from tests.docs.pages import page
from tests.support.sources import ROOT

_FILE = re.compile(r"^`([\w/.]+)`[^\n]*:\n\n```\w+\n(.*?)```$", re.DOTALL | re.MULTILINE)
PATIENCE = 30.0
CALL = "import sys; from meshnet.cli.main import console; sys.exit(console())"


def files() -> dict[str, str]:
    """The files that the page shows, by path."""
    return dict(_FILE.findall(page("docs/transports.md")))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that holds our package and the reader's, installed by pip."""
    folder = tmp_path_factory.mktemp("package")
    theirs, ours, site = folder / "theirs", folder / "ours", folder / "site"
    for path, text in files().items():
        (theirs / path).parent.mkdir(parents=True, exist_ok=True)
        (theirs / path).write_text(text)
    skip = shutil.ignore_patterns(".*", "build", "tests*", "*.egg-info", "__pycache__", "dropin.cache")
    shutil.copytree(ROOT, ours, ignore=skip)
    for source in (ours, theirs):
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        command += ["--no-deps", "--no-index", "--no-build-isolation", "--upgrade"]
        command += ["--target", str(site), str(source)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return site


def run(site: Path, where: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Python with that directory, and nothing of the checkout, in front."""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-P", *words]
    return subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True)


def test_files() -> None:
    """The page shows four."""
    assert list(files()) == [
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
    made = run(site, tmp_path, "-c", CALL, "init", "one", "--listen", f"abstract:{name}")
    assert made.returncode == 0, made.stderr
    keys = []
    for node in ("one", "two"):
        if node == "two":
            run(site, tmp_path, "-c", CALL, "init", node, "--peer", f"{keys[0]}@abstract:{name}")
        shown = run(site, tmp_path, "-c", CALL, "key", "show", node, "--json")
        keys.append(json.loads(shown.stdout)["public_key"])
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-P", "-c", CALL, "up", "--node"]
    nodes = [
        subprocess.Popen([*command, name], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
        for name in ("one", "two")
    ]
    try:
        for node in nodes:
            assert node.stdout is not None and node.stdout.readline()
        for _ in range(100):
            shown = run(site, tmp_path, "-c", CALL, "links", "--node", "two", "--json")
            (link,) = json.loads(shown.stdout)["links"]
            if link["up"]:
                break
        assert link["up"] and link["address"] == f"abstract:{name}", link
    finally:
        for node in nodes:
            node.terminate()
            node.wait(PATIENCE)
            assert node.stdout is not None
            node.stdout.close()
