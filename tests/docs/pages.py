"""Reads the pages: tables by their first heading cells, links, shell blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    ]
)

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```(\w*)$")


def page(name: str) -> str:
    """A page by its path below the root."""
    return (ROOT / name).read_text()


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next of the same or a higher level."""
    level = heading.split(" ")[0]
    start = text.index(f"{heading}\n") + len(heading)
    end = re.search(rf"^#{{1,{len(level)}}} ", text[start:], re.MULTILINE)
    return text[start : start + end.start()] if end else text[start:]


def rows(line: str) -> list[str]:
    """The cells of one line of a table."""
    return [cell.strip() for cell in line.strip().strip("|").split(" | ")]


def tables(text: str) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Head and rows of every table."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("|---"):
            body = []
            for following in lines[number + 1 :]:
                if not following.startswith("|"):
                    break
                body.append(rows(following))
            yield rows(lines[number - 1]), body


def table(text: str, *head: str) -> list[list[str]]:
    """The rows of all tables whose head begins with these cells; there is at least one."""
    found = [body for cells, body in tables(text) if cells[: len(head)] == list(head)]
    assert found, f"no table has the head {head}"
    return [row for body in found for row in body]


def plain(cell: str) -> str:
    """A cell without its backticks."""
    return cell.replace("`", "")


def number(cell: str) -> float:
    """A number with its commas."""
    return float(cell.replace(",", ""))


def links(text: str) -> list[str]:
    """Targets of links and images that are not on the web."""
    return [target for target in _LINK.findall(text) if "://" not in target]


def blocks(text: str, language: str) -> Iterator[str]:
    """Fenced blocks of one language; every fence names one."""
    inside: list[str] | None = None
    opened = ""
    for line in text.splitlines():
        fence = _FENCE.match(line.strip())
        if inside is None and fence is not None:
            assert fence[1], f"a fence without a language: {line}"
            inside, opened = [], fence[1]
        elif inside is not None and fence is not None:
            if opened == language:
                yield "\n".join(inside)
            inside = None
        elif inside is not None:
            inside.append(line)
