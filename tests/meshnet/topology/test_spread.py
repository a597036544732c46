"""How records travel, over modelled links in virtual time."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lab.simulation.gossip import START, GossipNetwork
from meshnet.cipher.keys import SecretKey
from meshnet.errors import CodecError
from meshnet.limits import ASK_SECONDS, SPREAD_BURST, SPREAD_LEAST, SPREAD_SHARE, SUMMARY_SECONDS
from meshnet.topology import frames
from meshnet.topology.book import Book, Verdict
from meshnet.topology.record import LinkRow, Name, issue, name_of
from meshnet.topology.spread import Spread
from tests.support.topology import UNIX, data, name, record, row, statement

SEED = 20


def grid(side: int, seed: int = SEED) -> GossipNetwork:
    """side × side nodes, each linked to those beside it."""
    network = GossipNetwork(seed, side * side)
    for node in range(side * side):
        if node % side < side - 1:
            network.connect(node, node + 1)
        if node + side < side * side:
            network.connect(node, node + side)
    return network


class Networks(SynchronousTestCase):
    """Many nodes."""

    def complete(self, network: GossipNetwork) -> bool:
        """Whether every node knows a way to every other."""
        return all(network.reachable(node) == len(network.nodes) for node in network.nodes)

    def test_cold_start(self) -> None:
        """Twenty-five nodes in a grid know each other soon after they all start at once."""
        network = grid(5)
        reached = network.run(30.0, lambda: self.complete(network))
        self.assertLess(reached, 8.0)

    def test_quiet(self) -> None:
        """A network where nothing happens carries little: no node sends 100 bytes a second."""
        network = grid(4)
        network.run(60.0)
        before = sum(link.carried for link in network.links.values())
        network.run(60.0 + 3_600)
        carried = sum(link.carried for link in network.links.values()) - before
        self.assertTrue(self.complete(network))
        self.assertLess(carried / 3_600 / len(network.nodes), 100.0)

    def test_partition_and_merge(self) -> None:
        """Two halves that change while they are apart know all of each other when a link joins them."""
        network = grid(4)
        network.run(20.0)
        bridges = [link for (one, other), link in network.links.items() if other - one == 4 and one // 4 == 1]
        for link in bridges:
            network.cut(link)
        network.run(network.now + 30)
        self.assertEqual({network.reachable(node) for node in network.nodes}, {8})
        network.publish(network.nodes[0])
        network.publish(network.nodes[15])
        network.run(network.now + 30)
        start = network.now
        network.cut(bridges[0], heal=True)
        reached = network.run(start + 30, lambda: self.complete(network))
        self.assertLess(reached - start, 5.0)
        network.run(network.now + 10)
        for node in network.nodes:
            self.assertEqual(node.book.issued(network.nodes[0].name), network.nodes[0].issued)

    def test_wrong_clock(self) -> None:
        """A node an hour ahead and one an hour behind are parts of the network."""
        network = grid(3)
        network.nodes[0].skew, network.nodes[8].skew = 3_600.0, -3_600.0
        reached = network.run(30.0, lambda: self.complete(network))
        self.assertLess(reached, 8.0)

    def test_two_networks(self) -> None:
        """Records of another network are refused by the first node that gets them, and told to nobody."""
        network = grid(2)
        network.run(10.0)
        stranger = SecretKey(bytes(31) + b"\x09")
        made = statement(key=stranger.public, network=7, issued=int(START))
        node = network.nodes[0]
        other = network.nodes[1].name
        node.spread.receive(other, frames.RECORD, issue(made, stranger), network.now, START)
        self.assertEqual(node.book.counts[Verdict.NETWORK], 1)
        self.assertIsNone(node.book.get(name_of(stranger.public)))

    def test_sybils(self) -> None:
        """A thousand invented nodes behind nobody reach no one but the neighbour they were told to."""
        network = grid(3)
        network.run(10.0)
        node, liar = network.nodes[0], network.nodes[1].name
        for number in range(1, 201):
            node.spread.receive(liar, frames.RECORD, data(number, [row(number + 1)]), network.now, UNIX)
        network.run(network.now + 30)
        self.assertEqual(node.book.attached, 9)
        for other in network.nodes[1:]:
            self.assertEqual(len(other.book), 9)

    def test_black_sheep(self) -> None:
        """A node that states links to all others is marked everywhere, and no link of it is one."""
        network = grid(4)
        network.run(10.0)
        liar = network.nodes[5]
        rows = [LinkRow(node.name, 1_000, 0, 0, 100_000) for node in network.nodes if node is not liar]
        network.publish(liar, rows)
        network.run(network.now + 10)
        for node in network.nodes:
            if node is not liar:
                self.assertTrue(node.book.graph.nodes[liar.name].marks)
                self.assertEqual(len(node.book.graph.nodes[liar.name].edges), 4)


class Pair(SynchronousTestCase):
    """One node and what its neighbours do to it."""

    def setUp(self) -> None:
        """Node 1 with neighbours 2 and 3."""
        self.book = Book(1, name(1))
        self.spread = Spread(self.book)
        self.now = 0.0
        for number in (2, 3):
            self.spread.up(name(number), 1e6, 0.0)
        self.spread.publish(record(1, [row(2), row(3)]), 0.0)
        self.sent(2)
        self.sent(3)

    def sent(self, number: int, after: float = 1.0) -> dict[int, list[bytes]]:
        """What node `number` is sent a while later, by kind."""
        self.now += after
        found: dict[int, list[bytes]] = {}
        for kind, body in self.spread.frames(name(number), self.now):
            found.setdefault(kind, []).append(body)
        return found

    def tell(self, number: int, kind: int, body: bytes) -> None:
        """Node `number` says something."""
        self.spread.receive(name(number), kind, body, self.now, UNIX)

    def test_offered_asked_and_told(self) -> None:
        """What one offers is asked of it, and then offered to the other, not back."""
        self.tell(2, frames.OFFER, frames.put_rows([(name(2), UNIX)]))
        self.assertEqual(self.sent(2)[frames.ASK], [frames.put_ask([name(2)])])
        self.tell(2, frames.RECORD, data(2, [row(1)]))
        self.assertEqual(self.sent(3)[frames.OFFER], [frames.put_rows([(name(2), UNIX)])])
        self.assertNotIn(frames.OFFER, self.sent(2))
        self.tell(3, frames.ASK, frames.put_ask([name(2)]))
        self.assertEqual(self.sent(3)[frames.RECORD], [data(2, [row(1)])])

    def test_who_does_not_answer(self) -> None:
        """What one neighbour offers and does not send is asked of another one."""
        self.tell(2, frames.OFFER, frames.put_rows([(name(4), UNIX)]))
        self.tell(3, frames.OFFER, frames.put_rows([(name(4), UNIX)]))
        self.assertIn(frames.ASK, self.sent(2))
        self.assertNotIn(frames.ASK, self.sent(3))
        self.now += ASK_SECONDS
        self.spread.tick(self.now, UNIX)
        self.assertIn(frames.ASK, self.sent(3))
        self.now += ASK_SECONDS
        self.spread.tick(self.now, UNIX)
        self.assertNotIn(frames.ASK, {**self.sent(2), **self.sent(3)})
        self.assertFalse(self.spread._wants)

    def test_gone_in_between(self) -> None:
        """A neighbour that falls while it is asked is forgotten; the other one is asked."""
        self.tell(2, frames.OFFER, frames.put_rows([(name(4), UNIX)]))
        self.tell(3, frames.OFFER, frames.put_rows([(name(4), UNIX)]))
        self.spread.down(name(2))
        self.spread.tick(self.now + 0.1, UNIX)
        self.tell(3, frames.OFFER, frames.put_rows([(name(5), UNIX)]))
        self.assertEqual(len(self.sent(3)[frames.ASK]), 1)

    def test_behind(self) -> None:
        """Who sends an older record is offered the later one."""
        self.tell(2, frames.RECORD, data(2, [row(1)], issued=UNIX + 9))
        self.sent(3)
        self.tell(3, frames.RECORD, data(2, [row(1)]))
        self.assertEqual(self.sent(3)[frames.OFFER], [frames.put_rows([(name(2), UNIX + 9)])])

    def test_digests(self) -> None:
        """Equal digests are answered by nothing, others by what lies in the buckets that differ."""
        self.tell(2, frames.DIGEST, frames.put_digest(0, self.book.digests(0)))
        self.assertNotIn(frames.SUMMARY, self.sent(2))
        self.tell(2, frames.DIGEST, frames.put_digest(0, [7]))
        summary = self.sent(2)[frames.SUMMARY]
        self.assertEqual([frames.read_summary(each)[3] for each in summary], [[(name(1), UNIX)]])

    def test_service_records_stay_here(self) -> None:
        """What came from a route service is known, and no neighbour hears of it: it is neither offered nor in
        a digest or summary, nor sent to who asks. When a neighbour names the same record it is told on."""
        self.tell(2, frames.RECORD, data(2, [row(1), row(4)]))
        self.sent(3)
        before = self.book.digests(0)
        self.spread.learn(data(4, [row(2)]), name(9), self.now, UNIX)
        self.assertEqual((self.book.attached, self.book.digests(0)), (3, before))
        self.tell(3, frames.ASK, frames.put_ask([name(4)]))
        self.tell(3, frames.DIGEST, frames.put_digest(0, [7]))
        said = self.sent(3)
        self.assertNotIn(frames.RECORD, said)
        self.assertNotIn(frames.OFFER, said)
        listed = {who for each in said[frames.SUMMARY] for who, _ in frames.read_summary(each)[3]}
        self.assertEqual(listed, {name(1), name(2)})
        self.tell(2, frames.OFFER, frames.put_rows([(name(4), UNIX)]))
        self.assertEqual(self.sent(3)[frames.OFFER], [frames.put_rows([(name(4), UNIX)])])
        self.assertNotIn(frames.ASK, self.sent(2))
        self.assertNotEqual(self.book.digests(0), before)

    def test_later_from_a_service(self) -> None:
        """A service that is ahead of the neighbours does not stop what they tell: the record goes on when the
        first of them has it, whether it names it or sends it."""
        self.tell(2, frames.RECORD, data(2, [row(1), row(4)]))
        self.tell(2, frames.RECORD, data(4, [row(2)]))
        self.sent(3)
        self.spread.learn(data(4, [row(2)], issued=UNIX + 60), name(9), self.now, UNIX)
        self.assertNotIn(frames.OFFER, self.sent(3))
        self.tell(2, frames.RECORD, data(4, [row(2)], issued=UNIX + 60))
        self.assertEqual(self.sent(3)[frames.OFFER], [frames.put_rows([(name(4), UNIX + 60)])])

    def test_only_own(self) -> None:
        """In a network too large for telling all, neighbours get this node's record and give theirs, and
        nothing of others goes either way; told to do so again, they compare all."""
        self.tell(2, frames.OFFER, frames.put_rows([(name(4), UNIX)]))
        self.spread.pass_on(False, self.now)
        self.assertFalse(self.spread._wants)
        self.assertEqual(self.sent(2), {frames.OFFER: [frames.put_rows([(name(1), UNIX)])]})
        self.sent(3)
        self.tell(2, frames.RECORD, data(2, [row(1)]))
        self.tell(2, frames.OFFER, frames.put_rows([(name(2), UNIX + 60), (name(4), UNIX)]))
        self.tell(2, frames.DIGEST, frames.put_digest(0, [7]))
        self.assertEqual(self.sent(2), {frames.ASK: [frames.put_ask([name(2)])]})
        self.assertEqual(self.sent(3, 2 * SUMMARY_SECONDS), {})
        self.spread.up(name(4), 1e6, self.now)
        self.assertEqual(self.sent(4), {frames.OFFER: [frames.put_rows([(name(1), UNIX)])]})
        self.spread.pass_on(True, self.now)
        self.assertIn(frames.DIGEST, self.sent(3))

    def test_share(self) -> None:
        """What is owed goes out at the link's share of 2 %, after a first burst."""
        for number in range(10, 200):
            self.book.take(data(number, [row(2), row(1)]), name(2), 0.0, UNIX)
        names = list(self.book.graph.nodes)
        sent = 0
        for _ in range(40):
            self.tell(3, frames.ASK, frames.put_ask(names))
            sent += sum(len(body) for bodies in self.sent(3).values() for body in bodies)
        self.assertLessEqual(sent, SPREAD_BURST + 40 * max(SPREAD_SHARE * 1e6, SPREAD_LEAST) + 1_000)
        self.assertGreater(sent, SPREAD_BURST)

    @given(
        st.lists(st.tuples(st.sampled_from([2, 3, 9]), st.sampled_from(frames.KINDS), st.binary(max_size=80)))
    )
    def test_anything(self, said: list[tuple[int, int, bytes]]) -> None:
        """Whatever neighbours send raises CodecError or nothing, and the node still answers the next."""
        for number, kind, body in said:
            with contextlib.suppress(CodecError):
                self.tell(number, kind, body)
        self.now += 10
        self.spread.tick(self.now, UNIX)
        for number in (2, 3):
            self.assertIsInstance(self.spread.frames(name(number), self.now), list)
        due = self.spread.deadline()
        self.assertTrue(due is None or due > self.now)


