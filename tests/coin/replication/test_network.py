"""Nodes of a chain in virtual time: they catch up, pass transactions on, and outlive peers that lie."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from coin.chain.block import Block
from coin.chain.params import Chain
from coin.chain.rules import HardRuleError, RuleError, check_loose, find_inputs
from coin.chain.transaction import Output, Transaction
from coin.replication.addresses import Addresses
from coin.replication.books import Executed
from coin.replication.introduction import Ourselves
from coin.replication.messages import (
    AnnounceBlocks,
    AnnounceTransactions,
    Disconnect,
    Frames,
    GetBlocks,
    GiveBlocks,
    GiveTransactions,
    Introduction,
    Message,
    Ping,
    Pong,
    Reason,
    encode_frame,
)
from coin.replication.network import Network
from coin.replication.peer import Peer
from coin.store.pool import Taken
from meshnet.errors import LocalError, MeshError
from meshnet.limits import COIN_ASKED, COIN_FRAME, COIN_REFUSED
from tests.support.chains import Ledger, owner, small_chain


class World:
    """Virtual time: calls in their order, delays by chance."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.random = Random(seed)
        self._calls: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def later(self, delay: float, call: Callable[[], None]) -> None:
        """Calls after `delay` seconds."""
        self._count += 1
        heapq.heappush(self._calls, (self.now + delay, self._count, call))

    def run(self, seconds: float) -> None:
        """Lets time pass."""
        end = self.now + seconds
        while self._calls and self._calls[0][0] <= end:
            self.now, _, call = heapq.heappop(self._calls)
            call()
        self.now = end


class MemoryPool(dict[bytes, Transaction]):
    """Loose transactions that break no hard rule."""

    def take(self, transaction: Transaction, ledger: Ledger) -> Taken:
        """Takes one in."""
        new = transaction.id not in self
        try:
            inputs = find_inputs(transaction, ledger.unspent.get)
            check_loose(transaction, inputs, ledger.head.header.time)
        except HardRuleError as error:
            return Taken(transaction.id, False, error)
        self[transaction.id] = transaction
        return Taken(transaction.id, new)


class MemoryBooks:
    """A ledger as books that answer a little later."""

    def __init__(self, world: World, chain: Chain) -> None:
        self.world = world
        self.ledger = Ledger(chain)
        self.pool = MemoryPool()
        self.executed = 0
        self.restored: list[int] = []

    @property
    def height(self) -> int:
        return self.ledger.head.header.sequence

    def _answer(self, answer: Callable[[Any], None], value: Any) -> None:
        self.world.later(0.002, lambda: answer(value))

    def execute(self, blocks: Sequence[Block], answer: Callable[[Executed], None]) -> None:
        refused: RuleError | None = None
        for block in blocks:
            try:
                self.ledger.add(block)
            except RuleError as error:
                refused = error
                break
            for each in block.transactions:
                self.pool.pop(each.id, None)
            self.executed += 1
        self._answer(answer, Executed(self.height, refused))

    def restore(self, block: Block, answer: Callable[[MeshError | None], None]) -> None:
        right = block == self.ledger.blocks[block.header.sequence]
        if right:
            self.restored.append(block.header.sequence)
        self._answer(answer, None if right else LocalError("That is not the block."))

    def raw_blocks(
        self, after: int, count: int, most_bytes: int, answer: Callable[[list[bytes]], None]
    ) -> None:
        found: list[bytes] = []
        for block in self.ledger.blocks[after + 1 : after + 1 + count]:
            most_bytes -= len(block.encode())
            if most_bytes < 0:
                break
            found.append(block.encode())
        self._answer(answer, found)

    def unknown(self, ids: Sequence[bytes], answer: Callable[[list[bytes]], None]) -> None:
        there = {each.id for block in self.ledger.blocks for each in block.transactions}
        self._answer(answer, [each for each in ids if each not in self.pool and each not in there])

    def inject(self, transactions: Sequence[Transaction], answer: Callable[[list[Taken]], None]) -> None:
        self._answer(answer, [self.pool.take(each, self.ledger) for each in transactions])

    def loose(self, ids: Sequence[bytes], answer: Callable[[list[bytes]], None]) -> None:
        self._answer(answer, [self.pool[each].raw for each in ids if each in self.pool])

    def pool_ids(self, answer: Callable[[list[bytes]], None]) -> None:
        self._answer(answer, list(self.pool))


