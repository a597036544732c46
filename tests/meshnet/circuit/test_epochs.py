"""Onion keys that change: the ring of a node, and circuits whose layers are for them."""

from __future__ import annotations

import json
import random as randomness
from pathlib import Path

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.keys import PublicKey, SecretKey
from meshnet.cipher.sphinx import BadOnion, build, peel
from meshnet.circuit.epochs import (
    IDENTITY,
    EpochKey,
    KeyRing,
    OnionKey,
    behind,
    epoch_at,
    fresh,
)
from meshnet.circuit.messages import CREATE, NO_PATH_KEY, Create, HopTerms
from meshnet.circuit.origin import associated_data, payloads, seals
from meshnet.circuit.replay import NoLog, Replays
from meshnet.circuit.tail import find_way
from meshnet.codec import decode, encode
from meshnet.errors import Reason
from meshnet.limits import EPOCH_SECONDS, EPOCHS
from meshnet.node.topology import LIFE_MINUTES
from tests.meshnet.circuit.network import NETWORK, UNIX, FakeNetwork

NODE = SecretKey(b"n" * 32)
VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "epochs.json").read_text())
DAY = 86_400.0


def ring(unix: float = UNIX, seed: int = 1) -> KeyRing:
    """A ring that has begun."""
    made = KeyRing(NODE)
    made.roll(unix, randomness.Random(seed).randbytes)
    return made


class Numbers(SynchronousTestCase):
    """Epochs and their distance."""

    def test_epochs(self) -> None:
        """Six hours each from 1970 on, never 0, and again from 1 after 65,535."""
        self.assertEqual([epoch_at(t) for t in (0, 21_599.9, 21_600, UNIX)], [1, 1, 2, 78_703 % 65_535 + 1])
        self.assertEqual(epoch_at(EPOCH_SECONDS * EPOCHS - 1), EPOCHS)
        self.assertEqual(epoch_at(EPOCH_SECONDS * EPOCHS), 1)

    def test_distance(self) -> None:
        """Also across the end of the numbers."""
        end = EPOCH_SECONDS * EPOCHS
        self.assertEqual([behind(epoch, end) for epoch in (1, 2, EPOCHS, EPOCHS - 1)], [0, -1, 1, 2])
        self.assertEqual(behind(1, end - 1.0), -1)

    def test_fresh(self) -> None:
        """What a record states is used if it is of this epoch, the one before or, since clocks differ, the
        next; and never where it states none."""
        now = epoch_at(UNIX)
        self.assertEqual(
            [fresh(now + step, UNIX) for step in (-2, -1, 0, 1, 2)], [False, True, True, True, False]
        )
        self.assertFalse(fresh(IDENTITY, EPOCH_SECONDS * (EPOCHS - 1)))


class Clocks(SynchronousTestCase):
    """Two nodes whose clocks are up to an hour wrong, each."""

    @given(
        issued=st.floats(UNIX, UNIX + 2 * DAY),
        node=st.floats(-3_600.0, 3_600.0),
        origin=st.floats(-3_600.0, 3_600.0),
        share=st.floats(0.0, 1.0),
    )
    def test_an_hour_wrong(self, issued: float, node: float, origin: float, share: float) -> None:
        """As long as an origin holds a record, it takes the key for fresh, and the node still has it."""
        draw = randomness.Random(5).randbytes
        keys = KeyRing(NODE)
        stated = keys.roll(issued + node, draw).made
        assert stated is not None
        held = max(0.0, 60 * LIFE_MINUTES + node - origin) * share  # seconds, until it is over by that clock
        for part in range(9):
            keys.roll(issued + node + held * part / 8, draw)
        self.assertTrue(fresh(stated.epoch, issued + held + origin))
        self.assertEqual(keys.find(stated.epoch), stated.secret)


