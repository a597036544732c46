"""How commands print: tables for people, JSON for scripts, progress where a person watches, errors."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from meshnet.errors import MeshError


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
    text = str(error) or type(error).__name__
    if not isinstance(error, MeshError):
        text = f"This should not have happened ({type(error).__name__}: {text}); MESHNET_DEBUG=1 shows where."
    print(f"meshnet: {text}", file=sys.stderr)
    return error.exit_code if isinstance(error, MeshError) else 1
