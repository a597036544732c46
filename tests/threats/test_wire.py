"""Who watches a line, or holds it: what shows, and what becomes of bytes that are changed."""

from __future__ import annotations

import random
from itertools import combinations, pairwise

from lab.simulation.network import Conditions
from meshnet.cipher.aead import backend
from meshnet.cipher.bolt8 import Initiator
from meshnet.cipher.keys import SecretKey
from meshnet.errors import MeshError
from meshnet.link.lane import Lane, prologue
from tests.meshnet.link.lanes import BOB, NETWORK, Owner, acceptor, dialler, feed, take
from tests.meshnet.node.routers import ROW, RouterCase
from tests.threats.taps import Taps, pieces

RELAYS = ("r1", "r2", "r3")
SECRET = b"the content of the stream, as the program wrote it; " * 4_000
LINKS = list(pairwise(ROW))


class WireCase(RouterCase):
    """Alice sends SECRET to bob over three relays; all five machines' lines are tapped."""

    def setUp(self) -> None:
        self.taps = Taps(self)
        self.mesh(conditions=Conditions(delay=0.01, rate=4e6))

    def transfer(self) -> None:
        """The stream."""
        near = self.open(*RELAYS)
        self.exchange(near)
        near.send(SECRET, finish=True)
        self.until(lambda: self.accepted[0].ended)
        self.assertTrue(bytes(self.accepted[0].got).endswith(SECRET))

    def lines(self) -> dict[str, bytes]:
        """What passed between each two neighbours, both ways."""
        wire = self.taps.wire
        return {
            f"{one}-{other}": bytes(wire.get((one, other), b"") + wire.get((other, one), b""))
            for one, other in LINKS
        }


class OnlookerTests(WireCase):
    """Somebody who only listens."""

    def test_nothing_readable(self) -> None:
        """No content, no name of a port, no public key of anybody, no label or onion: nothing of it on any
        line, from the first byte of the handshake on."""
        self.transfer()
        hidden = {f"key of {name}": node.public for name, node in self.m.nodes.items()}
        hidden |= {f"secret of {name}": node.secret.secret for name, node in self.m.nodes.items()}
        content = pieces(SECRET[:200], 8)
        onions = [body[45:61] for one, other in LINKS for body in self.taps.of_kind(one, other, 10)]
        self.assertEqual(len(onions), 4)
        for line, data in self.lines().items():
            self.assertGreater(len(data), len(SECRET), line)
            for name, secret in hidden.items():
                self.assertNotIn(secret, data, f"{name} on {line}")
            for onion in onions:
                self.assertNotIn(onion, data, line)
            self.assertFalse(content & pieces(data), line)

    def test_no_two_lines_alike(self) -> None:
        """The same stream on four lines: no run of eight bytes stands on two of them, or twice on one."""
        self.transfer()
        seen = {line: pieces(data) for line, data in self.lines().items()}
        for one, other in combinations(seen, 2):
            self.assertEqual(seen[one] & seen[other], set(), f"{one} and {other}")

    def test_times_and_amounts_show(self) -> None:
        """There is no padding and no cover traffic: a line carries little more than what passes, and while
        nobody sends, only a ping now and then. Who sees two lines sees this."""
        self.transfer()
        sizes = [len(data) for data in self.lines().values()]
        for size in sizes:
            self.assertLess(size, 1.15 * len(SECRET))
        self.assertLess(max(sizes) / min(sizes), 1.02)
        self.m.network.run(100)
        self.taps.forget()
        self.m.network.run(60)
        for data in self.lines().values():
            self.assertLess(len(data), 5_000)


class HolderTests(WireCase):
    """Somebody who can change the bytes of a line."""

    def hurt(self, act: str) -> None:
        """One segment between r1 and r2 in mid-stream is changed so; the stream must come whole all the
        same, over another connection."""
        chance = random.Random(act)
        state = {"at": 0, "held": b"", "done": False}

        def change(way: tuple[str, str], data: bytes) -> bytes:
            if way != ("r1", "r2") or state["done"] or len(self.taps.wire.get(way, b"")) < 60_000:
                return data
            state["done"] = True
            place = chance.randrange(len(data))
            return {
                "flip": data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :],
                "drop": data[:place] + data[place + 1 :],
                "insert": data[:place] + b"\0" + data[place:],
                "again": data + data,
                "turned": data[::-1],
                "early": self.taps.wire[way][:500] + data,
            }[act]

        self.taps.change = change
        before = self.m["r2"].router.links.by_key[self.m["r1"].public].connections
        self.transfer()
        self.assertTrue(state["done"])
        after = self.m["r2"].router.links.by_key[self.m["r1"].public].connections
        self.assertEqual(after, before + 1)

    def test_changes_end_the_connection(self) -> None:
        """A flipped bit, a byte dropped or inserted, a segment twice, backwards, or one of before: the
        connection ends, another takes over, and the stream comes whole."""
        for number, act in enumerate(("flip", "drop", "insert", "again", "turned", "early")):
            if number:
                self.setUp()
            self.hurt(act)
            self.m.stop()


class ProbeTests(RouterCase):
    """Somebody who calls a node's port."""

    def test_silence_without_the_key(self) -> None:
        """Who does not know a node's key, or its network, gets no byte of an answer."""
        for guess in (SecretKey(b"\x55" * 32).public, BOB.public):
            network = NETWORK + (guess == BOB.public)
            lane = acceptor(Owner())
            act = Initiator(
                SecretKey(b"\x66" * 32), guess, prologue(network), SecretKey(b"\x67" * 32), backend()
            )
            self.assertRaises(MeshError, feed, lane, act.act_one())
            self.assertEqual(take(lane), b"")

    def test_a_recorded_greeting(self) -> None:
        """Who has recorded the first 50 bytes of a handshake can ask with them whether the same key still
        answers: he gets the second act, and no further. (The limit is admitted: BOLT 8 has it.)"""
        one, other = dialler(Owner()), acceptor(Owner())
        first = take(one)
        feed(other, first)
        feed(one, take(other))
        third = take(one)
        later = Lane(BOB, NETWORK, SecretKey(b"\x77" * 32), backend(), Owner(), 0.0)
        later.accept()
        feed(later, first)
        self.assertEqual(len(take(later)), 50)
        self.assertRaises(MeshError, feed, later, third)

    def test_a_recorded_connection(self) -> None:
        """A whole connection played again to a node comes no further than that."""
        one, other = dialler(Owner()), acceptor(Owner())
        said = bytearray()
        while one.outgoing or other.outgoing:
            data = take(one)
            said += data
            feed(other, data)
            feed(one, take(other))
        owner = Owner()
        later = Lane(BOB, NETWORK, SecretKey(b"\x78" * 32), backend(), owner, 0.0)
        later.accept()
        self.assertRaises(MeshError, feed, later, bytes(said))
        self.assertEqual((owner.peers, owner.frames), ([], []))
