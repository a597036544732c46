"""A neighbour with a valid key that does whatever it likes, beside others whose traffic must not notice."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from lab.simulation.network import Conditions
from lab.simulation.nodes import Collector
from meshnet.circuit.messages import CREATE, CREATED, DESTROY, FAILED, Create
from meshnet.circuit.transit import Transit
from meshnet.codec import decode, encode
from meshnet.errors import Reason
from meshnet.limits import CIRCUIT_QUEUE_BYTES, CREATE_BURST, CREATES_PER_SECOND, QUARANTINED_LABELS
from meshnet.link.link import Link
from meshnet.link.outlet import Outlet
from tests.meshnet.node.routers import ROW, RouterCase, residue

DATA = random.Random("faults").randbytes(1_500_000)
Frame = tuple[int, bytes]


class HostileCase(RouterCase):
    """alice fetches from bob over r1, r2, r3; mallory is linked to r2."""

    def setUp(self) -> None:
        self.mesh(conditions=Conditions(delay=0.01, rate=4e6))
        self.m.add("mallory")
        self.m.link("mallory", "r2")
        self.until(lambda: self.m["mallory"].router.links.standing(self.m["r2"].public) is not None)
        self.chance = random.Random(self.id())

    @property
    def r2(self) -> Link:
        """Mallory's link."""
        link = self.m["mallory"].router.links.standing(self.m["r2"].public)
        assert link is not None, "mallory has lost her link"
        return link

    def attack(self, act: Callable[[], object]) -> None:
        """Acts every 10 ms while alice's download runs, which must come whole and without a drop of hers."""
        near = self.open("r1", "r2", "r3")
        far = self.exchange(near)
        far.send(DATA, finish=True)

        def again() -> None:
            if "mallory" in self.m.nodes and not near.ended:
                act()
                self.m.network.clock.callLater(0.01, again)

        again()
        self.until(lambda: near.ended, 60)
        self.assertEqual(bytes(near.got[-len(DATA) :]), DATA)
        self.assertIsNone(near.error)
        near.send(b"", finish=True)
        for name in ("r1", "r3", "bob"):
            self.assertEqual(self.m[name].router.dropped, {}, name)

    def label(self) -> int:
        """One that mallory may choose."""
        own, theirs = self.m["mallory"].public, self.m["r2"].public
        return self.chance.getrandbits(31) | (1 << 31 if own > theirs else 0)


