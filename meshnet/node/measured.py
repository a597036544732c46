"""What circuits begun here were measured to do: shown for one circuit, summed up for all of them.

Where circuits lead is no label of a metric, since metrics are kept and read elsewhere: /metrics has the
least, the median and the most of all. Reads counts that sessions keep anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from meshnet.session.path import Path

SUMMED: Final = ("rtt_ms", "lost_there", "lost_back", "delivery_rate")
"""What /metrics sums up."""


def probed(path: Path) -> dict[str, float]:
    """What probes of a circuit told: how long each way takes (ms, right within the uncertainty beside them)
    and what is lost on it (shares); empty before the first answer."""
    probing = path.probing
    if probing is None or not probing.answered:
        return {}
    delays = probing.delays
    return {
        "delay_there_ms": round(delays.there * 1e3, 3),
        "delay_back_ms": round(delays.back * 1e3, 3),
        "delay_uncertainty_ms": round(delays.uncertainty * 1e3, 3),
        "lost_there": round(probing.lost_there, 5),
        "lost_back": round(probing.lost_back, 5),
    }


def figures(path: Path) -> dict[str, float]:
    """Round trip (ms), bytes a second that were delivered, and what probes told."""
    return {"rtt_ms": path.rtt * 1e3, "delivery_rate": path.delivery_rate, **probed(path)}


def spread(each: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Of each of `SUMMED` that was measured: `least`, `median` and `most` over these circuits."""
    found = {}
    for name in SUMMED:
        values = sorted(values[name] for values in each if name in values)
        if values:
            found[name] = {"least": values[0], "median": values[len(values) // 2], "most": values[-1]}
    return found


def all_figures(paths: Iterable[Path]) -> dict[str, dict[str, float]]:
    """The same of circuits that have carried an answer."""
    return spread([figures(path) for path in paths if path.rtt])
