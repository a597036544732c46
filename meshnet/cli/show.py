"""How commands print: tables for people, JSON for scripts, progress only where a person watches."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any


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