class FloodTests(HostileCase):
    """Too much of everything."""

    def test_onions(self) -> None:
        """Thousands of CREATEs with rubbish in them cost r2 a rate-limited few; nothing of them stays."""
        sent = 0

        def act() -> None:
            nonlocal sent
            for _ in range(100):
                expiry = self.chance.choice((int(self.m.clock.unix()) // 300 * 300 + 900, 0, 2**32 - 1))
                frame = Create(self.label(), expiry, 0, bytes(33), b"\0" + self.chance.randbytes(1_365))
                sent += self.r2.send(CREATE, encode(frame))

        began = self.m.network.clock.seconds()
        self.attack(act)
        self.m.network.run(2)
        took = self.m.network.clock.seconds() - began
        refused = self.m["r2"].router.circuits.totals.refused
        self.assertGreater(sent, 2_000)
        self.assertEqual(sum(refused.values()), sent)
        affordable = refused[Reason.BAD_ONION]
        self.assertLessEqual(affordable, CREATE_BURST + CREATES_PER_SECOND * took + 1)
        self.clean()

    def test_frames_that_fit_nothing(self) -> None:
        """CREATED, FAILED and DESTROY for labels nobody knows are counted; what is remembered is bounded."""

        def act() -> None:
            for _ in range(200):
                label = self.chance.getrandbits(32).to_bytes(4, "big")
                self.r2.send(CREATED, label + bytes(459))
                self.r2.send(FAILED, label + b"\1")
                self.r2.send(DESTROY, label + b"\1" + bytes(292))

        self.attack(act)
        router = self.m["r2"].router
        self.assertGreater(router.totals["stray_frames"], 5_000)
        side = router.circuits._shared.sides[self.m["mallory"].public]
        self.assertLessEqual(len(side.labels), QUARANTINED_LABELS)
        self.clean()

    def test_cells_for_nobody(self) -> None:
        """They are dropped and counted by name, in both directions, marked or not."""

        def act() -> None:
            for _ in range(100):
                head = self.chance.getrandbits(32).to_bytes(4, "big") + self.chance.randbytes(8)
                self.r2.send(
                    self.chance.choice((12, 13, 140, 141)), head + bytes(self.chance.randrange(1_000))
                )

        self.attack(act)
        dropped = self.m["r2"].router.dropped
        self.assertEqual(list(dropped), ["unknown_label"])
        self.assertGreater(dropped["unknown_label"], 2_000)
        self.clean()

    def test_pings_and_unknown_frames(self) -> None:
        """A flood of PINGs, padding and frames of kinds to come."""

        def act() -> None:
            for _ in range(100):
                self.r2.send(2, self.chance.randbytes(16))
                self.r2.send(0, bytes(self.chance.randrange(3_000)))
                self.r2.send(31, bytes(100))

        self.attack(act)
        self.clean()

    def test_many_circuits(self) -> None:
        """More circuits than a neighbour may have are refused to it, and to nobody else."""
        policy: dict[str, dict[str, Any]] = {name: {} for name in (*ROW, "mallory")}
        self.m.stop()
        self.mesh(policies={**policy, "r2": {"max_circuits_per_neighbour": 20}})
        self.m.add("mallory")
        self.m.link("mallory", "r2")
        self.until(lambda: self.m["mallory"].router.links.standing(self.m["r2"].public) is not None)
        router, via = self.m["mallory"].router, self.m.route("r2", "r3")
        results: list[object] = []
        for _ in range(30):
            router.dial((*via, self.m["bob"].public), None, lambda outcome, now: results.append(outcome))
        self.until(lambda: len(results) == 30)
        self.assertEqual(sum(isinstance(result, Exception) for result in results), 10)
        near = self.open("r1", "r2", "r3")
        self.exchange(near)
        near.send(b"", finish=True)
        self.end()


class BrokenTests(HostileCase):
    """Frames that are wrong."""

    def test_malformed(self) -> None:
        """Each closes her connection, again and again; the others' stay."""
        wrong: list[Frame] = [
            (CREATE, b""),
            (CREATE, bytes(1_408)),
            (CREATED, bytes(10)),
            (FAILED, bytes(4)),
            (FAILED, bytes(4) + b"\0"),
            (DESTROY, bytes(4) + b"\1" + bytes(100)),
            (12, bytes(11)),
            (13, b""),
            (2, b"x"),
            (20, b""),
            (254, b""),
        ]
        closed = 0

        def act() -> None:
            nonlocal closed
            link = self.m["mallory"].router.links.standing(self.m["r2"].public)
            if link is not None:
                link.send(*wrong[closed % len(wrong)])
                closed += 1

        self.attack(act)
        for frame in wrong:
            self.until(lambda: self.m["mallory"].router.links.standing(self.m["r2"].public) is not None)
            link, connections = self.r2, self.r2.connections
            link.send(*frame)
            self.until(lambda link=link, before=connections: not link.up or link.connections > before, 2)
        self.assertEqual(self.m["r2"].router.links.by_key[self.m["r1"].public].connections, 1)
        self.clean()

    def test_a_label_that_is_not_hers(self) -> None:
        """CREATE under a label that only r2 may choose closes the connection."""
        link = self.r2
        frame = Create(self.label() ^ 1 << 31, 900, 0, bytes(33), bytes(1_366))
        link.send(CREATE, encode(frame))
        self.until(lambda: not link.up, 1)
        self.clean()


class ReplayTests(HostileCase):
    """Things that were right once."""

    def recorded(self, kind: int) -> list[Frame]:
        """The control frames of this kind that are sent from now on, by anybody."""
        found: list[Frame] = []
        send = Outlet.send

        def record(outlet: Outlet, sent: int, body: bytes) -> bool:
            if sent == kind:
                found.append((sent, body))
            return send(outlet, sent, body)

        self.patch(Outlet, "send", record)
        return found

    def test_onions(self) -> None:
        """The same onion under another label is refused as replayed, from whomever it comes."""
        creates = self.recorded(CREATE)
        router = self.m["mallory"].router
        report = self.m.wait(router.ping(self.m["bob"].public, self.m.route("r2", "r3"), 1))
        self.assertEqual(report["received"], 1)
        kind, body = creates[0]
        first = decode(Create, body)
        for _ in range(5):
            again = Create(self.label(), first.expiry, 0, first.path_key, first.onion)
            self.r2.send(kind, encode(again))
        link = self.m["r1"].router.links.standing(self.m["r2"].public)
        assert link is not None
        top = 1 << 31 if self.m["r1"].public > self.m["r2"].public else 0
        link.send(kind, encode(Create(77 | top, first.expiry, 0, first.path_key, first.onion)))
        self.m.network.run(1)
        self.assertEqual(self.m["r2"].router.circuits.totals.refused, {Reason.REPLAY: 6})
        self.assertEqual(self.m["bob"].router.totals["circuits_accepted"], 1)
        self.clean()

    def test_cells(self) -> None:
        """On a circuit of her own: doubled and forged cells are dropped where they are seen first, the third
        forgery that reaches bob ends that circuit, with a reason, and no other."""
        creates = self.recorded(CREATE)
        results: list[object] = []
        route = (*self.m.route("r2", "r3"), self.m["bob"].public)
        router = self.m["mallory"].router
        router.dial(route, None, lambda outcome, now: results.append(outcome))
        self.until(lambda: bool(results))
        lost: list[object] = []
        next(iter(router._conversations.values())).on_end = lambda why, now: lost.append(why)
        self.m.network.run(1)
        near = self.open("r1", "r2", "r3")
        far = self.exchange(near)
        label = creates[0][1][:4]
        (hop,) = [
            circuit.forward
            for circuit in self.m["r2"].router.circuits
            if isinstance(circuit, Transit) and circuit.up.peer == self.m["mallory"].public
        ]
        assert hop is not None
        following = hop.window.next
        for seq in (following, following, following - 3_000, following + (2 << 20), following + 1):
            self.r2.send(12, label + (seq % 2**64).to_bytes(8, "big") + bytes(100))
        self.m.network.run(1)
        self.assertEqual(self.m["r2"].router.dropped, {"replayed": 1, "too_old": 1, "jumped": 1})
        self.assertEqual((self.m["bob"].router.dropped, lost), ({"bad_tag": 2}, []))
        self.r2.send(12, label + ((following + 2) % 2**64).to_bytes(8, "big") + bytes(100))
        self.until(lambda: bool(lost), 5)
        self.assertIn("did not open", str(lost[0]))
        self.assertEqual(self.m["bob"].router.dropped, {"bad_tag": 3})
        self.exchange(near, b"not touched")
        self.assertIsNone(far.error)
        near.send(b"", finish=True)
        self.end()


class SlowTests(RouterCase):
    """A neighbour that takes nothing any more."""

    def test_a_stuck_neighbour(self) -> None:
        """What waits for it at the relay is bounded and dropped oldest first; others pass as before."""
        self.mesh(("alice", "r1", "bob"), conditions=Conditions(delay=0.005))
        self.m.add("stuck")
        self.m.link("stuck", "r1")
        self.until(lambda: self.m["r1"].router.links.standing(self.m["stuck"].public) is not None)
        self.m["stuck"].router.listen(7, self.accept)
        reader = Collector()
        reader.stream = self.m.wait(
            self.m["alice"].router.connect(
                self.m["stuck"].public, 7, reader, via=self.m.route("r1"), identity="anonymous"
            )
        )
        reader.send(b"first")
        self.until(lambda: bool(self.accepted))
        for line in self.m.internet.connections:
            if "stuck" in line.places:
                for end in (line.near, line.far):
                    end.pause()
        reader.send(bytes(30_000_000))
        near = self.open("r1")
        far = self.exchange(near)
        near.send(DATA, finish=True)
        self.until(lambda: far.ended, 20)
        self.assertEqual(bytes(far.got[-len(DATA) :]), DATA)
        self.assertLessEqual(self.m["r1"].router.circuits.waiting, CIRCUIT_QUEUE_BYTES)
        self.until(lambda: reader.error is not None, 100)
        self.m.nodes.pop("stuck").router.stop()
        far.send(b"", finish=True)
        self.m.network.run(100)
        self.assertEqual(residue(self.m["r1"].router), {})
        self.end()
