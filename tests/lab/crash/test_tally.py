"""The smaller run of what `./mesh bench storage` counts."""

from __future__ import annotations

from lab.crash import tally


def test_nothing_is_lost_in_thousands_of_states() -> None:
    """Every store on the strictest disk; the sums are those of the tasks."""
    heard: list[int] = []
    chosen = tally.tasks(quick=True)
    total = tally.count(chosen, 1, lambda done, _: heard.append(done))
    assert not total.lost, "\n".join(total.traces)
    assert total.states > 1000
    assert heard == list(range(1, len(chosen) + 1))


def test_the_same_in_processes() -> None:
    """Two processes count what one does."""
    chosen = tally.tasks(quick=True)[:3]
    assert tally.count(chosen, 2) == tally.count(chosen, 1)
