"""Several lanes to a neighbour, on the simulated network."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from lab.simulation.network import Conditions
from meshnet.cipher.keys import SecretKey
from meshnet.codec import encode
from meshnet.errors import ProtocolError
from meshnet.limits import LANE_LOSERS, LINK_SURVIVES
from meshnet.link.frame import HELLO, LANE_NUMBERS, our_hello
from meshnet.link.lane import Lane
from meshnet.link.link import Link
from tests.meshnet.link.neighbours import LABEL, LARGE, NOTE, SMALL, DriverCase, Neighbours, Node


class LanesCase(DriverCase):
    """Two nodes with lanes."""

    def lanes(self, small: int, large: int, how: Conditions | None = None, seed: int = 0) -> Neighbours:
        """Two nodes that want so many."""
        world = self.net = Neighbours(seed, how)
        self.small = world.add("small", SMALL, lanes=small)
        self.large = world.add("large", LARGE, lanes=large)
        return world

    def up(self, world: Neighbours, lanes: int) -> tuple[Link, Link]:
        """Lets time pass until all lanes stand at both ends."""

        def ready() -> bool:
            ends = (self.small.to(self.large), self.large.to(self.small))
            return all(link is not None and len(link.standing) == lanes == link.lanes for link in ends)

        self.assertTrue(world.network.run_until(ready, 30), self.shown())
        one, other = self.small.to(self.large), self.large.to(self.small)
        assert one is not None and other is not None
        return one, other

    def shown(self) -> object:
        nodes = (self.small, self.large)
        return [link.snapshot(0.0) for node in nodes for link in node.links.by_key.values()]

    def cut(self, node: Node, link: Link, lane: int) -> None:
        """Breaks the connection of one lane."""
        serving = link.seats[lane].lane
        assert serving is not None
        carrier = node.links._connections[serving].carrier
        (line,) = (line for line in self.net.internet.connections if carrier in (line.near, line.far))
        line.reset("cut")


class LanesTests(LanesCase):
    """How many, and what goes where."""

    def test_the_greater_number(self) -> None:
        """Both ends agree on the greater of both wishes, whoever dials; each lane has one connection."""
        for small in LANE_NUMBERS:
            for large in (1, 4, 16):
                for dialler in ("small", "large"):
                    world = self.lanes(small, large)
                    one, other = (self.small, self.large) if dialler == "small" else (self.large, self.small)
                    world.dial(one, other)
                    self.up(world, max(small, large))
                    world.run(10)
                    self.assertEqual(len(world.internet.connections), max(small, large))
                    self.assertEqual(one.links.peers[other.key].attempts, max(small, large))
                    world.stop()

    def test_both_dial(self) -> None:
        """Each lane ends up on the smaller key's connection, or on the one that stood before."""
        world = self.lanes(4, 2)
        world.dial(self.small, self.large)
        world.dial(self.large, self.small)
        one, other = self.up(world, 4)
        world.run(20)
        self.assertEqual(len(world.internet.connections), 4)
        for mine, theirs in zip(one.seats, other.seats, strict=True):
            assert mine.lane and theirs.lane
            self.assertEqual((mine.lane.dialled, theirs.lane.dialled), (True, False))
        world.stop()

    def test_frames_take_their_labels_lane(self) -> None:
        """What is said about a label goes over that lane alone, in order; tables belong to the link."""
        world = self.lanes(4, 1, Conditions(delay=0.02, jitter=0.5))
        world.dial(self.small, self.large)
        one, other = self.up(world, 4)
        before = [seat.bytes_received for seat in other.seats]
        for number in range(50):
            one.send(NOTE, b"%d" % number, 4_000_002)
        world.run(3)
        grown = [seat.bytes_received - was for seat, was in zip(other.seats, before, strict=True)]
        self.assertEqual(self.large.notes, [b"%d" % number for number in range(50)])
        self.assertGreater(grown[2], 50 * 4)
        self.assertLess(max(grown[:2] + grown[3:]), 400, "pings only")
        for label in range(8):
            self.assertIs(one.outlet(label), one.seats[label % 4].outlet)
        self.assertEqual(list(other.forward), [LABEL])
        world.stop()

    def test_a_lost_lane(self) -> None:
        """The others go on; nothing is told to circuits; new labels avoid it; its dialler is back soon."""
        world = self.lanes(4, 4)
        world.dial(self.small, self.large)
        one, other = self.up(world, 4)
        self.cut(self.large, other, 1)
        world.run(0.1)
        self.assertEqual((one.standing, other.standing), ((0, 2, 3), (0, 2, 3)))
        self.assertTrue(one.up and other.up)
        self.assertFalse(one.send(NOTE, b"lane 1", 1))
        self.assertTrue(one.send(NOTE, b"lane 2", 2))
        world.run(0.1)
        self.assertEqual(self.large.notes, [b"lane 2"])
        again = self.up(world, 4)
        self.assertIs(again[0], one)
        self.assertEqual((self.small.gone, self.large.gone, self.small.restarted), ([], [], []))
        self.assertEqual(one.connections, 5)
        world.stop()

    def test_all_lanes_lost(self) -> None:
        """The link and its tables survive for half a minute; while nobody stands only lane 0 is dialled."""
        world = self.lanes(4, 4)
        world.dial(self.small, self.large)
        one, _ = self.up(world, 4)
        world.network.partition({"small"})
        world.internet.sever("small", "large")
        world.run(LINK_SURVIVES - 10)
        self.assertEqual((self.small.gone, len(self.small.links.peers[LARGE.public].calls)), ([], 1))
        world.network.heal()
        self.assertTrue(world.network.run_until(lambda: one.up, 9))
        self.assertIs(self.up(world, 4)[0], one)
        world.network.partition({"small"})
        world.internet.sever("small", "large")
        world.run(LINK_SURVIVES + 2)
        self.assertEqual((len(self.small.gone), len(self.large.gone)), (1, 1))
        world.stop()

    def test_a_restart_with_another_number(self) -> None:
        """The neighbour comes back with more lanes, or fewer: both agree again, its circuits are lost."""
        for now_lanes in (1, 2, 8):
            world = self.lanes(1, 4)
            world.dial(self.small, self.large)
            self.up(world, 4)
            self.large.links.stop()
            world.internet.remove("large")
            self.large = world.add("large", LARGE, lanes=now_lanes)
            self.up(world, now_lanes)
            world.run(10)
            self.assertEqual((len(self.small.restarted), len(self.large.restarted)), (1, 0))
            self.assertEqual(len(world.internet.connections), now_lanes)
            world.stop()

    def test_renewed(self) -> None:
        """Every lane gets a fresh connection after an hour."""
        world = self.lanes(2, 2)
        world.dial(self.small, self.large)
        one, _ = self.up(world, 2)
        world.run(3_700)
        self.assertEqual((one.connections, len(world.internet.connections)), (4, 2))
        world.stop()

    @settings(max_examples=10)
    @given(st.integers(0, 1 << 30), st.lists(st.tuples(st.floats(0, 2), st.integers(0, 3)), max_size=8))
    def test_any_cuts(self, seed: int, cuts: list[tuple[float, int]]) -> None:
        """Lanes are cut at any time, both dialling: in the end each has one connection, and carries."""
        world = self.lanes(4, 2, Conditions(delay=0.05, jitter=0.05), seed)
        world.dial(self.small, self.large)
        world.dial(self.large, self.small)
        for wait, number in cuts:
            world.run(wait)
            lines = world.internet.connections
            if lines:
                lines[number % len(lines)].reset("cut")
        world.run(30)
        one, other = self.up(world, 4)
        self.assertEqual(len(world.internet.connections), 4)
        for label in range(4):
            one.send(NOTE, b"there %d" % label, label)
            other.send(NOTE, b"back %d" % label, label)
        world.run(1)
        self.assertEqual(set(self.large.notes), {b"there %d" % label for label in range(4)})
        self.assertEqual(set(self.small.notes), {b"back %d" % label for label in range(4)})
        world.stop()


