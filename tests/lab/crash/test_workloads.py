"""The stores lose nothing: every state that a power cut may leave, on every file system."""

from __future__ import annotations

import pytest

from lab.crash.search import Workload, search
from lab.crash.workloads import all_workloads
from lab.simulation.models import MODELS, STRICT, Model

SMALL = (STRICT.with_sector(16), pytest.param(STRICT.with_sector(16, torn=True), marks=pytest.mark.long))


@pytest.mark.parametrize("model", [*SMALL, *MODELS], ids=str)
@pytest.mark.parametrize("workload", all_workloads(), ids=lambda workload: workload.name)
def test_nothing_is_lost(workload: Workload, model: Model) -> None:
    """Acknowledged contents are found, others only if they were begun, and recovery never fails."""
    report = search(workload, model, most=512, deeper=16)
    print(report)
    assert not report.lost, "\n".join(map(str, report.losses))
    assert report.states > 3
