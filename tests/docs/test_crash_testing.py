"""The page on crash testing: its program runs, and its trace is what the harness prints."""

from __future__ import annotations

import contextlib
import io

from tests.docs.pages import blocks, page


def test_the_program() -> None:
    """Run as it stands, it holds, and prints the trace that the page shows."""
    text = page("docs/crash-testing.md")
    (program,), (trace,) = blocks(text, "python"), blocks(text, "text")
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(program, "docs/crash-testing.md", "exec"), {"__name__": "page"})
    assert said.getvalue().strip() == trace.strip()
