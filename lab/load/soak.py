"""A long run of eight real nodes with falls: what must hold while nodes are killed and streams come and go.

    n0 ── n1 ── n2 … n7 ── n0, and each also with the next but one: four neighbours each

Streams of seeded content (`lab.load.app`) are opened along random routes, of random size and pace. Now and
then a node is killed (SIGKILL, sometimes SIGTERM) and started again seconds later; n0 and n4 never are, so
that their memory and descriptors can be watched all the time. Counted as faults:

    a byte that is lost, doubled or changed, on any stream, at either end
    a stream that ended with an error, or never ended, although both of its ends lived and no node of its
    route fell within the time in which its loss is noticed and mended
    an error or traceback in any log; a node that ends by itself
    memory or descriptors of n0 or n4 that grow, by `trend.growth`
"""

from __future__ import annotations

import random
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from attrs import define, evolve, field

from lab.load.trend import growth
from lab.nodes import Node, Plan, chain, launch
from lab.processes import Processes
from meshnet.errors import MeshError

NODES: Final = 8
STEADY: Final = ("n0", "n4")
STREAMS: Final = 16  # open at a time
LONGEST: Final = 30  # seconds that a stream takes at its pace
FALL_EVERY: Final = 12.0  # seconds, on the average
DOWN: Final = (0.2, 4.0)  # seconds that a node is away
LOOK_EVERY: Final = 5.0
SETTLE: Final = 75.0  # seconds for the last streams and circuits to go
MENDS: Final = 45.0  # a fall of a relay before or during a stream may have to do with it for so long
MEMORY_GROWS: Final = 8e6  # bytes over the watched time, along the slope
DESCRIPTORS_GROW: Final = 8.0
FAULT: Final = re.compile(r"Traceback|Unhandled|#critical\]|#error\]")


@define
class Flow:
    """A stream that was opened."""

    seed: int
    origin: str
    relays: tuple[str, ...]
    target: str
    opened: float
    outcomes: dict[str, str] = field(factory=dict)
    ended: float = 0.0


@define
class Report:
    """What came of it; `faults` are sentences."""

    seconds: float = 0.0
    falls: int = 0
    megabytes: float = 0.0
    outcomes: Counter[str] = field(factory=Counter)
    survived: int = 0
    """Streams that were whole although a node of their route fell while they were open."""
    growth: dict[str, tuple[float, float]] = field(factory=dict)
    """By steady node: bytes of memory, and descriptors, along the slope."""
    held: dict[str, tuple[int, int]] = field(factory=dict)
    """By steady node, in the end: bytes of memory, descriptors."""
    faults: list[str] = field(factory=list)


def plans(folder: Path) -> list[Plan]:
    """Eight nodes; each dials the next two."""
    row = [chain(folder, {f"n{i}": "relay"})[0] for i in range(NODES)]
    ahead = [[row[(i + step) % NODES] for step in (1, 2)] for i in range(NODES)]
    return [
        evolve(plan, peers=tuple((other.public, other.link) for other in others))
        for plan, others in zip(row, ahead, strict=True)
    ]


def soak(seconds: float, seed: int, say: Callable[[str], None] = lambda text: None) -> Report:
    """Runs it for so long, and then some until all is quiet. Raises MeshError if the nodes do not come up."""
    with tempfile.TemporaryDirectory(prefix="meshnet-soak-") as name, Processes() as processes:
        run = _Run(Path(name), processes, random.Random(seed), say)
        run.start()
        run.drive(seconds)
        return run.finish()


