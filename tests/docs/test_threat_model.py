"""docs/threat-model.md: each claim names tests that exist, and every attack in tests/threats is named."""

from __future__ import annotations

import re
from pathlib import Path

from tests.docs.pages import ROOT, page, table

CLAIMS = table(page("docs/threat-model.md"), "claim", "what is so", "test")
THREATS = ROOT / "tests" / "threats"


def found_in(file: Path) -> set[str]:
    """Names of the tests of a file."""
    return set(re.findall(r"def (test_\w+)", file.read_text()))


def named() -> set[tuple[Path, str]]:
    """File and test of every test that a claim names."""
    found = set()
    for number, _, cell in CLAIMS:
        names = re.findall(r"`([^`]+)::(test_\w+)`", cell)
        assert names, f"{number} names no test"
        for place, test in names:
            found.add((ROOT / place if "/" in place else THREATS / f"test_{place}.py", test))
    return found


def test_numbers() -> None:
    """Each claim has a number of its own, in order."""
    numbers = [number for number, _, _ in CLAIMS]
    assert len(numbers) == len(set(numbers)) > 30
    for letter in {number[0] for number in numbers}:
        mine = [int(number[1:]) for number in numbers if number[0] == letter]
        assert mine == list(range(1, len(mine) + 1))


def test_claims_have_tests() -> None:
    """What a claim names is there."""
    missing = [(file.name, test) for file, test in named() if not file.exists() or test not in found_in(file)]
    assert not missing


def test_tests_have_claims() -> None:
    """An attack that is played stands for a claim."""
    played = {(file, test) for file in THREATS.glob("test_*.py") for test in found_in(file)}
    assert not {(file.name, test) for file, test in played - named()}