class HostileTests(LanesCase):
    """A neighbour that may link, and does not play by the rules."""

    def test_a_lane_that_is_not_there(self) -> None:
        """Its connection is closed; the link it has stays."""
        world = self.lanes(2, 2)
        world.dial(self.small, self.large)
        _, other = self.up(world, 2)
        self.small.links.calls.peers[LARGE.public].calls[1].number = 2
        self.small.links.calls.attempt(self.small.links.peers[LARGE.public].calls[1])
        world.run(1)
        self.assertEqual((len(world.internet.connections), other.connections), (2, 2))
        self.assertEqual(self.large.links.handshakes_failed, 1)
        self.small.links.peers[LARGE.public].calls[1].number = 1
        world.stop()

    def test_a_flood_for_one_lane(self) -> None:
        """Connections for a lane without end: few are read at a time, the others end, other lanes stay."""
        world = self.lanes(2, 2)
        world.dial(self.small, self.large)
        _, other = self.up(world, 2)
        call = self.small.links.peers[LARGE.public].calls[1]
        for _ in range(50):
            self.small.links.calls.attempt(call)
            world.run(0.1)
            self.assertLessEqual(self.large.connections(), 2 + LANE_LOSERS + 2)
        self.assertEqual(other.seats[0].connections, 1)
        world.run(10)
        self.assertEqual(len(world.internet.connections), 2)
        world.stop()

    def test_the_wrong_side_dials_a_lane(self) -> None:
        """Whoever dials may name any lane there is; where the smaller key's stands, the other's loses."""
        world = self.lanes(2, 2)
        world.dial(self.small, self.large)
        one, other = self.up(world, 2)
        world.dial(self.large, self.small)
        for call in self.large.links.peers[SMALL.public].calls:
            self.large.links.calls.attempt(call)
        world.run(20)
        self.assertEqual([seat.connections for link in (one, other) for seat in link.seats], [1, 1, 1, 1])
        self.assertEqual(len(world.internet.connections), 2)
        world.stop()

    def test_numbers_of_lanes(self) -> None:
        """HELLO may want 1, 2, 4, 8 or 16; anything else ends the connection before the link hears of it."""
        world = self.lanes(1, 1)
        for wanted in (0, 3, 5, 17, 255):
            odd = world.add(f"odd{wanted}", SecretKey(bytes([100 + wanted % 50]) * 32), lanes=wanted)
            world.dial(odd, self.large)
            world.run(1)
            self.assertIsNone(self.large.to(odd))
            odd.links.calls.stop()
        world.stop()

    def test_a_second_hello(self) -> None:
        """Says nothing any more."""
        world = self.lanes(1, 1)
        world.dial(self.small, self.large)
        one, other = self.up(world, 1)
        one.send(HELLO, encode(our_hello(5, 3, 16)))
        world.run(1)
        self.assertEqual((other.lanes, other.connections, self.large.restarted), (1, 1, []))
        world.stop()

    def test_we_dialled_a_lane_that_is_gone(self) -> None:
        """The neighbour has restarted with fewer lanes meanwhile: the connection ends with a sentence."""
        lane = object.__new__(Lane)
        lane.number = 3
        world = self.lanes(1, 1)
        world.dial(self.small, self.large)
        one, _ = self.up(world, 1)
        assert one.hello is not None
        error = self.assertRaises(ProtocolError, self.small.links._link, lane, LARGE.public, one.hello)
        self.assertIn("no lane 3", str(error))
        world.stop()
