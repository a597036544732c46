"""The simulated network does what its conditions say, and the same from the same seed."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from lab.simulation.network import Conditions, Network


class PipeTests(SynchronousTestCase):
    """Datagrams through one pipe."""

    def run_pipe(
        self, count: int = 2000, seed: int = 1, **conditions: Any
    ) -> tuple[list[tuple[float, int]], Any]:
        """Sends numbered datagrams of 100 bytes, one a millisecond; when each arrived, and counts."""
        network = Network(seed, Conditions(**conditions))
        arrived: list[tuple[float, int]] = []
        pipe = network.pipe(
            "a", "b", lambda data: arrived.append((network.clock.seconds(), int.from_bytes(data[:4], "big")))
        )
        for number in range(count):
            pipe.send(number.to_bytes(4, "big") + bytes(96))
            network.run(0.001)
        network.run(10)
        return arrived, pipe.counts

    def test_delay(self) -> None:
        """Without anything else all arrive in order, after the delay."""
        arrived, _ = self.run_pipe(10, delay=0.25)
        self.assertEqual([number for _, number in arrived], list(range(10)))
        for when, number in arrived:
            self.assertAlmostEqual(when, 0.25 + number / 1000, places=6)

    def test_same_seed_same_run(self) -> None:
        """A run is a function of its seed."""
        wild = {"loss": 0.1, "jitter": 0.01, "duplicate": 0.1, "reorder": 0.1}
        self.assertEqual(self.run_pipe(seed=5, **wild), self.run_pipe(seed=5, **wild))
        self.assertNotEqual(self.run_pipe(seed=5, **wild), self.run_pipe(seed=6, **wild))

    def test_loss(self) -> None:
        """About the asked share is lost, and counted."""
        arrived, counts = self.run_pipe(loss=0.2)
        self.assertEqual(counts.lost + len(arrived), 2000)
        self.assertTrue(300 < counts.lost < 500, counts)

    def test_duplicates_and_reordering(self) -> None:
        """Some arrive twice, some after later ones."""
        arrived, counts = self.run_pipe(duplicate=0.1, reorder=0.1)
        numbers = [number for _, number in arrived]
        self.assertEqual(len(numbers), 2000 + counts.duplicated)
        self.assertTrue(counts.duplicated > 100)
        self.assertNotEqual(numbers, sorted(numbers))

    def test_mtu(self) -> None:
        """The largest datagram passes, one byte more does not."""
        self.assertEqual(len(self.run_pipe(5, mtu=100)[0]), 5)
        _, counts = self.run_pipe(5, mtu=99)
        self.assertEqual((counts.too_large, counts.delivered), (5, 0))

    def test_rate_and_queue(self) -> None:
        """At half the offered rate the queue fills, then half is dropped."""
        arrived, counts = self.run_pipe(rate=50_000, queue=10_000)
        self.assertTrue(850 < counts.queue_full < 1000, counts)
        gaps = [b[0] - a[0] for a, b in pairwise(arrived)]
        self.assertAlmostEqual(min(gaps), 0.002, places=5)

    def test_partition(self) -> None:
        """Datagrams are lost across a partition, within a group and after healing they pass."""
        network = Network()
        got: list[bytes] = []
        across, within = network.pipe("a", "b", got.append), network.pipe("b", "c", got.append)
        network.partition({"b", "c"})
        across.send(b"1")
        within.send(b"2")
        network.run(1)
        network.heal()
        across.send(b"3")
        network.run(1)
        self.assertEqual(got, [b"2", b"3"])
        self.assertEqual(across.counts.cut_off, 1)

    def test_change_one_way(self) -> None:
        """Conditions can differ by direction."""
        network = Network()
        network.change("a", "b", one_way=True, delay=9.0)
        self.assertEqual(network.conditions("a", "b").delay, 9.0)
        self.assertEqual(network.conditions("b", "a").delay, 0.01)


class TimeTests(SynchronousTestCase):
    """Virtual time."""

    def test_calls_run_at_their_own_time(self) -> None:
        """A long run does not lump its calls together."""
        network, seen = Network(), []
        for delay in (3.0, 1.0, 2.0):
            network.clock.callLater(delay, lambda: seen.append(network.clock.seconds()))
        network.run(10)
        self.assertEqual(seen, [1.0, 2.0, 3.0])
        self.assertEqual(network.clock.seconds(), 10.0)

    def test_run_until(self) -> None:
        """It stops as soon as it is done, and says if it never is."""
        network, seen = Network(), []
        for delay in (1.0, 2.0):
            network.clock.callLater(delay, lambda: seen.append(1))
        self.assertTrue(network.run_until(lambda: len(seen) == 1))
        self.assertEqual(network.clock.seconds(), 1.0)
        self.assertFalse(network.run_until(lambda: len(seen) == 3, limit=5))
