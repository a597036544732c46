"""The project's own Python files, for the guard tests."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
INSTALLED = ("meshnet", "coin", "apps", "plugins")


def python_files(*folders: str) -> list[str]:
    """Paths of .py files under these folders of the root, relative to it, with forward slashes."""
    found = (path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return sorted(path.relative_to(ROOT).as_posix() for path in found)
