"""Two operations fail, the second somewhere after the first: nothing that was acknowledged is lost."""

from __future__ import annotations

import errno
from itertools import product

import pytest

from lab.crash import generations, workloads
from lab.crash.search import Search, Workload
from lab.simulation.disk import SimulatedDisk
from lab.simulation.models import STRICT

SMALL = STRICT.with_sector(64)
FAULTS = (("write", errno.EIO), ("sync", errno.EIO), ("syncdir", errno.EIO), ("rename", errno.EIO))
GIVES_UP = {"plain file", "new file", "kept file"}  # at the first fault, so that the second never comes
WORKLOADS = [
    each for each in [*workloads.all_workloads(), *generations.all_generations()] if each.name not in GIVES_UP
]


def twice(workload: Workload, most: int, deeper: int) -> None:
    """Each pair of the first few operations of each kind; in some of them both come."""
    both = 0
    for (word, code), (second, again), after, later in product(FAULTS, FAULTS, range(3), range(2)):
        met: list[bool] = []

        def set_up(disk: SimulatedDisk) -> None:
            disk.met = met  # noqa: B023  (used at once)
            disk.fail(word, code, after)  # noqa: B023
            disk.fail(second, again, later)  # noqa: B023

        report = Search(workload, SMALL, most=most, deeper=deeper, depth=0, kills=False).run(set_up)
        assert not report.lost, f"{word} {after}, {second} {later}\n" + "\n".join(map(str, report.losses))
        both += len(met) > 1
    assert both


def test_two_failing_operations_of_a_compaction() -> None:
    """The one with the most to lose, in every run."""
    twice(generations.compaction(), most=4, deeper=2)


@pytest.mark.long
@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_two_failing_operations(workload: Workload) -> None:
    """Every workload of files and journals."""
    twice(workload, most=8, deeper=2)
