"""Bench `setup`: how long a circuit over three relays takes, and how many a relay does per core.

Five real nodes on loopback. The time is the origin's, from CREATE to CREATED and the last hop's handshake,
one circuit after the other. The rate is of one relay between two ends, its rate limit lifted by config:
circuits set up and torn down, divided by the CPU seconds of the relay's process, since the ends need more
than it does and would hide it on few cores.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from lab.benches.rows import Options, Row, row_of
from lab.nodes import Network, Node, chain
from lab.processes import Processes
from meshnet.errors import MeshError

LIFTED = {"creates_per_second": 1e6, "create_burst": 1_000_000, "creates_in_all": 1e6}


def run(options: Options) -> list[Row]:
    """The two rows; raises MeshError when the nodes do not come up."""
    with tempfile.TemporaryDirectory(prefix="meshnet-") as folder:
        return [*_time(Path(folder) / "time", options), *_rate(Path(folder) / "rate", options)]


def _time(folder: Path, options: Options) -> list[Row]:
    roles = {"alice": "user", "r1": "relay", "r2": "relay", "r3": "relay", "bob": "user"}
    with Processes() as processes:
        plans = chain(folder, roles, {name: {"relay": LIFTED} for name in roles})
        network = Network.start(processes, plans, probe=True)
        count = 20 if options.quick else 200
        _setups(network, 10)  # the first ones load code
        times = _setups(network, count)
    return [
        row_of("setup_3hop_ms", times, "ms", target=5.0, note="loopback, one after the other, 5 processes")
    ]


def _rate(folder: Path, options: Options) -> list[Row]:
    roles = {"alice": "user", "relay": "relay", "bob": "user"}
    rates = []
    with Processes() as processes:
        plans = chain(folder, roles, {name: {"relay": LIFTED} for name in roles})
        network = Network.start(processes, plans, probe=True)
        count = 50 if options.quick else 2000
        _setups(network, 50, together=8)
        for _ in range(1 if options.quick else 5):
            before = cpu_seconds(network["relay"])
            _setups(network, count, together=8)
            rates.append(count / (cpu_seconds(network["relay"]) - before))
    note = (
        f"one relay, per CPU second of its process, {count} circuits a sample, 8 at a time, teardown included"
    )
    return [row_of("setup_per_s_core", rates, "1/s", target=1500.0, better="higher", note=note)]


def _setups(network: Network, count: int, together: int = 1) -> list[float]:
    """Set-up times in ms of circuits from the first node to the last."""
    first, *relays, last = network.nodes
    body = {"target": last.plan.public.hex(), "via": [node.plan.public.hex() for node in relays]}
    answer = first.call("POST", "/apps/probe/setups", {**body, "count": count, "together": together}, 300.0)
    return [float(each) for each in answer["ms"]]


def cpu_seconds(node: Node) -> float:
    """CPU time that a node's process has used, from its metrics."""
    for family in text_string_to_metric_families(node.metrics()):
        for sample in family.samples:
            if sample.name == "process_cpu_seconds_total":
                return float(sample.value)
    raise MeshError("this platform tells no process_cpu_seconds_total")
