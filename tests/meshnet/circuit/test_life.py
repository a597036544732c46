"""Circuits under any order of events: whatever happens, the books balance and nothing stays behind."""

from __future__ import annotations

from collections import deque

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from meshnet.circuit.arrival import Arrival
from meshnet.circuit.messages import CREATE
from meshnet.circuit.origin import OriginCircuit
from meshnet.circuit.transit import Transit
from meshnet.errors import CircuitError, Reason
from meshnet.limits import LATE_CELLS
from tests.meshnet.circuit.network import FIRST, FakeNetwork, FakeNode

PAIRS = ("ar", "ra", "rs", "sr", "sb", "bs")


class Life(RuleBasedStateMachine):
    """a – r – s – b, with frames that stay on the way as long as hypothesis likes."""

    @initialize()
    def start(self) -> None:
        self.network = FakeNetwork("arsb")
        self.flights: dict[str, deque[tuple[int, bytes]]] = {pair: deque() for pair in PAIRS}
        self.creates: list[tuple[str, bytes]] = []

    def node(self, name: str) -> FakeNode:
        return self.network[name]

    def linked(self, pair: str) -> bool:
        return self.node(pair[1]).key in self.node(pair[0]).links

    def collect(self, pair: str) -> None:
        if self.linked(pair):
            link = self.node(pair[0]).link(self.node(pair[1]))
            self.flights[pair].extend(link.frames(self.network.now))

    def events(self) -> None:
        for node in self.network.nodes:
            for event in node.circuits.events():
                node.handle(event, self.network.now)

    @rule(names=st.sampled_from(["ar", "arsb", "ars", "bsra", "rs", "rsb"]), idle=st.sampled_from([5, 60]))
    def open(self, names: str, idle: int) -> None:
        try:
            self.node(names[0]).circuits.open(
                self.network.route(names[1:]), FIRST, self.network.now, self.network.unix, idle=idle
            )
        except CircuitError as error:
            assert error.reason is Reason.NO_LINK
        self.events()

    @rule(pair=st.sampled_from(PAIRS), most=st.integers(1, 5))
    def deliver(self, pair: str, most: int) -> None:
        self.collect(pair)
        for _ in range(most):
            if self.flights[pair]:
                kind, body = self.flights[pair].popleft()
                if kind == CREATE:
                    self.creates.append((pair, body))
                self.network.deliver(self.node(pair[1]), self.node(pair[0]), kind, body)
        self.events()

    @rule(number=st.integers(0, 1 << 16))
    def replay(self, number: int) -> None:
        """An old CREATE comes again by the same link."""
        if self.creates:
            pair, body = self.creates[number % len(self.creates)]
            self.network.deliver(self.node(pair[1]), self.node(pair[0]), CREATE, body)
            self.events()

    @rule()
    def deliver_all(self) -> None:
        for _ in range(12):
            for pair in PAIRS:
                self.deliver(pair, 1_000)

    @rule(name=st.sampled_from("arsb"), number=st.integers(0, 9), gently=st.booleans())
    def end(self, name: str, number: int, gently: bool) -> None:
        """An end no longer wants a circuit."""
        circuits = self.node(name).circuits
        ends = [circuit for circuit in circuits if not isinstance(circuit, Transit)]
        if ends:
            circuit = ends[number % len(ends)]
            if gently and isinstance(circuit, OriginCircuit):
                circuits.retire(circuit, self.network.now)
            elif gently and isinstance(circuit, Arrival):
                circuits.refuse(circuit, Reason.REFUSED, "", self.network.now)
            else:
                circuits.destroy(circuit, self.network.now)
        self.events()

    @rule(name=st.sampled_from("arsb"), number=st.integers(0, 9))
    def say(self, name: str, number: int) -> None:
        sessions = self.node(name).sessions
        if sessions:
            sessions[number % len(sessions)].say(b"cell")

    @rule(pair=st.sampled_from(["ar", "rs", "sb"]), both=st.booleans())
    def cut(self, pair: str, both: bool) -> None:
        if self.linked(pair):
            self.flights[pair].clear()
            self.flights[pair[::-1]].clear()
            self.network.cut(*pair)
            self.events()
        if both:
            self.network.join(self.node(pair[0]), self.node(pair[1]))

    @rule(seconds=st.sampled_from([0.5, 4.0, 11.0, 30.0]))
    def time(self, seconds: float) -> None:
        """Time passes while all frames stay where they are."""
        network = self.network
        network.now += seconds
        network.unix += seconds
        for node in network.nodes:
            node.circuits.tick(network.now, network.unix)
        self.events()

    @invariant()
    def books_balance(self) -> None:
        for node in getattr(self, "network", FakeNetwork("")).nodes:
            shared = node.circuits._shared
            carried = [circuit for circuit in node.circuits if not isinstance(circuit, OriginCircuit)]
            assert shared.transits_and_arrivals == len(carried)
            for side in shared.sides.values():
                theirs = [label for label in side.circuits if not side.labels.is_ours(label)]
                assert side.theirs == len(theirs)
                for label in side.circuits:
                    table = side.link.backward if side.labels.is_ours(label) else side.link.forward
                    assert label in table
                assert set(side.link.runs) <= set(side.circuits)

    def teardown(self) -> None:
        if not hasattr(self, "network"):
            return
        self.network.wait(100)
        for _ in range(3):
            self.deliver_all()
            self.network.wait(100 + LATE_CELLS)
        for node in self.network.nodes:
            assert list(node.circuits) == [], node.name
            assert node.circuits.deadline() is None
            for link in node.links.values():
                assert not link.forward and not link.backward and not link.runs


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=30,
    stateful_step_count=30,
    phases=(Phase.explicit, Phase.generate),  # shrinking these takes minutes; the seed is printed
)
