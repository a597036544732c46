"""The long run, with falls (`lab.load.soak`): only with `--long`, half an hour; $MESHNET_SOAK_MINUTES makes
it shorter or longer. `./mesh bench soak --minutes N` is the same by hand."""

from __future__ import annotations

import os
import random
import sys

import pytest

from lab.load.soak import soak


@pytest.mark.long
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_soak() -> None:
    """No byte lost or doubled, no stream lost without need, nothing that grows, no error in any log."""
    minutes = float(os.environ.get("MESHNET_SOAK_MINUTES", "30"))
    seed = random.SystemRandom().getrandbits(32)
    report = soak(minutes * 60, seed)
    assert not report.faults, f"seed {seed}: {report}"
    assert report.outcomes["last whole"] > minutes * 20, f"seed {seed}: {report}"
    assert report.falls > minutes, f"seed {seed}: {report}"
