"""Faults of our own code cost what they belong to: a circuit or a call, never a neighbour's link."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from lab.simulation.nodes import Collector, Mesh
from meshnet.circuit.admission import Admission
from meshnet.errors import MeshError
from meshnet.session.session import Session


class ContainedTests(SynchronousTestCase):
    """Three routers on the simulated network."""

    def setUp(self) -> None:
        self.mesh = Mesh(("alice", "r1", "bob"), 1)
        self.assertTrue(self.mesh.linked())
        self.far: list[Collector] = []

        def accept(stream: Any) -> Collector:
            self.far.append(Collector(stream=stream))
            return self.far[-1]

        self.mesh["bob"].router.listen(7, accept)

    def connect(self) -> Collector:
        """A stream from alice to bob."""
        reader, mesh = Collector(), self.mesh
        reader.stream = mesh.wait(
            mesh["alice"].router.connect(
                mesh["bob"].public, 7, reader, via=mesh.route("r1"), identity="anonymous"
            )
        )
        return reader

    def links_stand(self) -> None:
        """Each link still runs over its first connection, and carries."""
        for node in self.mesh.nodes.values():
            for link in node.router.brief()["links"]:
                self.assertEqual((link["up"], link["connections"]), (True, 1))
        near = self.connect()
        near.send(b"still here")
        self.mesh.network.run(2)
        self.assertEqual(bytes(self.far[-1].got), b"still here")
        self.mesh.stop()

    def test_a_session_that_raises(self) -> None:
        """A bug met while a cell is read ends its circuit, with a line in the log."""
        near = self.connect()
        with patch.object(Session, "opened", side_effect=RuntimeError("a bug")):
            near.send(b"x")
            self.mesh.network.run(1)
        self.assertIsInstance(near.error, MeshError)
        self.assertGreaterEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.links_stand()

    def test_a_create_that_raises(self) -> None:
        """A bug met in an onion that comes from afar costs that onion: the neighbour only passed it on."""
        with patch.object(Admission, "_admit", side_effect=LookupError("a bug")):
            calls = [
                self.mesh["alice"].router.ping(self.mesh["bob"].public, self.mesh.route("r1"), 1)
                for _ in range(3)
            ]
            for call in calls:
                self.assertRaises(MeshError, self.mesh.wait, call)
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 3)
        self.links_stand()

    def test_a_waiter_that_raises(self) -> None:
        """A bug met when a circuit stands costs that call."""

        def fail(outcome: object, now: float) -> None:
            raise RuntimeError("a bug")

        self.mesh["alice"].router.dial(self.mesh.route("r1", "bob"), None, fail)
        self.mesh.network.run(1)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.links_stand()
