"""All stores on all file systems, until so many different states were recovered: for benches."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from lab.crash.databases import all_databases
from lab.crash.generations import all_generations
from lab.crash.search import Report, search
from lab.crash.sqlite import available
from lab.crash.workloads import all_workloads
from lab.simulation.models import MODELS, STRICT

SMALL = (STRICT.with_sector(16), STRICT.with_sector(16, torn=True))
"""For stores whose files have a few hundred bytes; a database's pages are written in larger pieces."""


def run(budget: int) -> Iterator[Report]:
    """Searches, until their states are `budget` together. The first round is exhaustive where it can be;
    later ones have other seeds for what is sampled."""
    states, databases = 0, all_databases() if available() else []
    for seed in count():
        for workload in (*all_workloads(), *all_generations(), *databases):
            small = () if workload in databases else SMALL
            for model in (*small, *MODELS):
                report = search(workload, model, seed=seed)
                yield report
                states += report.states
                if states >= budget:
                    return
