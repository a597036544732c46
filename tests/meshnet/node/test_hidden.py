"""Streams to services that hide, over whole simulated nodes."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred

from lab.simulation.nodes import NETWORK_ID, Collector
from meshnet.cipher.address import Address, sign_address
from meshnet.cipher.keys import SecretKey
from meshnet.circuit.tail import make_tail
from meshnet.errors import CircuitError, Reason, RefusedError, UsageError
from meshnet.node import about
from meshnet.node.config import AboutSettings
from meshnet.node.services import Service
from meshnet.streams import Stream, StreamReader
from tests.meshnet.node.routers import PORT, RouterCase
from tests.meshnet.rpc.pairs import OnMesh

SECRET = SecretKey(b"\x66" * 32)
PATH = bytes(range(16))
DAY = 86_400


class HiddenCase(RouterCase):
    """alice calls a service of bob's, whose address is made of any of the nodes between them."""

    def setUp(self) -> None:
        self.near: list[Collector] = []

    def hide(self, *relays: str, path_id: bytes = PATH, session: int = 3, days: float = 1) -> Address:
        """An address of bob's service behind these relays, and the service ready to be called."""
        bob = self.m["bob"]
        expiry = int(self.m.clock.unix() + days * DAY)
        path_key, tail = make_tail(
            SecretKey(bytes([session]) * 32), self.m.route(*relays), bob.public, path_id
        )
        self.service = Service(SECRET)
        bob.router.services.add(PATH, self.service, expiry)
        self.service.ports.listen(PORT, self.take)
        return sign_address(SECRET, NETWORK_ID, expiry, path_key, tail)

    def take(self, stream: Stream) -> StreamReader:
        """The service's end of a stream."""
        self.accepted.append(Collector(stream=stream))
        return self.accepted[-1]

    def reach(self, address: Address, *via: str, port: int = PORT, identity: str = "anonymous") -> Collector:
        """A stream to the service, and it stands."""
        reader, result = self.calling(address, *via, port=port, identity=identity)
        self.m.wait(result)
        return reader

    def finish(self) -> None:
        """Every stream ends, and nothing of them stays."""
        for end in [*self.accepted, *self.near]:
            if end.stream is not None:
                end.stream.reset(0)
        self.accepted, self.near = [], []
        self.clean()

    def calling(
        self, target: Any, *via: str, port: int = PORT, identity: str = "anonymous"
    ) -> tuple[Collector, Deferred[Stream]]:
        """The same on its way."""
        reader = Collector()
        self.near.append(reader)
        result = self.m["alice"].router.connect(
            target, port, reader, via=self.m.route(*via), identity=identity
        )

        def connected(stream: Stream) -> Stream:
            reader.stream = stream
            return stream

        return reader, result.addCallback(connected)


class StreamTests(HiddenCase):
    """What must work."""

    def test_every_tail(self) -> None:
        """Tails of 1 to 4 hops, the caller's relays before them; the stream is the service's."""
        row = ("alice", "r1", "r2", "r3", "r4", "bob")
        for relays in range(4):
            self.mesh(row)
            address = self.hide(*row[5 - relays : 5])
            near = self.reach(address, *row[1 : 5 - relays])
            far = self.exchange(near)
            assert far.stream is not None and near.stream is not None
            self.assertIsNone(far.stream.peer)
            self.assertEqual(near.stream.peer, SECRET.public)
            self.finish()

    def test_streams_outlive_their_circuits(self) -> None:
        """A stream to a hidden service moves to another circuit, on demand and after a loss. The session is
        the service's alone: the same join under another key of the node is refused like any stranger's."""
        self.mesh()
        address = self.hide("r2", "r3")
        near = self.reach(address, "r1")
        self.exchange(near)
        alice, bob = self.m["alice"].router, self.m["bob"].router
        (report,) = self.m.wait(alice.renew(address))
        self.assertNotIn("error", report)
        self.m.restart("r1", "r2")
        self.until(lambda: alice.totals["losses_survived"] == 1, 20)
        self.exchange(near, b"the same stream")
        self.assertEqual((len(self.service.sessions), len(bob.services.own.sessions)), (1, 0))
        self.service.sessions, elsewhere = {}, self.service.sessions
        bob.services.own.sessions.update(elsewhere)
        (report,) = self.m.wait(alice.renew(None))
        self.assertIn("has forgotten the session", report["error"])
        bob.services.own.sessions.clear()
        self.exchange(near, b"it did not notice")
        self.finish()

    def test_who_calls(self) -> None:
        """A caller may say who it is to a service, as to a node."""
        self.mesh()
        near = self.reach(self.hide("r2", "r3"), "r1", identity="node")
        far = self.exchange(near)
        assert far.stream is not None
        self.assertEqual(far.stream.peer, self.m["alice"].public)
        self.finish()

    def test_ports_apart(self) -> None:
        """A service's ports are not the node's, and its streams share a circuit."""
        self.mesh()
        address = self.hide("r3")
        self.m["bob"].router.listen(PORT + 1, self.take)
        one = self.reach(address, "r1", "r2")
        self.exchange(one)
        self.exchange(self.reach(address, "r1", "r2"), b"other")
        self.assertEqual(self.m["alice"].router.circuits.standing["origin"], 1)
        wrong = self.reach(address, "r1", "r2", port=PORT + 1)
        self.until(lambda: wrong.error is not None)
        self.finish()

    def test_nothing_about_the_node(self) -> None:
        """What a node says of itself, its clock above all, is not said under a service's key."""
        self.mesh()
        address = self.hide("r3")
        bob = OnMesh(self.m.clock, self.m["bob"].router)
        about.offer(bob, AboutSettings(version=True, name=True, clock=True))
        alice = OnMesh(self.m.clock, self.m["alice"].router)
        via = self.m.route("r1", "r2", "r3")
        open_way = Deferred.fromCoroutine(about.describe(alice, self.m["bob"].public, via))
        self.assertEqual(self.m.wait(open_way)["name"], "a node")
        for asked in (about.describe, lambda *to: about.delays(*to, count=1)):
            hidden_way = Deferred.fromCoroutine(asked(alice, address, via[:2]))
            self.assertRaises(RefusedError, self.m.wait, hidden_way)

    def test_ping(self) -> None:
        """Services answer pings."""
        self.mesh()
        address = self.hide("r3")
        report = self.m.wait(self.m["alice"].router.ping(address, self.m.route("r1", "r2"), 2))
        self.assertEqual(report["received"], 2)
        self.clean()


