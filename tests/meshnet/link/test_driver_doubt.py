"""Links of a machine that slept, or whose network changed: asked at once, made again without waiting."""

from __future__ import annotations

from typing import Any

from meshnet.link.dialler import LONGEST_WAIT
from meshnet.link.driver import SLEPT
from meshnet.link.link import Link
from meshnet.link.seat import CHECKED
from meshnet.node.clock import NodeClock
from tests.meshnet.link.neighbours import LARGE, SMALL, THIRD, DriverCase, Neighbours


class DoubtTests(DriverCase):
    """Small dials large; what happens to small's machine."""

    def setUp(self) -> None:
        self.net = self.world()
        self.net.dial(self.small, self.large)
        self.assertTrue(self.net.linked(self.small, self.large))
        self.net.run(20)

    def link(self) -> Link:
        link = self.small.to(self.large)
        assert link is not None
        return link

    def sleep(self, seconds: float) -> None:
        """Small's clock jumps; nothing of it ran meanwhile."""
        self.small.slept += seconds

    def pings(self) -> int:
        return sum(seat.telemetry.pings for seat in self.link().seats)

    def test_a_short_stop(self) -> None:
        """A machine that stood still for less is not in doubt."""
        before = self.link().seats[0]._check
        self.sleep(SLEPT - 1)
        self.net.run(2)
        self.assertEqual(self.link().seats[0]._check, before)
        self.net.stop()

    def test_awake_and_the_link_stands(self) -> None:
        """It is pinged at once, answers, and goes on: hours of sleep are no silence of the neighbour."""
        before = self.pings()
        self.sleep(1_800)
        self.net.run(1.5)
        self.assertGreater(self.pings(), before)
        self.net.run(CHECKED + 2)
        self.assertEqual((self.link().connections, self.link().telemetry.loss), (1, 0))
        self.assertEqual((self.small.gone, self.large.gone), ([], []))
        delays = self.link().delays
        self.assertLess(abs(delays.there - 0.02), delays.uncertainty + 1e-4, "found anew after the jump")
        self.net.stop()

    def test_awake_and_the_link_is_dead(self) -> None:
        """The neighbour gave it up meanwhile, and no RST came: it is dialled again within seconds."""
        for line in self.net.internet.connections:
            line.near.pause()
            line.far.pause()
        self.sleep(1_800)
        self.net.run(1 + CHECKED + 3)
        self.assertEqual(self.link().connections, 2)
        self.agree(self.net)
        self.net.stop()

    def test_back_off_is_not_waited_out(self) -> None:
        """Who waits for a minute is dialled as soon as the network is another one."""
        self.small.links.add_peer(THIRD.public, "sim:third")
        call = self.small.links.peers[THIRD.public].calls[0]
        self.net.run(300)
        third = self.net.add("third", THIRD)
        self.assertEqual(call.core.wait, LONGEST_WAIT)
        self.small.links.check("the network has changed")
        self.net.run(1)
        self.assertIsNotNone(self.small.to(third))
        self.net.stop()

    def test_the_network_has_changed(self) -> None:
        """Whoever watches it has the links checked; the watch ends with the node."""
        watching: list[Any] = []
        world = Neighbours()

        def watch(changed: Any) -> Any:
            watching.append(changed)
            return lambda: watching.remove(changed)

        self.small = world.add("small", SMALL, watch=watch)
        self.large = world.add("large", LARGE)
        world.dial(self.small, self.large)
        world.linked(self.small, self.large)
        for line in world.internet.connections:
            line.near.pause()
            line.far.pause()
        (changed,) = watching
        changed()
        world.run(CHECKED + 3)
        self.assertEqual(self.link().connections, 2)
        world.stop()
        self.net.stop()
        self.assertEqual(watching, [])

    def test_the_wall_clock_is_set(self) -> None:
        """Nothing on links reads it: its steps change nothing."""
        for step in (-86_400.0, 86_400.0):
            clock = self.small.links._clock
            assert isinstance(clock, NodeClock)
            clock.unix = lambda step=step, unix=clock.unix: unix() + step  # type: ignore[misc]
            self.net.run(30)
        self.assertEqual((self.link().connections, self.link().delays.steps), (1, 0))
        self.net.stop()

    def test_several_addresses(self) -> None:
        """They are tried in turn, at once; the one that worked is tried first when the link is lost."""
        third = self.net.add("third", THIRD)
        self.small.links.add_peer(THIRD.public, "sim:old", "sim:older", "sim:third")
        self.net.run(1)
        self.assertIsNotNone(self.small.to(third))
        self.assertEqual(self.small.links.peers[THIRD.public].attempts, 3)
        self.net.internet.sever("small", "third")
        self.net.run(2)
        self.assertIsNotNone(self.small.to(third))
        self.assertEqual(self.small.links.peers[THIRD.public].attempts, 4)
        self.net.stop()

    def test_an_address_with_another_key(self) -> None:
        """Is no better than one where nobody listens: the next is tried."""
        third = self.net.add("third", THIRD)
        self.small.links.add_peer(THIRD.public, "sim:large", "sim:third")
        self.net.run(2)
        self.assertIsNotNone(self.small.to(third))
        self.net.stop()
