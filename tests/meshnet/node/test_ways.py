"""A stream that may take other relays: another way as soon as the one in use leads nowhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lab.simulation.network import Conditions
from lab.simulation.nodes import Collector
from meshnet.cipher.keys import PublicKey, SecretKey
from meshnet.errors import UsageError
from meshnet.node.renewal import ASKED_AFTER, SILENCE, TICK, WAY_SECONDS
from tests.meshnet.node.routers import PORT
from tests.meshnet.node.test_renewal import RenewalCase

DATA = bytes(range(256)) * 8_000
NOTICED = SILENCE + TICK + 0.2
"""Seconds after which a silent way must be left, set-up included."""


class WaysTests(RenewalCase):
    """Alice and bob with three relays side by side."""

    def between(self, rate: float | None = None) -> None:
        """alice ─ r1, r2, r3 ─ bob."""
        self.mesh(("alice", "r1", "bob"), conditions=Conditions(delay=0.01, rate=rate))
        for relay in ("r2", "r3"):
            self.m.add(relay)
            self.m.link("alice", relay)
            self.m.link(relay, "bob")
        self.assertTrue(self.m.linked())
        self.asked: list[float] = []

    def over(self, *ways: Callable[[], Sequence[PublicKey]] | str) -> Collector:
        """A stream over r1, then over these, one after the other; the last for ever."""
        left = list(ways)

        def next_way() -> Sequence[PublicKey]:
            self.asked.append(self.m.network.clock.seconds())
            way = left.pop(0) if len(left) > 1 else left[0]
            return self.m.route(way) if isinstance(way, str) else way()

        reader = Collector()
        opened = self.alice.connect(
            self.m["bob"].public, PORT, reader, via=self.m.route("r1"), identity="anonymous", ways=next_way
        )
        reader.stream = self.m.wait(opened)
        self.exchange(reader)
        return reader

    def stops(self, name: str) -> float:
        """A relay drops all cells from now on, both ways; when."""
        self.blind(name)
        for side in self.m[name].router.circuits._shared.sides.values():
            side.link.backward.clear()
        return self.m.network.clock.seconds()

    def relay(self) -> str:
        """Over whom alice sends."""
        leg = self.conversation.leg
        assert leg is not None
        keys = {node.public: name for name, node in self.m.nodes.items()}
        return keys[leg.circuit.route[0]]  # type: ignore[union-attr, index]

    def changed(self, since: float, relay: str, within: float) -> None:
        """In so many seconds she sends over that relay; the stream lives."""
        self.until(lambda: self.conversation.leg is not None and self.relay() == relay, within + 0.1)
        self.assertLess(self.m.network.clock.seconds() - since, within)

    def test_silent_in_mid_stream(self) -> None:
        """What is sent and not answered makes another circuit, and everything arrives once."""
        self.between(rate=2e6)
        near = self.over("r2")
        near.send(DATA, finish=True)
        self.m.network.run(0.2)
        self.changed(self.stops("r1"), "r2", NOTICED)
        self.until(lambda: self.accepted[0].ended, 60)
        self.assertEqual(bytes(self.accepted[0].got), b"hello" + DATA)
        self.assertIsNone(near.error)
        assert near.stream is not None
        near.stream.reset(0)
        self.clean()

    def test_without_other_ways_it_waits(self) -> None:
        """A stream that has none keeps its circuit for as long as ever."""
        self.between(rate=2e6)
        near = self.open("r1")
        near.send(DATA)
        self.m.network.run(0.2)
        self.stops("r1")
        self.m.network.run(5.0)
        self.assertEqual(self.relay(), "r1")
        self.end()

    def test_a_link_that_takes_nothing(self) -> None:
        """Where not even a cell leaves, what waits to be sent is enough."""
        self.between()
        near = self.over("r2")
        self.m.network.run(3.0)
        self.m.network.partition({"alice", "r2", "r3", "bob"}, {"r1"})
        self.m.internet.sever("alice", "r1")
        since = self.m.network.clock.seconds()
        near.send(b"on")
        self.changed(since, "r2", NOTICED)
        self.until(lambda: bytes(self.accepted[0].got).endswith(b"on"), 5)
        self.end()

    def test_who_only_receives(self) -> None:
        """He has nothing in flight; when nothing comes any more, he asks once."""
        self.between(rate=2e6)
        self.over("r2")
        self.accepted[0].send(DATA)
        self.m.network.run(0.3)
        self.changed(self.stops("r1"), "r2", NOTICED + ASKED_AFTER + TICK)
        self.end()

    def test_quiet_is_not_silent(self) -> None:
        """A way with nothing to carry stays, and is asked once, then only by the probe every ten seconds."""
        self.between()
        near = self.over("r2")
        self.m.network.run(1.0)
        self.exchange(near, b"again")
        since = self.m.network.clock.seconds()
        self.m.network.run(2.0)
        self.assertGreater(self.conversation.pinged, since)
        leg = self.conversation.leg
        assert leg is not None
        before = leg.path.cells_sent
        self.m.network.run(15.0)
        self.assertEqual((self.relay(), self.asked), ("r1", []))
        self.assertLessEqual(
            leg.path.cells_sent, before + 4
        )  # two probes, and what acknowledges their reports
        self.end()

    def test_a_slow_way_is_not_silent(self) -> None:
        """Round trips of more than a second are no reason to go."""
        self.between()
        for relay in ("r1", "r2", "r3"):
            for end in ("alice", "bob"):
                self.m.network.change(end, relay, delay=0.4)
        near = self.over("r2")
        for _ in range(10):
            near.send(b"x" * 1_000)
            self.m.network.run(1.0)
        self.assertEqual((self.relay(), self.asked), ("r1", []))
        self.end()

    def test_another_slow_way(self) -> None:
        """It is waited for as long as round trips take, not given up for the next, again and again."""
        self.between()
        for relay in ("r1", "r2"):
            for end in ("alice", "bob"):
                self.m.network.change(end, relay, delay=0.4)
        near = self.over("r2")
        near.send(b"x" * 5_000)
        self.m.network.run(5.0)
        since = self.stops("r1")
        near.send(b"y" * 5_000)
        self.changed(since, "r2", 20.0)
        self.assertEqual(len(self.asked), 1)
        self.end()

    def test_ways_that_do_not_stand(self) -> None:
        """One refused, one that there is not, and one that is silent cost little; the next is taken."""

        def none() -> Sequence[PublicKey]:
            raise UsageError("There is no other way.")

        self.between(rate=2e6)
        self.patch(self.m["r3"].router.circuits, "receive", lambda *frame: None)
        near = self.over(lambda: (SecretKey(bytes([9]) * 32).public,), none, "r3", "r2")
        near.send(DATA)
        self.m.network.run(0.2)
        since = self.stops("r1")
        self.changed(since, "r2", 3 * NOTICED + WAY_SECONDS)
        self.assertEqual(len(self.asked), 4)
        self.end()

    def test_many_falls(self) -> None:
        """As often as the way falls silent another is taken; a session does not end of it."""
        self.between(rate=2e6)
        near = self.over("r2", "r3", "r1", "r2", "r3", "r1", "r2", "r3", "r1", "r2")
        for relay in ("r1", "r2", "r3") * 3:
            near.send(DATA[:100_000])
            self.m.network.run(0.1)
            since = self.stops(relay)
            at_most = NOTICED + ASKED_AFTER + TICK  # if all had arrived just before
            self.until(lambda gone=relay: self.relay() != gone, at_most + 0.1)
            self.assertLess(self.m.network.clock.seconds() - since, at_most)
            self.m.network.run(0.5)
        self.assertIsNone(near.error)
        self.end()
