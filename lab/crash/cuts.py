"""Power cuts at random points of a node's storage, one after another, on a simulated disk.

The machine starts, everything a node keeps is opened, used, and cut off at a random operation, also while it
is being opened; of what was not durable a random legal part remains. At each start all that was ever told is
checked. One node lives through all the cuts.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from attrs import define, field

from lab.crash import sqlite
from lab.crash.node_stores import LASTING, NodeStores, Told
from lab.crash.states import States
from lab.simulation import subsets
from lab.simulation.disk import PowerCut, SimulatedDisk
from lab.simulation.models import MODELS
from meshnet.errors import MeshError
from meshnet.limits import EXPIRY_AHEAD

FOLDER = Path("/node")
LONGEST = 150
"""At most so many operations between two cuts."""


@define
class Outcome:
    """Cuts, starts that worked after them, things told that were lost (or starts that failed), and how many
    things were told, by kind."""

    cuts: int = 0
    started: int = 0
    lost: int = 0
    told: dict[str, int] = field(factory=dict)
    why: list[str] = field(factory=list)

    def add(self, other: Outcome) -> None:
        """Put another one on top."""
        self.cuts += other.cuts
        self.started += other.started
        self.lost += other.lost
        self.why += other.why
        for kind, count in other.told.items():
            self.told[kind] = self.told.get(kind, 0) + count

    def count(self, kind: str) -> None:
        """One more thing was told; only those that must last count."""
        if kind not in LASTING:
            return
        self.told[kind] = self.told.get(kind, 0) + 1


@define(eq=False)
class Machine:
    """A node's disk, what the node has told, and the clock; `chance` decides everything."""

    chance: random.Random
    disk: SimulatedDisk
    unix: float = 1_800_000_000.0
    told: Told = field(factory=list)

    def stores(self, disk: SimulatedDisk) -> NodeStores:
        """The node's stores on this disk, not yet open."""
        connect = sqlite.connect_on(disk) if sqlite.available() else None
        return NodeStores(disk, FOLDER, f"boot {disk.boots}", self.unix, connect, separate_reader=False)

    def run(self, outcome: Outcome) -> None:
        """Start, work, and lose power somewhere."""
        self.disk.cut_after(self.chance.randint(1, LONGEST))

        def tell(kind: str, value: str) -> None:
            outcome.count(kind)
            self.told.append((kind, value))

        try:
            stores = self.stores(self.disk)
            stores.open()
            stores.tell_identity(tell)
            while True:
                stores.step(self.chance, tell)
        except PowerCut:
            self.disk = self._after()

    def check(self) -> list[str]:
        """Start on a copy; what is not there of all that was told."""
        copy = self.disk.synced()
        copy.boots = self.disk.boots
        try:
            stores = self.stores(copy)
            stores.open()
        except MeshError as fault:
            return [f"it does not start: {fault}"]
        missing = stores.check(self.told)
        self.told = stores.pruned(self.told)
        return missing

    def _after(self) -> SimulatedDisk:
        """One of the states that this cut may leave."""
        chance, states = self.chance, States(self.disk)
        odds = chance.choice((0.0, 1.0, 0.5, chance.random()))
        mask = sum(1 << place for place in range(len(states.lost)) if chance.random() < odds)
        garbage = self.disk.model.garbage and chance.random() < 0.5
        # Not while it is down: only then are onions refused because they may have been seen.
        self.unix += 1.0 if chance.random() < 0.7 else float(EXPIRY_AHEAD + 300)
        return states.disk(subsets.without(states.needs, mask), garbage)


def simulated(cuts: int, seed: int = 0, seen: Callable[[Outcome], object] = lambda _: None) -> Outcome:
    """So many cuts, on nodes with each model of a file system in turn; repeatable by `seed`."""
    total = Outcome()
    for place, model in enumerate(MODELS):
        chance = random.Random(f"{seed} {model.name}")
        machine = Machine(chance, SimulatedDisk(model=model))
        for _ in range(cuts * (place + 1) // len(MODELS) - cuts * place // len(MODELS)):
            machine.run(total)
            total.cuts += 1
            missing = machine.check()
            total.started += not any(why.startswith("it does not start") for why in missing)
            total.lost += len(missing)
            total.why += [f"{model.name}, seed {seed}, cut {total.cuts}: {why}" for why in missing]
            seen(total)
            if missing:
                break
    return total
