"""Sizes and words of the sources, and checkers that see what is wrong."""

from __future__ import annotations

import pytest

from tests.support.form import empty_words, foreign_paths, oversized, sentences
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


def test_errors_are_sentences() -> None:
    """What commands, the node and apps tell a person begins with a capital and ends with a full stop."""
    told = [
        path
        for path in FILES
        if path.startswith(("meshnet/cli/", "meshnet/node/", "meshnet/control/", "apps/", "coin/"))
    ]
    found = [text for path in told for text in sentences(path, (ROOT / path).read_text())]
    assert told
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text", ['"no rule"', '"No rule"', '"no rule."', 'f"nothing at {x}."', 'f"Nothing at {x}, sorry"']
)
def test_what_is_no_sentence_is_seen(text: str) -> None:
    """A small letter, a missing full stop; but not what is put in, an option or another class."""
    assert list(sentences("a.py", f"raise UsageError({text})"))
    assert not list(sentences("a.py", f"raise ValueError({text})"))
    for right in ('f"{x} is wrong."', 'f"There is no {x}"', '"--via is wrong."', '"Nothing."', "text"):
        assert not list(sentences("a.py", f"raise UsageError({right})"))


def test_no_paths_of_one_machine() -> None:
    """Nothing in the project names a folder of somebody's machine."""
    found = [text for path in TEXTS for text in foreign_paths(path.name, path.read_text(errors="replace"))]
    assert not found, "\n".join(found)


def test_paths_of_one_machine_are_seen() -> None:
    """A home folder is such a path."""
    assert list(foreign_paths("a", "see " + "/home" + "/ann/mesh"))
