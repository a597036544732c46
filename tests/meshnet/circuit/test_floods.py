"""A neighbour that floods circuits through a relay leaves room for others behind the same relay."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from meshnet.circuit.origin import OPEN
from meshnet.circuit.policy import Policy
from meshnet.errors import Reason
from tests.meshnet.circuit.network import FakeNetwork


class FloodTests(SynchronousTestCase):
    """a and b both reach x over r only; all have the same limits."""

    def network(self, **limits: float) -> FakeNetwork:
        """a – r – x, b – r."""
        policy = Policy(**limits)  # type: ignore[arg-type]
        network = FakeNetwork("arxb", policies=dict.fromkeys("arxb", policy))
        network.cut("x", "b")
        network.join(network["r"], network["b"])
        return network

    def test_by_rate(self) -> None:
        """What the flood leaves of x's limit for r, b can use; it goes on so as long as the flood does."""
        network = self.network(creates_per_second=10.0, create_burst=30)
        for _ in range(5):
            for _ in range(100):
                network.open("arx")
            self.assertEqual([network.open("brx").state for _ in range(5)], [OPEN] * 5)
            network.wait(1.0)
        refused = {error.reason for error in network["a"].failed}
        self.assertLessEqual(refused, {Reason.BUSY, Reason.NEXT_BUSY})
        self.assertEqual(network["b"].failed, [])
        self.assertGreater(len(network["a"].built), 30)

    def test_alone(self) -> None:
        """Who is alone gets about two thirds at once, and the whole rate."""
        network = self.network(creates_per_second=10.0, create_burst=30)
        for _ in range(40):
            network.open("arx")
        self.assertGreaterEqual(len(network["a"].built), 19)
        network.wait(3.0)
        before = len(network["a"].built)
        for _ in range(40):
            network.wait(0.1)
            network.open("arx")
        self.assertGreaterEqual(len(network["a"].built) - before, 39)

    def test_in_all(self) -> None:
        """All neighbours together have a rate, too: what is above it is refused before any cryptography."""
        network = self.network(creates_in_all=5.0)
        for _ in range(20):
            network.open("arx")
            network.open("brx")
        self.assertEqual(len(network["a"].built) + len(network["b"].built), 10)
        self.assertEqual({error.reason for error in network["a"].failed}, {Reason.BUSY})
        network.wait(1.0)
        for _ in range(20):
            network.open("arx")
        self.assertEqual(len(network["a"].built) + len(network["b"].built), 15)
