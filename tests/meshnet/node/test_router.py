"""The router: calls over circuits, what hops refuse, what is lost, and that nothing stays behind."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError

from lab.simulation.network import Conditions
from lab.simulation.nodes import Collector
from meshnet.cipher.keys import SecretKey
from meshnet.errors import UsageError
from meshnet.limits import CIRCUIT_IDLE, CIRCUIT_LIFE, CREATE_SECONDS, LINK_SURVIVES, SESSION_SURVIVES
from meshnet.node import answering
from meshnet.node.renewal import FRESH, SPREAD
from meshnet.session import keys as end_to_end
from meshnet.streams import Stream, StreamReader
from tests.meshnet.node.routers import PORT, ROW, RouterCase, residue

RELAYS = ("r1", "r2", "r3")


class CallTests(RouterCase):
    """Streams from alice to bob."""

    def test_any_number_of_relays(self) -> None:
        """Over none, one and three relays, both ways; afterwards nobody keeps anything."""
        for row in (("alice", "bob"), ("alice", "r1", "bob"), ROW):
            self.mesh(row)
            near = self.open(*row[1:-1])
            far = self.exchange(near)
            near.send(b"", finish=True)
            far.send(b"", finish=True)
            self.until(lambda near=near, far=far: near.ended and far.ended)
            self.assertEqual([near.error, far.error], [None, None])
            for name in row[1:-1]:
                self.assertEqual(self.m[name].router.totals["circuits_relayed"], 1)
            self.clean()

    def test_eight_hops(self) -> None:
        """The longest route; one node more is refused before anything is sent."""
        names = ("alice", *(f"r{number}" for number in range(1, 9)), "bob")
        self.mesh(names)
        _, result = self.call(*names[1:-1])
        self.assertIsInstance(self.fails(result), UsageError)
        self.m.link("r7", "bob")
        self.m.network.run(1)
        near = self.open(*names[1:-2])
        self.exchange(near)
        self.clean_streams(near)

    def test_calls_share_a_circuit(self) -> None:
        """Called at once or one after another, to the same place: one circuit; as somebody else: another."""
        self.mesh()
        calls = [self.call(*RELAYS) for _ in range(20)]
        for _, result in calls:
            self.m.wait(result)
        late = self.open(*RELAYS)
        self.assertEqual(self.m["alice"].router.totals["circuits_opened"], 1)
        for number, (reader, _) in enumerate(calls):
            reader.send(b"%d" % number)
        late.send(b"late")
        self.until(lambda: len(self.accepted) == 21)
        self.open(*RELAYS, identity="node")
        self.assertEqual(self.m["alice"].router.totals["circuits_opened"], 2)
        for reader, _ in calls:
            reader.send(b"", finish=True)
        self.end()

    def test_callers(self) -> None:
        """Bob learns alice's key only if she says it, and never that of a relay."""
        self.mesh()
        callers: list[object] = []

        def accept(stream: Stream) -> StreamReader:
            callers.append(stream.peer)
            return self.accept(stream)

        self.m["bob"].router.listen(8, accept)
        for identity in ("anonymous", "node"):
            reader, result = self.call(*RELAYS, identity=identity, port=8)
            self.m.wait(result)
            self.exchange(reader)
        self.assertEqual(callers, [None, self.m["alice"].public])
        self.end()

    def test_both_call(self) -> None:
        """Bob calls alice while she calls him: two circuits, two sessions, no confusion."""
        self.mesh()
        got: list[Collector] = []

        def accept(stream: Stream) -> Collector:
            got.append(Collector(stream=stream))
            return got[-1]

        self.m["alice"].router.listen(PORT, accept)
        back = Collector()
        result = self.m["bob"].router.connect(
            self.m["alice"].public, PORT, back, via=self.m.route("r3", "r2", "r1"), identity="anonymous"
        )
        near = self.open(*RELAYS)
        back.stream = self.m.wait(result)
        back.send(b"from bob")
        self.exchange(near, b"from alice")
        self.until(lambda: bool(got) and got[0].got == b"from bob")
        self.clean_streams(near, back)

    def clean_streams(self, *readers: Collector) -> None:
        for reader in readers:
            assert reader.stream is not None
            reader.stream.reset(0)
        self.clean()

    def test_a_thousand_streams(self) -> None:
        """One after another over one circuit: each whole, and the tables are as after the first."""
        self.mesh(("alice", "r1", "bob"), conditions=Conditions(delay=0.001))
        sizes = []
        for number in range(1_000):
            near = self.open("r1")
            near.send(b"%d" % number, finish=True)
            self.until(lambda number=number: len(self.accepted) > number and self.accepted[-1].ended)
            self.assertEqual(bytes(self.accepted[-1].got), b"%d" % number)
            self.accepted[-1].send(b"", finish=True)
            self.until(lambda near=near: near.ended)
            if number in (1, 999):
                self.m.network.run(0.5)
                sizes.append([residue(node.router) for node in self.m.nodes.values()])
                sizes[-1].append({"streams": sum(c.session.streams for c in self.conversations())})
        self.assertEqual(sizes[0], sizes[1])
        self.assertEqual(sizes[0][-1], {"streams": 0})
        self.assertEqual(self.m["alice"].router.totals["circuits_opened"], 1)
        self.clean()

    def conversations(self) -> list[Any]:
        return [each for node in self.m.nodes.values() for each in node.router._conversations.values()]

    def test_nobody_listens(self) -> None:
        """A port nobody has, one that refuses, one whose app is broken: the stream ends with a sentence,
        the circuit and its other streams do not."""
        self.mesh()
        bob = self.m["bob"].router
        bob.listen(9, lambda stream: None)
        bob.listen(10, lambda stream: 1 // 0)  # type: ignore[arg-type,return-value]
        near = self.open(*RELAYS)
        self.exchange(near)
        for port in (8, 9, 10):
            reader, result = self.call(*RELAYS, port=port)
            self.m.wait(result)
            self.until(lambda reader=reader: reader.error is not None)
            self.assertTrue(str(reader.error))
        self.exchange(near, b"still here")
        self.assertEqual(self.m["alice"].router.totals["circuits_opened"], 1)
        self.clean_streams(near)

    def test_wrong_arguments(self) -> None:
        """Each is refused at once, with a sentence."""
        self.mesh()
        alice, bob = self.m["alice"].router, self.m["bob"].public
        for via, target, port, identity in (
            ((), bob, 0, "anonymous"),
            ((), bob, 65_536, "anonymous"),
            (self.m.route("alice"), bob, 7, "anonymous"),
            ((), self.m["alice"].public, 7, "anonymous"),
            (self.m.route("r1", "r2", "r1"), bob, 7, "anonymous"),
            (self.m.route(*RELAYS), bob, 7, "somebody"),
        ):
            if port != 7:
                via = self.m.route(*RELAYS)
            error = self.fails(alice.connect(target, port, Collector(), via=via, identity=identity))
            self.assertIsInstance(error, UsageError)
        for port in (0, 65_536):
            self.assertRaises(UsageError, alice.listen, port, lambda stream: None)
        self.clean()

    def test_a_call_that_is_given_up(self) -> None:
        """Cancelled while its circuit is on the way: no stream is opened for it; others get theirs."""
        self.mesh()
        reader, given_up = self.call(*RELAYS)
        other, result = self.call(*RELAYS)
        given_up.cancel()
        self.assertRaises(CancelledError, self.m.wait, given_up)
        self.m.wait(result)
        self.exchange(other)
        self.m.network.run(1)
        self.assertEqual((len(self.accepted), reader.stream), (1, None))
        self.assertEqual(sum(c.session.streams for c in self.conversations()), 2)
        self.clean_streams(other)


class RefusalTests(RouterCase):
    """What hops say no to, and whom the origin blames."""

    def test_a_relay_that_relays_nothing(self) -> None:
        """Each relay in turn: the reason comes back from it and names it."""
        for index, name in enumerate(RELAYS):
            self.mesh(policies={name: {"enabled": False}})
            _, result = self.call(*RELAYS)
            self.assertEqual(self.blames(result), (index, "REFUSED"))
            self.assertIn("relays nothing", self.said)
            self.clean()

    def test_a_last_hop_needs_no_relaying(self) -> None:
        """`enabled` concerns the circuits of others."""
        self.mesh(policies={"bob": {"enabled": False}, "alice": {"enabled": False}})
        near = self.open(*RELAYS)
        self.exchange(near)
        self.end()

    def test_no_link(self) -> None:
        """A relay that has no link to the next names itself; we do so for the first."""
        self.mesh()
        _, result = self.call("r1", "r3")
        self.assertEqual(self.blames(result), (0, "NO_LINK"))
        _, result = self.call("r2", "r3")
        self.assertEqual(self.blames(result), (None, "NO_LINK"))
        _, result = self.call("r1", "r2")
        self.assertEqual(self.blames(result), (1, "NO_LINK"))
        stranger = self.m["alice"].router.connect(
            SecretKey(b"\x77" * 32).public, 7, Collector(), via=self.m.route(*RELAYS), identity="anonymous"
        )
        self.assertEqual(self.blames(stranger), (2, "NO_LINK"))
        self.clean()

    def test_too_many_circuits(self) -> None:
        """A relay's limits: busy, as the hop before it says; later there is room again."""
        self.mesh(policies={"r2": {"max_circuits": 1}})
        near = self.open(*RELAYS)
        _, result = self.call(*RELAYS, identity="node")
        self.assertEqual(self.blames(result), (0, "NEXT_BUSY"))
        near.send(b"x", finish=True)
        self.until(lambda: bool(self.accepted))
        self.accepted[0].send(b"", finish=True)
        self.m.network.run(2 * CIRCUIT_IDLE)
        self.exchange(self.open(*RELAYS, identity="node"))
        self.end()

    def test_sessions(self) -> None:
        """The last hop refuses when it has as many as it may, with its reason."""
        self.patch(answering, "SESSIONS", 2)
        self.mesh(("alice", "r1", "bob"))
        self.open("r1")
        self.open("r1", identity="node")
        result = self.m["alice"].router.ping(self.m["bob"].public, self.m.route("r1"), 1)
        self.assertEqual(self.blames(result), (1, "BUSY"))
        self.assertIn("2 sessions", self.said)
        self.end()

    def test_wrong_service_key(self) -> None:
        """The onion reaches bob, the handshake is for another key: bob says so, and learns nothing else."""
        self.mesh()
        start = end_to_end.start
        other = SecretKey(b"\x55" * 32).public
        self.patch(end_to_end, "start", lambda key, *more: start(other, *more))
        _, result = self.call(*RELAYS)
        self.assertEqual(self.blames(result), (3, "UNKNOWN_SERVICE"))
        self.clean()

    def test_a_last_hop_that_cannot_prove_its_key(self) -> None:
        """Its answer is forged: the circuit is taken down everywhere."""
        self.mesh()
        respond = end_to_end.respond

        def forge(*arguments: Any) -> Any:
            reply, keys = respond(*arguments)
            return reply[:-1] + bytes([reply[-1] ^ 1]), keys

        self.patch(end_to_end, "respond", forge)
        _, result = self.call(*RELAYS)
        self.assertEqual(self.blames(result)[1], "FORGED")
        self.clean(20)

    def test_no_answer(self) -> None:
        """A node behind which nothing answers: the one before it says so after ten seconds."""
        self.mesh()
        self.m.network.partition({"bob"})
        began = self.m.network.clock.seconds()
        _, result = self.call(*RELAYS)
        self.assertEqual(self.blames(result)[1], "TIMEOUT")
        self.assertLess(self.m.network.clock.seconds() - began, CREATE_SECONDS + 2)
        self.m.network.heal()
        self.clean()

    def test_the_next_call_tries_again(self) -> None:
        """A failed circuit is not remembered as one that is on its way."""
        self.mesh()
        self.m.network.partition({"bob"})
        first, second = self.call(*RELAYS), self.call(*RELAYS)
        self.fails(first[1])
        self.assertTrue(self.fails(second[1], 1.0))
        self.m.network.heal()
        self.m.network.run(10)
        self.exchange(self.open(*RELAYS))
        self.assertEqual(self.m["alice"].router.totals["circuits_failed"], 1)
        self.end()


class LossTests(RouterCase):
    """Things that go away."""

    def test_a_relay_dies(self) -> None:
        """Both ends' streams end with a sentence; nobody keeps anything; with it back, calls work again."""
        for name in RELAYS:
            self.mesh()
            near = self.open(*RELAYS)
            far = self.exchange(near)
            gone = self.m[name].router
            self.m.kill(name)
            self.m.wait(gone.stop())
            self.until(lambda near=near, far=far: bool(near.error and far.error), 120)
            self.assertIn("link", str(near.error))
            self.clean()

    def test_a_relay_that_restarts(self) -> None:
        """The streams over it go on over another circuit, and so does the next call."""
        self.mesh()
        near = self.open(*RELAYS)
        self.exchange(near)
        self.m.restart("r2", "r3")
        self.until(lambda: self.m["alice"].router.totals["circuits_opened"] == 2, 20)
        self.exchange(near, b"again")
        self.exchange(self.open(*RELAYS))
        self.assertEqual(self.m["alice"].router.totals["circuits_opened"], 2)
        self.assertEqual(self.m["alice"].router.renewals.survived, 1)
        self.end()

    def test_a_connection_is_cut(self) -> None:
        """Within 30 s it is made again: no stream ends, no byte is missing, no circuit is lost."""
        data = bytes(range(256)) * 4_000
        for cut in (("alice", "r1"), ("r2", "r3"), ("r3", "bob")):
            self.mesh(conditions=Conditions(rate=2e6))
            near = self.open(*RELAYS)
            near.send(data, finish=True)
            self.m.network.run(0.3)
            for _ in range(3):
                self.assertEqual(self.m.internet.sever(*cut), 1)
                self.m.network.run(3)
            self.until(lambda: self.accepted[0].ended)
            self.assertEqual(bytes(self.accepted[0].got), data)
            self.assertEqual([node.router.totals["circuits_lost"] for node in self.m.nodes.values()], [0] * 5)
            self.assertEqual(self.m["alice"].router.totals["circuits_opened"], 1)
            self.end()

    def test_ended_while_cut_off(self) -> None:
        """A circuit that ended while alice had no connection: she learns it with the next one, not by the
        silence on her stream; a frame that was under way on the lost connection is said again too."""
        for on_its_way in (False, True):
            self.mesh()
            near = self.open(*RELAYS)
            self.exchange(near)
            if on_its_way:
                self.m.wait(self.m["bob"].router.stop())
                self.m.network.run(0.035)
                del self.m.nodes["bob"]
            self.assertEqual(self.m.internet.sever("alice", "r1"), 1)
            if not on_its_way:
                self.m.restart("r2", "r3")
            self.m.network.run(3)
            self.assertEqual(self.m["alice"].router.totals["circuits_lost"], 1)
            if on_its_way:
                self.until(lambda near=near: near.error is not None, SESSION_SURVIVES)
            else:
                self.exchange(near, b"again")
                self.m.wait(self.m["bob"].router.stop())
                del self.m.nodes["bob"]
            self.clean()

    def test_a_link_is_gone(self) -> None:
        """After 30 s without a connection the circuits over it are lost, and all their tables empty."""
        self.mesh()
        near = self.open(*RELAYS)
        far = self.exchange(near)
        self.m.network.partition({"alice", "r1"})
        self.m.internet.sever("r1", "r2")
        self.until(lambda: bool(near.error and far.error), LINK_SURVIVES + SESSION_SURVIVES + 5)
        self.m.network.heal()
        self.until(lambda: self.m["r1"].router.links.standing(self.m["r2"].public) is not None, 120)
        again = self.open(*RELAYS)
        self.exchange(again)
        assert again.stream is not None
        again.stream.reset(0)
        self.clean()

    def test_the_far_end_stops(self) -> None:
        """Bob ends in order: alice learns it within a round trip."""
        self.mesh()
        near = self.open(*RELAYS)
        self.exchange(near)
        self.m.wait(self.m["bob"].router.stop())
        self.until(lambda: near.error is not None, 1)
        del self.m.nodes["bob"]
        self.clean()


class AgeTests(RouterCase):
    """Circuits over time."""

    def test_idle_circuits_end(self) -> None:
        """A circuit without streams is taken down after a minute; the next call makes another."""
        self.mesh()
        near = self.open(*RELAYS)
        far = self.exchange(near)
        for reader in (near, far):
            reader.send(b"", finish=True)
        self.m.network.run(CIRCUIT_IDLE * 1.5)
        self.assertEqual(residue(self.m["alice"].router), {})
        self.exchange(self.open(*RELAYS))
        self.assertEqual(self.m["alice"].router.totals["circuits_opened"], 2)
        self.end()

    def test_open_streams_keep_it_alive(self) -> None:
        """A stream on which nobody says anything for ten minutes still works."""
        self.mesh()
        near = self.open(*RELAYS)
        self.exchange(near)
        self.m.network.run(600)
        self.assertIsNone(near.error)
        self.exchange(near, b"good morning")
        self.assertEqual(self.m["alice"].router.totals["circuits_opened"], 1)
        self.end()

    def test_an_old_circuit_is_replaced(self) -> None:
        """Past three quarters of its life, at most, what is open goes over to another; nobody notices."""
        self.mesh()
        near = self.open(*RELAYS)
        self.exchange(near)
        self.m.network.run(FRESH * (1 - SPREAD) - 1)
        self.assertEqual(self.m["alice"].router.totals["circuits_opened"], 1)
        self.m.network.run(FRESH * SPREAD + 2)
        self.assertEqual(self.m["alice"].router.totals["circuits_opened"], 2)
        self.exchange(near, b"the same stream")
        self.m.network.run(3 * CIRCUIT_LIFE)
        self.exchange(near, b"it is old now")
        self.assertEqual(self.m["alice"].router.totals["circuits_lost"], 0)
        self.assertEqual(self.m["alice"].router.circuits.standing["origin"], 1)
        self.assertEqual(self.m["bob"].router.circuits.standing["last"], 1)
        self.end()

    def test_an_old_circuit_without_streams(self) -> None:
        """Nobody replaces it; it takes no new streams."""
        self.mesh()
        near = self.open(*RELAYS)
        far = self.exchange(near)
        (conversation,) = self.m["alice"].router._sessions.values()
        for reader in (near, far):
            reader.send(b"", finish=True)
        self.m.network.run(5)
        next(iter(conversation.legs.values())).fresh_until = 0.0
        self.m.network.run(5)
        self.assertEqual(self.m["alice"].router.totals["circuits_opened"], 1)
        self.exchange(self.open(*RELAYS))
        self.assertEqual(self.m["alice"].router.totals["circuits_opened"], 2)
        self.end()


class PingTests(RouterCase):
    """Measurements."""

    def ping(self, count: int = 3, *via: str) -> Any:
        return self.m["alice"].router.ping(self.m["bob"].public, self.m.route(*(via or RELAYS)), count)

    def test_report(self) -> None:
        """All numbers; its circuit is its own, anonymous, and gone afterwards."""
        self.mesh(conditions=Conditions(delay=0.02))
        self.open(*RELAYS)
        report = self.m.wait(self.ping(5))
        self.assertEqual((report["sent"], report["received"]), (5, 5))
        for name in ("setup_ms", "rtt_ms", "rtt_min_ms", "rtt_max_ms"):
            self.assertAlmostEqual(report[name], 160, places=3)
        self.m.network.run(1)
        self.assertEqual(self.m["alice"].router.circuits.standing["origin"], 1)
        self.end()

    def test_set_up_only(self) -> None:
        """No ping at all measures the set-up."""
        self.mesh()
        report = self.m.wait(self.ping(0))
        self.assertEqual((report["sent"], report["rtt_ms"]), (0, None))
        self.assertGreater(report["setup_ms"], 0)
        self.clean()

    def test_failures(self) -> None:
        """It fails with what its circuit failed with."""
        self.mesh()
        self.assertEqual(self.blames(self.ping(1, "r1", "r3")), (0, "NO_LINK"))
        self.assertEqual(self.blames(self.ping(1, "r3")), (None, "NO_LINK"))
        self.clean(20)

    def test_no_answer(self) -> None:
        """Cut off after the set-up: TimedOutError, and the circuit is given up."""
        self.mesh()
        result = self.ping(2)
        self.until(lambda: bool(self.m["alice"].router._conversations))
        self.m.network.partition({"bob"})
        error = self.fails(result)
        self.assertEqual(error.exit_code, 6)
        self.m.network.heal()
        self.clean()

    def test_a_relay_dies_meanwhile(self) -> None:
        """The loss is told as soon as it is known, as what it is."""
        self.mesh()
        result = self.ping(1_000)
        self.m.network.run(2)
        self.m.restart("r2", "r3")
        report = self.m.wait(result, 10)
        self.assertIn("link", report["lost"])
        self.assertGreater(report["received"], 20)
        self.until(lambda: self.m["r2"].router.links.by_key.keys() >= set(self.m.route("r1", "r3")), 20)
        result = self.ping(1_000)
        self.until(lambda: bool(self.m["alice"].router._conversations))
        self.m.restart("r2", "r3")
        error = self.fails(result, 10)
        self.assertIn("link", str(error))
        self.assertEqual(error.exit_code, 4)
        self.clean()

    def test_late_answers(self) -> None:
        """A round trip longer than its patience: answers that come late count once, the report once."""
        self.mesh(("alice", "r1", "bob"))
        self.m.network.change("alice", "r1", delay=1.5)
        self.m.network.change("r1", "bob", delay=1.5)
        result = self.ping(4, "r1")
        report = self.m.wait(result, 120)
        self.assertEqual(report["sent"], 4)
        self.assertLessEqual(report["received"], 4)
        self.m.network.run(30)
        self.clean()


class StopTests(RouterCase):
    """The end of a node."""

    def test_calls_under_way(self) -> None:
        """Whoever waits for a circuit, a stream or a ping is told that the node stops."""
        for moment in (0.0, 0.005, 0.02, 0.06, 0.085, 0.5):
            self.mesh()
            alice = self.m["alice"].router
            reader, called = self.call(*RELAYS)
            results: list[Any] = []
            called.addBoth(results.append)
            ping = alice.ping(self.m["bob"].public, self.m.route(*RELAYS), 100)
            ping.addBoth(results.append)
            self.m.network.run(moment)
            self.m.wait(alice.stop())
            self.m.network.run(0)
            self.assertEqual(len(results), 2, f"after {moment} s")
            measured = next((each for each in results if isinstance(each, dict)), None)
            if measured is not None:
                self.assertIn("stopping", measured["lost"])
            if reader.stream is not None:
                self.assertIn("stopping", str(reader.error))
            else:
                self.assertEqual({"this node is stopping"}, {str(each.value) for each in results})
            del self.m.nodes["alice"]
            self.assertEqual(
                [key for key in residue(alice) if key not in ("forward", "backward", "runs")], []
            )
            self.clean()

    def test_afterwards(self) -> None:
        """Nothing can be called any more, stopping again is harmless."""
        self.mesh(("alice", "bob"))
        alice = self.m["alice"].router
        self.m.wait(alice.stop())
        self.m.wait(alice.stop())
        _, result = self.call()
        self.fails(result)
        self.fails(alice.ping(self.m["bob"].public, (), 1))
        self.end()

    def test_stop_inside_a_reader(self) -> None:
        """An app may stop its node while it is given bytes."""
        self.mesh(("alice", "r1", "bob"))
        near = self.open("r1")
        far = self.exchange(near)
        stopped: list[Any] = []
        bob = self.m["bob"].router
        original = far.data_received

        class Stopping(Collector):
            def data_received(self, data: memoryview) -> None:
                stopped.append(bob.stop())
                original(data)

        assert far.stream is not None
        far.stream.reader = Stopping(stream=far.stream)  # type: ignore[attr-defined]
        near.send(b"stop")
        self.until(lambda: bool(stopped))
        self.until(lambda: near.error is not None, 1)
        del self.m.nodes["bob"]
        self.clean()
