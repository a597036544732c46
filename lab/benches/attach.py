"""Bench `attach`: what the local door costs a stream between two programs of their own.

Two linked nodes. A stream runs from one to the other with source and sink inside the nodes (the lab's
probe), then the same with source and sink in processes beside them, stock Twisted with `mesh:` endpoints,
so four processes share the processors that two had before. Both in turn; the ratio is taken pair by pair.
What is counted is what the sink read, from its first byte to its last on its own clock.
"""

from __future__ import annotations

import pstats
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from lab.benches.outside import PORT
from lab.benches.rows import Options, Row, row_of
from lab.nodes import Network, chain
from lab.processes import Processes, environment, python
from meshnet.errors import MeshError

ROLES = {"alice": "user", "bob": "user"}
TARGET = 0.6


def run(options: Options) -> list[Row]:
    """The row attach_vs_inside_ratio; with `profile` a profile of each process goes to stderr."""
    seconds, runs = (1.0, 1) if options.quick else (5.0, 5)
    with tempfile.TemporaryDirectory(prefix="meshnet-") as name:
        folder = Path(name)
        profile = folder if options.profile else None
        with Processes() as processes:
            network = Network.start(processes, chain(folder, ROLES), profile, probe=True)
            _start_sink(processes, network, folder, profile)
            _inside(network, 1.0)  # the window opens
            pairs = [(_inside(network, seconds), _outside(network, seconds, profile)) for _ in range(runs)]
        for file in sorted(folder.glob("*.pstats")):
            print(f"--- {file.stem}", file=sys.stderr)
            pstats.Stats(str(file), stream=sys.stderr).sort_stats("tottime").print_stats(20)
    inside, outside = (statistics.median(each) for each in zip(*pairs, strict=True))
    note = (
        f"loopback, {seconds:g} s each, one stream, no relay; inside {inside:.0f} Mbit/s in 2 processes, "
        f"outside {outside:.0f} Mbit/s in 4"
    )
    ratios = [out / within for within, out in pairs]
    return [row_of("attach_vs_inside_ratio", ratios, "", target=TARGET, better="higher", note=note)]


def _inside(network: Network, seconds: float) -> float:
    body = {"target": network["bob"].plan.public.hex(), "via": [], "seconds": seconds}
    return float(network["alice"].call("POST", "/apps/probe/send", body, 120.0)["mbps"])


def _start_sink(processes: Processes, network: Network, folder: Path, profile: Path | None) -> None:
    watched = profile / "sink.pstats" if profile else None
    attach = str(network["bob"].plan.socket.parent)
    command = python("-m", "lab.benches.outside", "sink", attach, profile=watched)
    sink = processes.start("sink", command, folder / "sink.log")
    sink.wait_for(lambda: "listens" in sink.tail(), 20.0, "its port")


def _outside(network: Network, seconds: float, profile: Path | None) -> float:
    watched = profile / "source.pstats" if profile else None
    attach, target = str(network["alice"].plan.socket.parent), network["bob"].plan.public.hex()
    words = ["source", attach, f"mesh:{target}:{PORT}:via=", str(seconds)]
    done = subprocess.run(
        python("-m", "lab.benches.outside", *words, profile=watched),
        capture_output=True,
        text=True,
        env=environment(),
        timeout=120,
    )
    try:
        return float(done.stdout)
    except ValueError:
        raise MeshError(f"the program beside the node failed: {done.stderr[-500:]}") from None
