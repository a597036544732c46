"""Packets of two nodes over three relays, in virtual time."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from lab.simulation.network import Conditions
from lab.simulation.nodes import Collector, Mesh
from tests.support.carrying import Kept, Pile

PORT = 9


class PacketsTests(SynchronousTestCase):
    def flow(self, conditions: Conditions, seed: int = 1) -> tuple[Mesh, Any, Any, Kept, Kept]:
        """A mesh, both ends of a stream over three relays, and what they read."""
        mesh = Mesh(("near", "r1", "r2", "r3", "far"), seed, conditions)
        self.assertTrue(mesh.linked())
        accepted: list[Any] = []

        def accept(stream: Any) -> Collector:
            accepted.append(stream)
            return Collector(stream=stream)

        mesh["far"].router.listen(PORT, accept)
        near = Collector()
        near.stream = mesh.wait(
            mesh["near"].router.connect(
                mesh["far"].public, PORT, near, via=mesh.route("r1", "r2", "r3"), identity="anonymous"
            )
        )
        self.assertTrue(mesh.network.run_until(lambda: bool(accepted), 10))
        return mesh, near.stream, accepted[0], Kept(), Kept()

    def test_exchange(self) -> None:
        """Both ways at once, small and large, over links that lose segments: in order, and all that no relay
        has dropped from a queue that stood."""
        mesh, near, far, read_near, read_far = self.flow(Conditions(delay=0.01, jitter=0.002, loss=0.02))
        there = [number.to_bytes(4, "big") + bytes(60 + 997 * (number % 40)) for number in range(400)]
        back = [number.to_bytes(4, "big") + bytes(80) for number in range(2_000)]
        far.carry(Pile(back), read_far)
        near.carry(Pile(there, near.largest_packets), read_near)
        mesh.network.run_until(lambda: len(read_far.packets) + len(read_near.packets) == 2_400, 30)
        stood = sum(node.router.dropped.get("stood", 0) for node in mesh.nodes.values())
        self.assertEqual(read_near.packets, back)
        left = iter(there)
        self.assertTrue(all(packet in left for packet in read_far.packets))
        self.assertGreaterEqual(len(read_far.packets), 400 - 10 * stood)
        self.assertGreater(near.flow().rate, 1e5)
        mesh.stop()

    def test_a_relay_falls(self) -> None:
        """What is in flight on a lost circuit is lost; the stream and its packets go on over another."""
        mesh, near, far, read_near, read_far = self.flow(Conditions(delay=0.005))
        source = Pile()
        far.carry(Pile(), read_far)
        near.carry(source, read_near)
        clock, sent = mesh.network.clock, 0

        def tell() -> None:
            nonlocal sent
            source.packets.append(sent.to_bytes(4, "big"))
            sent += 1
            near.packets_ready()
            clock.callLater(0.01, tell)

        tell()
        mesh.network.run(1.0)
        mesh.restart("r2", "r3")
        mesh.network.run(20.0)
        numbers = [int.from_bytes(packet, "big") for packet in read_far.packets]
        self.assertGreater(max(numbers), sent - 10)
        self.assertEqual(sorted(set(numbers)), numbers)
        self.assertFalse(near.stopped)
        mesh.network.run(1.0)
        near.reset()
        mesh.stop()
