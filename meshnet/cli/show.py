"""How commands print: tables for people, JSON for scripts, progress where a person watches, errors."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from meshnet.errors import LocalError, MeshError


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(value, indent=2 if sys.stdout.isatty() else None))


def print_table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns under their heads; numbers to the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(head), *(len(row[i]) for row in cells), 0) for i, head in enumerate(heads)]
    right = [
        all(isinstance(row[i], int | float) or row[i] is None for row in rows) for i in range(len(heads))
    ]
    print(
        "  ".join(
            _place(head, width, r) for head, width, r in zip(heads, widths, right, strict=True)
        ).rstrip()
    )
    for row in cells:
        print("  ".join(_place(c, w, r) for c, w, r in zip(row, widths, right, strict=True)).rstrip())


def _place(text: str, width: int, right: bool) -> str:
    return text.rjust(width) if right else text.ljust(width)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def size(count: float) -> str:
    """Bytes for a person: 999 B, 1.5 kB, 20.3 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def progress(text: str) -> None:
    """A line on stderr that the next one overwrites; nothing where no person watches."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def progress_done() -> None:
    """Removes the line."""
    progress("")


def tell(error: BaseException | None) -> int:
    """One sentence on stderr; returns the exit code. With $MESHNET_DEBUG the traceback too."""
    if os.environ.get("MESHNET_DEBUG"):
        traceback.print_exception(error, file=sys.stderr)
    told = as_told(error)
    print(f"meshnet: {whole(str(told)) or type(told).__name__}", file=sys.stderr)
    return told.exit_code


def whole(text: str) -> str:
    """An error's text as a sentence of its own: errors of circuits and links are made to stand inside others,
    too. A name or a key of the config at the beginning stays as it is."""
    first, _, rest = text.partition(" ")
    if first.isalpha() and first.islower() and not rest.startswith(("(", "=")):
        text = f"{text[0].upper()}{text[1:]}"
    return text if not text or text.endswith((".", "!", "?", ":")) else f"{text}."


def as_told(error: BaseException | None) -> MeshError:
    """The error as its user is told of it: a file that cannot be used is no fault of ours, the rest is."""
    if isinstance(error, MeshError):
        return error
    told: MeshError
    if isinstance(error, OSError) and error.filename and error.strerror:
        told = LocalError(f"Cannot use {os.fsdecode(error.filename)}: {error.strerror.lower()}.")
    else:
        what = f"{type(error).__name__}: {error}" if str(error or "") else type(error).__name__
        told = MeshError(f"This should not have happened ({what}); MESHNET_DEBUG=1 shows where.")
    told.__cause__ = error
    return told
