"""What strangers' records can do to a node: bounded memory, bounded talk, no false ways."""

from __future__ import annotations

import contextlib
import tracemalloc
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from lab.simulation.gossip import START, GossipNetwork
from lab.simulation.graphs import grid
from meshnet.errors import CodecError
from meshnet.limits import RECORD_BURST, RECORD_STEP, RECORDS_APART_PER_PEER, RECORDS_WANTED
from meshnet.topology import frames
from meshnet.topology.book import Book, Verdict
from meshnet.topology.choice import long_way
from meshnet.topology.claims import Mark
from meshnet.topology.record import LARGEST, Name, recall
from meshnet.topology.spread import Spread
from tests.support.topology import UNIX, data, key, name, record, row

SYBILS = 10_000
EACH = 12_000  # bytes that a record kept may take, with its place in graph and tables
SEED = 66


class Sybils(SynchronousTestCase):
    """Ten thousand keys that one neighbour invents."""

    def test_memory(self) -> None:
        """They cost this node what the places for records apart cost, and no more however many come; its
        other neighbours are told of none. Signatures are taken as good: they are not what is tested."""
        made = data(99, [row(98)])
        book = Book(1, name(1), lambda held: recall(held))
        spread = Spread(book)
        for number in (2, 3):
            spread.up(name(number), 1e6, 0.0)
        spread.publish(record(1, [row(2), row(3)]), 0.0)
        spread.receive(name(3), frames.RECORD, data(3, [row(1)]), 0.0, UNIX)
        spread.frames(name(3), 1.0)
        spread.frames(name(3), 2.0)
        keys = [key(1_000 + number).public for number in range(SYBILS)]
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        half = 0
        for number in range(SYBILS):
            forged = bytearray(made)
            forged[5:38] = keys[number]
            spread.receive(name(2), frames.RECORD, bytes(forged), 3.0, UNIX)
            if number == SYBILS // 2:
                half = tracemalloc.get_traced_memory()[0] - before
        taken = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        self.assertEqual(book.counts[Verdict.APART], SYBILS)
        self.assertEqual(len(book), 2 + RECORDS_APART_PER_PEER)
        self.assertEqual(book.attached, 2)
        self.assertLess(taken, RECORDS_APART_PER_PEER * EACH)
        self.assertLess(taken, 1.25 * half)
        self.assertNotIn(frames.OFFER, [kind for kind, _ in spread.frames(name(3), 5.0)])

    def test_offers(self) -> None:
        """Names without end that nobody has fill a neighbour's own places, and are forgotten when it does not
        send what it offered."""
        spread = Spread(Book(1, name(1)))
        spread.up(name(2), 1e6, 0.0)
        random = Random(SEED)
        for _ in range(20):
            rows = [(Name(random.randbytes(8)), UNIX) for _ in range(1_000)]
            spread.receive(name(2), frames.OFFER, frames.put_rows(rows), 0.0, UNIX)
        self.assertEqual(len(spread._wants), RECORDS_WANTED)
        now = 0.0
        for _ in range(100):
            now += 2.0
            spread.frames(name(2), now)
            spread.tick(now, UNIX + now)
        self.assertEqual(len(spread._wants), 0)
        self.assertEqual(len(spread._waiting), 0)


