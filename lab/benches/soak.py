"""Bench `soak`: a long run of eight nodes that fall and rise (`lab.load.soak`). Its faults go to stderr.

Without `--minutes` it takes half an hour, of which the last minute or so is waiting for silence.
"""

from __future__ import annotations

import sys
import time

from lab.benches.rows import Options, Row
from lab.load.soak import DESCRIPTORS_GROW, MEMORY_GROWS, soak

MINUTES = 30.0


def run(options: Options) -> list[Row]:
    """The rows; `soak_faults` counts whatever must not be."""
    seconds = 20.0 if options.quick else (options.minutes or MINUTES) * 60
    seed = int(time.time())
    report = soak(seconds, seed, _say)
    for fault in report.faults:
        print(f"fault: {fault}", file=sys.stderr)
    memory = max(grown for grown, _ in report.growth.values())
    files = max(grown for _, grown in report.growth.values())
    outcomes = ", ".join(f"{number} {name}" for name, number in sorted(report.outcomes.items()))
    streams = f"{report.falls} falls, {report.megabytes:.0f} MB, by both ends: {outcomes}"
    flat = "along the slope of three quarters of the time, of the worse of two nodes that never fell"
    return [
        Row("soak_faults", float(len(report.faults)), "", 1, target=0.0, note=f"seed {seed}, {streams}"),
        Row("soak_minutes", report.seconds / 60, "min", 1),
        Row(
            "soak_survived",
            float(report.survived),
            "",
            1,
            note="ends of streams that outlived a fall",
        ),
        Row("soak_memory_growth_mb", memory / 1e6, "MB", 1, target=MEMORY_GROWS / 1e6, note=flat),
        Row("soak_descriptors_growth", files, "", 1, target=DESCRIPTORS_GROW, note=flat),
    ]


def _say(text: str) -> None:
    """Progress, for a person."""
    if sys.stderr.isatty() or "FAULT" in text:
        print(text, file=sys.stderr, flush=True)
