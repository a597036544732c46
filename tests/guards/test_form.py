"""Sizes and words of the sources, and checkers that see what is wrong."""

from __future__ import annotations

import pytest

from tests.support.form import empty_words, foreign_paths, oversized
from tests.support.sources import INSTALLED, ROOT, python_files

FILES = python_files(*INSTALLED, "lab", "tests")
TEXTS = [
    *(
        path for path in ROOT.glob("*.*") if path.is_file() and path.name != ".git"
    ),  # a worktree has such a file
    *(path for folder in ("docs", "conf", ".ci") for path in (ROOT / folder).rglob("*") if path.is_file()),
    *(ROOT / path for path in python_files(*INSTALLED, "lab")),
    ROOT / "mesh",
]


def test_sizes() -> None:
    """Files have at most 600 lines, functions at most 60."""
    found = [text for path in FILES for text in oversized(path, (ROOT / path).read_text())]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("source", ["x = 1\n" * 600, "def f():\n" + "    x = 1\n" * 60])
def test_sizes_are_seen(source: str) -> None:
    """One line more than the ceiling is refused."""
    assert list(oversized("a.py", source))


def test_sizes_allow_the_ceiling() -> None:
    """The ceiling itself is allowed."""
    assert not list(oversized("a.py", "x = 1\n" * 540 + "def f():\n" + "    x = 1\n" * 58 + "    x = 1"))


def test_words() -> None:
    """No file or class is called by a word that says nothing."""
    found = [text for path in FILES for text in empty_words(path, (ROOT / path).read_text())]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("path", "source"),
    [("lab/link_manager.py", ""), ("lab/a.py", "class RouteHandler:\n    pass"), ("meshnet/utils.py", "")],
)
def test_words_are_seen(path: str, source: str) -> None:
    """File and class names are looked at word by word."""
    assert list(empty_words(path, source))


def test_no_paths_of_one_machine() -> None:
    """Nothing in the project names a folder of somebody's machine."""
    found = [text for path in TEXTS for text in foreign_paths(path.name, path.read_text(errors="replace"))]
    assert not found, "\n".join(found)


def test_paths_of_one_machine_are_seen() -> None:
    """A home folder is such a path."""
    assert list(foreign_paths("a", "see " + "/home" + "/ann/mesh"))
