"""Links on the simulated network: who may link, and which connection serves."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from lab.simulation.network import Conditions
from meshnet.errors import ConfigError, LocalError
from meshnet.link.contest import LOSER_READ, RENEW, RENEW_AGAIN
from tests.meshnet.link.neighbours import LARGE, SMALL, THIRD, DriverCase, Neighbours


class LinkingTests(DriverCase):
    """One dials the other."""

    def test_linked(self) -> None:
        """Both know each other, whoever dials; both are told once."""
        for dialler in ("small", "large"):
            world = self.world()
            one, other = (self.small, self.large) if dialler == "small" else (self.large, self.small)
            world.dial(one, other)
            self.agree(world)
            self.assertEqual([key for _, key in one.up], [other.key])
            self.assertEqual([key for _, key in other.up], [one.key])
            world.stop()

    def test_the_other_comes_later(self) -> None:
        """The dialler goes on until somebody listens, and says meanwhile why not."""
        world = self.world()
        late = "sim:late"
        self.small.links.add_peer(THIRD.public, late)
        world.run(100)
        why = self.small.links.peers[THIRD.public].calls[0].core.why
        self.assertIn("nobody listens", str(why))
        third = world.add("late", THIRD)
        self.assertTrue(world.linked(self.small, third, 100))
        self.assertIsNone(self.small.links.peers[THIRD.public].calls[0].core.why)
        world.stop()

    def test_wrong_peers(self) -> None:
        """Another key at that address, another network, not accepted: no link, and a reason that helps."""
        for settings_, key, says in (
            ({}, THIRD.public, "another key"),
            ({"network": 8}, LARGE.public, "another network"),
            ({"accept": []}, LARGE.public, "accept"),
        ):
            world = self.world(0, None, **settings_)
            self.small.links.add_peer(key, "sim:large")
            world.run(5)
            self.assertIn(says, str(self.small.links.peers[key].calls[0].core.why))
            self.assertEqual((self.small.up, self.large.up), ([], []))
            self.assertGreater(self.large.links.handshakes_failed, 1)
            self.assertEqual(self.large.links.refused > 0, "accept" in settings_)
            world.stop()

    def test_accepted(self) -> None:
        """Who is named in `accept` may link."""
        world = Neighbours()
        self.small = world.add("small", SMALL)
        self.large = world.add("large", LARGE, accept=[self.small])
        world.dial(self.small, self.large)
        self.agree(world)
        world.stop()

    def test_bad_peers(self) -> None:
        """A bad address and our own key are refused when they are named."""
        world = self.world()
        self.assertRaises(ConfigError, self.small.links.add_peer, LARGE.public, "tcp:somewhere")
        self.assertRaises(LocalError, self.small.links.add_peer, SMALL.public, "sim:large")
        world.stop()

    def test_dialled_itself(self) -> None:
        """An address that leads back to us under another's key is no link."""
        world = self.world()
        self.small.links.add_peer(LARGE.public, "sim:small")
        world.run(3)
        self.assertEqual(self.small.links.by_key, {})
        world.stop()

    def test_address_in_use(self) -> None:
        """`start` fails with the transport's sentence; what it had bound is given back by `stop`."""
        world = self.world()
        third = world.add("third", THIRD)
        third.links.stop()
        failed: list[Any] = []
        Deferred.fromCoroutine(third.links.start(["sim:spare", "sim:small"])).addErrback(failed.append)
        self.assertIn("in use", failed[0].getErrorMessage())
        self.assertIn("spare", world.internet.listeners)
        world.stop()
        self.assertEqual(world.internet.listeners, {})

    def test_pings(self) -> None:
        """The round trip is the network's; idle links stay up for hours."""
        world = self.world(0, Conditions(delay=0.05))
        world.dial(self.small, self.large)
        self.agree(world)
        world.run(2_000)
        link = self.small.to(self.large)
        assert link is not None
        self.assertAlmostEqual(link.telemetry.rtt, 0.1, places=2)
        self.assertEqual((link.telemetry.loss, link.connections), (0, 1))
        world.stop()


