"""Beacons: their bytes, whom a node dials of those it hears, and hostile datagrams."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.keys import PublicKey
from meshnet.limits import BEACON_BURST, LAN_DIALLED, LAN_HEARD
from meshnet.topology.beacon import FORGET, SIZE, Beacons, Found, Lost, make_beacon, read_beacon, signed
from tests.support.topology import UNIX, key

VECTOR = json.loads((Path(__file__).parents[2] / "vectors" / "beacon.json").read_text())


class Lan:
    """Nodes that all hear each other, in virtual time."""

    def __init__(self, count: int, seed: int) -> None:
        draw = random.Random(seed)
        self.now = 0.0
        self.links: set[frozenset[PublicKey]] = set()
        self.dials: dict[PublicKey, set[PublicKey]] = {}
        self.nodes: dict[PublicKey, Beacons] = {}
        for number in range(1, count + 1):
            own = key(number).public
            self.dials[own] = set()
            self.nodes[own] = Beacons(
                key(number), 1, 7_000 + number, lambda _: True, self._linked(own), draw.randbytes
            )

    def _linked(self, own: PublicKey) -> Callable[[], set[PublicKey]]:
        return lambda: {other for pair in self.links if own in pair for other in pair - {own}}

    def leave(self, key: PublicKey) -> None:
        """A node is gone, and its links."""
        del self.nodes[key]
        self.links = {pair for pair in self.links if key not in pair}

    def run(self, seconds: float) -> None:
        """Lets time pass."""
        end = self.now + seconds
        while self.now < end:
            self.now += 0.25
            for own, core in list(self.nodes.items()):
                data, told = core.tick(self.now, UNIX + self.now)
                for event in told:
                    pair = frozenset((own, event.key))
                    if isinstance(event, Found):
                        self.dials[own].add(event.key)
                        self.links.add(pair)
                    else:
                        self.dials[own].discard(event.key)
                        self.links.discard(pair)
                for other in self.nodes.values():
                    if data is not None:
                        other.receive(data, f"192.0.2.{core._port - 7_000}", self.now, UNIX + self.now)

    def together(self) -> bool:
        """Whether links connect them all."""
        reached, todo = set(), [next(iter(self.nodes))]
        while todo:
            here = todo.pop()
            reached.add(here)
            todo += [other for pair in self.links if here in pair for other in pair - reached]
        return reached == set(self.nodes)


class Neighbours(SynchronousTestCase):
    """Who dials whom."""

    def test_bounded_and_connected(self) -> None:
        """Two, ten and twenty-five nodes hang together within seconds, and none dials more than three."""
        for count in (2, 10, 25):
            for seed in range(3):
                lan = Lan(count, seed)
                lan.run(8.0)
                self.assertTrue(lan.together(), f"{count} nodes, seed {seed}")
                self.assertLessEqual(max(map(len, lan.dials.values())), LAN_DIALLED)
                before = set(lan.links)
                lan.run(60.0)
                self.assertEqual(lan.links, before)

    def test_silence(self) -> None:
        """Who is not heard any more is told lost, and another takes the place."""
        lan = Lan(6, 1)
        lan.run(10.0)
        own, dialled = next((own, others) for own, others in lan.dials.items() if others)
        gone = next(iter(dialled))
        lan.leave(gone)
        lan.run(FORGET + 30.0)
        self.assertNotIn(gone, lan.dials[own])
        self.assertEqual(lan.nodes[own].heard, 4)
        self.assertTrue(lan.together())


class Hearing(SynchronousTestCase):
    """One node, and what it makes of datagrams."""

    def setUp(self) -> None:
        self.linked: set[PublicKey] = set()
        self.core = Beacons(key(1), 1, 7_001, lambda k: k != key(9).public, lambda: self.linked, bytes)
        self.now = 0.0

    def hear(self, data: bytes, host: str = "192.0.2.2") -> None:
        """A datagram now."""
        self.core.receive(data, host, self.now, UNIX + self.now)

    def later(self, seconds: float = 3.0) -> list[Found | Lost]:
        """What has come of it."""
        self.now += seconds
        return self.core.tick(self.now, UNIX + self.now)[1]

    def test_vector(self) -> None:
        """The bytes of the vector, both ways."""
        data = make_beacon(key(VECTOR["secret"]), VECTOR["network"], VECTOR["issued"], VECTOR["port"])
        self.assertEqual(data.hex(), VECTOR["beacon"])
        beacon = read_beacon(data)
        self.assertEqual(signed(beacon, data), key(VECTOR["secret"]).public)
        self.assertEqual((len(data), beacon.port), (SIZE, VECTOR["port"]))

    def test_found(self) -> None:
        """A beacon is dialled where it came from; the same again, or from elsewhere while linked, is not."""
        self.hear(make_beacon(key(2), 1, UNIX, 7_002))
        self.assertEqual(self.later(), [Found(key(2).public, "192.0.2.2", 7_002)])
        self.linked.add(key(2).public)
        self.hear(make_beacon(key(2), 1, UNIX, 7_002), "192.0.2.66")
        self.hear(make_beacon(key(2), 1, UNIX + 5, 7_002), "192.0.2.3")
        self.assertEqual(self.later(), [])
        self.linked.clear()
        self.hear(make_beacon(key(2), 1, UNIX + 6, 7_002), "192.0.2.3")
        self.assertEqual(self.later(), [Lost(key(2).public), Found(key(2).public, "192.0.2.3", 7_002)])

    def test_refused(self) -> None:
        """Other networks, old ones, forged ones, our own, and whom nobody wants: no dial."""
        good = make_beacon(key(2), 1, UNIX, 7_002)
        for data in (
            make_beacon(key(2), 2, UNIX, 7_002),
            make_beacon(key(2), 1, UNIX - 10_000, 7_002),
            make_beacon(key(2), 1, UNIX + 10_000, 7_002),
            make_beacon(key(2), 1, UNIX, 0),
            good[:-1] + bytes([good[-1] ^ 1]),
            good[:5] + key(3).public + good[38:],
            make_beacon(key(1), 1, UNIX, 7_002),
            make_beacon(key(9), 1, UNIX, 7_002),
        ):
            self.hear(data)
        self.assertEqual(self.later(), [])
        self.assertEqual(self.core.dropped, 6)

    @given(st.binary(max_size=200) | st.binary(min_size=SIZE, max_size=SIZE))
    def test_anything(self, junk: bytes) -> None:
        """Arbitrary datagrams change nothing."""
        self.hear(junk)
        self.assertEqual(self.core.heard, 0)

    def test_flood(self) -> None:
        """Many keys at once: so many signatures are checked, so many are kept."""
        for number in range(10, 10 + 2 * BEACON_BURST):
            self.hear(make_beacon(key(number), 1, UNIX, 7_000))
        self.assertEqual(self.core.heard, BEACON_BURST)
        for number in range(1_000, 1_000 + 2 * LAN_HEARD):
            self.now += 0.1
            self.hear(make_beacon(key(number), 1, UNIX, 7_000))
        self.assertEqual(self.core.heard, LAN_HEARD)
        self.assertEqual(len(self.later()), LAN_DIALLED)
