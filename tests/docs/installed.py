"""Installs our package, and the one that a page shows, by pip into a directory, as a reader would."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.docs.pages import page
from tests.support.sources import ROOT

_FILE = re.compile(r"^`([\w/.]+)`[^\n]*:\n\n```\w+\n(.*?)```$", re.DOTALL | re.MULTILINE)
_CALL = "import sys; from meshnet.cli.main import console; sys.exit(console())"
PATIENCE = 30.0


def shown_files(name: str) -> dict[str, str]:
    """The files that a page shows, by path."""
    return dict(_FILE.findall(page(name)))


def install(name: str, folder: Path) -> Path:
    """A directory below `folder` that holds our package and that of the page; the page's files lie in
    `folder/theirs`."""
    theirs, ours, site = folder / "theirs", folder / "ours", folder / "site"
    for path, text in shown_files(name).items():
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


def meshnet(site: Path, where: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The installed command."""
    return run(site, where, "-c", _CALL, *words)


def new_node(site: Path, where: Path, name: str, *words: str) -> str:
    """`meshnet init`; the node's key."""
    made = meshnet(site, where, "init", name, *words)
    assert made.returncode == 0, made.stderr
    shown = meshnet(site, where, "key", "show", name, "--json")
    return str(json.loads(shown.stdout)["public_key"])


@contextmanager
def running(site: Path, where: Path, *names: str) -> Iterator[None]:
    """These nodes run, as processes."""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-P", "-c", _CALL, "up", "--node"]
    nodes = [
        subprocess.Popen([*command, name], cwd=where, env=environment, stdout=subprocess.PIPE, text=True)
        for name in names
    ]
    try:
        for node in nodes:
            assert node.stdout is not None and node.stdout.readline(), "a node did not start"
        yield
    finally:
        for node in nodes:
            node.terminate()
            node.wait(PATIENCE)
            assert node.stdout is not None
            node.stdout.close()


def linked(site: Path, where: Path, name: str) -> dict[str, object]:
    """The one link of a node, once it is up, or as it is after many looks."""
    link: dict[str, object] = {}
    for _ in range(100):
        (link,) = json.loads(meshnet(site, where, "links", "--node", name, "--json").stdout)["links"]
        if link["up"]:
            break
    return link
