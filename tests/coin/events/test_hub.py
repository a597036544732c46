"""Who listens hears every event once and in order, however it comes, goes, pauses and comes again."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from coin.chain.address import Address, address_text
from coin.chain.rules import signers
from coin.events.content import KINDS, Content, Event, Kind
from coin.events.history import Piece, read_piece
from coin.events.hub import Hub, Listener
from coin.events.wanted import Place, Wanted, after
from coin.store.store import ChainStore, open_store
from meshnet.errors import RefusedError
from meshnet.limits import COIN_EVENT_LISTENERS, COIN_EVENT_STALL_SECONDS
from meshnet.storage.disk import RealDisk
from tests.support.chains import owner
from tests.support.random_chains import RandomChain, shared_chain


class World:
    """A store, a hub over it, and reads of the past that are answered when the test says so."""

    def __init__(self, seed: int, folder: str) -> None:
        self.model = RandomChain(seed, shared_chain())
        self.store: ChainStore = open_store(RealDisk(), f"{folder}/chain.db", self.model.chain)
        self.waiting: list[Callable[[], None]] = []
        self.time = 0.0
        self.hub = Hub(0, self.read, lambda: self.time)

    def read(self, wanted: Wanted, start: int, height: int) -> Deferred[Piece]:
        """See `Read`."""
        answer: Deferred[Piece] = Deferred()

        def work() -> None:
            answer.callback(self.store.look(lambda c: read_piece(c, wanted, start, height)))

        self.waiting.append(work)
        return answer

    def settle(self) -> None:
        """Answers all reads."""
        while self.waiting:
            self.waiting.pop(0)()

    def grow(self, count: int) -> None:
        """So many blocks more."""
        blocks = [self.model.block() for _ in range(count)]
        added = self.store.add(blocks, [[signers(each) for each in block.transactions] for block in blocks])
        self.hub.added(blocks, added.applied)

    def expected(self, wanted: Wanted, start: int) -> list[str]:
        """The ids of all events from a height on, by hand."""
        found: list[str] = []
        for height in range(start, len(self.model.ledger.blocks)):
            index = 0
            if "block" in wanted.kinds:
                found.append(f"{height}.0")
            for _, it, _ in self.of(height):
                for address in self.touched(it):
                    index += 1
                    if "address" in wanted.kinds and self.meant(wanted, [address]):
                        found.append(f"{height}.{index}")
            for _, _, touched in self.of(height - wanted.confirmations + 1):
                index += 1
                if "transaction" in wanted.kinds and self.meant(wanted, touched):
                    found.append(f"{height}.{index}")
        return found

    def of(self, height: int) -> list[Any]:
        """The transactions of a block."""
        return [each for each in self.model.made if each[0] == height]

    def touched(self, it: Any) -> list[Address]:
        """Whom a transaction touches, those it spends from first."""
        spent = [each.address for each in self.model.spent[it.id]]
        return list(dict.fromkeys([*spent, *(each.address for each in it.outputs)]))

    @staticmethod
    def meant(wanted: Wanted, touched: Any) -> bool:
        """Whether somebody wants to hear of these addresses."""
        return wanted.addresses is None or not wanted.addresses.isdisjoint(touched)


class Ear:
    """Keeps what it hears; now and then it is full."""

    def __init__(self, draw: random.Random | None = None) -> None:
        self.events: list[Event] = []
        self.why: str | None = None
        self.listener: Listener | None = None
        self._draw = draw

    def event(self, event: Event) -> None:
        """See `coin.events.hub.Ear`."""
        self.events.append(event)
        if self._draw is not None and self._draw.random() < 0.2:
            assert self.listener is not None
            self.listener.pause()

    def end(self, why: str) -> None:
        """See there."""
        self.why = why

    @property
    def ids(self) -> list[str]:
        """Of what has a place."""
        return [each.place for each in self.events if each.place]


KIND_SETS = st.frozensets(st.sampled_from(KINDS[:3]), min_size=1)
ADDRESSES = st.one_of(st.none(), st.sets(st.sampled_from([owner(n) for n in range(1, 7)]), max_size=3))


class Hears(SynchronousTestCase):
    @settings(max_examples=20, deadline=None)
    @given(st.integers(0, 1 << 32), KIND_SETS, ADDRESSES, st.integers(1, 4), st.integers(0, 6))
    def test_everything_once(
        self,
        seed: int,
        kinds: frozenset[Kind],
        addresses: set[Address] | None,
        depth: int,
        start: int,
    ) -> None:
        """From any height, through pauses, and with connections that end and go on from the last id."""
        draw = random.Random(seed)
        with tempfile.TemporaryDirectory() as folder:
            world = World(seed, folder)
            world.grow(draw.randint(0, 5))
            wanted = Wanted(kinds, addresses, depth)
            heard: list[str] = []
            place = Place(start)
            for _ in range(6):
                ear = Ear(draw)
                listener = ear.listener = world.hub.listen(wanted, place, ear)
                listener.pump()
                for _ in range(draw.randint(0, 4)):
                    act = draw.choice([world.settle, listener.resume, lambda: world.grow(draw.randint(1, 3))])
                    act()
                heard += ear.ids
                listener.close()
                world.settle()
                place = after(heard[-1]) if heard else place
            ear = Ear()
            listener = ear.listener = world.hub.listen(wanted, place, ear)
            listener.pump()
            world.settle()
            self.assertEqual(heard + ear.ids, world.expected(wanted, start))
            world.store.close()

    def test_many_pieces(self) -> None:
        """A long past comes in pieces of the index and of whole blocks, and is the same."""
        with tempfile.TemporaryDirectory() as folder:
            world = World(7, folder)
            world.grow(80)
            for addresses in ({owner(2)}, None, {owner(n) for n in range(2, 600)}):
                for kinds in (frozenset[Kind](["address", "transaction"]), frozenset[Kind](["transaction"])):
                    wanted, ear = Wanted(kinds, addresses, 5), Ear()
                    world.hub.listen(wanted, Place(1), ear).pump()
                    world.settle()
                    self.assertEqual(ear.ids, world.expected(wanted, 1))
            world.store.close()

    def test_changes(self) -> None:
        """Addresses that come and go while the past is read: nothing before the change is looked up anew, all
        behind it is told by the new ones."""
        with tempfile.TemporaryDirectory() as folder:
            world = World(3, folder)
            world.grow(10)
            wanted, ear = Wanted(frozenset[Kind](["address"]), {owner(1)}), Ear()
            listener = world.hub.listen(wanted, Place(0), ear)
            listener.pump()
            places: list[Place] = []

            def change() -> None:
                wanted.addresses = {owner(2)}
                places.append(listener.place)

            listener.change(change)
            self.assertFalse(places)
            world.settle()
            world.grow(4)
            world.settle()
            (place,) = places
            before = Wanted(wanted.kinds, {owner(1)})
            first = [each for each in world.expected(before, 0) if after(each).height < place.height]
            self.assertEqual(ear.ids, first + world.expected(wanted, place.height))
            world.store.close()


class Texts(SynchronousTestCase):
    def test_contents(self) -> None:
        """What an event says is what the block did."""
        with tempfile.TemporaryDirectory() as folder:
            world = World(11, folder)
            ear = Ear()
            world.hub.listen(Wanted(confirmations=2), Place(0), ear).pump()
            world.settle()
            world.grow(3)
            world.settle()
            told = [json.loads(each.text) for each in ear.events]
            for each, event in zip(told, ear.events, strict=True):
                self.assertEqual((each["kind"], each["id"]), (event.kind, event.place))
            blocks = world.model.ledger.blocks
            self.assertEqual(
                [(each["block_seq"], each["block_hash"]) for each in told if each["kind"] == "block"],
                [(number, block.hash.hex()) for number, block in enumerate(blocks)],
            )
            confirmed = [each for each in told if each["kind"] == "transaction"]
            self.assertEqual({each["confirmations"] for each in confirmed}, {2})
            self.assertEqual(
                [each["txid"] for each in confirmed],
                [it.id.hex() for block, it, _ in world.model.made if block < len(blocks) - 1],
            )
            for each in confirmed:
                self.assertEqual(int(each["id"].partition(".")[0]), each["block_seq"] + 1)
            for block, it, _ in world.model.made:
                mine = [each for each in told if each["kind"] == "address" and each["txid"] == it.id.hex()]
                received = {out.address: 0 for out in it.outputs}
                for out in it.outputs:
                    received[out.address] += out.coins
                for each in mine:
                    self.assertEqual(each["block_seq"], block)
                    self.assertEqual(len(each["spent"].partition(".")[2]), 6)
                given = {each["address"]: each["received"] for each in mine if each["outputs"]}
                self.assertEqual(
                    given,
                    {address_text(a): f"{c // 10**6}.{c % 10**6:06d}" for a, c in received.items()},
                )
            world.store.close()

    def test_pending(self) -> None:
        """A loose transaction is told to who is not behind and watches one of its addresses."""
        with tempfile.TemporaryDirectory() as folder:
            world = World(1, folder)
            ears = {
                "all": Ear(),
                "payer": Ear(),
                "other": Ear(),
                "behind": Ear(),
                "full": Ear(),
            }
            for name, ear in ears.items():
                addresses = {"payer": {owner(1)}, "other": {owner(9)}}.get(name)
                ear.listener = world.hub.listen(
                    Wanted(addresses=addresses), Place(0) if name == "behind" else None, ear
                )
                ear.listener.pump()
            full = ears["full"].listener
            assert full is not None
            full.pause()
            block = world.model.block()
            it = block.transactions[0]
            world.hub.came(it, signers(it), 1.7e9, "")
            heard = {name for name, ear in ears.items() if [e.kind for e in ear.events] == ["pending"]}
            self.assertEqual(heard, {"all", "payer"})
            told = json.loads(ears["all"].events[0].text)
            self.assertEqual((told["txid"], told["valid"]), (it.id.hex(), True))
            self.assertNotIn("id", told)
            world.store.close()


class Bounds(SynchronousTestCase):
    def test_who_reads_nothing(self) -> None:
        """Who is full for too long is told goodbye; who reads in between is not."""
        with tempfile.TemporaryDirectory() as folder:
            world = World(1, folder)
            still, slow = Ear(), Ear()
            for ear in (still, slow):
                ear.listener = world.hub.listen(Wanted(), None, ear)
                ear.listener.pause()
            world.time = COIN_EVENT_STALL_SECONDS
            assert slow.listener is not None
            slow.listener.resume()
            slow.listener.pause()
            world.time += 1.0
            world.hub.tick()
            self.assertIsNone(slow.why)
            self.assertIn("Nothing was read", str(still.why))
            self.assertEqual((world.hub.dropped, len(world.hub.listeners)), (1, 1))
            world.store.close()

    def test_too_many(self) -> None:
        """One more than there may be is refused; when one goes there is room."""
        with tempfile.TemporaryDirectory() as folder:
            world = World(1, folder)
            ears = [world.hub.listen(Wanted(), None, Ear()) for _ in range(COIN_EVENT_LISTENERS)]
            self.assertRaises(RefusedError, world.hub.listen, Wanted(), None, Ear())
            ears[3].close()
            world.hub.listen(Wanted(), None, Ear())
            world.store.close()

    def test_the_past_is_read_in_turn(self) -> None:
        """However many come with a past, few pieces are read at the same time."""
        with tempfile.TemporaryDirectory() as folder:
            world = World(1, folder)
            world.grow(2)
            ears = [Ear() for _ in range(20)]
            for ear in ears:
                world.hub.listen(Wanted(), Place(0), ear).pump()
            self.assertEqual(len(world.waiting), 4)
            world.settle()
            for ear in ears:
                self.assertEqual(ear.ids, world.expected(Wanted(), 0))
            world.store.close()

    def test_a_store_that_fails(self) -> None:
        """Whose past cannot be read is told so."""
        failing: Deferred[Piece] = Deferred()
        hub = Hub(5, lambda *_: failing, lambda: 0.0)
        ear = Ear()
        hub.listen(Wanted(), Place(0), ear).pump()
        failing.errback(RefusedError("no"))
        self.assertIn("cannot be read", str(ear.why))
        self.assertEqual(hub.listeners, set())
        self.assertEqual(len(self.flushLoggedErrors(RefusedError)), 1)

    def test_ids(self) -> None:
        """The id of an event, read again."""
        self.assertEqual(after("181.3"), Place(181, 4))
        for wrong in ("", "181", "181.", ".3", "-1.2", "1.2.3", "181.3x", "1" * 30 + ".0"):
            self.assertRaises(ValueError, after, wrong)

    def test_contents_need_no_store(self) -> None:
        """The first block's own event."""
        content = Content(shared_chain().genesis, [()])
        self.assertEqual(content.block().place, "0.0")
        self.assertEqual(content.places, 2)
