"""Many searches at once: every store of a node, on every file system, and how many states that were.

Each task is one search (`search.py`) in a process of its own; the list of tasks is fixed, and so are their
seeds, so that a figure can be had again.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

from attrs import define, field, frozen

from lab.crash import databases, generations, sqlite, workloads
from lab.crash.search import Search, Workload
from lab.simulation.models import MODELS, STRICT, Model

SEED = 0
TINY, TORN = STRICT.with_sector(8), STRICT.with_sector(16, torn=True)


@frozen
class Task:
    """One search, by names that another process understands."""

    workload: str
    model: Model
    most: int
    deeper: int = 64
    depth: int = 1
    kills: bool = True
    seed: int = SEED

    def run(self) -> Tally:
        """Search."""
        search = Search(
            stores()[self.workload], self.model, self.most, self.deeper, self.depth, self.seed, self.kills
        )
        report = search.run()
        return Tally(
            report.cuts, report.states, report.checks, report.lost, [str(one) for one in report.losses]
        )


@define
class Tally:
    """Sums over searches, and the traces of what was lost."""

    cuts: int = 0
    states: int = 0
    checks: int = 0
    lost: int = 0
    traces: list[str] = field(factory=list)

    def add(self, other: Tally) -> None:
        """Put another one on top."""
        self.cuts += other.cuts
        self.states += other.states
        self.checks += other.checks
        self.lost += other.lost
        self.traces += other.traces


def stores() -> dict[str, Workload]:
    """Every workload, by name; databases only where APSW is installed."""
    found = of_files()
    if sqlite.available():
        found += databases.all_databases()
    return {workload.name: workload for workload in found}


def of_files() -> list[Workload]:
    """Those without a database."""
    return [*workloads.all_workloads(), *generations.all_generations()]


def tasks(quick: bool = False) -> list[Task]:
    """All of it: more than 100,000 states; `quick`: some thousands."""
    plain = [workload.name for workload in of_files()]
    kept = [name for name in stores() if name not in plain]
    if quick:
        return [
            *(Task(name, STRICT.with_sector(16), 32, 4) for name in plain),
            *(Task(name, STRICT, 2, depth=0, kills=False) for name in kept),
        ]
    large = {"replay log": TINY, "key file": TORN}
    return [
        *(Task(name, model, 1 << 9, 32) for name, model in large.items()),
        *(Task(name, STRICT, 30, 4) for name in kept),
        *(Task(name, model, 1 << 14) for name in plain if name not in large for model in (TINY, TORN)),
        *(Task(name, STRICT.with_sector(16), 1 << 8, 16, depth=2) for name in plain if name not in large),
        *(Task(name, model, 1 << 10) for name in plain for model in MODELS),
        *(Task(name, model, 60, 8) for name in kept for model in MODELS[1:]),
    ]


def count(
    chosen: Sequence[Task],
    processes: int = 0,
    seen: Callable[[int, Tally], object] = lambda done, total: None,
) -> Tally:
    """Run these tasks in so many processes (0: one for each CPU); `seen` hears how many are done."""
    total = Tally()
    processes = min(processes or os.cpu_count() or 1, len(chosen))
    for done, tally in enumerate(_run(chosen, processes), 1):
        total.add(tally)
        seen(done, total)
    return total


def _run(chosen: Sequence[Task], processes: int) -> Iterable[Tally]:
    if processes <= 1:
        yield from (task.run() for task in chosen)
        return
    with ProcessPoolExecutor(processes, multiprocessing.get_context("fork")) as pool:
        for each in as_completed([pool.submit(Task.run, task) for task in chosen]):
            yield each.result()
