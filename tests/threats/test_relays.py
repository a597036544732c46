"""Neighbours, relays, and two relays that tell each other what they see."""

from __future__ import annotations

from itertools import combinations, pairwise

from lab.simulation.network import Conditions
from meshnet.circuit.messages import CELL_BACKWARD, CELL_FORWARD, CREATE, Create
from meshnet.circuit.relay import Hop
from meshnet.circuit.transit import Transit
from meshnet.codec import decode
from meshnet.errors import Drop
from meshnet.node.router import Router
from tests.meshnet.node.routers import ROW, RouterCase
from tests.threats.taps import Taps, holds, pieces
from tests.threats.test_wire import LINKS, RELAYS, SECRET


class RelayCase(RouterCase):
    """The same row, seen from inside its nodes."""

    def setUp(self) -> None:
        self.taps = Taps(self)
        self.mesh(conditions=Conditions(delay=0.01, rate=4e6))
        self.taps.forget()

    def transfer(self, size: int = len(SECRET)) -> None:
        """A stream of SECRET, or of its beginning, as far as that comes."""
        near = self.near = self.open(*RELAYS)
        self.exchange(near)
        near.send(SECRET[:size], finish=True)
        self.until(lambda: self.accepted[0].ended or near.error is not None)

    def cells(self, source: str, target: str) -> list[tuple[int, bytes]]:
        """Sequence numbers and bodies."""
        kind = CELL_FORWARD if ROW.index(source) < ROW.index(target) else CELL_BACKWARD
        found = self.taps.of_kind(source, target, kind)
        return [(int.from_bytes(body[4:12], "big"), body[12:]) for body in found]

    def transit(self, name: str) -> Transit:
        """The circuit at a relay."""
        (found,) = [each for each in self.m[name].router.circuits if isinstance(each, Transit)]
        return found


class SightTests(RelayCase):
    """What one relay sees and remembers."""

    def test_inside_the_links(self) -> None:
        """Even inside the links' own encryption nothing is alike on two of them: no label, no number, no
        run of eight bytes of onions and cells."""
        self.transfer(40_000)
        seen: dict[tuple[str, str], set[bytes]] = {}
        labels, numbers = set(), set()
        for one, other in LINKS:
            (body,) = self.taps.of_kind(one, other, CREATE)
            frame = decode(Create, body)
            cells = [*self.cells(one, other), *self.cells(other, one)]
            labels.add(frame.label)
            numbers.add(cells[0][0])
            seen[one, other] = pieces(frame.onion).union(*(pieces(body) for _, body in cells))
            self.assertFalse(seen[one, other] & pieces(SECRET[:200]))
        self.assertEqual((len(labels), len(numbers)), (4, 4))
        for here, there in combinations(seen, 2):
            self.assertEqual(seen[here] & seen[there], set(), (here, there))

    def test_origins_look_like_relays(self) -> None:
        """A CREATE does not tell whether its sender began the circuit: same size, same grid of expiries, no
        path key, the same idle time inside for every hop."""
        self.transfer(10)
        frames = [decode(Create, self.taps.of_kind(one, other, CREATE)[0]) for one, other in LINKS]
        self.assertEqual(len({(frame.expiry, frame.epoch, frame.path_key) for frame in frames}), 1)
        self.assertEqual(frames[0].expiry % 300, 0)
        self.assertEqual(
            len({len(body) for one, other in LINKS for body in self.taps.of_kind(one, other, CREATE)}), 1
        )
        idles = {self.transit(name).idle for name in RELAYS}
        self.assertEqual(len(idles), 1)

    def secrets(self) -> dict[str, bytes]:
        """What only the ends may know."""
        known: dict[str, bytes] = {"content": SECRET[:24]}
        for name in ("alice", "bob"):
            router = self.m[name].router
            known[f"secret of {name}"] = self.m[name].secret.secret
            (conversation,) = [each for each in router._conversations.values() if each.session is not None]
            assert conversation.session is not None
            keys = conversation.session.keys
            for part in ("send", "receive", "chaining_key", "hash", "session_secret", "session_id"):
                known[f"{part} of {name}"] = getattr(keys, part)
            known[f"ephemeral of {name}"] = keys.ephemeral.secret
        return known

    def test_memory(self) -> None:
        """Everything that a relay's objects hold in mid-stream: none of the ends' keys or content, no layer
        key of another relay, and of the five nodes' public keys its own and its neighbours' only."""
        near = self.open(*RELAYS)
        self.exchange(near)
        near.send(SECRET)
        self.m.network.run(0.1)
        secrets = self.secrets()
        for name in RELAYS:
            self.assertEqual(holds(self.m[name].router, secrets), set(), name)
            publics = {other: node.public for other, node in self.m.nodes.items()}
            place = ROW.index(name)
            self.assertEqual(holds(self.m[name].router, publics), set(ROW[place - 1 : place + 2]), name)
        self.assertIn("send of alice", holds(self.m["alice"].router, secrets))
        self.assertIn("content", holds(self.m["bob"].router, secrets) | holds(self.accepted, secrets))

    def test_last_hop_memory(self) -> None:
        """An exit or another last hop holds the key of its last relay, not that of an anonymous caller."""
        self.transfer(10)
        publics = {other: node.public for other, node in self.m.nodes.items()}
        self.assertEqual(holds(self.m["bob"].router, publics), {"r3", "bob"})


