"""docs/codec.md: its programs run, and it names all that the package offers."""

from __future__ import annotations

import contextlib
import io
import re

import meshnet.codec
from tests.docs.pages import blocks, page

PAGE = page("docs/codec.md")
UNNAMED = {"Profile", "Buffer"}
"""Two names of types."""


def test_programs_run() -> None:
    """The examples run, one after the other, in one namespace, and what they assert is so."""
    space: dict[str, object] = {"__name__": "example"}
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        for block in blocks(PAGE, "python"):
            exec(compile(block, "docs/codec.md", "exec"), space)
    assert "def parse(data):" in shown.getvalue()


def test_all_is_named() -> None:
    """Every public name stands on the page."""
    missing = [name for name in meshnet.codec.__all__ if not re.search(rf"\b{name}\b", PAGE)]
    assert set(missing) <= UNNAMED, missing
