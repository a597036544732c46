"""What is installed: the package list, dropins, entry points, and a real wheel."""

from __future__ import annotations

import configparser
import contextlib
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import twisted.plugins
from twisted.plugin import getCache

from lab.processes import free_ports
from tests.support.sources import INSTALLED, ROOT, python_files


def setup_cfg() -> configparser.ConfigParser:
    """setup.cfg, parsed."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def missing_packages(listed: set[str], files: list[str]) -> set[str]:
    """Packages in which only the list or only the tree believes."""
    tree = {path.rsplit("/", 1)[0].replace("/", ".") for path in files if not path.startswith("plugins/")}
    return (tree | {"twisted.plugins"}) ^ listed


def test_package_list() -> None:
    """The explicit list is the tree."""
    listed = set(setup_cfg()["options"]["packages"].split())
    assert not missing_packages(listed, python_files(*INSTALLED))


def test_package_list_is_compared_both_ways() -> None:
    """A folder that is not listed and a listed one that is not there are both seen."""
    assert missing_packages({"twisted.plugins"}, ["meshnet/new/__init__.py"]) == {"meshnet.new"}
    assert missing_packages({"twisted.plugins", "gone"}, []) == {"gone"}


def test_every_package_has_an_init() -> None:
    """Folders below meshnet, coin and apps are packages; plugins/ and tests/ are not."""
    files = python_files("meshnet", "coin", "apps")
    folders = {path.rsplit("/", 1)[0] for path in files}
    assert not [folder for folder in folders if not (ROOT / folder / "__init__.py").exists()]
    assert not (ROOT / "plugins" / "__init__.py").exists()
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_every_module_imports() -> None:
    """Nothing installed needs anything that is not a dependency."""
    for path in python_files("meshnet", "coin", "apps"):
        if path != "meshnet/cli/main.py":
            importlib.import_module(path.removesuffix(".py").replace("/", ".").removesuffix(".__init__"))


def test_dropins_are_importable() -> None:
    """Each file in plugins/ is seen by twisted as a dropin that loads."""
    names = {Path(path).stem for path in python_files("plugins")}
    for name in names:
        importlib.import_module(f"twisted.plugins.{name}")
    assert names <= set(getCache(twisted.plugins))


def test_entry_points_resolve() -> None:
    """Each console script names something that can be called."""
    for line in setup_cfg()["options.entry_points"]["console_scripts"].strip().splitlines():
        module, name = line.split("=")[1].strip().split(":")
        assert callable(getattr(importlib.import_module(module), name))


def test_constraints_are_exact() -> None:
    """Everything asked for is pinned, by ==."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    assert all("==" in line for line in lines)
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    parsed = setup_cfg()
    asked = parsed["options"]["install_requires"] + parsed["options.extras_require"]["test"]
    wanted = {re.split("[;>[]", line)[0].strip().lower() for line in asked.strip().splitlines()}
    assert wanted - {""} <= pinned


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a checkout holds, so that builds leave no trace in the tree."""
    copy = tmp_path_factory.mktemp("checkout") / "with space"
    skip = shutil.ignore_patterns(".*", "build", "tests", "*.egg-info", "__pycache__", "dropin.cache")
    shutil.copytree(ROOT, copy, ignore=skip)
    return copy


def environment(folder: Path) -> Path:
    """A small environment that sees the packages of the running one; returns its python."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    site = next((folder / "lib").glob("python*/site-packages"))
    # addsitedir would read our own .pth too, which shows the checkout: a plain path does not.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def pip(python: Path, *arguments: str) -> None:
    """The running environment's pip, installing into another one without network."""
    command = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "install"]
    command += ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


PROBE = """
import importlib.metadata, twisted.plugins, pathlib, meshnet
print(meshnet.__file__)
from twisted.plugin import getCache
print(*sorted(getCache(twisted.plugins)))
entry, = [e for e in importlib.metadata.entry_points(group="console_scripts") if e.name == "meshnet"]
print(entry.value)
"""


