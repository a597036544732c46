"""How commands print."""

from __future__ import annotations

import contextlib
import io

import pytest

from meshnet.cli.show import tell, whole
from meshnet.errors import CircuitError, Reason


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("there is no link to bob", "There is no link to bob."),
        ("relay 2 (02ab…) is busy; try again later", "Relay 2 (02ab…) is busy; try again later."),
        ("bob (02ab…) refuses", "bob (02ab…) refuses."),
        ("node.toml: relay.max_rate = -1 is less than 0.", "node.toml: relay.max_rate = -1 is less than 0."),
        ("target = 7 is no key", "target = 7 is no key."),
        ("A sentence.", "A sentence."),
        ("", ""),
    ],
)
def test_sentences(text: str, said: str) -> None:
    """A capital letter and a full stop, where there is none; names stay."""
    assert whole(text) == said


def test_tell() -> None:
    """One line, and the exit code."""
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        assert tell(CircuitError("there is no link to bob", Reason.NO_LINK)) == 4
    assert err.getvalue() == "meshnet: There is no link to bob.\n"
