"""Bench `flood`: what a node's other traffic keeps of its rate while somebody floods the node.

    alice ── node ── bob       one stream as fast as it goes, through the flooded node
              │
    strangers and mallory      one kind of flood after the other

The node has one processor core for itself; the ends of the stream and whoever floods share another. So that
the latter's own appetite is not held against the node, a rate under a flood is compared with the rate while
the same strangers, just as fast, connect to a socket that nobody accepts from: both in turn, pair by pair.
So are CREATEs that mallory, a linked neighbour, sends: with as many to another node, which shares his core.
What else he does is compared with the rate just before. He runs at the lowest priority. On a machine with
one core everything shares it, and the note says so.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from attrs import define, evolve

from lab.benches.rows import Options, Row
from lab.nodes import Node, chain, launch, star
from lab.processes import Processes, environment, python
from meshnet.errors import MeshError

RATE: Final = 10_000
STREAMS: Final = 1_000
STRANGERS: Final = {
    "act": "half-open handshakes (a real act one)",
    "garbage": "fifty bytes of noise",
    "silent": "silent connections",
}


def run(options: Options) -> list[Row]:
    """The two rows: the worst of all floods, and the most memory the node had."""
    seconds, pairs = (1.0, 1) if options.quick else (3.0, 5)
    with tempfile.TemporaryDirectory(prefix="meshnet-") as name, Processes() as processes:
        stage = _Stage.begin(Path(name), processes)
        stage.send(1.0)  # the window opens
        ratios = {kind: stage.strangers(kind, seconds, pairs) for kind in STRANGERS}
        ratios["creates"] = [stage.creates(seconds) for _ in range(pairs)]
        for flood in (stage.held, stage.mute):
            ratios[flood.__name__] = stage.beside(flood, seconds, pairs)
        memory = stage.node.process.memory(peak=True)
        beside = stage.node.call("GET", "/status")["totals"]
    worst = min(ratios, key=lambda kind: statistics.median(ratios[kind]))
    medians = ", ".join(f"{kind} {statistics.median(found):.2f}" for kind, found in ratios.items())
    note = (
        f"worst of {medians}; {stage.pace:.0f} strangers/s, stream {stage.quiet:.0f} Mbit/s alone, "
        f"{stage.cores}; {beside['creates']} CREATE of which {beside['creates_refused']} refused"
    )
    found = ratios[worst]
    return [
        Row(
            "rate_under_flood_ratio",
            statistics.median(found),
            "",
            len(found),
            (max(found) - min(found)) / 2,
            target=0.7,
            better="higher",
            note=note,
        ),
        Row("rss_under_flood_mb", memory / 1e6, "MB", 1, target=200.0, note="the most over all floods"),
    ]


@define(eq=False)
class _Stage:
    """The nodes, and who goes where."""

    node: Node
    alice: Node
    bob: Node
    mallory: Node
    other: Node
    cores: str
    pace: float = 0.0
    quiet: float = 0.0

    @classmethod
    def begin(cls, folder: Path, processes: Processes) -> _Stage:
        """Alice, bob and mallory dial the node; the latter two also another, for comparison."""
        plans = star(folder, ["node", "alice", "bob", "mallory"])
        other = chain(folder, {"other": "relay"})[0]
        both = (*plans[1].peers, (other.public, other.link))
        plans = [*plans[:2], *(evolve(plan, peers=both) for plan in plans[2:]), other]
        for plan in plans:
            plan.write()
        nodes = [Node(plan, launch(processes, plan, probe=True)) for plan in plans]
        for node, links in zip(nodes, (3, 1, 2, 2, 2), strict=True):
            node.wait_for_links(links)
        cores = sorted(os.sched_getaffinity(0))
        for node in nodes:
            os.sched_setaffinity(node.process.pid, {cores[0] if node is nodes[0] else cores[-1]})
        os.setpriority(os.PRIO_PROCESS, nodes[3].process.pid, 19)
        told = "the node alone on one core, all others on another" if len(cores) > 1 else "one core for all"
        return cls(nodes[0], nodes[1], nodes[2], nodes[3], nodes[4], told)

    def send(self, seconds: float) -> float:
        """Mbit/s of one stream through the node."""
        keys = {"target": self.bob.plan.public.hex(), "via": [self.node.plan.public.hex()]}
        return float(self.alice.call("POST", "/apps/probe/send", {**keys, "seconds": seconds}, 180.0)["mbps"])

    # Strangers

    def strangers(self, kind: str, seconds: float, pairs: int) -> list[float]:
        """Rate while they are at the node, over the rate while they are at nobody's door."""
        return [self._at(kind, True, seconds) / self._at(kind, False, seconds) for _ in range(pairs)]

    def _at(self, kind: str, node: bool, seconds: float) -> float:
        _, host, port = self.node.plan.link.split(":")
        words = [kind, host, port if node else "0", self.node.plan.public.hex(), str(RATE), str(seconds + 1)]
        crowd = subprocess.Popen(
            python("-m", "lab.load.strangers", *words), stdout=subprocess.PIPE, env=environment()
        )
        core = max(os.sched_getaffinity(self.alice.process.pid))
        os.sched_setaffinity(crowd.pid, {core})
        time.sleep(1.0)
        rate = self.send(seconds)
        tried = json.loads(crowd.communicate()[0])["tried"]
        self.pace = max(self.pace, tried / (seconds + 1))
        return rate

    # Mallory

    def beside(self, flood: Callable[[float], Iterator[None]], seconds: float, pairs: int) -> list[float]:
        """Rate during a flood over the rate just before."""
        found = []
        for _ in range(pairs):
            before = self.send(seconds)
            self.quiet = max(self.quiet, before)
            with contextmanager(flood)(seconds):
                found.append(self.send(seconds) / before)
        return found

    def creates(self, seconds: float) -> float:
        """Rate during CREATEs as fast as mallory seals onions, over that while he sends them elsewhere."""
        with self._circuits(self.node):
            under = self.send(seconds)
        with self._circuits(self.other):
            return under / self.send(seconds)

    @contextmanager
    def _circuits(self, over_node: Node) -> Iterator[None]:
        over = threading.Event()

        def flood() -> None:
            while not over.is_set():
                try:
                    self._mallory("setups", self.bob.plan.public.hex(), 64, 64, over_node)
                except MeshError:
                    continue  # refused, as they should be

        thread = threading.Thread(target=flood)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def held(self, seconds: float) -> Iterator[None]:
        """A thousand streams from the node that mallory never reads."""
        self._mallory("hold", self.node.plan.public.hex(), STREAMS, 50)
        yield
        self._mallory("hold", self.node.plan.public.hex(), 0, 1)

    def mute(self, seconds: float) -> Iterator[None]:
        """Some of them, and then mallory neither reads nor acknowledges anything, nor does his kernel."""
        self._mallory("hold", self.node.plan.public.hex(), 10, 10)
        os.kill(self.mallory.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.mallory.process.pid, signal.SIGCONT)

    def _mallory(self, what: str, target: str, count: int, together: int, over: Node | None = None) -> None:
        via = [over.plan.public.hex()] if over is not None else []
        body = {"target": target, "via": via, "count": count, "together": together}
        self.mallory.call("POST", f"/apps/probe/{what}", body, 120.0)
