"""Anything at any time: calls, cuts, partitions, restarts, pings, hang-ups, from a seed; afterwards all works
again and nothing is left over."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest
from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from lab.simulation.network import Conditions
from lab.simulation.nodes import Collector
from meshnet.errors import MeshError
from tests.meshnet.node.routers import RouterCase, residue

NAMES = ("alice", "r1", "r2", "r3", "bob")
RELAYS = ("r1", "r2", "r3")
LINKS = list(pairwise(NAMES))
SEEDS = 12
MANY_SEEDS = 400


class Chaos(RouterCase):
    """One run. Each step is one of the methods whose name begins with `do_`."""

    def run_seed(self, seed: int) -> None:
        """So many random steps, then the checks."""
        self.chance = random.Random(seed)
        delay, loss = self.chance.choice((0.001, 0.02, 0.1)), self.chance.choice((0.0, 0.02))
        self.mesh(NAMES, seed, Conditions(delay=delay, jitter=delay / 2, loss=loss, rate=5e6))
        for one, other in LINKS:
            if self.chance.random() < 0.5:
                self.m.link(other, one)
        self.readers: list[Collector] = []
        self.results: list[Any] = []
        steps = [getattr(self, name) for name in dir(self) if name.startswith("do_")]
        for _ in range(self.chance.randrange(10, 40)):
            self.chance.choice(steps)()
            self.m.network.run(self.chance.choice((0.0, 0.01, 0.1, 1.0, 10.0)))
        self.settle()

    def do_call(self) -> None:
        """A stream, with something to carry."""
        reader, result = self.call(*RELAYS, identity=self.chance.choice(("anonymous", "node")))
        self.readers.append(reader)
        self.results.append(result)
        size = self.chance.choice((0, 10, 100_000, 1_000_000))
        ends = self.chance.random() < 0.5
        result.addCallback(lambda stream: reader.send(bytes(size), finish=ends))
        result.addErrback(self.known)
        if self.chance.random() < 0.1:
            result.cancel()

    def do_ping(self) -> None:
        """A measurement."""
        via = RELAYS[: self.chance.randrange(4)]
        result = self.m["alice"].router.ping(self.m["bob"].public, self.m.route(*via), 3)
        self.results.append(result.addErrback(self.known))

    def do_cut(self) -> None:
        """One connection, or all between two."""
        self.m.internet.sever(*self.chance.choice(LINKS))

    def do_partition(self) -> None:
        """Nothing passes for a while."""
        self.m.network.partition({self.chance.choice(NAMES)})
        self.m.network.run(self.chance.choice((0.1, 5.0, 25.0, 45.0)))
        self.m.network.heal()

    def do_restart(self) -> None:
        """A relay falls and comes back."""
        name = self.chance.choice(RELAYS)
        place = NAMES.index(name)
        self.m.restart(name, NAMES[place + 1])
        if self.chance.random() < 0.3:
            self.m.link(name, NAMES[place - 1])

    def do_reset(self) -> None:
        """Either end gives a stream up."""
        for readers in (self.readers, self.accepted):
            if readers and self.chance.random() < 0.7:
                reader = self.chance.choice(readers)
                if reader.stream is not None:
                    reader.stream.reset(1)

    def do_answer(self) -> None:
        """Bob says something, and perhaps that this was all."""
        for far in self.accepted[-3:]:
            if far.error is None and not far._finish:
                far.send(bytes(1_000), finish=self.chance.random() < 0.5)

    def known(self, failure: Failure) -> None:
        """Whatever goes wrong has a sentence."""
        failure.trap(MeshError, CancelledError)

    def settle(self) -> None:
        """All links come back, a transfer works, and in the end no table holds anything."""
        where = f"seed {self.m.network.seed}"
        self.assertTrue(self.m.network.run_until(self.all_linked, 300), where)
        self.m.network.run(12.0)  # what was lost at the last moment is told, or has timed out
        near = self.open(*RELAYS)
        near.send(bytes(200_000), finish=True)
        far_count = len(self.accepted)
        self.until(
            lambda: any(len(far.got) == 200_000 and far.ended for far in self.accepted[far_count - 1 :])
        )
        for reader in [near, *self.readers, *self.accepted]:
            if reader.stream is not None:
                reader.stream.reset(1)
        self.m.network.run(200)
        for name, node in self.m.nodes.items():
            self.assertEqual(residue(node.router), {}, f"{name}, {where}")
        self.assertTrue(all(result.called for result in self.results), where)
        self.end()

    def all_linked(self) -> bool:
        """Every pair of neighbours."""
        return all(
            self.m[one].router.links.standing(self.m[other].public) is not None
            for pair in LINKS
            for one, other in (pair, pair[::-1])
        )

    def test_some(self) -> None:
        """A few seeds."""
        for seed in range(SEEDS):
            self.run_seed(seed)

    @pytest.mark.long
    def test_many(self) -> None:
        """More of them."""
        for seed in range(1_000, 1_000 + MANY_SEEDS):
            self.run_seed(seed)
