"""New circuits for old sessions: in time, on demand, and too late."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from lab.simulation.network import Conditions
from lab.simulation.nodes import Collector
from meshnet.circuit.relay import Hop
from meshnet.circuit.transit import Transit
from meshnet.errors import CircuitError, MeshError, Reason
from meshnet.limits import (
    BROKEN_CIRCUITS,
    BROKEN_SECONDS,
    CIRCUIT_LIFE,
    DOUBT_SECONDS,
    SESSION_SILENCE,
    SESSION_SURVIVES,
)
from meshnet.node import answering
from meshnet.node.conversation import Conversation
from meshnet.node.renewal import DRAIN_SECONDS, FRESH, LATER, WORN
from meshnet.node.router import Router
from tests.meshnet.node.routers import PORT, RouterCase, residue

RELAYS = ("r1", "r2", "r3")
DATA = bytes(range(256)) * 4_000


class RenewalCase(RouterCase):
    """Alice and her one conversation."""

    @property
    def alice(self) -> Router:
        """Her router."""
        return self.m["alice"].router

    @property
    def conversation(self) -> Conversation:
        """Hers."""
        (conversation,) = self.alice._sessions.values()
        return conversation

    def standing(self, *names: str) -> list[int]:
        """How many circuits there are at each node."""
        return [sum(self.m[name].router.circuits.standing.values()) for name in names or self.m.nodes]

    def lose(self, name: str = "r2") -> None:
        """A relay takes down every circuit; its links stay."""
        router = self.m[name].router
        for circuit in list(router.circuits):
            if isinstance(circuit, Transit):
                circuit.down.destroy(circuit.down_label)
                circuit.link_lost(circuit.down, self.m.network.clock.seconds())
        router.links.outbox.flush(self.m.network.clock.seconds())

    def blind(self, *names: str) -> None:
        """These nodes drop the cells of all circuits they have now, and nobody hears of it."""
        for name in names:
            for side in self.m[name].router.circuits._shared.sides.values():
                side.link.forward.clear()
                side.link.runs.clear()

    def arrived(self) -> None:
        """Bob has DATA."""
        self.until(lambda: bool(self.accepted) and self.accepted[0].ended, 120)
        self.assertEqual(bytes(self.accepted[0].got), DATA)


class DemandTests(RenewalCase):
    """`Router.renew`."""

    def test_report(self) -> None:
        """Each session is told of, with its route; those to somebody else are left alone."""
        self.mesh()
        near = self.open(*RELAYS)
        self.exchange(near)
        bob = self.m["bob"].public
        (report,) = self.m.wait(self.alice.renew(bob))
        route = [key.hex() for key in self.m.route(*RELAYS, "bob")]
        self.assertEqual(report, {"route": route, "streams": 1})
        self.assertEqual(self.m.wait(self.alice.renew(self.m["r1"].public)), [])
        self.exchange(near, b"the same stream")
        self.assertEqual(self.alice.totals["circuits_renewed"], 1)
        self.assertEqual(self.m["bob"].router.totals["circuits_renewed"], 0)
        (shown,) = [each for each in self.alice.snapshot()["circuits"] if each["sending"]]
        self.assertIn(shown["paths"], (1, 2))
        self.end()

    def test_several_at_once(self) -> None:
        """Asked twice while one is on its way: one circuit, and both are told; all sessions at once."""
        self.mesh()
        self.exchange(self.open(*RELAYS))
        other = self.open(*RELAYS, identity="node")
        self.exchange(other, b"from alice")
        first, second = self.alice.renew(None), self.alice.renew(None)
        self.assertEqual((len(self.m.wait(first)), len(self.m.wait(second))), (2, 2))
        self.assertEqual(self.alice.totals["circuits_opened"], 4)
        self.exchange(other, b"still alice")
        self.assertEqual(self.accepted[1].stream.peer, self.m["alice"].public)
        self.end()

    def test_it_fails(self) -> None:
        """A relay that is gone is named; the old circuit, if it still carries, goes on."""
        self.mesh()
        near = self.open(*RELAYS)
        self.exchange(near)
        refused = CircuitError("not today", Reason.REFUSED, 1)
        self.patch(self.alice.dialling, "dial", lambda route, told: told(refused, 0.0))
        (report,) = self.m.wait(self.alice.renew(None))
        self.assertEqual(report["error"], "not today")
        self.assertEqual(self.alice.totals["renewals_failed"], 1)
        self.exchange(near, b"goes on")
        self.end()

    def test_while_it_stops(self) -> None:
        """Whoever asked is told that the node stops, whenever that is."""
        for moment in (0.0, 0.03, 0.08, 0.1, 0.15):
            self.mesh()
            self.exchange(self.open(*RELAYS))
            asked = self.alice.renew(None)
            self.m.network.run(moment)
            self.m.wait(self.alice.stop())
            (report,) = self.m.wait(asked, 1.0)
            self.assertIn("stopping", report["error"])
            left = residue(self.alice).keys() - {"forward", "backward"}  # labels, for late cells
            self.assertEqual(left, set())
            del self.m.nodes["alice"]
            self.end()


class InTimeTests(RenewalCase):
    """Before the end."""

    def test_old_circuits_are_taken_down(self) -> None:
        """When they are quiet, and soon; nothing is left at any node."""
        self.mesh()
        near = self.open(*RELAYS)
        self.exchange(near)
        self.m.wait(self.alice.renew(None))
        self.assertEqual(self.standing("alice", "r2", "bob"), [2, 2, 2])
        self.m.network.run(3)
        self.assertEqual(self.standing(), [1] * 5)
        self.exchange(near, b"and on")
        assert near.stream is not None
        near.stream.reset(0)
        self.clean()

    def test_a_blocked_circuit(self) -> None:
        """One that is never quiet, since its acknowledgements do not come, goes after some seconds."""
        self.mesh(conditions=Conditions(rate=2e6))
        near = self.open(*RELAYS)
        near.send(DATA, finish=True)
        self.m.network.run(0.3)
        self.blind("r2")
        self.m.wait(self.alice.renew(None))
        began = self.m.network.clock.seconds()
        self.until(lambda: len(self.conversation.legs) == 1, DRAIN_SECONDS + 1)
        self.assertGreater(self.m.network.clock.seconds() - began, DRAIN_SECONDS - 1)
        self.arrived()
        self.end()

    def test_not_all_at_once(self) -> None:
        """Circuits that were made together are not renewed together."""
        self.mesh(("alice", "r1", "bob"))
        times = {self.alice.renewals.fresh_until(0.0) for _ in range(50)}
        self.assertGreater(len(times), 40)
        self.assertLess(max(times), FRESH + 1)
        self.assertGreater(max(times) - min(times), 60.0)
        self.end()

    def test_numbers_run_out(self) -> None:
        """A circuit that has used up most of its packet numbers is replaced."""
        self.mesh()
        near = self.open(*RELAYS)
        self.exchange(near)
        leg = self.conversation.leg
        assert leg is not None
        leg.path.recovery.next = WORN
        self.until(lambda: self.alice.totals["circuits_renewed"] == 1, 5)
        self.end()

    def test_it_is_tried_again(self) -> None:
        """If it fails it is tried again later, while the old circuit lives; then it is too late, and the
        stream waits for a new one as for any that is lost."""
        self.mesh()
        near = self.open(*RELAYS)
        self.exchange(near)
        real, tries = self.alice.dialling.dial, []

        def dial(route: Any, told: Any) -> Any:
            tries.append(self.m.network.clock.seconds())
            if self.m.network.clock.seconds() > CIRCUIT_LIFE + 5:
                return real(route, told)
            return told(CircuitError("busy", Reason.BUSY, 0), tries[-1])

        self.patch(self.alice.dialling, "dial", dial)
        self.m.network.run(CIRCUIT_LIFE + 20)
        self.assertIsNone(near.error)
        pauses = {round(after - before) for before, after in pairwise(tries[:6])}
        self.assertEqual(pauses, {round(LATER)})
        self.exchange(near, b"and on")
        self.assertEqual(self.alice.totals["losses_survived"], 1)
        self.end()

    def test_many_circuits_in_a_row(self) -> None:
        """Ten renewals in mid-stream, both ways, over links that lose: nothing is missing or left over."""
        self.mesh(("alice", "r1", "bob"), conditions=Conditions(rate=2e6, loss=0.01, jitter=0.003))
        near = self.open("r1")
        far = self.exchange(near)
        far.got.clear()
        near.got.clear()
        near.send(DATA, finish=True)
        far.send(DATA, finish=True)
        for _ in range(10):
            self.m.network.run(0.1)
            self.m.wait(self.alice.renew(None))
        self.until(lambda: near.ended and far.ended, 60)
        self.assertEqual((bytes(near.got), bytes(far.got)), (DATA, DATA))
        self.assertEqual(self.alice.totals["circuits_lost"], 0)
        self.clean()


class TooLateTests(RenewalCase):
    """After the last circuit was lost."""

    def test_in_mid_stream(self) -> None:
        """The stream goes on at once, at whichever node the circuit was lost."""
        for name in ("r1", "r2", "r3"):
            self.mesh(conditions=Conditions(rate=2e6))
            near = self.open(*RELAYS)
            near.send(DATA, finish=True)
            self.m.network.run(0.25)
            lost_at = self.m.network.clock.seconds()
            self.lose(name)
            self.until(lambda: self.alice.totals["losses_survived"] == 1, 1.0)
            self.assertLess(self.m.network.clock.seconds() - lost_at, 0.5)
            self.arrived()
            self.assertIsNone(near.error)
            assert near.stream is not None
            near.stream.reset(0)
            self.clean()

    def test_a_stream_that_nobody_knows_yet(self) -> None:
        """It ends with what the first attempt fails with, at once; one that was open waits."""
        self.mesh()
        near = self.open(*RELAYS)
        self.exchange(near)
        self.m.network.partition({"alice", "r1"})
        fresh, result = self.call(*RELAYS)
        self.m.wait(result)
        self.m.network.run(0.05)
        gone = self.m["r2"].router
        self.m.kill("r2")
        self.m.wait(gone.stop())
        self.lose("r1")
        self.until(lambda: fresh.error is not None, 1.0)
        self.assertIn("no link", str(fresh.error))
        self.assertIsNone(near.error)
        self.until(lambda: near.error is not None, SESSION_SILENCE + 5)
        self.end()

    def test_calls_meanwhile(self) -> None:
        """A new call does not wait longer than the attempt under way, and fails with its error; with the way
        back, it works, over the session that waited."""
        self.mesh()
        near = self.open(*RELAYS)
        self.exchange(near)
        self.m.network.partition({"r3", "bob"})
        self.m.internet.sever("r2", "r3")
        self.m.network.run(1)
        self.lose("r1")
        self.m.network.run(0.2)
        began = self.m.network.clock.seconds()
        _, result = self.call(*RELAYS)
        self.assertIsInstance(self.fails(result), MeshError)
        self.assertLess(self.m.network.clock.seconds() - began, 1.0)
        self.assertIsNone(near.error)
        self.m.network.heal()
        self.until(lambda: self.alice.totals["losses_survived"] == 1, 14)
        self.exchange(self.open(*RELAYS))
        self.exchange(near, b"the old one too")
        self.assertEqual(len(self.alice._sessions), 1)
        self.end()

    def test_attempts_get_rarer(self) -> None:
        """Half a second, one, two, four, and never more often; until the time is over."""
        self.mesh()
        near = self.open(*RELAYS)
        self.exchange(near)
        tries: list[float] = []

        def dial(route: Any, told: Any) -> None:
            tries.append(self.m.network.clock.seconds())
            told(CircuitError("busy", Reason.BUSY, 0), tries[-1])

        self.patch(self.alice.dialling, "dial", dial)
        self.lose()
        self.until(lambda: near.error is not None, SESSION_SURVIVES + 1)
        pauses = [after - before for before, after in pairwise(tries)]
        for pause, least in zip(pauses, (0.5, 1.0, 2.0, 4.0, 4.0, 4.0), strict=False):
            self.assertGreaterEqual(pause, least)
            self.assertLessEqual(pause, 1.26 * least)
        self.assertEqual(str(near.error), "busy")
        self.m.network.run(2)
        self.assertEqual(self.m["bob"].router.answering.orphans, {})
        self.end()

    def test_the_last_hop_waits_as_long(self) -> None:
        """Bob keeps a session whose caller has vanished for its time, then tells his app; nothing is left."""
        self.mesh()
        near = self.open(*RELAYS)
        far = self.exchange(near)
        gone = self.alice
        self.m.network.partition({"alice"})
        self.m.kill("alice")
        self.m.wait(gone.stop())
        self.lose("r1")
        self.m.network.run(1)
        bob = self.m["bob"].router
        self.assertEqual((len(bob.answering.orphans), len(bob.services.own.sessions)), (1, 1))
        self.assertIsNone(far.error)
        self.m.network.run(SESSION_SURVIVES)
        self.assertIsNotNone(far.error)
        self.assertEqual(residue(bob), {})
        self.assertEqual(bob.session_memory.used, 0)
        self.end()

    def test_those_who_wait_give_way(self) -> None:
        """At the limit of sessions a new caller gets the room of the one that has waited for longest."""
        self.patch(answering, "SESSIONS", 1)
        self.mesh(("alice", "r1", "bob"))
        self.m.add("carol")
        self.m.link("carol", "r1")
        self.m.network.run(2)
        near = self.open("r1")
        far = self.exchange(near)
        _, refused = self.call("r1", caller="carol")
        self.assertEqual(self.blames(refused), (1, "BUSY"))
        gone = self.alice
        self.m.kill("alice")
        self.m.wait(gone.stop())
        self.lose("r1")
        self.m.network.run(1)
        self.assertIsNone(far.error)
        reader, called = self.call("r1", caller="carol")
        self.m.wait(called)
        reader.send(b"hello")
        self.until(lambda: len(self.accepted) == 2)
        self.assertIn("room", str(far.error))
        self.end()

    def test_a_service_that_was_restarted(self) -> None:
        """Its new start knows nothing: the stream ends with a sentence, the next call works."""
        self.mesh()
        near = self.open(*RELAYS)
        self.exchange(near)
        self.m.restart("bob")
        self.m["bob"].router.listen(PORT, self.accept)
        self.until(lambda: near.error is not None, 20)
        self.assertIn("it was restarted", str(near.error))
        self.exchange(self.open(*RELAYS))
        self.end()


class BrokenRouteTests(RenewalCase):
    """A relay that takes every circuit and keeps none."""

    def tamper(self, changed: Any) -> None:
        """r2 hands on the first cells of each circuit, then `changed(number)` says which it changes."""
        relay = Hop.relay
        hops = self.m["r2"].router.circuits
        counts: dict[Hop, int] = {}

        def spoil(hop: Hop, seq: int, body: memoryview, now: float, marked: bool) -> Any:
            mine = any(isinstance(each, Transit) and each.forward is hop for each in hops)
            counts[hop] = counts.get(hop, 0) + mine
            if mine and changed(counts[hop]):
                body[0] ^= 1
            return relay(hop, seq, body, now, marked)

        self.patch(Hop, "relay", spoil)
        self.patch(Hop, "run", lambda hop, view, start, end, now: 0)

    def test_cells_that_are_changed(self) -> None:
        """Each circuit joins and then breaks: some attempts, with pauses, then one error that says what to
        do, at both ends, and nothing is left."""
        self.mesh(conditions=Conditions(rate=2e6))
        self.tamper(lambda number: number > 6)
        near = self.open(*RELAYS)
        far = self.exchange(near)
        near.send(DATA, finish=True)
        self.until(lambda: near.error is not None, 60)
        self.assertIn("choose another route", str(near.error))
        self.assertIn("in a row", str(near.error))
        opened = self.alice.totals["circuits_opened"]
        self.assertIn(opened, (1 + BROKEN_CIRCUITS, 2 + BROKEN_CIRCUITS))
        self.until(lambda: far.error is not None or far.ended, SESSION_SURVIVES + 5)
        self.clean()
        self.assertEqual(self.alice.totals["circuits_opened"], opened)

    def test_circuits_that_last_are_forgiven(self) -> None:
        """One that is lost after it has served for a while counts for nothing."""
        self.mesh()
        near = self.open(*RELAYS)
        self.exchange(near)
        for number in range(2 * BROKEN_CIRCUITS):
            self.lose()
            self.until(lambda number=number: self.alice.totals["losses_survived"] == number + 1, 5)
            self.m.network.run(BROKEN_SECONDS + 1)
        self.exchange(near, b"still here")
        self.end()


class SleepTests(RenewalCase):
    """A machine that was asleep."""

    def sleep(self, seconds: float) -> None:
        """The wall clock goes on by so much; the monotonic one of this machine stands still meanwhile."""
        clock = self.m.clock
        unix = clock.unix
        clock.unix = lambda: unix() + seconds  # type: ignore[method-assign]

    def test_dead_circuits_are_found(self) -> None:
        """After a sleep a circuit that is gone is found within seconds, not after the whole silence, and the
        stream goes on."""
        self.mesh()
        near = self.open(*RELAYS)
        self.exchange(near)
        self.blind(*RELAYS)
        self.sleep(120.0)
        self.until(lambda: self.alice.totals["losses_survived"] == 1, DOUBT_SECONDS + 1)
        self.exchange(near, b"awake")
        self.end()

    def test_living_circuits_stay(self) -> None:
        """A step of the wall clock costs a round trip, no circuit."""
        self.mesh()
        near = self.open(*RELAYS)
        self.exchange(near)
        self.sleep(30.0)
        self.m.network.run(SESSION_SILENCE)
        self.assertEqual(self.alice.totals["circuits_opened"], 1)
        self.exchange(near, b"awake")
        self.end()


class ReaderTests(RenewalCase):
    """What apps do in the middle of it."""

    def test_a_reader_that_calls_again(self) -> None:
        """A reader that, told of the loss, opens another stream at once gets an answer."""
        self.mesh()
        answers: list[Any] = []
        alice, bob, relays = self.alice, self.m["bob"].public, self.m.route(*RELAYS)

        class Again(Collector):
            def lost(self, why: MeshError) -> None:
                super().lost(why)
                result = alice.connect(bob, PORT, Collector(), via=relays, identity="anonymous")
                result.addBoth(answers.append)

        reader = Again()
        reader.stream = self.m.wait(alice.connect(bob, PORT, reader, via=relays, identity="anonymous"))
        self.exchange(reader)
        gone = self.m["r2"].router
        self.m.kill("r2")
        self.m.wait(gone.stop())
        self.lose("r1")
        self.until(lambda: bool(answers), 60)
        self.end()
