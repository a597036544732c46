"""Long runs: a million inputs for each target, guided by coverage."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.fuzz.registry import TARGETS
from tests.support.sources import ROOT

MILLION = 1_000_000


def campaign(name: str, inputs: int, found: Path) -> tuple[int, dict[str, object]]:
    """Runs one; its exit code and its report."""
    if find_spec("atheris") is None:
        pytest.skip("atheris has no wheel for this Python or platform")
    command = [
        sys.executable,
        "-m",
        "tests.fuzz.campaign",
        name,
        "--inputs",
        str(inputs),
        "--found",
        str(found),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout, done.stderr
    report: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return done.returncode, report


def test_a_short_one(tmp_path: Path) -> None:
    """It runs so many inputs, and says so."""
    code, report = campaign("control", 500, tmp_path)
    assert (code, report["inputs"], report["finding"]) == (0, 500, "")


@pytest.mark.long
@pytest.mark.parametrize("name", TARGETS)
def test_million(name: str, tmp_path: Path) -> None:
    """No finding among a million inputs. A finding's input is to be put into tests/fuzz/corpus."""
    code, report = campaign(name, MILLION, tmp_path)
    print(report)
    kept = [path.read_bytes().hex() for path in tmp_path.iterdir()]
    assert code == 0, (report["finding"], kept)
