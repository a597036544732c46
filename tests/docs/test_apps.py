"""The package in docs/apps.md, built, installed beside ours as its reader would, and used."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.installed import install, linked, meshnet, new_node, running, shown_files

PAGE = "docs/apps.md"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that holds our package and the reader's, installed by pip."""
    return install(PAGE, tmp_path_factory.mktemp("package"))


def test_files() -> None:
    """The page shows three."""
    assert list(shown_files(PAGE)) == [
        "pyproject.toml",
        "meshnet_notes.py",
        "twisted/plugins/meshnet_notes_dropin.py",
    ]


def test_notes_between_nodes(site: Path, tmp_path: Path) -> None:
    """A note is left at another node, shown there, still there after a restart; who takes none says so."""
    socket = tmp_path / "bob.sock"
    bob = new_node(site, tmp_path, "bob", "--listen", f"unix:{socket}")
    alice = new_node(site, tmp_path, "alice", "--peer", f"{bob}@unix:{socket}")
    with (tmp_path / "bob" / "node.toml").open("a") as config:
        config.write("\n[notes]\nopen = true\n")
    with running(site, tmp_path, "bob", "alice"):
        assert linked(site, tmp_path, "alice")["up"]
        left = meshnet(site, tmp_path, "note", bob, "back at noon", "--node", "alice")
        assert (left.returncode, left.stdout) == (0, "It is note 0 there.\n"), left.stderr
        refused = meshnet(site, tmp_path, "note", alice, "hello", "--node", "bob")
        assert refused.returncode == 5 and "700" in refused.stderr, refused.stderr
    with running(site, tmp_path, "bob"):
        shown = meshnet(site, tmp_path, "notes", "--node", "bob")
        assert shown.stdout == "back at noon\n", shown.stderr


def test_its_section_is_checked(site: Path, tmp_path: Path) -> None:
    """A wrong key of the app's section is named like any other."""
    new_node(site, tmp_path, "carol")
    with (tmp_path / "carol" / "node.toml").open("a") as config:
        config.write("\n[notes]\nopne = true\n")
    checked = meshnet(site, tmp_path, "config", "check", "carol")
    assert checked.returncode == 2 and "notes.opne" in checked.stderr and "open" in checked.stderr
