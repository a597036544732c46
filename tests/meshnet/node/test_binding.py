"""What is said where an address cannot be bound."""

from __future__ import annotations

import errno
import os
import socket

import pytest
from twisted.internet.error import CannotListenError

from meshnet.node.binding import not_bound


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (
            OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)),
            "in use; stop what uses it",
        ),
        (OSError(errno.EACCES, os.strerror(errno.EACCES)), "choose a port above 1023"),
        (OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL)), "this machine has no such address"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "name or service not known"),
        ("something odd", "something odd"),
    ],
)
def test_sentences(problem: object, words: str) -> None:
    """It names the place, what is wrong, and what helps in that case."""
    text = not_bound("127.0.0.1:80", CannotListenError("127.0.0.1", 80, problem))
    assert text.startswith("Cannot listen on 127.0.0.1:80: ")
    assert words in text