def probe(python: Path, where: Path) -> list[str]:
    """What an environment sees of the project, from an unrelated folder; its commands work there, too."""
    done = subprocess.run([python, "-P", "-c", PROBE], cwd=where, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for words in ([python.parent / "meshnet"], [python, "-P", "-m", "twisted"]):
        shown = subprocess.run([*words, "--help"], cwd=where, capture_output=True, text=True)
        assert shown.returncode == 0, shown.stderr
        assert ("    socks " if len(words) == 1 else "    meshnet ") in shown.stdout
    serves_nothing(python, where)
    return done.stdout.splitlines()


def serves_nothing(python: Path, where: Path) -> None:
    """Stock `twist web` knows `mesh:`, and says at once that no node runs where it was sent."""
    command = [str(python), "-P", "-m", "twisted", "web", "--listen", "mesh:80"]
    nowhere = {**os.environ, "MESHNET_ATTACH": "/nowhere/attach.sock"}
    done = subprocess.run(command, cwd=where, env=nowhere, capture_output=True, text=True, timeout=30)
    assert "No node answers on /nowhere/attach.sock; start it with meshnet up." in done.stdout + done.stderr
    assert done.returncode != 0


@contextlib.contextmanager
def running(*command: object, log: Path, sign: str) -> Iterator[None]:
    """A process of the installed environment, from when its log has the sign; ended on leaving."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with log.open("w") as out:
        words = [str(word) for word in command]
        process = subprocess.Popen(words, cwd=log.parent, env=clean, stdout=out, stderr=subprocess.STDOUT)
    try:
        for _ in range(400):
            if sign in log.read_text():
                break
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(20)


def serves(python: Path, where: Path) -> None:
    """Two nodes, `twist web` beside one, a fetch beside the other: with installed commands only."""
    meshnet = python.parent / "meshnet"
    (port,) = free_ports(1)
    (where / "www").mkdir()
    (where / "www" / "page").write_text("hello")
    keys: list[str] = []
    for words in (["b", "--listen", f"tcp:127.0.0.1:{port}"], ["a"]):
        peer = ["--peer", f"{keys[0]}@tcp:127.0.0.1:{port}"] if keys else []
        done = subprocess.run([meshnet, "init", *words, *peer, "--json"], cwd=where, capture_output=True)
        assert done.returncode == 0, done.stderr
        keys.append(json.loads(done.stdout)["public_key"])
    web = [python, "-P", "-m", "twisted", "web", "--path", where / "www"]
    with (
        running(meshnet, "up", where / "b", log=where / "b.log", sign="ready"),
        running(meshnet, "up", where / "a", log=where / "a.log", sign="ready"),
        running(*web, "--listen", f"mesh:80:node={where / 'b'}", log=where / "web.log", sign="Starting"),
    ):
        ask = [str(meshnet), "connect", keys[0], "80", "--node", str(where / "a")]
        for _ in range(50):  # until they are linked
            done = subprocess.run(ask, input=b"GET /page HTTP/1.0\r\n\r\n", capture_output=True, timeout=30)
            if done.returncode == 0:
                break
            time.sleep(0.2)
        assert done.stdout.endswith(b"\r\n\r\nhello"), (done, (where / "web.log").read_text())


def test_wheel(checkout: Path, tmp_path: Path) -> None:
    """A wheel holds our packages and dropins and nothing else; installed, twisted sees the dropins."""
    python = environment(tmp_path / "env")
    subprocess.run(
        [sys.executable, "-c", "from setuptools import build_meta; build_meta.build_wheel('.')"],
        cwd=checkout, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = checkout.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {name for name in names if name.endswith(".py")}
    expected = {
        path.replace("plugins/", "twisted/plugins/", 1) if path.startswith("plugins/") else path
        for path in python_files(*INSTALLED)
    }
    assert modules == expected
    assert {"meshnet/py.typed", "apps/py.typed"} <= names
    examples = {name.rsplit("/", 1)[1] for name in names if "/data/share/meshnet/" in name}
    assert examples == {path.name for path in (ROOT / "conf").iterdir()}
    pip(python, str(wheel))
    where, dropins, entry = probe(python, tmp_path)
    assert str(tmp_path) in where
    assert {Path(path).stem for path in python_files("plugins")} <= set(dropins.split())
    assert entry == "meshnet.cli.main:console"


def test_editable(checkout: Path, tmp_path: Path) -> None:
    """`pip install -e .` shows edits and dropins."""
    python = environment(tmp_path / "env")
    pip(python, "-e", str(checkout))
    where, dropins, entry = probe(python, tmp_path)
    assert str(checkout) in where
    assert {Path(path).stem for path in python_files("plugins")} <= set(dropins.split())
    assert entry == "meshnet.cli.main:console"


@pytest.mark.long
@pytest.mark.parametrize("how", [(), ("-e",)])
def test_serves(checkout: Path, tmp_path: Path, how: tuple[str, ...]) -> None:
    """From a fresh copy, installed either way: programs use nodes of their machine."""
    python = environment(tmp_path / "env")
    pip(python, *how, str(checkout))
    serves(python, tmp_path)