class ConflictTests(DriverCase):
    """Both dial."""

    @settings(max_examples=30)
    @given(
        st.integers(0, 1 << 30),
        st.floats(0.001, 0.5),
        st.floats(0.0, 0.3),
        st.floats(0.0, 1.5),
        st.booleans(),
    )
    def test_both_dial(self, seed: int, delay: float, jitter: float, later: float, small_first: bool) -> None:
        """At any distance in time, over any delay, both ends agree on one connection: the smaller key's,
        unless the other stood long before; and neither dials again."""
        world = self.world(seed, Conditions(delay=delay, jitter=jitter))
        first, second = (self.small, self.large) if small_first else (self.large, self.small)
        world.dial(first, second)
        world.run(later)
        world.dial(second, first)
        world.run(20)
        self.agree(world)
        link = self.small.to(self.large)
        assert link is not None and link.seats[0].lane is not None
        if small_first or link.connections > 1:
            self.assertTrue(link.seats[0].lane.dialled, "the smaller key dialled it")
        pairs = ((first, second), (second, first))
        attempts = [node.links.peers[peer.key].attempts for node, peer in pairs]
        world.run(100)
        self.assertEqual([node.links.peers[peer.key].attempts for node, peer in pairs], attempts)
        self.assertLessEqual(max(attempts), 1)
        world.stop()

    def test_what_is_said_in_a_conflict(self) -> None:
        """Frames said on either connection before, while and after one loses arrive; the loser is read."""
        world = self.world(3, Conditions(delay=0.2))
        world.dial(self.large, self.small)
        world.linked(self.small, self.large)
        world.dial(self.small, self.large)
        for number in range(40):
            for one, other in ((self.small, self.large), (self.large, self.small)):
                world.say(one, other, b"%d" % number)
            world.run(0.05)
        world.run(2)
        for node in (self.small, self.large):
            self.assertEqual(sorted(node.notes, key=int), [b"%d" % number for number in range(40)])
        self.agree(world)
        world.stop()

    def test_newer_from_the_same_dialler(self) -> None:
        """A dialler that has lost its connection unnoticed comes anew: the newer one serves at once."""
        for dialler in ("small", "large"):
            world = self.world()
            one, other = (self.small, self.large) if dialler == "small" else (self.large, self.small)
            world.dial(one, other)
            world.linked(one, other)
            one.links.calls.attempt(one.links.peers[other.key].calls[0])
            world.run(1)
            link = other.to(one)
            assert link is not None
            self.assertEqual(link.connections, 2)
            self.assertEqual(len(world.internet.connections), 2, "the older is still read")
            self.agree(world)
            world.stop()

    def test_a_dead_older_connection_loses_the_challenge(self) -> None:
        """The smaller key's connection, dead without our knowing, is pinged; after that the newer serves."""
        world = self.world()
        world.dial(self.small, self.large)
        world.linked(self.small, self.large)
        link = self.large.to(self.small)
        assert link is not None
        old = link.seats[0].lane
        dead = world.internet.connections[0]
        for end in (dead.near, dead.far):
            end.pause()
        self.small.links.peers[LARGE.public].calls[0].dialler.stop()
        world.dial(self.large, self.small)
        self.large.links.calls.attempt(self.large.links.peers[SMALL.public].calls[0])
        world.run(0.5)
        self.assertIs(link.seats[0].lane, old, "not decided yet")
        world.run(1)
        assert link.seats[0].lane is not None and link.seats[0].lane is not old
        self.assertTrue(link.seats[0].lane.dialled)
        self.agree(world)
        world.stop()

    def test_the_older_is_lost_during_the_challenge(self) -> None:
        """The challenger serves at once: no gap, no new dial."""
        world = self.world()
        world.dial(self.small, self.large)
        world.linked(self.small, self.large)
        old = world.internet.connections[0]
        for end in (old.near, old.far):
            end.pause()
        world.dial(self.large, self.small)
        self.large.links.calls.attempt(self.large.links.peers[SMALL.public].calls[0])
        world.run(0.3)
        old.reset("cut")
        world.run(0.1)
        for one, other in ((self.small, self.large), (self.large, self.small)):
            link = one.to(other)
            assert link is not None
            self.assertEqual(link.connections, 2)
        self.agree(world)
        world.stop()

    def test_several_challengers(self) -> None:
        """The larger key dials again and again: each loses, all are closed, one link stays."""
        world = self.world()
        world.dial(self.small, self.large)
        world.linked(self.small, self.large)
        world.dial(self.large, self.small)
        for _ in range(5):
            self.large.links.calls.attempt(self.large.links.peers[SMALL.public].calls[0])
            world.run(0.2)
        self.agree(world)
        self.assertEqual([len(node.up) for node in (self.small, self.large)], [1, 1])
        world.stop()

    def test_the_loser_is_read_for_a_while(self) -> None:
        """For five seconds what still comes by it counts; then it is closed."""
        world = self.world()
        world.dial(self.small, self.large)
        world.linked(self.small, self.large)
        link = self.large.to(self.small)
        assert link is not None
        self.small.links.calls.attempt(self.small.links.peers[LARGE.public].calls[0])
        world.run(LOSER_READ - 1)
        self.assertEqual(len(world.internet.connections), 2)
        world.run(2)
        self.assertEqual(len(world.internet.connections), 1)
        self.agree(world)
        world.stop()

    def test_renewed_after_an_hour(self) -> None:
        """The dialler makes a fresh connection; nothing is lost; if it cannot, it tries again later."""
        world = self.world()
        world.dial(self.small, self.large)
        world.linked(self.small, self.large)
        link = self.large.to(self.small)
        assert link is not None
        world.run(RENEW - 5)
        self.assertEqual(link.connections, 1)
        said = 0
        for _ in range(100):
            world.say(self.small, self.large, b"%d" % said)
            world.say(self.large, self.small, b"%d" % said)
            said += 1
            world.run(0.1)
        self.assertEqual((link.connections, len(self.large.gone)), (2, 0))
        for node in (self.small, self.large):
            self.assertEqual(sorted(node.notes, key=int), [b"%d" % number for number in range(said)])
        self.agree(world)
        world.internet.listeners.clear()
        world.run(RENEW + 3 * RENEW_AGAIN)
        self.assertEqual(link.connections, 2)
        self.agree(world)
        world.stop()
