"""What goes wrong with circuits: who learns of it, who is blamed, and who is not hurt."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from meshnet.circuit.failure import error_onion
from meshnet.circuit.messages import (
    CELL_BACKWARD,
    CELL_FORWARD,
    CREATE,
    CREATED,
    DESTROY,
    ERROR,
    FAILED,
    Created,
    Destroy,
    Failed,
)
from meshnet.circuit.origin import PATIENCE
from meshnet.circuit.policy import Policy
from meshnet.circuit.replay import NoLog, Replays
from meshnet.codec import decode, encode
from meshnet.errors import CircuitError, Drop, MeshError, Reason
from meshnet.limits import BAD_CELLS, CIRCUIT_LIFE, LATE_CELLS
from tests.meshnet.circuit.network import FIRST, REPLY, UNIX, FakeNetwork, FakeNode, Tamper

Change = Callable[[bytes], bytes | None]


def only(kind: int, change: Change) -> Tamper:
    """Changes frames of one kind, leaves the others."""

    def tamper(found: int, body: bytes) -> bytes | None:
        return change(body) if found == kind else body

    return tamper


def flip(position: int) -> Change:
    def change(body: bytes) -> bytes:
        return body[:position] + bytes([body[position] ^ 1]) + body[position + 1 :]

    return change


def record(into: list[tuple[int, bytes]]) -> Tamper:
    def tamper(kind: int, body: bytes) -> bytes:
        into.append((kind, body))
        return body

    return tamper


class SetupFaults(SynchronousTestCase):
    def fails(self, network: FakeNetwork, reason: Reason, hop: int | None, word: str = "") -> str:
        """Opens a-r-s-t-b; it must fail so, and leave nothing anywhere."""
        network.open("arstb")
        if not network["a"].failed:
            network.wait(PATIENCE + 1)
        self.assertEqual(len(network["a"].failed), 1)
        error = network["a"].failed[0]
        self.assertEqual((error.reason, error.hop), (reason, hop), str(error))
        self.assertIn(word, str(error))
        for node in network.nodes:
            self.assertEqual(list(node.circuits), [], node.name)
        return str(error)

    def test_no_link(self) -> None:
        """A relay without a link to the next node says so itself."""
        network = FakeNetwork()
        network.cut("s", "t")
        text = self.fails(network, Reason.NO_LINK, 1, "no link to the next node")
        self.assertTrue(text.startswith(f"relay 2 ({network['s'].key.hex()[:8]}…)"), text)

    def test_refused_by_every_hop(self) -> None:
        """A relay that does not relay, and a last hop that says no: the reason is theirs alone."""
        for hop, name in enumerate("rst"):
            network = FakeNetwork(policies={name: Policy(enabled=False)})
            self.fails(network, Reason.REFUSED, hop, f"relay {hop + 1}")
        network = FakeNetwork()
        network["b"].answers = Reason.UNKNOWN_SERVICE
        self.fails(network, Reason.UNKNOWN_SERVICE, 3, "the last node")
        self.assertIn("not today", str(network["a"].failed[0]))
        self.assertEqual(network["b"].circuits.totals.refused, {Reason.UNKNOWN_SERVICE: 1})

    def test_bare_codes_become_the_next_relays_words(self) -> None:
        """A bare refusal is reported by the hop before, or taken bare from our own neighbour."""
        for name, reason, hop in (
            ("r", Reason.BUSY, 0),
            ("s", Reason.NEXT_BUSY, 0),
            ("b", Reason.NEXT_BUSY, 2),
        ):
            network = FakeNetwork(policies={name: Policy(max_circuits=0)})
            self.fails(network, reason, hop)
        bad = {
            "r": (Reason.BAD_ONION, 0),
            "t": (Reason.NEXT_BAD_ONION, 1),
        }
        for name, (reason, hop) in bad.items():
            network = FakeNetwork()
            before = {"r": "a", "t": "s"}[name]
            network[before].link(network[name]).tamper = only(CREATE, flip(300))
            self.fails(network, reason, hop, "could not open the onion")
        network = FakeNetwork()
        network["s"].link(network["t"]).tamper = only(CREATE, flip(9))
        self.fails(network, Reason.NEXT_WRONG_EPOCH, 1)

    def test_time_out(self) -> None:
        """Ten seconds without an answer; a relay says it, else the origin for itself."""
        network = FakeNetwork()
        network["b"].answers = None
        self.fails(network, Reason.TIMEOUT, 0)
        self.assertEqual(len(network["b"].lost), 1)  # the router learns that its time is over
        network = FakeNetwork()
        network["a"].link(network["r"]).tamper = only(CREATE, lambda body: None)
        self.fails(network, Reason.TIMEOUT, None)

    def test_link_lost_meanwhile(self) -> None:
        """A link that goes while the circuit is opening is reported by the relay before it."""
        for cut, hop in (("ar", 0), ("st", 1)):
            network = FakeNetwork()
            network["b"].answers = None
            network.open("arstb")
            network.cut(*cut)
            network.pump()
            self.assertEqual([error.hop for error in network["a"].failed], [hop])
            self.assertEqual([error.reason for error in network["a"].failed], [Reason.LINK_LOST])
            self.assertEqual([list(node.circuits) for node in network.nodes], [[]] * 5)
            self.assertEqual(len(network["b"].lost), 1)

    def test_forged_answers(self) -> None:
        """A changed byte of CREATED blames the first hop whose mac breaks, and the one before."""
        for one, other, hop in (("r", "a", 0), ("s", "r", 1), ("b", "t", 3)):
            for position in (4, 40, 50):
                network = FakeNetwork()
                network[one].link(network[other]).tamper = only(CREATED, flip(position))
                text = self.fails(network, Reason.FORGED, hop, "changed the answer")
                self.assertEqual(" or " in text, hop > 0)
        network = FakeNetwork()
        network["b"].link(network["t"]).tamper = only(CREATED, flip(4 + 60))
        self.fails(network, Reason.FORGED, 3)  # the Noise message is covered too

    def test_unreadable_errors(self) -> None:
        """An error onion changed on its way is nobody's word."""
        network = FakeNetwork()
        network["b"].answers = Reason.REFUSED
        network["s"].link(network["r"]).tamper = only(FAILED, flip(20))
        self.fails(network, Reason.FORGED, None, "no node of the route")

    def test_tiny_cells(self) -> None:
        """A hop that takes less than the smallest cell is named."""
        network = FakeNetwork()
        network["t"].link(network["s"]).max_cell = 1_199
        self.fails(network, Reason.NOT_UNDERSTOOD, 2, "1199 bytes")

    def test_the_clock(self) -> None:
        """A hop with another clock says which."""
        for shift, word in ((26 * 60, "clock"), (-21 * 60, "clock")):
            network = FakeNetwork("ab")
            network["a"].circuits.open(network.route("b"), FIRST, network.now, network.unix + shift)
            network.pump()
            (error,) = network["a"].failed
            self.assertEqual((error.reason, error.hop), (Reason.CLOCK_SKEW, 0))
            self.assertIn(str(int(network.unix)), str(error))
            self.assertIn(word, str(error))

    def test_a_full_control_queue(self) -> None:
        """Where CREATE cannot be sent on, the relay says busy; at the origin `open` fails."""
        network = FakeNetwork()
        network["s"].link(network["t"]).full = True
        self.fails(network, Reason.NEXT_BUSY, 1)
        network["a"].link(network["r"]).full = True
        with self.assertRaises(MeshError):
            network.open("arstb")
        self.assertEqual(list(network["a"].circuits), [])

    def test_abandoned(self) -> None:
        """An origin that no longer wants it ends a circuit that is still opening."""
        network = FakeNetwork()
        network["b"].answers = None
        circuit = network.open("arstb")
        network["a"].circuits.destroy(circuit, network.now)
        network.pump()
        self.assertEqual([list(node.circuits) for node in network.nodes], [[]] * 5)
        self.assertEqual((network["a"].failed, len(network["b"].lost)), ([], 1))