class Vectors(SynchronousTestCase):
    """Our own bytes, `tests/vectors/epochs.json`."""

    def test_epochs(self) -> None:
        """The numbers, also by hand."""
        for case in VECTORS["epochs"]:
            self.assertEqual(epoch_at(case["unix"]), case["epoch"])
            self.assertEqual(case["unix"] // 21_600 % 65_535 + 1, case["epoch"])

    def test_create(self) -> None:
        """A CREATE over a hop of this epoch, one of which no key is known, and one of the epoch before."""
        case = VECTORS["create"]
        hops = [SecretKey(bytes.fromhex(hop["identity"])) for hop in case["hops"]]
        stated = {
            node.public: OnionKey(hop["epoch"], SecretKey(bytes.fromhex(hop["onion_key"])).public)
            for node, hop in zip(hops, case["hops"], strict=True)
            if hop["epoch"]
        }
        way = find_way([hop.public for hop in hops], NODE)
        layers = seals(way, lambda key, unix: stated.get(key), case["unix"])
        made = payloads(way, bytes.fromhex(case["first_message"]), case["idle"], layers)
        self.assertEqual([payload.hex() for _, payload in made], [hop["payload"] for hop in case["hops"]])
        session = SecretKey(bytes.fromhex(case["session_key"]))
        onion = build(session, made, associated_data(case["network"], case["expiry"]))
        frame = Create(case["label"], case["expiry"], layers[0].epoch, NO_PATH_KEY, onion.packet)
        self.assertEqual(encode(frame).hex(), case["frame"][6:])

    def test_peeled(self) -> None:
        """Each hop opens its layer with the key of the epoch that CREATE names, and is told the next."""
        case = VECTORS["create"]
        frame = decode(Create, bytes.fromhex(case["frame"])[3:])
        packet, epoch = frame.onion, frame.epoch
        associated = associated_data(case["network"], frame.expiry)
        for hop in case["hops"]:
            self.assertEqual(epoch, hop["epoch"])
            peeled = peel(SecretKey(bytes.fromhex(hop["onion_key"] or hop["identity"])), packet, associated)
            self.assertEqual(peeled.payload.hex(), hop["payload"])
            packet, epoch = peeled.next_packet or b"", decode(HopTerms, peeled.payload).epoch or IDENTITY
        self.assertEqual(packet, b"")


class Rings(SynchronousTestCase):
    """The keys of one node."""

    def test_change(self) -> None:
        """A key opens onions for its epoch and the next, then it is forgotten."""
        draw = randomness.Random(2).randbytes
        keys = KeyRing(NODE)
        self.assertEqual((keys.current, keys.find(IDENTITY)), (None, NODE))
        first = keys.roll(UNIX, draw).made
        assert first is not None
        self.assertEqual(keys.roll(UNIX + 1, draw).made, None)
        second = keys.roll(UNIX + EPOCH_SECONDS, draw)
        self.assertEqual((second.forgotten, keys.keys), ((), (second.made, first)))
        self.assertEqual(keys.find(first.epoch), first.secret)
        third = keys.roll(UNIX + 2 * EPOCH_SECONDS, draw)
        self.assertEqual(third.forgotten, (first,))
        self.assertIsNone(keys.find(first.epoch))
        self.assertEqual(keys.find(IDENTITY), NODE)

    def test_clock_that_jumps(self) -> None:
        """A day ahead, or back, and then right again: the key that others know still opens their onions."""
        draw = randomness.Random(3).randbytes
        for jump in (DAY, -DAY):
            keys = ring()
            known = keys.current
            keys.roll(UNIX + jump, draw)
            assert known is not None
            self.assertEqual(keys.find(known.epoch), known.secret)
            self.assertEqual(keys.roll(UNIX + 60, draw).made, None)
            self.assertIs(keys.current, known)

    def test_recall(self) -> None:
        """After a restart: the keys of now and before are taken back, older ones not, however many there are;
        one ahead of the clock is, for the clock may be behind."""
        now = epoch_at(UNIX)
        kept = {step: EpochKey(now + step, SecretKey(bytes([step + 9]) * 32)) for step in (-3, -1, 0, 5)}
        keys = KeyRing(NODE)
        change = keys.recall(list(kept.values()), UNIX)
        self.assertEqual(keys.keys, (kept[0], kept[-1]))
        self.assertEqual(set(change.forgotten), {kept[-3], kept[5]})
        self.assertEqual(keys.roll(UNIX, bytes).made, None)
        keys = KeyRing(NODE)
        self.assertEqual(keys.recall([kept[5], kept[-3]], UNIX).forgotten, (kept[-3],))
        self.assertEqual(keys.keys, (kept[5],))
        twin = EpochKey(now, SecretKey(b"t" * 32))
        keys = KeyRing(NODE)
        self.assertEqual(keys.recall([twin, kept[0]], UNIX).forgotten, (kept[0],))
        self.assertEqual(keys.find(now), twin.secret)

    def test_nothing_shows(self) -> None:
        """No secret is in what prints."""
        made = ring().current
        assert made is not None
        self.assertNotIn(made.secret.secret.hex(), repr(made))
        self.assertEqual(made.stated, OnionKey(made.epoch, made.secret.public))


class RingMachine(RuleBasedStateMachine):
    """A node's clock that runs, jumps, and restarts: what it holds is what others may use, and no more."""

    def __init__(self) -> None:
        super().__init__()
        self.draw = randomness.Random(4).randbytes
        self.unix = float(UNIX)
        self.keys = KeyRing(NODE)
        self.gone: list[EpochKey] = []
        self.rolls = 0
        self._roll()

    def _roll(self) -> None:
        before = self.keys.current
        change = self.keys.roll(self.unix, self.draw)
        self.gone += change.forgotten
        if before is not None:
            assert self.keys.find(before.epoch) == before.secret  # what others know opens once more

    @rule(seconds=st.floats(0, 3 * DAY))
    def passes(self, seconds: float) -> None:
        """Time, in which the node rolls or sleeps."""
        self.unix += seconds
        self._roll()

    @rule(seconds=st.floats(-400 * DAY, 400 * DAY))
    def jumps(self, seconds: float) -> None:
        """The clock is set."""
        self.unix = max(0.0, self.unix + seconds)
        self._roll()

    @rule()
    def half_a_day(self) -> None:
        """Whatever was held is forgotten after twelve hours of running."""
        held = self.keys.keys
        for _ in range(3):
            self.unix += EPOCH_SECONDS
            self._roll()
        assert not set(held) & set(self.keys.keys)

    @rule(off=st.floats(0, 2 * DAY))
    def restarts(self, off: float) -> None:
        """With what was on the disk."""
        kept = [*self.keys.keys, *self.gone[-1:]]
        self.unix += off
        self.keys = KeyRing(NODE)
        change = self.keys.recall(kept, self.unix)
        assert set(change.forgotten) | set(self.keys.keys) == set(kept)
        self.gone += change.forgotten
        self._roll()

    @precondition(lambda self: self.gone)
    @invariant()
    def forgotten(self) -> None:
        """Nothing that was forgotten opens anything, unless the disk brought it back in time."""
        held = {key.secret.secret for key in self.keys.keys}
        for key in self.gone:
            found = self.keys.find(key.epoch)
            assert found is None or found.secret in held

    @invariant()
    def two(self) -> None:
        """At most two keys, the first of them of now; each is found under its number, and the identity's."""
        keys = self.keys.keys
        assert 1 <= len(keys) <= 2 and len({key.epoch for key in keys}) == len(keys)
        assert keys[0].epoch == epoch_at(self.unix)
        assert all(self.keys.find(key.epoch) is key.secret for key in keys)
        assert self.keys.find(IDENTITY) is NODE


RingTest = RingMachine.TestCase


class Stating(SynchronousTestCase):
    """Circuits from a over r, s and t to b, who all have rings and state their keys."""

    def setUp(self) -> None:
        self.network = FakeNetwork("arstb")
        self.stating = {"r", "s", "t", "b"}
        self.creates: list[Create] = []
        for name in "rstb":
            node = self.network[name]
            node.circuits._shared.ring = KeyRing(node.secret)
            node.circuits._shared.ring.roll(UNIX, self.network.random.randbytes)
        self.network["a"].circuits._shared.stated = self.stated
        self.tap("a", "r")
        self.tap("r", "s")

    def tap(self, one: str, other: str) -> None:
        """Keeps the CREATEs that arrive at `other`."""

        def seen(kind: int, body: bytes) -> bytes:
            if kind == CREATE:
                self.creates.append(decode(Create, body))
            return body

        self.network[one].links[self.network[other].key].tamper = seen

    def ring(self, name: str) -> KeyRing:
        """The keys of a node."""
        return self.network[name].circuits._shared.ring

    def stated(self, key: PublicKey, unix: float) -> OnionKey | None:
        """What a has heard."""
        for name in self.stating:
            current = self.ring(name).current
            if self.network[name].key == key and current is not None:
                return current.stated
        return None

    def test_every_hop(self) -> None:
        """All layers are for keys that change; each hop counts it, and cells pass both ways."""
        near, far = self.network.pair("arstb")
        near.say(b"there")
        far.say(b"back")
        self.network.pump()
        self.assertEqual((far.heard, near.heard), ([b"there"], [b"back"]))
        epoch = epoch_at(UNIX)
        self.assertEqual([frame.epoch for frame in self.creates], [epoch, epoch])
        self.assertEqual(self.network["a"].circuits.totals.hops_by_epoch, 4)
        for name in "rstb":
            self.assertEqual(self.network[name].circuits.totals.onions_by_epoch, 1)

    def test_some_hops(self) -> None:
        """Hops of which nothing is known get a layer for their identity key, each for itself."""
        for stating in ({"s"}, {"r", "t"}, {"b"}, set[str]()):
            self.stating, self.creates = stating, []
            circuit = self.network.open("arstb")
            self.assertEqual(circuit.state, "open", stating)
            self.assertEqual([bool(epoch) for epoch in circuit.epochs], [name in stating for name in "rstb"])
            self.assertEqual([bool(frame.epoch) for frame in self.creates], ["r" in stating, "s" in stating])

    def test_forward_secrecy(self) -> None:
        """Who has recorded an onion, and gets all keys of the node after they have changed twice, does not
        open it; half a day earlier he would have."""
        self.network.open("arstb")
        frame = self.creates[0]
        associated = associated_data(NETWORK, frame.expiry)
        keys = self.ring("r")
        secret = keys.find(frame.epoch)
        assert secret is not None
        self.assertIsNotNone(peel(secret, frame.onion, associated).next_packet)
        for step in (1, 2):
            keys.roll(UNIX + step * EPOCH_SECONDS, self.network.random.randbytes)
        self.assertIsNone(keys.find(frame.epoch))
        for each in (keys.find(IDENTITY), *(key.secret for key in keys.keys)):
            assert each is not None
            self.assertRaises(BadOnion, peel, each, frame.onion, associated)

    def fails(self) -> tuple[Reason, int | None]:
        """Why the circuit fails, and which hop says so."""
        self.creates.clear()
        self.network["a"].failed.clear()
        self.network.open("arstb")
        (error,) = self.network["a"].failed
        return error.reason, error.hop

    def only(self, name: str) -> OnionKey:
        """One node has stated its present key, which stays what a knows of it, and no other has."""
        mine, current = self.network[name].key, self.ring(name).current
        assert current is not None
        kept = current.stated
        self.network["a"].circuits._shared.stated = lambda key, unix: kept if key == mine else None
        return kept

    def test_lost_keys(self) -> None:
        """A hop that has lost its keys refuses before any cryptography. The origin never falls back to the
        identity key, which would open: else whoever stands before that hop could bring it to that."""
        for place, reason in (("r", Reason.WRONG_EPOCH), ("s", Reason.NEXT_WRONG_EPOCH)):
            stated, shared = self.only(place), self.network[place].circuits._shared
            shared.ring = KeyRing(shared.secret)
            for _ in range(3):
                self.assertEqual(self.fails(), (reason, 0))
                self.assertEqual(self.creates["rs".index(place)].epoch, stated.epoch)

    def test_other_key_of_the_number(self) -> None:
        """A hop that has made another key for the epoch cannot open the onion, and says so."""
        self.only("s")
        self.network["s"].circuits._shared.ring = KeyRing(self.network["s"].secret)
        self.ring("s").roll(UNIX, self.network.random.randbytes)
        self.assertEqual(self.fails(), (Reason.NEXT_BAD_ONION, 0))

    def test_changed_on_the_way(self) -> None:
        """A relay that names another epoch, or none, in its CREATE gains a circuit that fails."""
        for epoch, reason in ((7, Reason.NEXT_WRONG_EPOCH), (IDENTITY, Reason.NEXT_BAD_ONION)):

            def changed(kind: int, body: bytes, epoch: int = epoch) -> bytes:
                return body[:8] + epoch.to_bytes(2, "big") + body[10:] if kind == CREATE else body

            self.network["r"].links[self.network["s"].key].tamper = changed
            self.assertEqual(self.fails(), (reason, 0))

    def receive(self, frame: Create) -> None:
        """r gets a CREATE from a."""
        relay, now = self.network["r"], self.network.now
        link = relay.link(self.network["a"])
        relay.circuits.receive(link, CREATE, memoryview(encode(frame)), now, self.network.unix)

    def test_replay(self) -> None:
        """An onion is acted on once, whichever epoch is named with it, also after the keys have changed."""
        self.network.open("arstb")
        frame = self.creates[0]
        self.ring("r").roll(UNIX + EPOCH_SECONDS, self.network.random.randbytes)
        for step, epoch in enumerate((frame.epoch, frame.epoch + 1, IDENTITY)):
            self.receive(evolve(frame, label=frame.label + 1 + step, epoch=epoch))
        self.assertEqual(self.network["r"].circuits.totals.refused, {Reason.REPLAY: 3})

    def test_path_key(self) -> None:
        """A path key goes with epoch 0 only; any other is refused as everything is in a tail."""
        self.network.open("arstb")
        frame = self.creates[0]
        self.receive(evolve(frame, label=frame.label + 1, path_key=self.network["a"].key))
        self.assertEqual(self.network["r"].circuits.totals.refused, {Reason.WRONG_EPOCH: 1})

    def test_after_a_start_without_its_replay_set(self) -> None:
        """Where tags may be missing, onions for keys of an earlier run are refused, those for a key made
        since are not: nobody can have sent one before."""

        class Torn(NoLog):
            def load(self, unix: float) -> tuple[dict[int, set[bytes]], int]:
                return {}, int(unix) + 1_500

        relay = self.network["r"]
        relay.circuits._admission._replays = Replays(Torn(), UNIX)
        self.assertEqual(self.network.open("arstb").state, "open")
        self.stating.clear()
        self.assertEqual(self.fails(), (Reason.BUSY, 0))
        self.stating.add("r")
        kept = self.ring("r").keys
        relay.circuits._shared.ring = KeyRing(relay.secret)
        self.ring("r").recall(kept, UNIX)
        self.assertEqual(self.fails(), (Reason.BUSY, 0))