class Frames(SynchronousTestCase):
    """Bytes of the frames."""

    @given(
        st.lists(st.tuples(st.binary(min_size=8, max_size=8), st.integers(0, 0xFFFF_FFFF)), max_size=2_500),
        st.integers(0, 12).flatmap(
            lambda level: st.tuples(st.just(level), st.lists(st.integers(0, (1 << level) - 1), max_size=9))
        ),
    )
    def test_summaries(self, rows: list[tuple[bytes, int]], which: tuple[int, list[int]]) -> None:
        """However many rows there are, all come in their order, the buckets with the first."""
        level, buckets = which
        given = [(Name(each), issued) for each, issued in rows]
        read = [frames.read_summary(body) for body in frames.put_summaries(level, buckets, given)]
        self.assertEqual([each for part in read for each in part[3]], given)
        self.assertEqual(read[0][1], tuple(buckets))
        self.assertEqual([more for _, _, more, _ in read], [True] * (len(read) - 1) + [False])

    @given(st.binary(max_size=100))
    def test_anything(self, junk: bytes) -> None:
        """Arbitrary bytes raise CodecError, and nothing else."""
        for read in (frames.read_rows, frames.read_ask, frames.read_digest, frames.read_summary):
            with contextlib.suppress(CodecError):
                read(junk)
