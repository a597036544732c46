"""Circuits from end to end over links of plain memory: set-up, cells both ways, teardown."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.trial.unittest import SynchronousTestCase

from meshnet.circuit.messages import CELL_BACKWARD, CELL_FORWARD, MARKED
from meshnet.circuit.policy import Policy
from meshnet.errors import CircuitError, Drop, Reason, UsageError
from tests.meshnet.circuit.network import FIRST, LARGE, REPLY, FakeNetwork


def keep(seen: list[bytes], kind: int, body: bytes) -> bytes:
    seen.append(body)
    return body


def marked(frames: Callable[[float], list[tuple[int, bytes]]], now: float) -> list[tuple[int, bytes]]:
    """What a relay sends, its cells with the congestion bit."""
    return [
        (kind | MARKED if kind in (CELL_FORWARD, CELL_BACKWARD) else kind, body) for kind, body in frames(now)
    ]


class WholeCircuits(SynchronousTestCase):
    """What must work."""

    def test_three_relays_carry_both_ways(self) -> None:
        """Cells cross three relays in order, and every relay has counted each of them once."""
        network = FakeNetwork()
        near, far = network.pair("arstb")
        for number in range(50):
            near.say(b"forward %d" % number)
        network.pump()
        for number in range(30):
            far.say(b"back %d" % number)
        network.pump()
        self.assertEqual(far.heard, [b"forward %d" % number for number in range(50)])
        self.assertEqual(near.heard, [b"back %d" % number for number in range(30)])
        self.assertEqual(near.numbers, list(range(30)))
        for name in "rst":
            totals = network[name].circuits.totals
            self.assertEqual((totals.cells_forward, totals.cells_back), (50, 30), name)
            self.assertEqual(sum(totals.drops), 0)
        ends = network["b"].circuits.totals
        self.assertEqual((ends.end_cells_in, ends.end_cells_out, ends.arrivals), (50, 30, 1))

    def test_every_length(self) -> None:
        """One hop (the neighbour itself) to eight, with either backend."""
        for library in ("openssl", "sodium"):
            for hops in (1, 2, 5, 8):
                names = "abcdefghi"[: hops + 1]
                network = FakeNetwork(names, library=library)
                near, far = network.pair(names)
                near.say(b"to")
                network.pump()
                far.say(b"fro")
                network.pump()
                self.assertEqual((far.heard, near.heard), ([b"to"], [b"fro"]), (library, hops))

    def test_what_arrives(self) -> None:
        """The last hop sees first message and upstream; the origin the reply and the smallest cell."""
        network = FakeNetwork()
        network["s"].link(network["t"]).max_cell = 9_000
        network.open("arstb")
        (arrival,) = network["b"].arrivals
        self.assertEqual((arrival.first_message, arrival.upstream), (FIRST, network["t"].key))
        (built,) = network["a"].built
        self.assertEqual((built.reply, built.max_cell), (REPLY, 9_000))

    def test_nothing_repeats_on_the_way(self) -> None:
        """Between hops nothing of a cell stays equal: not label, not seq, not body."""
        network = FakeNetwork()
        seen: list[bytes] = []
        for one, other in ("ar", "rs", "st", "tb"):
            network[one].link(network[other]).tamper = partial(keep, seen)
        near, _ = network.pair("arstb")
        seen.clear()
        near.say(b"x" * 100)
        network.pump()
        self.assertEqual(len(seen), 4)
        for part in (slice(0, 4), slice(4, 12), slice(12, 40)):
            self.assertEqual(len({body[part] for body in seen}), 4)

    def test_the_last_hop_waits_for_a_forward_cell(self) -> None:
        """What the last hop wants to say leaves only after the first forward cell has opened."""
        network = FakeNetwork()
        near, far = network.pair("arstb")
        far.say(b"too early")
        network.pump()
        self.assertEqual(near.heard, [])
        near.say(b"hello")
        network.pump()
        self.assertEqual((far.heard, near.heard), ([b"hello"], [b"too early"]))

    def test_answers_a_malformed_first_cell(self) -> None:
        """A first cell that opens but says nonsense lets the last hop send: it must be able to say CLOSE."""
        network = FakeNetwork()
        near, far = network.pair("arstb")
        refused = far.receive

        def malformed(number: int, body: memoryview, now: float, marked: bool) -> Drop:
            drop = refused(number, body, now, marked)
            return drop or Drop.MALFORMED

        far.receive = malformed  # type: ignore[method-assign]
        far.say(b"close")
        network.pump()
        self.assertEqual(near.heard, [])
        near.say(b"nonsense")
        network.pump()
        self.assertEqual(near.heard, [b"close"])

    def test_two_circuits_do_not_meet(self) -> None:
        """Circuits in both directions over the same links carry their own cells."""
        network = FakeNetwork()
        one, other = network.pair("arstb")
        back, forth = network.pair("btsra")
        for session, text in ((one, b"1"), (back, b"2")):
            session.say(text)
        network.pump()
        self.assertEqual((other.heard, forth.heard), ([b"1"], [b"2"]))
        self.assertEqual(network["s"].circuits.standing["relay"], 2)

    def test_teardown_leaves_nothing(self) -> None:
        """Destroyed by its origin, a circuit is gone everywhere; after 10 s its labels are unknown."""
        network = FakeNetwork()
        network.pair("arstb")
        network["a"].circuits.destroy(network["a"].built[0].circuit, network.now)
        network.pump()
        for node in network.nodes:
            self.assertEqual(list(node.circuits), [], node.name)
        self.assertEqual([error.reason for error in network["b"].lost], [Reason.LINK_LOST])
        self.assertEqual(network["a"].lost, [])
        network.wait(11)
        for node in network.nodes:
            self.assertIsNone(node.circuits.deadline())
            for link in node.links.values():
                self.assertFalse(link.forward or link.backward or link.runs)

    def test_teardown_by_the_last_hop(self) -> None:
        """DESTROY travels backward and tells the origin."""
        network = FakeNetwork()
        network.pair("arstb")
        network["b"].circuits.destroy(network["b"].arrivals[0], network.now)
        network.pump()
        self.assertEqual([list(node.circuits) for node in network.nodes], [[]] * 5)
        self.assertIn("the other end", str(network["a"].lost[0]))

    def test_retired_circuits_still_receive(self) -> None:
        """After `retire` the origin sends nothing, hears for 10 s what was under way, then closes."""
        network = FakeNetwork()
        near, far = network.pair("arstb")
        near.say(b"1")
        network.pump()
        circuit = network["a"].built[0].circuit
        network["a"].circuits.retire(circuit, network.now)
        near.say(b"2")
        far.say(b"last words")
        network.pump()
        self.assertEqual((far.heard, near.heard), ([b"1"], [b"last words"]))
        network.wait(11)
        self.assertEqual([list(node.circuits) for node in network.nodes], [[]] * 5)
        self.assertEqual(network["a"].lost, [])

    def test_status(self) -> None:
        """The snapshot shows role, neighbours, counts and drops."""
        network = FakeNetwork()
        near, _ = network.pair("arstb")
        near.say(b"x" * 88)
        network.pump()
        (shown,) = network["s"].circuits.snapshot(network.now)
        self.assertEqual((shown["role"], shown["state"]), ("relay", "open"))
        self.assertEqual(shown["upstream"], network["r"].key.hex())
        self.assertEqual(shown["forward"]["cells"], 1)
        self.assertEqual(shown["forward"]["dropped"], {})
        (origin,) = network["a"].circuits.snapshot(network.now)
        self.assertEqual((origin["role"], len(origin["route"]), origin["cells_out"]), ("origin", 4, 1))
        (last,) = network["b"].circuits.snapshot(network.now)
        self.assertEqual((last["role"], last["cells_in"]), ("last", 1))

    def test_relays_take_exactly_the_announced_size(self) -> None:
        """A cell beyond the path's max_cell is dropped at the relay that could not pass it on."""
        network = FakeNetwork()
        network["r"].link(network["s"]).max_cell = 2_000
        near, far = network.pair("arstb")
        near.cell_size = LARGE
        near.end.max_cell = LARGE  # type: ignore[union-attr]  # an origin that does not keep to it
        near.say(b"x" * 1_984)
        near.say(b"x" * 1_985)
        network.pump()
        self.assertEqual(len(far.heard), 1)
        self.assertEqual(network["r"].circuits.totals.drops[Drop.TOO_LARGE], 1)

    def test_routes_that_cannot_be(self) -> None:
        """Empty, too long, through ourselves, twice through one node, or not from a neighbour."""
        network = FakeNetwork("abcdefghij")
        circuits = network["a"].circuits
        for names in ("", "bcdefghij", "ba", "bcb"):
            with self.assertRaises(UsageError, msg=names):
                circuits.open(network.route(names), FIRST, network.now, network.unix)
        with self.assertRaises(CircuitError) as caught:
            circuits.open(network.route("cb"), FIRST, network.now, network.unix)
        self.assertIs(caught.exception.reason, Reason.NO_LINK)
        for wrong in ({"idle": 0}, {"idle": 5_000}):
            with self.assertRaises(UsageError):
                circuits.open(network.route("b"), FIRST, network.now, network.unix, **wrong)
        with self.assertRaises(UsageError):
            circuits.open(network.route("b"), FIRST[:-1], network.now, network.unix)

    def test_rate_limit(self) -> None:
        """An operator's max_rate drops what is beyond it, for all circuits together."""
        network = FakeNetwork(policies={"s": Policy(max_rate=100_000)})
        near, far = network.pair("arstb")
        for _ in range(150):
            near.say(b"x" * 972)
        network.pump()
        self.assertEqual(len(far.heard), 100)
        self.assertEqual(network["s"].circuits.totals.drops[Drop.RATE], 50)
        network.now += 0.5
        for _ in range(60):
            near.say(b"x" * 972)
        network.pump()
        self.assertEqual(len(far.heard), 150)

    def test_the_congestion_bit_is_sticky(self) -> None:
        """Set by one relay it arrives at the end, in both directions."""
        network = FakeNetwork()
        near, far = network.pair("arstb")
        near.say(b"0")
        network.pump()
        for one, other in ("rs", "ts"):
            link = network[one].link(network[other])
            link.frames = partial(marked, link.frames)  # type: ignore[method-assign]
        near.say(b"1")
        far.say(b"2")
        network.pump()
        self.assertEqual((far.marks, near.marks), ([False, True], [True]))
