"""Bench `vpn_soak`: a long run of the VPN with relays that fall (`lab.load.vpn`). Its faults go to stderr."""

from __future__ import annotations

import sys
import time

from lab.benches.rows import Options, Row
from lab.load.soak import DESCRIPTORS_GROW, MEMORY_GROWS
from lab.load.vpn import STALL, soak

MINUTES = 10.0


def run(options: Options) -> list[Row]:
    """The rows; `vpn_soak_faults` counts whatever must not be."""
    seconds = 30.0 if options.quick else (options.minutes or MINUTES) * 60
    seed = int(time.time())
    report = soak(seconds, seed, _say)
    for fault in report.faults:
        print(f"fault: {fault}", file=sys.stderr)
    memory = max(grown for grown, _ in report.growth.values())
    files = max(grown for _, grown in report.growth.values())
    done = ", ".join(f"{number} {name}" for name, number in sorted(report.done.items()))
    falls = f"seed {seed}, {report.falls} falls; done: {done}"
    long = f"between two echoes; {len(report.pauses)} above {STALL / 2:g} s"
    flat = "along the slope of three quarters of the time, of the worse of client and exit"
    return [
        Row("vpn_soak_faults", float(len(report.faults)), "", 1, target=0.0, note=falls),
        Row("vpn_soak_minutes", report.seconds / 60, "min", 1),
        Row("vpn_soak_leaked", float(report.leaked), "", 1, target=0.0, note="packets beside the tunnel"),
        Row("vpn_soak_longest_pause", report.longest_pause, "s", 1, target=STALL, note=long),
        Row("vpn_soak_memory_growth_mb", memory / 1e6, "MB", 1, target=MEMORY_GROWS / 1e6, note=flat),
        Row("vpn_soak_descriptors_growth", files, "", 1, target=DESCRIPTORS_GROW, note=flat),
    ]


def _say(text: str) -> None:
    """Progress, for a person."""
    if sys.stderr.isatty() or "FAULT" in text:
        print(text, file=sys.stderr, flush=True)
