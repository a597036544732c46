"""Rows of simulated nodes for the tests of the router, and what may not be left behind in them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from lab.simulation.network import Conditions
from lab.simulation.nodes import Collector, Mesh
from meshnet.circuit.policy import Policy
from meshnet.errors import CircuitError, MeshError
from meshnet.node.router import Router
from meshnet.streams import Stream, StreamReader

ROW = ("alice", "r1", "r2", "r3", "bob")
PORT = 7


def residue(router: Router) -> dict[str, int]:
    """The sizes of every table that a circuit or a stream enters, those that are not empty."""
    sizes = {
        "dialled": len(router.dialling),
        "calls": len(router._calls),
        "conversations": len(router._conversations),
        "sessions": len(router._sessions),
        "orphans": len(router.answering.orphans),
        "renewals": len(router.renewals),
        "joinable": len(router.services.own.sessions),
        "pongs": len(router._pongs),
        "circuits": sum(router.circuits.standing.values()),
    }
    for link in router.links.by_key.values():
        for name in ("forward", "backward", "runs"):
            sizes[name] = sizes.get(name, 0) + len(getattr(link, name))
        sizes["waiting"] = sizes.get("waiting", 0) + link.outlet(0).waiting
    return {name: size for name, size in sizes.items() if size}


class RouterCase(SynchronousTestCase):
    """Five nodes in a row unless a test wants others; bob echoes what comes to PORT."""

    def mesh(
        self,
        names: Sequence[str] = ROW,
        seed: int = 1,
        conditions: Conditions | None = None,
        policies: dict[str, dict[str, Any]] | None = None,
        **policy: Any,
    ) -> Mesh:
        """Linked nodes; `policies` are those of single ones."""
        self.m = Mesh((), seed, conditions, **policy)
        common = self.m.policy
        for name in names:
            self.m.policy = Policy(**(policies or {}).get(name, {})) if policies else common
            self.m.add(name)
        for one, other in pairwise(names):
            self.m.link(one, other)
        assert self.m.linked(), f"no links (seed {seed})"
        self.accepted: list[Collector] = []
        self.ends: dict[int, Collector] = {}
        if "bob" in self.m.nodes:
            self.m["bob"].router.listen(PORT, self.accept)
        return self.m

    def accept(self, stream: Stream) -> StreamReader:
        """Bob's end of a stream."""
        self.accepted.append(Collector(stream=stream))
        return self.accepted[-1]

    def call(
        self, *via: str, identity: str = "anonymous", port: int = PORT, caller: str = "alice"
    ) -> tuple[Collector, Deferred[Stream]]:
        """A stream on its way; its reader gets the stream when it is there."""
        reader = Collector()
        result = self.m[caller].router.connect(
            self.m["bob"].public, port, reader, via=self.m.route(*via), identity=identity
        )

        def connected(stream: Stream) -> Stream:
            reader.stream = stream
            return stream

        return reader, result.addCallback(connected)

    def open(self, *via: str, identity: str = "anonymous") -> Collector:
        """The same, and it stands."""
        reader, result = self.call(*via, identity=identity)
        self.m.wait(result)
        return reader

    def fails(self, result: Deferred[Any], limit: float = 60.0) -> MeshError:
        """Why it failed."""
        error: MeshError = self.assertRaises(MeshError, self.m.wait, result, limit)
        return error

    def blames(self, result: Deferred[Any]) -> tuple[int | None, str]:
        """Which hop a circuit failed at, and the reason's name."""
        error = self.assertRaises(CircuitError, self.m.wait, result)
        self.said = str(error)
        return error.hop, error.reason.name

    def until(self, done: Any, limit: float = 60.0) -> None:
        """Lets time pass until it is so."""
        self.assertTrue(
            self.m.network.run_until(done, limit), f"not in {limit:g} s (seed {self.m.network.seed})"
        )

    def exchange(self, near: Collector, data: bytes = b"hello") -> Collector:
        """Sends from alice and answers from bob; bob's end."""
        before, answered = len(self.accepted), len(near.got)
        near.send(data)
        if id(near) not in self.ends:
            self.until(lambda: len(self.accepted) > before)
            self.ends[id(near)] = self.accepted[-1]
        far = self.ends[id(near)]
        self.until(lambda: bytes(far.got).endswith(data))
        far.send(data[::-1])
        self.until(lambda: len(near.got) == answered + len(data))
        self.assertEqual(bytes(near.got[answered:]), data[::-1])
        return far

    def clean(self, seconds: float = 100.0) -> None:
        """After a while every table of every node is empty; then they end, and nothing is left to happen."""
        self.m.network.run(seconds)
        for name, node in self.m.nodes.items():
            self.assertEqual(residue(node.router), {}, name)
        self.end()

    def end(self) -> None:
        """All nodes end; nothing is left to happen."""
        self.m.stop()
        self.assertEqual(self.m.network.clock.getDelayedCalls(), [])
        self.assertEqual(self.m.internet.connections, [])