class RefusalTests(HiddenCase):
    """What must not."""

    def test_not_ours(self) -> None:
        """Unknown path ids, withdrawn and expired addresses give the same answer, soon."""
        self.mesh()
        sentences = set()
        for case in ("unknown", "withdrawn", "expired"):
            address = self.hide("r3", path_id=bytes(16) if case == "unknown" else PATH)
            services = self.m["bob"].router.services
            if case == "withdrawn":
                services.remove(PATH)
            elif case == "expired":
                services.add(PATH, self.service, self.m.clock.unix())
            _, result = self.calling(address, "r1", "r2")
            error = self.fails(result, 1.0)
            assert isinstance(error, CircuitError)
            self.assertEqual((error.reason, error.hop), (Reason.BLINDED, 2))
            sentences.add(str(error))
            self.service.ports = type(self.service.ports)()
        self.assertEqual(len(sentences), 1)
        self.clean()

    def test_without_path_id(self) -> None:
        """Who calls the node with the service's key gets what any wrong key gets."""
        self.mesh()
        self.hide("r3")
        bob, alice = self.m["bob"], self.m["alice"]
        answers = []
        for key in (SECRET.public, SecretKey(b"\x67" * 32).public):
            told: list[Any] = []
            route = (*self.m.route("r1", "r2", "r3"), bob.public)
            with_key = alice.router
            from meshnet.node import answering as module

            start = module.end_to_end.start
            self.patch(module.end_to_end, "start", lambda _, *rest, key=key, start=start: start(key, *rest))
            with_key.dial(route, None, lambda outcome, now, told=told: told.append(outcome))
            self.patch(module.end_to_end, "start", start)
            self.until(lambda told=told: bool(told))
            answers.append((type(told[0]), told[0].reason, told[0].hop, str(told[0])))
        self.assertEqual(answers[0], answers[1])
        self.assertEqual(answers[0][1], Reason.UNKNOWN_SERVICE)
        self.clean()

    def test_of_no_use(self) -> None:
        """Expired addresses and those of other networks are refused before anything is sent."""
        self.mesh()
        address = self.hide("r3", days=-1)
        _, result = self.calling(address, "r1", "r2")
        self.assertIn("expired", str(self.assertRaises(UsageError, self.m.wait, result)))
        other = sign_address(
            SECRET, NETWORK_ID + 1, int(self.m.clock.unix()) + DAY, address.path_key, address.tail
        )
        _, result = self.calling(other, "r1", "r2")
        self.assertIn("network", str(self.assertRaises(UsageError, self.m.wait, result)))
        self.clean()

    def test_link_lost(self) -> None:
        """When the service's link to its last relay is gone, streams end and callers hear `blinded`."""
        self.mesh()
        address = self.hide("r2", "r3")
        near = self.reach(address, "r1")
        self.exchange(near)
        gone = self.m["bob"]
        self.m.kill("bob")
        self.until(lambda: near.error is not None or near.ended, 200.0)
        _, result = self.calling(address, "r1")
        error = self.fails(result, 60.0)
        assert isinstance(error, CircuitError)
        self.assertEqual((error.reason, error.hop), (Reason.BLINDED, 1))
        self.m.wait(maybeDeferred(gone.router.stop))
        self.clean()


class LongLifeTests(HiddenCase):
    """Sessions with services outlive their circuits like others."""

    def test_another_circuit(self) -> None:
        """A stream goes on over another circuit to the same address, and joins the same service."""
        self.mesh()
        near = self.reach(self.hide("r3"), "r1", "r2")
        far = self.exchange(near)
        (report,) = self.m.wait(self.m["alice"].router.renew(None))
        self.assertNotIn("error", report)
        self.exchange(near, b"and on")
        self.assertEqual(len(self.accepted), 1)
        self.assertIs(self.accepted[0], far)
        self.finish()

    def test_removed(self) -> None:
        """A service that is removed ends its sessions, and nobody else's."""
        self.mesh()
        near = self.reach(self.hide("r3"), "r1", "r2")
        self.exchange(near)
        other = self.open("r1", "r2", "r3")
        self.exchange(other)
        bob = self.m["bob"].router
        bob.services.remove(PATH)
        bob.leave(self.service)
        self.until(lambda: near.error is not None, 30.0)
        self.exchange(other, b"still here")
        self.near.append(other)
        self.finish()