class HandTests(RelayCase):
    """What one relay can do to the cells that it carries."""

    def meddle(self, act: str) -> Router:
        """r2 treats every tenth of the cells forward so."""
        relay = Hop.relay
        count = 0
        circuits = self.m["r2"].router.circuits
        kept: list[tuple[int, bytes]] = []

        def treat(hop: Hop, seq: int, body: memoryview, now: float, marked: bool) -> Drop:
            nonlocal count
            if not any(isinstance(each, Transit) and each.forward is hop for each in circuits):
                return relay(hop, seq, body, now, marked)
            count += 1
            if count % 10:
                return relay(hop, seq, body, now, marked)
            if act == "drop":
                return Drop.NONE
            if act == "again":
                whole = bytes(body)
                relay(hop, seq, body, now, marked)
                relay(hop, seq, memoryview(bytearray(whole)), now, marked)
                self.replay(hop, seq)
                return Drop.NONE
            if act == "late":
                kept.append((seq, bytes(body)))
                if len(kept) > 3:
                    for late, held in kept[::-1]:
                        relay(hop, late, memoryview(bytearray(held)), now, marked)
                    kept.clear()
                return Drop.NONE
            return relay(hop, seq, body, now, act == "mark" or marked)

        self.patch(Hop, "relay", treat)
        self.patch(Hop, "run", lambda hop, view, start, end, now: 0)
        return self.m["bob"].router

    def replay(self, hop: Hop, seq: int) -> None:
        """The same cell under its number, past the relay's own window: r3 gets it twice."""
        sent = self.cells("r2", "r3")
        if sent:
            number, body = sent[-1]
            link = self.m["r2"].router.links.standing(self.m["r3"].public)
            assert link is not None
            head = self.transit("r2").down_label.to_bytes(4, "big") + number.to_bytes(8, "big")
            link.send(CELL_FORWARD, head + body)

    def test_drop_delay_repeat(self) -> None:
        """Cells dropped, held back and turned round, or sent twice: the stream comes whole, no byte twice;
        the next hop drops what it has seen, and counts it."""
        for number, act in enumerate(("drop", "late", "again")):
            if number:
                self.setUp()
            bob = self.meddle(act)
            self.transfer()
            self.assertTrue(bytes(self.accepted[0].got).endswith(b"hello" + SECRET), act)
            self.assertEqual(bob.dropped, {}, act)
            self.assertEqual(bool(self.m["r3"].router.dropped.get("replayed")), act == "again")
            self.m.stop()

    def test_congestion_bit(self) -> None:
        """A relay can set it on every cell: that costs speed, and nothing else; it shows behind it."""
        self.meddle("mark")
        self.transfer()
        self.assertEqual(bytes(self.accepted[0].got), b"hello" + SECRET)
        marked = [kind for kind, _ in self.taps.frames("r3", "bob") if kind & 0x80]
        self.assertTrue(marked)

    def test_tagged_cells(self) -> None:
        """A changed cell passes the honest relay behind it unnoticed, as suite 0 lets it; the end's AEAD does
        not open it, nothing of it reaches the app, and the third ends the circuit. What a partner learns is
        that end, which is a mark in itself; the stream goes on over another circuit."""
        relay, left = Hop.relay, [3]
        circuits = self.m["r1"].router.circuits

        def tag(hop: Hop, seq: int, body: memoryview, now: float, marked: bool) -> Drop:
            mine = any(isinstance(each, Transit) and each.forward is hop for each in circuits)
            if mine and len(body) > 1_000 and left[0]:
                left[0] -= 1
                body[5] ^= 0x80
            return relay(hop, seq, body, now, marked)

        self.patch(Hop, "relay", tag)
        self.patch(Hop, "run", lambda hop, view, start, end, now: 0)
        self.transfer()
        self.assertEqual(bytes(self.accepted[0].got), b"hello" + SECRET)
        dropped = self.m["bob"].router.dropped
        self.assertEqual(dropped["bad_tag"], 3)
        self.assertLessEqual(set(dropped), {"bad_tag", "late"})
        self.assertEqual([self.m[name].router.dropped for name in ("r2", "r3")], [{}, {}])
        self.assertEqual(self.m["alice"].router.totals["losses_survived"], 1)


class PairTests(RelayCase):
    """Two relays that work together."""

    def test_they_recognise_a_circuit(self) -> None:
        """The limit is admitted: r1 and r3 see cells of the same sizes, in the same order, and the same steps
        between their numbers, though no number and no byte is the same."""
        self.transfer(60_000)
        first, last = self.cells("alice", "r1"), self.cells("r3", "bob")
        self.assertEqual([len(body) for _, body in first], [len(body) for _, body in last])
        steps = [
            [(after - before) % 2**64 for before, after in pairwise([n for n, _ in each])]
            for each in (first, last)
        ]
        self.assertEqual(steps[0], steps[1])
        self.assertFalse({number for number, _ in first} & {number for number, _ in last})

    def test_they_share_no_key(self) -> None:
        """What r1 and r3 hold together still opens nothing: r2's layer and the ends' keys are not among it,
        so that they learn nothing of the content, nor who the ends are unless they are their neighbours."""
        self.near = self.open(*RELAYS)
        self.exchange(self.near)
        secrets = SightTests.secrets(self)  # type: ignore[arg-type]
        secrets["secret of r2"] = self.m["r2"].secret.secret
        secrets["circuit secret of r2"] = self.transit("r2").shared_secret
        both = [self.m["r1"].router, self.m["r3"].router]
        self.assertEqual(holds(both, secrets), set())
        names = {name: node.public for name, node in self.m.nodes.items()}
        self.assertEqual(holds(both, names), {"alice", "r1", "r2", "r3", "bob"})
