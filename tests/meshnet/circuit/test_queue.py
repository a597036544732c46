"""Queues at a relay: what all of them hold together, whose turn it is, and when cells are marked."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.aead import backend
from meshnet.circuit.keys import MASK
from meshnet.circuit.messages import CELL_FORWARD, CELL_HEAD, MARKED
from meshnet.circuit.policy import Pool
from meshnet.circuit.relay import Hop
from meshnet.errors import Drop
from meshnet.limits import CELL_HELD, QUEUE_INTERVAL, QUEUE_SECONDS, TURN_BYTES
from tests.meshnet.circuit.network import FakeNetwork, FakeOutlet


class QueueTests(SynchronousTestCase):
    """Hops that share an outlet and a pool."""

    def setUp(self) -> None:
        self.outlet = FakeOutlet()
        self.pool = Pool(1 << 20)

    def hop(self, label: int = 1) -> Hop:
        """A circuit's way out."""
        stream = backend().stream(b"k" * 32)
        return Hop(self.outlet, CELL_FORWARD, label, stream, 0, 61_000, 0.0, self.pool)

    def fill(self, hop: Hop, size: int, count: int, now: float = 1.0) -> list[Drop]:
        """So many cells come."""
        first = max(hop.window.next, 0)
        return [
            hop.relay(seq & MASK, memoryview(bytearray(size)), now, False)
            for seq in range(first, first + count)
        ]

    def test_all_queues_together_are_bounded(self) -> None:
        """Many circuits that wait for one link hold no more than the pool, and each still something."""
        self.outlet.blocked = True
        hops = [self.hop(label) for label in range(200)]
        for _ in range(30):
            for hop in hops:
                self.fill(hop, 1_000, 1)
        self.assertLessEqual(self.pool.used, self.pool.limit)
        self.assertGreaterEqual(min(hop.waiting for hop in hops), 1)
        self.assertEqual(self.pool.used, sum(hop.queued + CELL_HELD * hop.waiting for hop in hops))
        self.assertEqual(sum(hop.waiting + hop.drops[Drop.QUEUE_FULL] for hop in hops), 6_000)
        for hop in hops[:100]:
            hop.close()
        self.outlet.blocked = False
        self.outlet.frames(1.0)
        self.assertEqual(self.pool.used, 0)

    def test_small_cells_cost_too(self) -> None:
        """Cells without content count with what it costs to keep them."""
        self.pool.limit = 100 * CELL_HELD
        self.outlet.blocked = True
        hop = self.hop()
        self.fill(hop, 0, 500)
        self.assertLessEqual(hop.waiting, 25)

    def test_no_room_at_all(self) -> None:
        """Where not even one cell fits, it is the new one that goes."""
        self.outlet.blocked = True
        self.pool.used = self.pool.limit
        hop = self.hop()
        self.assertEqual(self.fill(hop, 100, 2), [Drop.QUEUE_FULL] * 2)
        self.assertEqual((hop.waiting, hop.queued, self.pool.used), (0, 0, self.pool.limit))
        self.outlet.blocked = False
        self.pool.used = 0
        self.assertEqual(self.fill(hop, 100, 1), [Drop.NONE])
        self.assertEqual(len(self.outlet.frames(1.0)), 1)

    def test_turns_count_bytes(self) -> None:
        """Circuits that wait get equal bytes, whatever the size of their cells."""
        self.outlet.blocked = True
        self.pool.limit <<= 4
        large, small = self.hop(1), self.hop(2)
        self.fill(large, 8 * TURN_BYTES // 5, 8)
        self.fill(small, 100, 1_000)
        self.outlet.blocked = False
        sent = {1: 0, 2: 0}
        for _, body in self.outlet.frames(1.0):
            label = int.from_bytes(body[:4], "big")
            sent[label] += len(body)
            if sent[2] < 1_000 * 112 and sent[1] < 8 * (8 * TURN_BYTES // 5 + 12):
                self.assertLess(abs(sent[1] - sent[2]), 4 * TURN_BYTES)
        self.assertEqual(sent, {1: 8 * (8 * TURN_BYTES // 5 + 12), 2: 1_000 * 112})

    def test_long_waits_mark(self) -> None:
        """Cells that have waited long carry the congestion bit, however few they are."""
        self.outlet.blocked = True
        hop = self.hop()
        self.fill(hop, 10, 1, 1.0)
        self.fill(hop, 10, 1, 2.0)
        self.outlet.blocked = False
        kinds = [kind for kind, _ in self.outlet.frames(1.0 + 2 * QUEUE_SECONDS)]
        self.assertEqual(kinds, [CELL_FORWARD | MARKED, CELL_FORWARD])

    def stand(self, hop: Hop, seconds: float, waited: float) -> list[int]:
        """A turn of bytes comes and one leaves every 10 ms, after it has waited so long: the kinds of
        those that left."""
        kinds, now, ahead = [], 10.0, round(waited * 100)
        for number in range(ahead + round(seconds * 100)):
            hop.relay(number, memoryview(bytearray(TURN_BYTES - CELL_HEAD)), now, False)
            if number >= ahead:
                self.outlet.blocked = False
                kinds += [kind for kind, _ in self.once(now)]
                self.outlet.blocked = True
            now += 0.01
        return kinds

    def once(self, now: float) -> list[tuple[int, bytes]]:
        """One source is asked once."""
        source = self.outlet.waiting.popleft()
        if source.pour(now):
            self.outlet.ready(source)
        waiting, self.outlet.waiting = self.outlet.waiting, type(self.outlet.waiting)()
        frames = self.outlet.frames(now)
        self.outlet.waiting = waiting
        return frames

    def test_a_queue_that_stands_is_marked(self) -> None:
        """Its cells wait for 30 ms each, for seconds: some leave marked, more and more; none is dropped."""
        self.outlet.blocked = True
        hop = self.hop()
        kinds = self.stand(hop, 3.0, 0.03)
        marked = [number for number, kind in enumerate(kinds) if kind & MARKED]
        self.assertEqual(len(kinds), 300)
        self.assertGreaterEqual(marked[0], QUEUE_INTERVAL * 100)
        self.assertGreater(sum(number >= 200 for number in marked), sum(number < 100 for number in marked))
        self.assertEqual(hop.marked, len(marked))
        self.assertEqual(hop.drops[Drop.STOOD], 0)

    def test_a_queue_that_goes_on_is_dropped(self) -> None:
        """Where cells wait longer than that, all are marked, and some dropped, until they wait less long."""
        self.outlet.blocked = True
        self.pool.limit <<= 4
        hop = self.hop()
        kinds = self.stand(hop, 5.0, 5 * QUEUE_SECONDS)
        self.assertGreater(hop.drops[Drop.STOOD], 10)
        self.assertEqual(self.pool.used, hop.queued + CELL_HELD * hop.waiting)
        self.assertEqual(self.pool.stood, hop.drops[Drop.STOOD])
        self.assertTrue(all(kind & MARKED for kind in kinds[:100]))
        self.assertLess(hop.waiting, 12)

    def test_a_turn_does_not_stand(self) -> None:
        """A queue of no more than one turn waits for its link alone: no signal, however slow that is."""
        self.outlet.blocked = True
        hop = self.hop()
        kinds = self.stand(hop, 1.0, 0.01)
        self.assertFalse(any(kind & MARKED for kind in kinds))


class SharedPoolTests(SynchronousTestCase):
    """A node's circuits."""

    def test_one_pool_for_a_node(self) -> None:
        """All circuits over a node draw on one pool, and give back what they held when they end."""
        network = FakeNetwork("arb")
        circuits = [network.open("arb") for _ in range(3)]
        pool = network["r"].circuits.pool
        network["r"].link(network["b"]).outlet(0).blocked = True
        for session in network["a"].sessions:
            session.say(b"x" * 1_000)
        network.pump()
        self.assertEqual(pool.used, 3 * (1_000 + 16 + 12 + CELL_HELD))
        for circuit in circuits:
            network["a"].circuits.destroy(circuit, network.now)
        network.pump()
        self.assertEqual(pool.used, 0)
