"""Two nodes in virtual time, to which hypothesis does what it likes; when it stops, all is well."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from lab.simulation.network import Conditions
from meshnet.limits import LANE_LOSERS, LINK_SURVIVES
from meshnet.link.frame import LANE_NUMBERS
from tests.meshnet.link.neighbours import LARGE, NOTE, SMALL, Neighbours, Node

CALM = 45.0  # longer than a dialler waits after a few failures, a challenge, and a loser's end
NOTES = 20


class TwoNodes(RuleBasedStateMachine):
    """Both may dial. Connections are cut, doubled, stalled; the network is split; machines sleep."""

    @initialize(
        seed=st.integers(0, 1 << 30),
        lanes=st.tuples(*[st.sampled_from(LANE_NUMBERS[:3])] * 2),
        delay=st.floats(0.001, 0.4),
        jitter=st.floats(0, 0.3),
        both=st.booleans(),
    )
    def begin(self, seed: int, lanes: tuple[int, int], delay: float, jitter: float, both: bool) -> None:
        self.world = world = Neighbours(seed, Conditions(delay=delay, jitter=jitter))
        self.nodes = [world.add("small", SMALL, lanes=lanes[0]), world.add("large", LARGE, lanes=lanes[1])]
        self.lanes = max(lanes)
        self.split = False
        world.dial(self.nodes[0], self.nodes[1])
        if both:
            world.dial(self.nodes[1], self.nodes[0])

    @property
    def pairs(self) -> list[tuple[Node, Node]]:
        one, other = self.nodes
        return [(one, other), (other, one)]

    @rule(seconds=st.floats(0, 8))
    def time_passes(self, seconds: float) -> None:
        self.world.run(seconds)

    @rule(which=st.integers(0, 100))
    def cut(self, which: int) -> None:
        """A connection breaks, seen by both."""
        lines = self.world.internet.connections
        if lines:
            lines[which % len(lines)].reset("cut")

    @rule(which=st.integers(0, 100))
    def stall(self, which: int) -> None:
        """A connection carries nothing any more, and nobody is told."""
        lines = self.world.internet.connections
        if lines:
            line = lines[which % len(lines)]
            line.near.pause()
            line.far.pause()

    @rule(which=st.integers(0, 100), side=st.integers(0, 1))
    def double(self, which: int, side: int) -> None:
        """A dialler makes a connection more than it needs."""
        dialler, other = self.pairs[side]
        peer = dialler.links.peers.get(other.key)
        if peer is not None:
            dialler.links.calls.attempt(peer.calls[which % len(peer.calls)])

    @rule(side=st.integers(0, 1), seconds=st.floats(0, 60))
    def sleep(self, side: int, seconds: float) -> None:
        """A machine sleeps; its clock has jumped when it wakes."""
        self.nodes[side].slept += seconds

    @rule(side=st.integers(0, 1))
    def restart(self, side: int) -> None:
        """A node ends and comes back at once, as configured."""
        node = self.nodes[side]
        peers = list(node.links.peers)
        lanes = node.links.identity.lanes
        node.links.stop()
        self.world.internet.remove(node.name)
        fresh = self.nodes[side] = self.world.add(node.name, node.secret, lanes=lanes)
        if peers:
            self.world.dial(fresh, self.nodes[1 - side])

    @rule(cut=st.booleans())
    def partition(self, cut: bool) -> None:
        """Nothing passes between them, or everything again."""
        if cut:
            self.world.network.partition({"small"})
        else:
            self.world.network.heal()

    @invariant()
    def bounded(self) -> None:
        """What a lane holds has a limit, at every moment."""
        for node in getattr(self, "nodes", []):
            for link in node.links.by_key.values():
                assert len(link.standing) <= link.lanes
                for seat in link.seats:
                    assert len(seat.contest.losers) <= LANE_LOSERS
                    serving = seat.contest.serving
                    assert (serving.lane if serving else None) is seat.lane

    def teardown(self) -> None:
        """Left alone, both agree on one connection per lane, and whatever is said then arrives once."""
        if not hasattr(self, "nodes"):
            return
        world = self.world
        world.network.heal()
        world.run(CALM + LINK_SURVIVES)
        for one, other in self.pairs:
            link = one.to(other)
            assert link is not None, "they found each other"
            assert link.lanes == self.lanes and len(link.standing) == self.lanes, link.snapshot(0.0)
            for seat in link.seats:
                assert not seat.contest.losers and seat.contest.challenger is None
        assert len(world.internet.connections) == self.lanes
        self.everything_said_arrives()
        world.stop()

    def everything_said_arrives(self) -> None:
        """Over every lane, both ways, in order within a lane, though a lane is replaced meanwhile."""
        for _, other in self.pairs:
            other.notes.clear()
        dialler, dialled = next(pair for pair in self.pairs if pair[1].key in pair[0].links.peers)
        call = dialler.links.peers[dialled.key].calls[0]
        for number in range(NOTES):
            for one, other in self.pairs:
                link = one.to(other)
                assert link is not None
                for lane in range(self.lanes):
                    assert link.send(NOTE, b"%d %d" % (lane, number), lane)
            if number == NOTES // 2:
                dialler.links.calls.attempt(call)
            self.world.run(0.2)
        self.world.run(10)
        for node in self.nodes:
            heard = [tuple(map(int, note.split())) for note in node.notes]
            assert sorted(heard) == [(lane, number) for lane in range(self.lanes) for number in range(NOTES)]
        assert len(self.world.internet.connections) == self.lanes


class MachineTests(SynchronousTestCase):
    """Runs it."""

    def test_two_nodes(self) -> None:
        """Any history ends well."""
        profile = settings()
        few = settings(max_examples=max(20, profile.max_examples // 5), stateful_step_count=15, deadline=None)
        run_state_machine_as_test(TwoNodes, settings=few)