class Statements(SynchronousTestCase):
    """Single records that are not what they should be."""

    def setUp(self) -> None:
        """Node 1 with neighbour 2."""
        self.book = Book(1, name(1))
        self.book.publish(record(1, [row(2)]), 0.0)
        self.good = data(2, [row(1)])

    def take(self, held: bytes, unix: float = UNIX, now: float = 0.0) -> Verdict:
        """What becomes of it."""
        return self.book.take(held, name(2), now, unix)

    def test_forged(self) -> None:
        """Any bit of a record that is changed on the way makes it another's, or none."""
        random = Random(SEED)
        for _ in range(200):
            forged = bytearray(self.good)
            forged[random.randrange(len(forged))] ^= 1 << random.randrange(8)
            self.assertNotIn(self.take(bytes(forged)), (Verdict.NEW, Verdict.APART), f"seed {SEED}")
        self.assertEqual(self.take(self.good), Verdict.NEW)

    def test_replayed(self) -> None:
        """The same again, or an earlier one, changes nothing."""
        later = data(2, [row(1), row(3)], issued=UNIX + 5)
        self.assertEqual(self.take(later), Verdict.NEW)
        self.assertEqual(self.take(later), Verdict.KNOWN)
        self.assertEqual(self.take(self.good), Verdict.OLDER)
        self.assertEqual(len(self.book.graph.nodes[name(2)].record.links), 2)

    def test_stale(self) -> None:
        """What has expired is not taken, and what expires is forgotten, link and all."""
        self.assertEqual(self.take(self.good, UNIX + 180 * 60), Verdict.EXPIRED)
        self.assertEqual(self.take(self.good), Verdict.NEW)
        self.book.tick(10.0, UNIX + 180 * 60)
        self.assertIsNone(self.book.get(name(2)))
        self.assertIsNone(self.book.graph.edge(name(1), name(2)))

    def test_oversized(self) -> None:
        """More links than a record may state, or bytes behind it, and it is none; nothing is kept."""
        self.assertEqual(self.take(bytes(LARGEST + 1)), Verdict.MALFORMED)
        self.assertEqual(self.take(self.good + b"\0"), Verdict.MALFORMED)
        self.assertEqual(self.take(b""), Verdict.MALFORMED)
        self.assertEqual(len(self.book), 1)

    def test_contradictory(self) -> None:
        """Two ends that cannot both be right are believed only where there is nothing better: the link is
        marked, and a sound way that is slower by less than the distrust is taken before it."""
        book = Book(1, name(1))
        book.publish(record(1, [row(2, 5_000), row(3, 20_000)]), 0.0)
        book.take(data(2, [row(1, 100_000), row(4, 5_000)]), name(2), 0.0, UNIX)
        book.take(data(3, [row(1, 20_000), row(4, 20_000)]), name(3), 0.0, UNIX)
        book.take(data(4, [row(2, 5_000), row(3, 20_000)]), name(3), 0.0, UNIX)
        edge = book.graph.edge(name(1), name(2))
        assert edge is not None
        self.assertEqual(edge.marks, Mark.CONTRADICTED)
        self.assertEqual(long_way(book.graph, name(1), name(4)), ((name(1), name(3), name(4)),))

    def test_two_at_once(self) -> None:
        """Of two records that one key signed for one second the first stays: who sends both to different
        neighbours splits what they know until its next record, and that one all take."""
        one, other = data(2, [row(1)]), data(2, [row(1), row(3)])
        self.assertEqual((self.take(one), self.take(other)), (Verdict.NEW, Verdict.KNOWN))
        self.assertEqual(self.take(data(2, [row(1), row(4)], issued=UNIX + 1)), Verdict.NEW)

    def test_flapping(self) -> None:
        """A node that issues a record a second is heard a few times at once, and then once a minute."""
        for second in range(600):
            self.take(data(2, [row(1, 1_000 + second)], issued=UNIX + second), UNIX + second, float(second))
        self.assertEqual(self.book.counts[Verdict.NEW], RECORD_BURST + 599 // RECORD_STEP)


class Networks(SynchronousTestCase):
    """Whole networks of cores."""

    def test_flapping_link(self) -> None:
        """A link that falls and stands every three seconds for half an hour costs the network no more
        records of its ends than they may issue, and no way of others."""
        shape = grid(4)
        network = GossipNetwork(SEED, shape.count)
        network.build(shape)
        network.run(10.0)
        link = next(iter(network.links.values()))
        before = [each.book.counts[Verdict.NEW] for each in network.nodes]
        for step in range(200):
            network.cut(link, heal=bool(step % 2))
            network.run(network.now + 3.0)
        far = network.nodes[-1]
        heard = far.book.counts[Verdict.NEW] - before[far.index]
        most = 2 * (RECORD_BURST + 600 / RECORD_STEP + 1)
        self.assertTrue(10 < heard <= most, f"{heard} records heard, seed {SEED}")
        network.cut(link, heal=True)
        network.run(network.now + RECORD_STEP + 20)
        self.assertEqual({network.reachable(node) for node in network.nodes}, {shape.count})

    def test_two_networks(self) -> None:
        """Nodes of two networks that are linked by mistake keep to their own."""
        mine, theirs = GossipNetwork(SEED, 4, 1), GossipNetwork(SEED + 1, 4, 2)
        for network in (mine, theirs):
            for number in range(3):
                network.connect(number, number + 1)
            network.run(10.0)
        here, there = mine.nodes[0], theirs.nodes[0]
        for one, other in ((here, there), (there, here)):
            one.spread.up(other.name, 1e6, 10.0)
        now, said = 10.0, 0
        for _ in range(100):
            now += 1.0
            for one, other in ((here, there), (there, here)):
                for kind, body in one.spread.frames(other.name, now):
                    said += len(body)
                    other.spread.receive(one.name, kind, body, now, START + now)
                one.spread.tick(now, START + now)
        self.assertEqual((here.book.attached, there.book.attached), (4, 4))
        self.assertGreater(here.book.counts[Verdict.NETWORK], 0)
        self.assertLess(said, 100_000)

    def test_clocks(self) -> None:
        """An hour ahead or behind is no fault; a day ahead is, and its record reaches nobody."""
        network = GossipNetwork(SEED, 4)
        for number in range(3):
            network.connect(number, number + 1)
        network.nodes[0].skew, network.nodes[2].skew, network.nodes[3].skew = 3_600.0, -3_600.0, 86_400.0
        network.run(30.0)
        self.assertEqual([network.reachable(node) for node in network.nodes[:3]], [3, 3, 3])
        self.assertGreater(network.nodes[2].book.counts[Verdict.AHEAD], 0)


class Floods(SynchronousTestCase):
    """A neighbour that says anything at all."""

    def test_noise(self) -> None:
        """Frames of noise leave queues within their limits."""
        random = Random(SEED)
        spread = Spread(Book(1, name(1)))
        spread.up(name(2), 1e6, 0.0)
        for number in range(3_000):
            body = random.randbytes(random.choice((0, 2, 14, 166, 192, 1_000)))
            with contextlib.suppress(CodecError):
                spread.receive(name(2), random.choice(frames.KINDS), body, number / 100, UNIX)
            spread.frames(name(2), number / 100)
        state = spread._peers[name(2)]
        self.assertLessEqual(len(state.owed) + len(state.answers) + len(spread._wants), 3 * RECORDS_WANTED)
