"""Bench `stream`: one stream through three relays, five processes, source and sink inside the end nodes.

The figure is what the sink read, from its first byte to its last on its own clock.
"""

from __future__ import annotations

import os
import pstats
import sys
import tempfile
from pathlib import Path

from lab.benches.rows import Options, Row, row_of
from lab.nodes import Network, chain
from lab.processes import Processes

ROLES = {"alice": "user", "r1": "relay", "r2": "relay", "r3": "relay", "bob": "user"}


def run(options: Options) -> list[Row]:
    """The row stream_3relay_mbps; with `profile` a profile of each node goes to stderr."""
    seconds, runs = (1.0, 1) if options.quick else (10.0, 5)
    with tempfile.TemporaryDirectory(prefix="meshnet-") as folder:
        profile = Path(folder) if options.profile else None
        with Processes() as processes:
            network = Network.start(processes, chain(Path(folder), ROLES), profile, probe=True)
            first, *relays, last = network.nodes
            body = {"target": last.plan.public.hex(), "via": [node.plan.public.hex() for node in relays]}
            send = {**body, "seconds": seconds}
            first.call("POST", "/apps/probe/send", {**send, "seconds": 1.0}, 120.0)  # the window opens
            samples = [
                float(first.call("POST", "/apps/probe/send", send, 120.0)["mbps"]) for _ in range(runs)
            ]
        if profile:
            print_profiles(profile)
    note = f"loopback, {seconds:g} s each, 5 processes on {os.cpu_count()} cores, one stream, one lane"
    return [row_of("stream_3relay_mbps", samples, "Mbit/s", target=600.0, better="higher", note=note)]


def print_profiles(folder: Path) -> None:
    """Each profile of a folder, the dearest functions first, on stderr."""
    for file in sorted(folder.glob("*.pstats")):
        print(f"--- {file.stem}", file=sys.stderr)
        pstats.Stats(str(file), stream=sys.stderr).sort_stats("tottime").print_stats(25)
