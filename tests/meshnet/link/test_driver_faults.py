"""Links on the simulated network: what a loss costs, floods, and the end."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import capturedLogs, formatEvent

from lab.simulation.network import Conditions
from meshnet.limits import HANDSHAKE_SECONDS, LINK_SILENCE, LINK_SURVIVES
from meshnet.link import driver
from meshnet.transports.conformance import Sink
from meshnet.transports.interface import ByteCarrier
from tests.meshnet.link.neighbours import LABEL, LARGE, SECRETS, SMALL, THIRD, DriverCase, Neighbours

HALF_OPEN = 64


class LossTests(DriverCase):
    """Connections that end."""

    def linked(self, conditions: Conditions | None = None) -> Neighbours:
        world = self.world(0, conditions)
        world.dial(self.small, self.large)
        self.assertTrue(world.linked(self.small, self.large))
        return world

    def test_cut(self) -> None:
        """The link object, its tables and what waited in it survive; the dialler is back within a second."""
        world = self.linked()
        link = self.small.to(self.large)
        assert link is not None
        world.internet.sever("small", "large")
        world.run(0.1)
        self.assertFalse(link.up)
        self.assertFalse(link.send(31, b"down"))
        world.run(2)
        self.assertIs(self.small.to(self.large), link)
        self.assertEqual((link.connections, list(link.forward), self.small.gone), (2, [LABEL], []))
        self.assertEqual((self.small.restarted, self.large.restarted), ([], []))
        self.agree(world)
        world.stop()

    def test_the_buffer_goes_with_the_connection(self) -> None:
        """A connection that has ended holds no memory to receive into, whoever still knows it."""
        world = self.linked()
        former = [lane for node in (self.small, self.large) for lane in node.links._connections]
        self.assertTrue(all(len(lane.buffer()) for lane in former))
        world.internet.sever("small", "large")
        world.run(3)
        self.assertEqual([len(lane.buffer()) for lane in former], [0, 0])
        self.agree(world)
        world.stop()

    def test_gone(self) -> None:
        """After 30 s without a connection both are told, once; a later link is another object."""
        world = self.linked()
        link = self.small.to(self.large)
        world.network.partition({"small"})
        world.internet.sever("small", "large")
        lost = world.network.clock.seconds()
        world.run(LINK_SURVIVES - 1)
        self.assertEqual((self.small.gone, self.large.gone), ([], []))
        self.assertEqual(len(self.small.links.by_key), 1)
        world.run(3)
        for one, other in ((self.small, self.large), (self.large, self.small)):
            ((when, key),) = one.gone
            self.assertEqual(key, other.key)
            self.assertLessEqual(abs(when - lost - LINK_SURVIVES), 1.1)
            self.assertEqual(one.links.by_key, {})
        world.run(100)
        self.assertEqual(len(self.small.gone), 1)
        world.network.heal()
        self.assertTrue(world.linked(self.small, self.large, 200))
        self.assertIsNot(self.small.to(self.large), link)
        world.stop()

    def test_silence(self) -> None:
        """A connection over which nothing comes any more, though it stands, is given up and made again."""
        world = self.linked()
        world.network.partition({"small"})
        world.run(LINK_SILENCE + 10)
        self.assertIsNone(self.small.to(self.large))
        self.assertIsNone(self.large.to(self.small))
        world.network.heal()
        self.assertTrue(world.linked(self.small, self.large, 100))
        self.assertEqual((self.small.gone, self.large.gone), ([], []))
        self.agree(world)
        world.stop()

    def test_restarted_neighbour(self) -> None:
        """A node that was killed and comes back has a link again, whoever dials."""
        for dialler in ("small", "large"):
            world = self.world()
            one, other = (self.small, self.large) if dialler == "small" else (self.large, self.small)
            world.dial(one, other)
            world.linked(one, other)
            for node in (other, one):
                node.links.stop()
                world.internet.remove(node.name)
                fresh = world.add(node.name, node.secret)
                if node is one:
                    one = fresh
                    world.dial(one, other)
                else:
                    other = fresh
                self.small, self.large = (one, other) if dialler == "small" else (other, one)
                self.agree(world)
                stayed = other if node.name == one.name else one
                self.assertEqual(stayed.restarted != [], True, "it is another run of the node")
                self.assertEqual(fresh.restarted, [])
            world.stop()

    def test_restarted_behind_a_dead_connection(self) -> None:
        """The larger key's node comes back while the smaller's connection to its former run still seems to
        stand: it serves at once, without a challenge, and is not told what waited for its former run."""
        world = self.world()
        world.dial(self.small, self.large)
        world.linked(self.small, self.large)
        for line in world.internet.connections:
            line.near.pause()
            line.far.pause()
        link = self.small.to(self.large)
        assert link is not None
        for _ in range(100):
            link.send(31, bytes(10_000))
            world.run(0)
        self.assertGreater(len(link.outlet(0)._control), 10)
        self.large.links.stop()
        self.large = world.add("large", LARGE)
        world.dial(self.large, self.small)
        world.run(0.3)
        self.assertEqual((link.connections, len(self.small.restarted)), (2, 1))
        self.assertEqual((self.large.notes, len(link.outlet(0)._control)), ([], 0))
        self.agree_after(world)
        world.stop()

    def test_a_neighbour_that_breaks_the_protocol(self) -> None:
        """Its connection is closed; it may come back; other links are not touched."""
        world = self.linked()
        third = world.add("third", THIRD)
        world.dial(third, self.large)
        world.linked(third, self.large)
        link = self.small.to(self.large)
        assert link is not None
        link.send(254, b"not known and even")
        world.run(0.1)
        self.assertIsNone(self.large.to(self.small))
        self.assertIsNotNone(self.large.to(third))
        self.agree_after(world)
        world.stop()

    def agree_after(self, world: Neighbours) -> None:
        self.assertTrue(world.linked(self.small, self.large, 5))

    def test_a_fault_of_our_own(self) -> None:
        """An unexpected exception while frames are acted on costs that connection and is logged."""
        world = self.linked()
        third = world.add("third", THIRD)
        world.dial(third, self.large)
        world.linked(third, self.large)
        self.large.fault = ZeroDivisionError()
        world.say(self.small, self.large, b"boom")
        world.run(0.1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIsNone(self.large.to(self.small))
        self.assertIsNotNone(self.large.to(third))
        self.large.fault = None
        self.agree_after(world)
        world.stop()

    def test_a_source_that_raises(self) -> None:
        """A fault while sending is logged; no connection is closed for it and nobody else waits for it."""
        world = self.linked()
        link = self.large.to(self.small)
        assert link is not None

        class Broken:
            def pour(self, now: float) -> bool:
                raise ZeroDivisionError

        link._receivers = {31: lambda link, kind, body, now: link.outlet(0).ready(Broken())}
        world.say(self.small, self.large, b"boom")
        world.run(0.1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertTrue(link.up)
        world.say(self.large, self.small, b"goes on")
        world.run(1)
        self.assertEqual(self.small.notes, [b"goes on"])
        world.stop()

    @settings(max_examples=10)
    @given(st.integers(0, 1 << 30), st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=8))
    def test_any_number_of_cuts(self, seed: int, cuts: list[tuple[float, bool]]) -> None:
        """Cut at any time, both dialling or one: in the end both agree, nothing is left over."""
        world = self.world(seed, Conditions(delay=0.05, jitter=0.05))
        world.dial(self.small, self.large)
        for wait, both in cuts:
            if both and SMALL.public not in self.large.links.peers:
                world.dial(self.large, self.small)
            world.run(wait)
            world.internet.sever("small", "large")
        world.run(70)
        self.agree(world)
        world.stop()


class FloodTests(DriverCase):
    """Strangers."""

    def setUp(self) -> None:
        self.patch(driver, "HALF_OPEN_LINKS", HALF_OPEN)

    def strangers(self, world: Neighbours, number: int, say: bytes = b"") -> list[Sink]:
        """Connections of nobody in particular."""
        sinks: list[Sink] = []

        def attach(carrier: ByteCarrier) -> Sink:
            sink = Sink(carrier)
            sinks.append(sink)
            if say:
                sink.send(say)
            return sink

        for _ in range(number):
            world.internet.transport("stranger").dial("large", attach).addErrback(lambda _: None)
        return sinks

    def test_half_open_handshakes(self) -> None:
        """Their number and memory are bounded, the oldest go first, and honest ones still come through."""
        world = self.world()
        sinks = self.strangers(world, HALF_OPEN)
        world.run(0.1)
        self.assertEqual(self.large.links.handshakes_failed, 0)
        self.strangers(world, 20)
        world.run(0.1)
        self.assertEqual(self.large.links.half_open, HALF_OPEN)
        self.assertEqual(sum(1 for sink in sinks if sink.why), 20)
        self.assertTrue(all(sink.why for sink in sinks[:20]))
        self.assertEqual(self.large.links.handshakes_failed, 20)
        world.dial(self.small, self.large)
        for _ in range(20):
            self.strangers(world, 10)
            world.run(0.01)
        self.assertTrue(world.linked(self.small, self.large, 1))
        self.assertLessEqual(self.large.links.half_open, HALF_OPEN)
        world.run(HANDSHAKE_SECONDS + 2)
        self.assertEqual((self.large.links.half_open, self.large.connections()), (0, 1))
        world.stop()

    def test_our_own_dials_stand_a_flood(self) -> None:
        """What we dialled ourselves is not evicted by strangers, however long it takes."""
        world = self.world()
        world.network.change("small", "large", delay=1.0)
        world.dial(self.large, self.small)
        world.run(2.5)
        self.strangers(world, 2 * HALF_OPEN)
        world.run(5)
        link = self.large.to(self.small)
        assert link is not None
        self.assertEqual(link.connections, 1)
        self.assertEqual(self.large.links.peers[SMALL.public].calls[0].core.attempts, 1)
        world.stop()

    def test_garbage(self) -> None:
        """Each kind is hung up on at once; the link beside them does not notice."""
        world = self.world()
        world.dial(self.small, self.large)
        world.linked(self.small, self.large)
        for say in (b"GET / HTTP/1.1\r\n\r\n".ljust(50), bytes(50), bytes(500_000), b"\xff" * 116):
            sinks = self.strangers(world, 20, say)
            world.run(0.2)
            self.assertTrue(all(sink.why for sink in sinks))
        self.assertEqual((self.large.connections(), self.large.links.handshakes_failed), (1, 80))
        self.agree(world)
        world.stop()

    def test_the_log_is_not_flooded(self) -> None:
        """Failed handshakes of strangers are all counted; the log has a line of them every ten seconds."""
        world = self.world()
        with capturedLogs() as logged:
            for _ in range(100):
                self.strangers(world, 20, bytes(50))
                world.run(0.25)
        lines = [formatEvent(event) for event in logged]
        self.assertEqual(self.large.links.handshakes_failed, 2_000)
        self.assertEqual(len(lines), 3)
        self.assertIn("act one", lines[0])
        self.assertIn("more since", lines[1])
        world.stop()

    def test_too_many_links(self) -> None:
        """Beyond the limit strangers are refused, linked neighbours come back, we may still dial."""
        self.patch(driver, "LINKS", 2)
        world = self.world()
        others = [world.add(f"other{number}", secret) for number, secret in enumerate(SECRETS[2:6])]
        for other in others:
            world.dial(other, self.large)
        world.run(3)
        self.assertEqual(len(self.large.links.by_key), 2)
        self.assertGreater(self.large.links.refused, 1)
        linked = [other for other in others if self.large.to(other)]
        for other in linked:
            world.internet.sever(other.name, "large")
        world.run(3)
        self.assertEqual([other for other in others if self.large.to(other)], linked)
        world.dial(self.large, self.small)
        self.assertTrue(world.linked(self.small, self.large))
        world.stop()

    def test_too_many_lanes(self) -> None:
        """Strangers who ask for many lanes share a sum with all; a neighbour that the config names stands
        apart, and one that is linked cannot come back with more."""
        self.patch(driver, "LANES_IN_ALL", 20)
        world = self.world()
        others = [world.add(f"other{number}", secret, lanes=8) for number, secret in enumerate(SECRETS[2:7])]
        for other in others:
            world.dial(other, self.large)
        world.run(5)
        links = self.large.links
        self.assertEqual(sum(link.lanes for link in links.by_key.values()), 16)
        self.assertGreater(links.refused, 2)
        linked = next(other for other in others if self.large.to(other))
        linked.links.stop()
        again = world.add(linked.name, linked.secret, lanes=16)
        world.dial(again, self.large)
        world.run(5)
        self.assertLessEqual(sum(link.lanes for link in links.by_key.values()), 20)
        world.dial(self.large, self.small)
        self.assertTrue(world.linked(self.small, self.large))
        world.stop()

    def test_many_links_at_once(self) -> None:
        """The limit holds too where all were under way before the first stood."""
        self.patch(driver, "LINKS", 2)
        world = self.world()
        others = [world.add(f"other{number}", secret) for number, secret in enumerate(SECRETS[2:8])]
        for other in others:
            world.dial(other, self.large)
        world.run(0.15)
        self.assertLessEqual(len(self.large.links.by_key), 2)
        world.stop()


class StopTests(DriverCase):
    """The end, at any time."""

    def test_stop_at_any_time(self) -> None:
        """Whatever was under way (dials, handshakes, challenges, losers, waits), nothing is left."""
        for moment in (0.0, 0.005, 0.02, 0.03, 0.05, 0.07, 0.09, 0.2, 0.5, 1.2, 3.0, 7.0):
            world = self.world()
            world.dial(self.large, self.small)
            world.dial(self.small, self.large)
            self.small.links.add_peer(THIRD.public, "sim:nowhere")
            world.run(moment)
            world.stop()

    def test_stop_while_cut_off(self) -> None:
        """Dials that get no answer are given up."""
        world = self.world()
        world.network.partition({"small"})
        world.dial(self.small, self.large)
        world.run(1)
        self.small.links.stop()
        world.run(0.01)
        self.assertEqual(self.small.connections(), 0)
        world.run(30)
        self.assertEqual(self.small.connections(), 0)
        world.stop()

    def test_stop_twice(self) -> None:
        """Harmless; also before it was started."""
        world = self.world()
        self.small.links.stop()
        world.stop()
        self.small.links.stop()

    def test_stop_from_inside(self) -> None:
        """A node may be stopped by what a neighbour says."""
        world = self.world()
        world.dial(self.small, self.large)
        world.linked(self.small, self.large)
        stop: Callable[..., None] = lambda *_: self.large.links.stop()  # noqa: E731
        link = self.large.to(self.small)
        assert link is not None
        link._receivers = {31: stop}
        world.say(self.small, self.large, b"stop")
        world.run(1)
        self.assertEqual(self.large.connections(), 0)
        world.stop()

    def test_the_neighbour_learns_it(self) -> None:
        """Its link is down at once and gone 30 s later."""
        world = self.world()
        world.dial(self.small, self.large)
        world.linked(self.small, self.large)
        self.large.links.stop()
        world.internet.remove("large")
        world.run(1)
        self.assertIsNone(self.small.to(self.large))
        world.run(LINK_SURVIVES + 2)
        self.assertEqual([key for _, key in self.small.gone], [LARGE.public])
        world.stop()
