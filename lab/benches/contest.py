"""Networks that are measured beside each other: each in hosts of its own, all standing while one is measured.

    n0 ── n1 ── n2        and with three relays  n0 ── … ── n4

A `Stand` is a network in a row of hosts with an iperf3 server at its far end; `measure` takes what a round
takes of it. What is asked of one is asked of all, in the same order, with the same programs.
"""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self

from attrs import define, frozen

from lab.benches.ours import Meshnet
from lab.impair import drop, plain
from lab.namespaces import Host, Hosts
from lab.peers import ALL, Peers
from lab.processes import Processes
from lab.shapes import shape
from lab.traffic import Beside, Server, flood, ping, tcp
from meshnet.errors import MeshError

OURS: Final = Meshnet.name
NETWORKS: Final[dict[str, type[Peers]]] = {OURS: Meshnet, **ALL}
ECHOES_A_SECOND: Final = 100
START: Final = 0.5
"""Seconds that a flow runs before what is measured beside it."""


@frozen
class Round:
    """What one round took of one network."""

    tcp_mbps: float
    cpu_per_gb: float
    udp_pps: float
    rtt_idle_ms: float
    rtt_loaded_ms: float


@define(eq=False)
class Stand:
    """A network that stands, and its far end's server."""

    network: Peers
    server: Server

    @classmethod
    def up(cls, name: str, relays: int, processes: Processes, folder: Path, stack: ExitStack) -> Self:
        """Builds hosts, which go with `stack`, and starts the network in them."""
        hosts = stack.enter_context(Hosts())
        row = build_row(hosts, relays + 2)
        network = NETWORKS[name](row, folder)
        network.up(processes)
        server = Server.start(processes, row[-1], network.address, folder / "iperf3.log")
        return cls(network, server)

    @property
    def client(self) -> Host:
        """Who sends."""
        return self.network.row[0]

    def measure(self, seconds: int) -> Round:
        """A whole round. Raises MeshError."""
        echoes = round(seconds * ECHOES_A_SECOND)
        idle = self.echoes(echoes)
        used = self.network.cpu_seconds()
        flow = tcp(self.client, self.server, seconds)
        used = self.network.cpu_seconds() - used
        with Beside(self.client, self.server, seconds + 1):
            loaded = self.echoes(echoes, START)
        packets = flood(self.client, self.server, seconds)
        return Round(flow.mbps, used / (flow.bytes / 1e9), packets.packets_per_second, idle, loaded)

    def echoes(self, count: int, after: float = 0.0) -> float:
        """The median round trip of so many echoes in ms; raises MeshError if half of them get lost."""
        time.sleep(after)
        come = ping(self.client, self.server.address, count, 1 / ECHOES_A_SECOND)
        if come.lost > count / 2:
            raise MeshError(f"{self.network.name}: {come.lost} of {count} echoes did not come back")
        return statistics.median(come.times)

    def lossy(self, share: float) -> None:
        """Makes the cables such as wires are, and drops this share of what reaches the second host."""
        for host in self.network.row:
            plain(host)
        drop(self.network.row[1], share)

    def mbps(self, seconds: int) -> float:
        """One TCP flow."""
        return tcp(self.client, self.server, seconds).mbps


def build_row(hosts: Hosts, count: int) -> list[Host]:
    """So many hosts in a row."""
    made = shape(f"line:{count}")
    row = [hosts.add(name) for name in made.hosts]
    for cable in made.cables:
        hosts.cable(hosts[cable.between[0]], hosts[cable.between[1]])
    return row