class LivingFaults(SynchronousTestCase):
    """Faults of circuits that stand."""

    def setUp(self) -> None:
        self.network = FakeNetwork()
        self.near, self.far = self.network.pair("arstb")
        self.near.say(b"hello")
        self.network.pump()

    def all_gone(self) -> None:
        self.assertEqual([list(node.circuits) for node in self.network.nodes], [[]] * 5)

    def totals(self, name: str) -> list[int]:
        return self.network[name].circuits.totals.drops

    def test_a_relay_dies(self) -> None:
        """The relay before it tells the origin, the one behind it tells the end."""
        network = self.network
        network.cut("r", "s")
        network.cut("s", "t")
        network.pump()
        (error,) = network["a"].lost
        self.assertEqual((error.reason, error.hop), (Reason.LINK_LOST, 0))
        self.assertEqual(len(network["b"].lost), 1)
        self.all_gone()

    def test_our_own_link_dies(self) -> None:
        self.network.cut("a", "r")
        self.network.pump()
        (error,) = self.network["a"].lost
        self.assertEqual((error.reason, error.hop), (Reason.LINK_LOST, 0))
        self.assertEqual(len(self.network["b"].lost), 1)
        self.all_gone()

    def test_a_link_that_is_replaced(self) -> None:
        """A new link object for the same neighbour means that the old one's circuits are gone."""
        network = self.network
        del network["r"].links[network["s"].key]
        network.join(network["r"], network["s"])
        link = network["r"].link(network["s"])
        network["r"].circuits.receive(link, DESTROY, memoryview(encode(Destroy(9, 0))), network.now, UNIX)
        network.pump()
        self.assertEqual([error.reason for error in network["a"].lost], [Reason.LINK_LOST])

    def test_replayed_cells(self) -> None:
        """A cell seen before goes no further than the first relay that sees it twice."""
        network = self.network
        seen: list[tuple[int, bytes]] = []
        network["a"].link(network["r"]).tamper = record(seen)
        self.near.say(b"once")
        network.pump()
        ((kind, body),) = seen
        self.assertIs(network.deliver(network["r"], network["a"], kind, body), Drop.REPLAYED)
        self.assertEqual(self.totals("r")[Drop.REPLAYED], 1)

    def test_cells_for_nobody(self) -> None:
        """Unknown labels and the wrong direction are dropped where they arrive."""
        network = self.network
        seen: list[tuple[int, bytes]] = []
        network["a"].link(network["r"]).tamper = record(seen)
        self.near.say(b"once")
        network.pump()
        ((kind, body),) = seen
        wrong_way = network.deliver(network["r"], network["a"], CELL_BACKWARD, body)
        self.assertIs(wrong_way, Drop.UNKNOWN_LABEL)
        nobody = network.deliver(network["r"], network["a"], kind, b"\x7f\x01\x02\x03" + body[4:])
        self.assertIs(nobody, Drop.UNKNOWN_LABEL)

    def test_late_cells(self) -> None:
        """For 10 s after teardown cells are in flight, then their label is unknown."""
        network = self.network
        seen: list[tuple[int, bytes]] = []
        network["a"].link(network["r"]).tamper = record(seen)
        self.near.say(b"late")
        network.pump()
        ((kind, body),) = seen
        network["b"].circuits.destroy(network["b"].arrivals[0], network.now)
        network.pump()
        self.assertIs(network.deliver(network["r"], network["a"], kind, body), Drop.LATE)
        network.wait(LATE_CELLS)
        self.assertIs(network.deliver(network["r"], network["a"], kind, body), Drop.UNKNOWN_LABEL)

    def test_cells_before_created(self) -> None:
        """A circuit that is opening takes no cells."""
        network = FakeNetwork()
        network["b"].answers = None
        circuit = network.open("arstb")
        body = circuit.label.to_bytes(4, "big") + bytes(40)
        self.assertIs(network.deliver(network["r"], network["a"], CELL_FORWARD, body), Drop.NOT_OPEN)

    def test_changed_cells(self) -> None:
        """Three cells that do not open end the circuit from either end, and say so."""
        for one, other, kind, victim in (("a", "r", CELL_FORWARD, "b"), ("s", "r", CELL_BACKWARD, "a")):
            self.setUp()
            network = self.network
            session = self.near if kind == CELL_FORWARD else self.far
            network[one].link(network[other]).tamper = only(kind, flip(20))
            for _ in range(BAD_CELLS - 1):
                session.say(b"changed")
            network.pump()
            self.assertEqual(network[victim].lost, [])
            session.say(b"changed")
            session.say(b"changed")
            network.pump()
            self.assertEqual(len(network[victim].lost), 1)
            self.assertEqual(self.totals(victim)[Drop.BAD_TAG], BAD_CELLS)
            self.all_gone()

    def test_forged_numbers(self) -> None:
        """A seq that stands for no packet number is dropped before any cryptography."""
        network = self.network
        label = network["b"].arrivals[0].label
        body = label.to_bytes(4, "big") + bytes(8) + bytes(40)
        self.assertIs(network.deliver(network["b"], network["t"], CELL_FORWARD, body), Drop.MALFORMED)
        self.assertEqual(network["b"].lost, [])

    def test_created_and_failed_again(self) -> None:
        """A second CREATED, a late FAILED, and either of them from upstream are counted and do nothing."""
        network = self.network
        relay, circuit = network["r"], network["a"].built[0].circuit
        (transit,) = relay.circuits
        down = transit.down_label  # type: ignore[union-attr]
        for peer, label in (("s", down), ("a", circuit.label), ("s", 7)):
            link = relay.link(network[peer])
            for kind, frame in ((CREATED, Created(label, bytes(459))), (FAILED, Failed(label, 3))):
                relay.circuits.receive(link, kind, memoryview(encode(frame)), network.now, UNIX)
        self.assertEqual(relay.circuits.totals.stray, 6)
        link = network["a"].link(relay)
        for kind, frame in (
            (CREATED, Created(circuit.label, bytes(459))),
            (FAILED, Failed(circuit.label, 3)),
        ):
            network["a"].circuits.receive(link, kind, memoryview(encode(frame)), network.now, UNIX)
        self.assertEqual(network["a"].circuits.totals.stray, 2)
        network.pump()
        self.near.say(b"still here")
        network.pump()
        self.assertEqual(self.far.heard[-1], b"still here")

    def test_ended_as_soon_as_it_stood(self) -> None:
        """CREATED and DESTROY in one turn: a session comes too late, and is told so."""
        network = FakeNetwork("ab")
        events = network["a"].circuits.events
        network["a"].circuits.events = list  # type: ignore[method-assign]
        circuit = network.open("ab")
        network["b"].circuits.destroy(network["b"].arrivals[0], network.now)
        network.pump()
        self.assertEqual([type(event).__name__ for event in events()], ["Built", "CircuitLost"])
        with self.assertRaises(CircuitError):
            circuit.attach(self.near)
        with self.assertRaises(CircuitError):
            network["b"].circuits.answer(network["b"].arrivals[0], REPLY, self.far, network.now)

    def test_an_onion_travels_backward_only(self) -> None:
        """DESTROY with an error from upstream goes on without it."""
        network = self.network
        seen: list[tuple[int, bytes]] = []
        network["r"].link(network["s"]).tamper = record(seen)
        label = network["a"].built[0].circuit.label
        frame = Destroy(label, ERROR, error_onion(b"k" * 32, Reason.BUSY))
        link = network["r"].link(network["a"])
        network["r"].circuits.receive(link, DESTROY, memoryview(encode(frame)), network.now, UNIX)
        network.pump()
        ((kind, body),) = seen
        self.assertEqual((kind, decode(Destroy, body).onion), (DESTROY, b""))

    def test_errors_of_standing_circuits(self) -> None:
        """The last hop's own error reaches the origin by DESTROY, under every relay's layer."""
        network = self.network
        network["b"].circuits.refuse(network["b"].arrivals[0], Reason.REFUSED, "enough", network.now)
        network.pump()
        (error,) = network["a"].lost
        self.assertEqual((error.reason, error.hop), (Reason.REFUSED, 3))
        self.assertIn("enough", str(error))
        self.assertEqual(network["b"].lost, [])  # it was the router's own wish
        self.assertEqual(network["b"].circuits.totals.refused, {})  # it had been accepted
        self.all_gone()

    def test_idle(self) -> None:
        """A circuit without cells ends after the seconds its origin asked for; cells keep it."""
        network = FakeNetwork()
        near, far = network.pair("arstb", idle=20)
        for _ in range(5):
            near.say(b"here")
            network.pump()
            network.wait(15)
        self.assertEqual(len(far.heard), 5)
        network.wait(6)
        self.assertEqual([list(node.circuits) for node in network.nodes], [[]] * 5)
        self.assertIs(network["a"].lost[0].reason, Reason.IDLE)

    def test_greatest_age(self) -> None:
        """After 20 minutes a circuit ends however busy it is."""
        network = FakeNetwork("ab")
        near, _ = network.pair("ab", idle=60)
        for _ in range(CIRCUIT_LIFE // 50 + 1):
            near.say(b"here")
            network.pump()
            network.wait(50)
        self.assertIs(network["a"].lost[0].reason, Reason.EXPIRED)

    def test_a_slow_neighbour_hurts_only_itself(self) -> None:
        """While one circuit's cells wait, another's pass by the same relay."""
        network = FakeNetwork("arsb")
        network.nodes.append(FakeNode(network, "c", Policy(), Replays(NoLog(), UNIX)))
        network.named["c"] = network.nodes[-1]
        network.join(network["r"], network["c"])
        slow, _ = network.pair("arsb")
        quick, end = network.pair("arc")
        outlet = network["r"].link(network["s"]).outlet(0)
        outlet.blocked = True
        for number in range(1_100):
            slow.say(b"x")
            quick.say(b"%d" % number)
        network.pump()
        self.assertEqual(len(end.heard), 1_100)
        totals = network["r"].circuits.totals
        self.assertEqual(totals.drops[Drop.QUEUE_FULL], 1_100 - 1_024)
        self.assertGreater(network["r"].circuits.waiting, 0)
        outlet.blocked = False
        network.pump()
        self.assertEqual(network["r"].circuits.waiting, 0)
