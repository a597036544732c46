"""Bench `idle`: what a node uses that has twenty neighbours and nothing to do.

The node is a process as `meshnet up` starts it; its neighbours are whole nodes that share another process,
which it cannot tell. CPU is what the kernel counts for all its threads, memory what is resident at the end.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from lab.benches.rows import Options, Row
from lab.benches.stream import print_profiles
from lab.nodes import Node, crowd, launch, star
from lab.processes import Processes

NEIGHBOURS = 20
SETTLED = 10.0
"""Seconds between the last handshake and the first look."""


def run(options: Options) -> list[Row]:
    """The two rows; with `profile` a profile of the node goes to stderr."""
    seconds, settled = (5.0, 2.0) if options.quick else (60.0, SETTLED)
    with tempfile.TemporaryDirectory(prefix="meshnet-") as name:
        folder = Path(name)
        profile = folder if options.profile else None
        with Processes() as processes:
            centre, *others = star(folder, ["node", *(f"n{i}" for i in range(NEIGHBOURS))])
            centre.write()
            node = Node(centre, launch(processes, centre, profile))
            node.wait_for_links(0)
            crowd(processes, others)
            node.wait_for_links(NEIGHBOURS)
            time.sleep(settled)
            before, begun = node.process.cpu_seconds(), time.monotonic()
            time.sleep(seconds)
            used, passed = node.process.cpu_seconds() - before, time.monotonic() - begun
            held = node.process.memory()
            note = f"{NEIGHBOURS} neighbours on loopback, {seconds:g} s, nobody looks; all threads"
            rows = [
                Row("idle_cpu_percent", used / passed * 100, "%", 1, target=0.5, note=note),
                Row("idle_rss_mb", held / 1e6, "MB", 1, target=80.0, note="resident at the end of it"),
            ]
        if profile:
            print_profiles(profile)
    return rows
