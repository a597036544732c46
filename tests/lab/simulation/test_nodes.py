"""Whole routers on the simulated network: streams over relays, and what goes wrong on the way."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from lab.simulation.network import Conditions
from lab.simulation.nodes import Collector, Mesh
from meshnet.errors import CircuitError, MeshError, Reason
from meshnet.streams import Stream, StreamReader

ROW = ("alice", "r1", "r2", "r3", "bob")
DATA = random.Random("stream").randbytes(1_000_000)


class MeshTests(SynchronousTestCase):
    """Five nodes in a row."""

    def mesh(self, seed: int = 1, conditions: Conditions | None = None) -> Mesh:
        """Linked nodes; bob keeps what comes to port 7 in `self.got`, and answers with its length."""
        mesh = Mesh(ROW, seed, conditions)
        self.assertTrue(mesh.linked(), f"no links (seed {seed})")
        self.got: list[Collector] = []
        mesh["bob"].router.listen(7, self.accept)
        return mesh

    def accept(self, stream: Stream) -> StreamReader:
        """Keeps what a stream brings."""
        self.got.append(Collector(stream=stream))
        return self.got[-1]

    def open(self, mesh: Mesh, *via: str) -> Collector:
        """A stream from alice to bob's port 7."""
        reader = Collector()
        router = mesh["alice"].router
        target = mesh["bob"].public
        reader.stream = mesh.wait(
            router.connect(target, 7, reader, via=mesh.route(*via), identity="anonymous")
        )
        return reader

    def transfer(self, mesh: Mesh) -> None:
        """Sends DATA from alice to bob over three relays and checks it."""
        near = self.open(mesh, "r1", "r2", "r3")
        near.send(DATA, finish=True)
        self.arrives(mesh)

    def arrives(self, mesh: Mesh) -> None:
        """Waits until bob has all of DATA."""
        done = mesh.network.run_until(lambda: bool(self.got) and self.got[-1].ended, 600)
        self.assertTrue(done, f"not all arrived (seed {mesh.network.seed})")
        self.assertEqual(bytes(self.got[-1].got), DATA)

    def test_a_stream_over_three_relays(self) -> None:
        """A megabyte arrives whole, every relay has carried it, and nothing is left behind."""
        mesh = self.mesh()
        self.transfer(mesh)
        for name in ("r1", "r2", "r3"):
            self.assertGreaterEqual(mesh[name].router.totals["bytes_relayed"], len(DATA))
        mesh.stop()
        self.assertEqual(mesh.network.clock.getDelayedCalls(), [])
        self.assertEqual(mesh.internet.connections, [])

    def test_slow_lossy_links(self) -> None:
        """Links of 2 MB/s whose segments come late and jittered carry it too."""
        mesh = self.mesh(2, Conditions(delay=0.03, jitter=0.01, loss=0.02, rate=2e6))
        self.transfer(mesh)
        mesh.stop()

    def test_a_cut_connection_is_made_again(self) -> None:
        """The connection between two relays is cut in mid-stream; the link comes back and all arrives."""
        mesh = self.mesh(3, Conditions(rate=2e6))
        mesh.network.clock.callLater(0.4, mesh.internet.sever, "r1", "r2")
        self.transfer(mesh)
        mesh.stop()

    def test_a_killed_relay_ends_the_stream(self) -> None:
        """Both ends learn it, with a reason; a new circuit is refused and says by whom."""
        mesh = self.mesh(4, Conditions(rate=1e6))
        near = self.open(mesh, "r1", "r2", "r3")
        near.send(DATA)
        mesh.network.run(0.3)
        relays = mesh.route("r1", "r2", "r3")
        bob = mesh["bob"].public
        mesh.kill("r2")
        self.assertTrue(mesh.network.run_until(lambda: near.error is not None, 120))
        again = mesh["alice"].router.connect(bob, 7, Collector(), via=relays, identity="anonymous")
        error = self.assertRaises(CircuitError, mesh.wait, again)
        self.assertEqual((error.hop, error.reason), (0, Reason.NO_LINK))
        mesh.stop()

    def test_a_slow_reader_stops_the_writer(self) -> None:
        """What a reader has not passed on is bounded, and so is what the sender holds for it."""
        mesh = self.mesh(5)
        near = self.open(mesh, "r1", "r2", "r3")
        near.send(b"first")
        mesh.network.run(1)
        far = self.got[0]
        far.slow = True
        near.send(bytes(20_000_000))
        mesh.network.run(30)
        held = len(far.got)
        self.assertLess(held, 5_000_000)
        self.assertGreater(len(near.queue), 10_000_000)
        mesh.network.run(30)
        self.assertEqual(len(far.got), held)
        mesh.stop()

    def test_nobody_listens(self) -> None:
        """A stream to a port that nobody has ends with an error, the circuit stays."""
        mesh = self.mesh(6)
        reader = Collector()
        router = mesh["alice"].router
        opened = router.connect(
            mesh["bob"].public, 8, reader, via=mesh.route("r1", "r2", "r3"), identity="anonymous"
        )
        try:
            reader.stream = mesh.wait(opened)
            mesh.network.run_until(lambda: reader.error is not None, 10)
        except MeshError as error:
            reader.error = error
        self.assertIsNotNone(reader.error)
        self.transfer(mesh)
        mesh.stop()

    def test_ping(self) -> None:
        """Set-up and round trip are those of the simulated links."""
        mesh = self.mesh(7, Conditions(delay=0.05))
        report = mesh.wait(mesh["alice"].router.ping(mesh["bob"].public, mesh.route("r1", "r2", "r3"), 3))
        self.assertAlmostEqual(report["rtt_ms"], 400, delta=30)
        self.assertAlmostEqual(report["setup_ms"], 400, delta=30)
        mesh.stop()

    def test_a_restarted_relay(self) -> None:
        """A relay that comes back has forgotten its circuits: who used them learns it at once, and the stream
        goes on over another circuit through it, in which no byte is missing."""
        for seed in range(4):
            mesh = self.mesh(seed, Conditions(rate=1e6))
            near = self.open(mesh, "r1", "r2", "r3")
            near.send(DATA, finish=True)
            mesh.network.run(0.2 + 0.2 * seed)
            mesh.restart("r2", "r3")
            self.arrives(mesh)
            self.assertIsNone(near.error)
            self.assertEqual(mesh["alice"].router.renewals.survived, 1)
            mesh.stop()
            self.assertEqual(mesh.network.clock.getDelayedCalls(), [])

    def test_make_before_break(self) -> None:
        """Circuits replaced in mid-stream, over links that lose and delay: all arrives, no circuit is lost,
        and the old ones are taken down."""
        for seed in range(4):
            self.renewed_three_times(self.mesh(seed, Conditions(rate=1e6, loss=0.01, jitter=0.005)))

    def renewed_three_times(self, mesh: Mesh) -> None:
        near = self.open(mesh, "r1", "r2", "r3")
        near.send(DATA, finish=True)
        router = mesh["alice"].router
        (conversation,) = router._sessions.values()
        told: list[object] = []
        for _ in range(3):
            mesh.network.run(0.4)
            router.renewals.renew(conversation, lambda outcome, now: told.append(outcome))
            mesh.network.run_until(lambda: not len(router.renewals), 10)
        self.arrives(mesh)
        self.assertEqual(told, [conversation] * 3)
        self.assertEqual((router.totals["circuits_opened"], router.totals["circuits_lost"]), (4, 0))
        mesh.network.run(15)
        for name in ROW:
            self.assertEqual(sum(mesh[name].router.circuits.standing.values()), 1, name)
        mesh.stop()
        self.assertEqual(mesh.network.clock.getDelayedCalls(), [])

    def test_a_restarted_last_hop(self) -> None:
        """It has forgotten the session: the stream ends with a sentence that says so."""
        mesh = self.mesh(3, Conditions(rate=1e6))
        near = self.open(mesh, "r1", "r2", "r3")
        near.send(DATA)
        mesh.network.run(0.5)
        mesh.restart("bob")
        self.assertTrue(mesh.network.run_until(lambda: near.error is not None, 10))
        self.assertIn("it was restarted", str(near.error))
        mesh.stop()

    def test_a_call_while_a_forgotten_session_waits(self) -> None:
        """The last hop was restarted, and a call waits with the old session for a circuit: the session ends
        as forgotten, the call goes on over a fresh one, to which nothing of it is lost."""
        mesh = self.mesh(3, Conditions(rate=1e6))
        old = self.open(mesh, "r1", "r2", "r3")
        old.send(DATA)
        mesh.network.run(0.5)
        ((session, _),) = mesh["alice"].router._sessions.items()
        mesh.restart("bob")
        mesh["bob"].router.listen(7, self.accept)
        self.assertTrue(mesh.network.run_until(lambda: session.paths.waits_until is not None, 10))
        self.assertTrue(mesh.linked())
        self.assertTrue(session.live)
        self.transfer(mesh)
        self.assertIn("it was restarted", str(old.error))
        mesh.stop()
        self.assertEqual(mesh.network.clock.getDelayedCalls(), [])
