"""The end of a circuit: faults inside the session behind it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.meshnet.circuit.network import FakeNetwork


class FaultTests(SynchronousTestCase):
    """A fault of our own code at the end of a circuit costs that circuit, not the neighbour's link."""

    def test_a_session_that_raises(self) -> None:
        """On receiving as on sending: the circuit ends, the far end hears why, the router gets the fault."""
        for way in ("receive", "fill"):
            for guilty in "ab":
                network = FakeNetwork("arb")
                first, last = network.pair("arb")
                last.say(b"first")
                first.say(b"first")
                network.pump()
                session = {"a": first, "b": last}[guilty]
                fault = RuntimeError("a bug")

                def fail(*_: object, fault: RuntimeError = fault) -> int:
                    raise fault

                setattr(session, way, fail)
                for each in (first, last):
                    each.say(b"more")
                network.pump()
                for name in "ab":
                    (error,) = network[name].lost
                    if name == guilty:
                        self.assertIs(error.__cause__, fault)
                        self.assertIn("a bug", str(error))
                    else:
                        self.assertNotIn("a bug", str(error))
                self.assertEqual([list(node.circuits) for node in network.nodes], [[], [], []])