class Wire:
    """One direction's end of a connection: frames arrive later, in order."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.other: Wire | None = None
        self.take: Callable[[bytes], None] = lambda data: None
        self.gone: Callable[[], None] = lambda: None
        self.open = True
        self.at = 0.0

    def send(self, frame: bytes) -> None:
        other = self.other
        if self.open and other is not None:
            self.at = max(self.at, self.world.now + self.world.random.uniform(0.001, 0.05))
            self.world.later(self.at - self.world.now, lambda: other.open and other.take(frame))  # type: ignore[func-returns-value]

    def close(self) -> None:
        other = self.other
        if self.open:
            self.open = False
            self.world.later(0.05, lambda: other is not None and other.end())  # type: ignore[func-returns-value]

    def end(self) -> None:
        if self.open:
            self.open = False
            self.gone()


def wires(world: World) -> tuple[Wire, Wire]:
    """Both ends of a connection."""
    one, other = Wire(world), Wire(world)
    one.other, other.other = other, one
    return one, other


class Node:
    """A network with books."""

    def __init__(self, world: World, chain: Chain, number: int) -> None:
        self.world = world
        self.number = number
        self.books = MemoryBooks(world, chain)
        self.notes: list[str] = []
        addresses = Addresses((), world.random.randrange, private=True)
        self.network = Network(
            Ourselves(chain, 1_000 + number), self.books, addresses, 0.0, self.notes.append
        )
        self._tick()

    def _tick(self) -> None:
        self.network.tick(self.world.now)
        self.world.later(1.0, self._tick)

    def attach(self, wire: Wire, place: str, outgoing: bool = False) -> Peer | None:
        """A connection that comes in or goes out."""
        peer = self.network.connected(wire, place, f"tcp:{place}:6000", self.world.now, outgoing=outgoing)
        if peer is not None:
            wire.take = lambda data: peer.filled(data, self.world.now)
            wire.gone = peer.life.lose
        return peer


def join(one: Node, other: Node) -> tuple[Wire, Wire]:
    """Connects two nodes."""
    there, here = wires(one.world)
    one.attach(there, f"10.0.0.{other.number}", outgoing=True)
    other.attach(here, f"10.0.0.{one.number}")
    return there, here


class Stranger:
    """A peer whose messages the test decides; what it hears is kept."""

    def __init__(self, node: Node, place: str = "10.9.9.9", introduce: bool = True) -> None:
        self.wire, there = wires(node.world)
        self.heard: list[Message] = []
        self.closed = False
        self.frames = Frames()
        self.answer: Callable[[Message], None] = lambda message: None
        self.wire.take = self._take
        self.wire.gone = self._gone
        self.peer = node.attach(there, place)
        if introduce:
            self.say(Ourselves(node.network.ourselves.chain, 77).introduction())

    def _take(self, data: bytes) -> None:
        for message in self.frames.feed(data):
            self.heard.append(message)
            if isinstance(message, Ping):
                self.say(Pong())
            self.answer(message)

    def _gone(self) -> None:
        self.closed = True

    def say(self, message: Message) -> None:
        """Sends one."""
        self.wire.send(encode_frame(message))

    @property
    def told(self) -> list[int]:
        """Reasons of DISC that it heard."""
        return [each.reason for each in self.heard if isinstance(each, Disconnect)]


def grow(ledger: Ledger, blocks: int, chain: Chain) -> None:
    """So many blocks in which key 1 pays itself."""
    for _ in range(blocks):
        (mine,) = ledger.of(1)
        ledger.add(ledger.block(ledger.pay(1, Output(owner(1), mine.coins, mine.hours // 2))))


class Case(SynchronousTestCase):
    """With a world of a printed seed."""

    def setUp(self) -> None:
        self.seed = 20_260_101
        self.world = World(self.seed)
        self.chain = small_chain()

    def nodes(self, count: int) -> list[Node]:
        """So many."""
        return [Node(self.world, self.chain, number) for number in range(1, count + 1)]


class SyncTests(Case):
    def test_two_catch_up(self) -> None:
        """A node without blocks gets all of 300, by runs of one peer."""
        full, empty = self.nodes(2)
        grow(full.books.ledger, 300, self.chain)
        full.network.sync = type(full.network.sync)(300)
        join(empty, full)
        self.world.run(10)
        self.assertEqual(empty.books.height, 300)
        self.assertEqual(empty.books.ledger.head, full.books.ledger.head)

    def test_line(self) -> None:
        """Along a line of five, a new block reaches everybody."""
        nodes = self.nodes(5)
        for one, other in itertools.pairwise(nodes):
            join(one, other)
        self.world.run(2)
        grow(nodes[0].books.ledger, 3, self.chain)
        nodes[0].network.made(3)
        self.world.run(5)
        self.assertEqual([node.books.height for node in nodes], [3] * 5)

    def test_one_at_a_time(self) -> None:
        """With many peers that have all blocks, each block comes once."""
        nodes = self.nodes(6)
        for node in nodes[1:]:
            grow(node.books.ledger, 200, self.chain)
            node.network.sync = type(node.network.sync)(200)
            join(nodes[0], node)
        self.world.run(20)
        self.assertEqual(nodes[0].books.height, 200)
        given = sum(node.network.counts["received GETB"] for node in nodes[1:])
        self.assertLess(given, 12)

    def test_partition(self) -> None:
        """Two halves that lose each other and meet again end with one chain."""
        nodes = self.nodes(4)
        join(nodes[0], nodes[1])
        join(nodes[2], nodes[3])
        bridge = join(nodes[1], nodes[2])
        self.world.run(2)
        for wire in bridge:
            wire.end()
        grow(nodes[0].books.ledger, 5, self.chain)
        nodes[0].network.made(5)
        self.world.run(5)
        self.assertEqual([node.books.height for node in nodes], [5, 5, 0, 0])
        join(nodes[1], nodes[2])
        self.world.run(5)
        self.assertEqual([node.books.height for node in nodes], [5, 5, 5, 5])

    def test_staller(self) -> None:
        """Who says that it is high and gives nothing is left after 20 s; another gives."""
        node, good = self.nodes(2)
        grow(good.books.ledger, 10, self.chain)
        good.network.sync = type(good.network.sync)(10)
        liar = Stranger(node)
        self.world.run(1)
        liar.say(AnnounceBlocks(1 << 60))
        self.world.run(1)
        self.assertIn(GetBlocks(0, 128), liar.heard)
        join(node, good)
        self.world.run(10)
        self.assertEqual(node.books.height, 0)
        self.world.run(15)
        self.assertEqual(node.books.height, 10)
        self.assertEqual(node.network.counts["stalled"], 1)
        self.assertFalse(liar.closed)

    def test_forged_block(self) -> None:
        """Who gives a block that the publisher did not seal is banned, and told so; nothing of it stays."""
        node = self.nodes(1)[0]
        ledger = Ledger(self.chain)
        forged = ledger.block(ledger.pay(1, Output(owner(2), 1_000_000_000, 1)), publisher=5)
        liar = Stranger(node)
        self.world.run(1)
        liar.say(GiveBlocks((forged,)))
        self.world.run(1)
        self.assertEqual(node.books.height, 0)
        self.assertIn(Reason.BANNED, liar.told)
        self.assertTrue(liar.closed)
        again = Stranger(node)
        self.world.run(1)
        self.assertEqual(again.told, [Reason.BANNED])
        self.world.run(3_700)
        late = Stranger(node)
        self.world.run(1)
        self.assertEqual(late.told, [])
        self.assertTrue(any("not sealed" in each or "publisher" in each for each in node.notes))

    def test_bad_block_in_the_middle(self) -> None:
        """The good ones before it stay, and the rest comes from somebody else."""
        node, good = self.nodes(2)
        grow(good.books.ledger, 20, self.chain)
        good.network.sync = type(good.network.sync)(20)
        blocks = good.books.ledger.blocks
        spoilt = [*blocks[1:8], blocks[8].with_signature(bytes(65)), *blocks[9:]]
        liar = Stranger(node)
        liar.answer = lambda message: (
            liar.say(GiveBlocks(tuple(spoilt))) if isinstance(message, GetBlocks) else None
        )
        liar.say(AnnounceBlocks(20))
        self.world.run(3)
        self.assertEqual(node.books.height, 7)
        self.assertIn(Reason.BANNED, liar.told)
        join(node, good)
        self.world.run(5)
        self.assertEqual(node.books.height, 20)

    def test_unasked_blocks(self) -> None:
        """The next block is taken unasked; one of the far future, and one we have, are not even looked at."""
        node = self.nodes(1)[0]
        ledger = Ledger(self.chain)
        grow(ledger, 5, self.chain)
        giver = Stranger(node)
        self.world.run(1)
        giver.say(GiveBlocks((ledger.blocks[4],)))
        giver.say(GiveBlocks((ledger.blocks[0],)))
        self.world.run(0.5)
        self.assertEqual(node.books.executed, 0)
        self.world.run(30)
        giver.say(GiveBlocks((ledger.blocks[1], ledger.blocks[1], ledger.blocks[2])))
        self.world.run(1)
        self.assertEqual(node.books.height, 1)
        self.assertFalse(giver.closed)


class IntroductionTests(Case):
    def told(self, said: Introduction) -> list[int]:
        """What a node answers to an introduction."""
        stranger = Stranger(Node(self.world, self.chain, 1), introduce=False)
        stranger.say(said)
        self.world.run(1)
        return stranger.told

    def test_reasons(self) -> None:
        """Every check of an introduction and its code."""
        ours = Ourselves(self.chain, 77)
        good = ours.introduction()
        self.assertEqual(self.told(good), [])
        extra = good.extra
        key, limits, rest = extra[:33], extra[33:42], extra[42:]
        agent = b"skycoin:0.27.1(x)"
        for said, reason in (
            (Introduction(1_001, 0, 2, extra), Reason.SELF),
            (Introduction(77, 0, 1, extra), Reason.VERSION),
            (Introduction(77, 0, 2), Reason.NONE),
            (Introduction(77, 0, 2, extra[:32]), Reason.BAD_EXTRA),
            (Introduction(77, 0, 2, key + limits[:5]), Reason.BAD_EXTRA),
            (Introduction(77, 0, 2, extra[:50]), Reason.BAD_EXTRA),
            (Introduction(77, 0, 2, extra[:-1]), Reason.BAD_EXTRA),
            (Introduction(77, 0, 2, b"\2" + extra[1:33][::-1] + limits + rest), Reason.OTHER_CHAIN),
            (Introduction(77, 0, 2, key + b"\1\0\0\0" + limits[4:] + rest), Reason.BAD_BURN),
            (Introduction(77, 0, 2, key + limits[:4] + b"\1\0\0\0" + limits[8:] + rest), Reason.BAD_SIZE),
            (Introduction(77, 0, 2, key + limits[:8] + b"\7" + rest), Reason.BAD_DECIMALS),
            (Introduction(77, 0, 2, key + limits + b"\3\0\0\0bad"), Reason.BAD_AGENT),
            (Introduction(77, 0, 2, extra[:-32] + bytes(32)), Reason.OTHER_CHAIN),
        ):
            self.assertEqual(self.told(said), [reason], reason.name)
        go = key + limits + len(agent).to_bytes(4, "little") + agent
        self.assertEqual(self.told(Introduction(77, 6_000, 2, go)), [])
        self.assertEqual(self.told(Introduction(77, 6_000, 2, extra + b"what comes later")), [])

    def test_order(self) -> None:
        """Anything else first is answered with 7, nothing at all with 2, a second introduction with 9."""
        node = self.nodes(1)[0]
        early = Stranger(node, introduce=False)
        early.say(Ping())
        silent = Stranger(node, "10.9.9.8", introduce=False)
        twice = Stranger(node, "10.9.9.7")
        twice.say(Ourselves(self.chain, 77).introduction())
        self.world.run(2)
        self.assertEqual(early.told, [Reason.NO_INTRODUCTION])
        self.assertEqual(twice.told, [Reason.UNEXPECTED])
        self.assertEqual(silent.told, [])
        self.world.run(30)
        self.assertEqual(silent.told, [Reason.INTRODUCTION_TIMEOUT])

    def test_same_again(self) -> None:
        """A second connection of one node is told 5; a fourth of one address 8."""
        node = self.nodes(1)[0]
        Stranger(node)
        again = Stranger(node)
        third = Stranger(node, introduce=False)
        self.world.run(1)
        self.assertEqual(again.told, [Reason.TWICE])
        Stranger(node, introduce=False)
        fourth = Stranger(node, introduce=False)
        self.world.run(1)
        self.assertEqual(third.told, [])
        self.assertEqual(fourth.told, [Reason.IP_LIMIT])

    def test_full(self) -> None:
        """The 121st connection that comes in is told 16."""
        node = self.nodes(1)[0]
        strangers = [Stranger(node, f"10.1.{n}.1", introduce=False) for n in range(121)]
        self.world.run(1)
        self.assertEqual([each.told for each in strangers], [[]] * 120 + [[Reason.FULL]])

    def test_silence(self) -> None:
        """Pings go out after 5 s; who is silent for 60 s is told 6."""
        node = self.nodes(1)[0]
        stranger = Stranger(node)
        self.world.run(1)
        stranger.wire.send = lambda frame: None  # type: ignore[method-assign]
        self.world.run(10)
        self.assertTrue(any(isinstance(each, Ping) for each in stranger.heard))
        self.world.run(60)
        self.assertEqual(stranger.told, [Reason.IDLE])

    def test_garbage(self) -> None:
        """Bytes that are no message end the connection; a node goes on."""
        node, other = self.nodes(2)
        join(node, other)
        stranger = Stranger(node)
        self.world.run(1)
        stranger.wire.send((COIN_FRAME + 1).to_bytes(4, "little"))
        self.world.run(1)
        self.assertTrue(stranger.closed)
        self.assertEqual(len(node.network.peers), 1)


class GossipTests(Case):
    def pay(self, node: Node, coins: int = 1_000_000) -> Transaction:
        """A payment that is right."""
        (mine,) = node.books.ledger.of(1)
        rest = mine.coins - coins
        return node.books.ledger.pay(1, Output(owner(2), coins, 1), Output(owner(1), rest, mine.hours // 2))

    def test_everybody_gets_it(self) -> None:
        """A transaction made at one end of a line is in all pools, and goes over each connection once."""
        nodes = self.nodes(4)
        for one, other in itertools.pairwise(nodes):
            join(one, other)
        self.world.run(2)
        told: list[Taken] = []
        nodes[0].network.inject(self.pay(nodes[0]), told.append)
        self.world.run(3)
        self.assertTrue(told[0].new)
        self.assertEqual([len(node.books.pool) for node in nodes], [1] * 4)
        self.assertEqual(sum(node.network.counts["received GIVT"] for node in nodes), 3)

    def test_late_comer(self) -> None:
        """Who comes later hears of what is in the pool."""
        node, late = self.nodes(2)
        node.network.inject(self.pay(node), lambda told: None)
        self.world.run(1)
        join(late, node)
        self.world.run(2)
        self.assertEqual(len(late.books.pool), 1)

    def test_wrong_signature(self) -> None:
        """Who gives transactions that break hard rules is banned in the end; they are not passed on."""
        node, other = self.nodes(2)
        join(node, other)
        liar = Stranger(node)
        self.world.run(1)
        (mine,) = node.books.ledger.of(1)
        for number in range(6):
            wrong = node.books.ledger.pay(1, Output(owner(2), mine.coins, number), signed=False)
            liar.say(GiveTransactions((wrong,)))
        self.world.run(2)
        self.assertIn(Reason.BANNED, liar.told)
        self.assertEqual([len(each.books.pool) for each in (node, other)], [0, 0])

    def test_a_million(self) -> None:
        """A peer that announces 10⁶ transactions and gives none: memory stays within the limits, others are
        still heard, and it owes 256 answers at a time."""
        node, other = self.nodes(2)
        join(node, other)
        liar = Stranger(node)
        self.world.run(1)
        sent = 0
        for _ in range(4_000):
            ids = tuple((sent + n).to_bytes(32, "big") for n in range(256))
            liar.say(AnnounceTransactions(ids))
            sent += 256
            self.world.run(0.03)
        asked = sum(len(each.ids) for each in liar.heard if hasattr(each, "ids"))
        self.assertGreater(sent, 1_000_000)
        self.assertLess(node.network.gossip.size, COIN_ASKED + COIN_REFUSED)
        self.assertLessEqual(asked, 256 * (120 / 20 + 2))
        node.network.inject(self.pay(node), lambda told: None)
        self.world.run(3)
        self.assertEqual(len(other.books.pool), 1)

    def test_unasked(self) -> None:
        """Of a thousand right transactions that nobody asked for, only the first are looked at."""
        node = self.nodes(1)[0]
        giver = Stranger(node)
        self.world.run(1)
        for number in range(1_000):
            giver.say(GiveTransactions((self.pay(node, 1_000_000 + number * 1_000),)))
        self.world.run(2)
        self.assertLessEqual(len(node.books.pool), 70)

    def test_too_many_messages(self) -> None:
        """A flood of small messages is not answered, and banned in the end."""
        node = self.nodes(1)[0]
        giver = Stranger(node)
        self.world.run(1)
        for _ in range(3_000):
            giver.say(GetBlocks(0, 1))
        self.world.run(2)
        self.assertIn(Reason.BANNED, giver.told)
