"""`--watch`: the same again every few seconds, in place where a person looks, until Ctrl-C.

The node does nothing for who watches but answer; it does not know that anybody does.
"""

from __future__ import annotations

import io
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Final

SECONDS: Final = 2.0
_LEAST: Final = 0.2
_HOME: Final = "\x1b[H"
_REST_OF_LINE: Final = "\x1b[K"
_REST: Final = "\x1b[J"
_CLEAR: Final = "\x1b[2J"


def seconds(text: str) -> float:
    """A number of seconds between looks."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not _LEAST <= value <= 86_400:
        raise ArgumentTypeError(f"{text!r} is not a number of seconds from {_LEAST} to 86400")
    return value


def watch_arguments(parser: ArgumentParser) -> None:
    """`--watch` and `--every`."""
    parser.add_argument("--watch", action="store_true", help="again and again, until Ctrl-C")
    parser.add_argument(
        "--every",
        type=seconds,
        default=SECONDS,
        metavar="SECONDS",
        help="between looks (default %(default)g)",
    )


def watch(show: Callable[[], None], arguments: Namespace) -> int:
    """Shows once, or with `--watch` until Ctrl-C (KeyboardInterrupt, with the cursor below what was shown).

    On a terminal each look is drawn over the one before, in one write, so that nothing flickers; elsewhere
    they follow each other, with `--json` one object per look. What fails ends it like any verb.
    """
    if not arguments.watch:
        show()
        return 0
    terminal = sys.stdout.isatty()
    if terminal:
        sys.stdout.write(_CLEAR)
    try:
        while True:
            if terminal:
                text = io.StringIO()
                with redirect_stdout(text):
                    show()
                sys.stdout.write(_HOME + text.getvalue().replace("\n", f"{_REST_OF_LINE}\n") + _REST)
            else:
                show()
            sys.stdout.flush()
            time.sleep(arguments.every)
    finally:
        if terminal:
            sys.stdout.write("\n")
            sys.stdout.flush()