class _Run:
    """One of them."""

    def __init__(
        self, folder: Path, processes: Processes, chance: random.Random, say: Callable[[str], None]
    ) -> None:
        self._folder = folder
        self._processes = processes
        self._chance = chance
        self._say = say
        self._flows: dict[int, Flow] = {}
        self._open: dict[int, Flow] = {}
        self._falls: list[tuple[float, str]] = []
        self._down: dict[str, float] = {}
        self._killed: set[int] = set()
        self._samples: dict[str, list[tuple[float, float, float]]] = {name: [] for name in STEADY}
        self._begun = 0.0
        self.report = Report()

    def start(self) -> None:
        """All nodes, linked."""
        row = plans(self._folder)
        for plan in row:
            plan.write()
        self.nodes = {plan.name: Node(plan, launch(self._processes, plan, probe=True)) for plan in row}
        for node in self.nodes.values():
            node.wait_for_links(4)
        self._begun = time.monotonic()

    def drive(self, seconds: float) -> None:
        """Streams and falls."""
        now = self._begun
        end, look, fall = now + seconds, now, now + self._pause()
        while (now := time.monotonic()) < end:
            if len(self._open) < STREAMS:
                self._begin(now)
            if now >= fall:
                self._fall(now)
                fall = now + self._pause()
            self._raise(now)
            if now >= look:  # the fall of just now counts, so the time is that after it
                self._look(time.monotonic())
                look = now + LOOK_EVERY
            time.sleep(self._chance.uniform(0.02, 0.3))

    def finish(self) -> Report:
        """Waits until all is quiet, and judges."""
        for name in list(self._down):
            self._raise(self._down[name])
        limit = time.monotonic() + SETTLE
        while self._open and time.monotonic() < limit:
            self._look(time.monotonic())
            time.sleep(LOOK_EVERY / 2)
        now = time.monotonic()
        for flow in self._open.values():
            if not self._excused(flow, now, ends_only=True):
                self._fault(f"stream {flow.seed} never ended: {flow}")
        self._judge()
        self.report.seconds = now - self._begun
        return self.report

    def _fault(self, text: str) -> None:
        self.report.faults.append(text)
        self._say(f"{time.monotonic() - self._begun:6.0f} s  FAULT {text}")

    # Streams

    def _begin(self, now: float) -> None:
        chance = self._chance
        up = [name for name in self.nodes if name not in self._down]
        route = [chance.choice(up)]
        for _ in range(chance.choice((1, 2, 2, 3, 4))):
            steps = [name for name in self._neighbours(route[-1]) if name not in route]
            if not steps:
                break
            route.append(chance.choice(steps))
        flow = Flow(chance.getrandbits(31), route[0], tuple(route[1:-1]), route[-1], now)
        keys = {name: node.plan.public.hex() for name, node in self.nodes.items()}
        rate = chance.choice((0, 50_000, 200_000, 1_000_000))
        most = rate * LONGEST if rate else 10_000_000
        body = {
            "target": keys[flow.target],
            "via": [keys[name] for name in flow.relays],
            "seed": flow.seed,
            "there": min(most, self._size()),
            "back": min(most, self._size()),
            "rate": rate,
            "slow": chance.random() < 0.2,
        }
        self._flows[flow.seed] = self._open[flow.seed] = flow
        self._call(flow.origin, "POST", "/apps/load/open", body)

    def _size(self) -> int:
        return int(self._chance.choice((0, 1, 1e3, 1e5, 1e6, 1e7)) * self._chance.random())

    @staticmethod
    def _neighbours(name: str) -> list[str]:
        place = int(name[1:])
        return [f"n{(place + step) % NODES}" for step in (-2, -1, 1, 2)]

    # Falls

    def _pause(self) -> float:
        return self._chance.uniform(0.5, 1.5) * FALL_EVERY

    def _fall(self, now: float) -> None:
        """One node more is away, unless two are already."""
        up = [name for name in self.nodes if name not in self._down and name not in STEADY]
        if len(self._down) >= 2:
            return
        name = self._chance.choice(up)
        process = self.nodes[name].process
        self._collect(name, now)
        self._killed.add(process.pid)
        if self._chance.random() < 0.7:
            process.kill()
        else:
            process.stop()
        self._falls.append((time.monotonic(), name))
        self._down[name] = time.monotonic() + self._chance.uniform(*DOWN)

    def _raise(self, now: float) -> None:
        for name in [name for name, until in self._down.items() if now >= until]:
            node = self.nodes[name]
            node.process = launch(self._processes, node.plan, probe=True)
            del self._down[name]

    # Looking

    def _look(self, now: float) -> None:
        for name in self.nodes:
            self._collect(name, now)
        for name, samples in self._samples.items():
            process = self.nodes[name].process
            samples.append((now, float(process.memory()), float(process.descriptors())))
        for process in self._processes.all:
            if not process.running and process.pid not in self._killed:
                self._killed.add(process.pid)
                self._fault(f"{process.name} ended by itself: {process.tail(5)}")
        for flow in list(self._open.values()):
            if {"origin", "last"} <= flow.outcomes.keys() or self._excused(flow, now - MENDS, ends_only=True):
                flow.ended = now
                del self._open[flow.seed]
        held = self._samples[STEADY[0]][-1]
        self._say(
            f"{now - self._begun:6.0f} s  {len(self._flows)} streams, {len(self._open)} open, "
            f"{len(self._falls)} falls, {len(self.report.faults)} faults; "
            f"{STEADY[0]}: {held[1] / 1e6:.1f} MB, {held[2]:.0f} descriptors"
        )

    def _collect(self, name: str, now: float) -> None:
        answer = self._call(name, "GET", "/apps/load/ended", None)
        for each in (answer or {}).get("ended", ()):
            flow = self._flows.get(each["seed"])
            if flow is None:
                if each["seed"] or each["read"]:
                    self._fault(f"{name} knows a stream that nobody opened: {each}")
                continue
            flow.outcomes[each["role"]] = each["outcome"]
            self.report.outcomes[f"{each['role']} {each['outcome']}"] += 1
            self.report.megabytes += each["read"] / 1e6
            self._weigh(flow, each, now)
            if each["outcome"] == "refused":
                flow.outcomes["last"] = "refused"

    def _weigh(self, flow: Flow, each: dict[str, Any], now: float) -> None:
        outcome = each["outcome"]
        if outcome == "wrong":
            self._fault(f"wrong bytes, {each['why']}: {each}, {flow}")
        elif outcome == "whole":
            self.report.survived += self._fell({*flow.relays}, flow.opened, now)
        elif not self._excused(flow, now):
            self._fault(f"{outcome} without need, {each['why']}: {each}, {flow}")

    def _excused(self, flow: Flow, now: float, ends_only: bool = False) -> bool:
        """Whether falls explain that a stream was not whole: of its ends at any time of its life, or just
        before, when a node may still be starting; of its relays, only where it was refused."""
        ends = {flow.origin, flow.target}
        if self._fell(ends, flow.opened - MENDS, now):
            return True
        refused = "refused" in flow.outcomes.values()
        return refused and not ends_only and self._fell(set(flow.relays), flow.opened - MENDS, now)

    def _fell(self, names: set[str], since: float, until: float) -> bool:
        return any(name in names and since <= when <= until for when, name in self._falls)

    def _call(self, name: str, method: str, path: str, body: dict[str, Any] | None) -> Any:
        """What a node answers, None while it is away."""
        try:
            return self.nodes[name].call(method, path, body, timeout=20.0)
        except MeshError as error:
            young = self._fell({name}, time.monotonic() - MENDS, time.monotonic())
            if name not in self._down and not young:
                self._fault(f"{name} does not answer: {error}")
            return None

    # Judging

    def _judge(self) -> None:
        report = self.report
        report.falls = len(self._falls)
        for name, samples in self._samples.items():
            memory = growth([(when, held) for when, held, _ in samples])
            files = growth([(when, files) for when, _, files in samples])
            report.growth[name] = memory, files
            report.held[name] = int(samples[-1][1]), int(samples[-1][2])
            if memory > MEMORY_GROWS:
                self._fault(f"the memory of {name} grows: {memory / 1e6:.1f} MB along its slope")
            if files > DESCRIPTORS_GROW:
                self._fault(f"the descriptors of {name} grow: {files:.0f} along their slope")
        for node in self.nodes.values():
            text = node.process.log.read_text(errors="replace")
            found = [line for line in text.splitlines() if FAULT.search(line)]
            if found:
                self._fault(f"{node.name} logged {len(found)} errors, the first: {found[0]}")
