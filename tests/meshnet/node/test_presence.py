"""Who is linked, since when not, and who waits for it."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.keys import PublicKey
from meshnet.errors import UnreachableError
from meshnet.node.presence import Presence, absence, age
from tests.support.nodes import link_snapshot

A, B = (PublicKey(b"\x02" + bytes([number]) * 32) for number in range(2))


class PresenceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.presence = Presence()
        self.fired: list[object] = []

    def wait(self, *peers: PublicKey) -> Deferred[None]:
        waiting = self.presence.wait(peers)
        waiting.addBoth(self.fired.append)
        return waiting

    def lost(self, peer: PublicKey, now: float) -> float | None:
        return self.presence.lost_seconds(peer.hex(), now)

    def test_lost_since(self) -> None:
        """A loss counts from when it was seen, goes with the next link, and outlives the link's record."""
        self.presence.look([link_snapshot(A), link_snapshot(B, up=False)], 1.0)
        self.assertEqual((self.lost(A, 9.0), self.lost(B, 9.0)), (None, None))
        self.presence.look([link_snapshot(A, up=False)], 10.0)
        self.presence.look([], 15.0)
        self.assertEqual((self.lost(A, 22.0), self.lost(B, 22.0)), (12.0, None))
        self.presence.came(A, 23.0)
        self.assertIsNone(self.lost(A, 24.0))

    def test_waiting(self) -> None:
        """Any of the peers will do; who is linked already need not be waited for."""
        self.wait(A)
        self.wait(A, B)
        self.presence.came(B, 1.0)
        self.assertEqual(self.fired, [None])
        self.wait(B)
        self.assertEqual(self.fired, [None, None])
        self.presence.look([link_snapshot(A)], 2.0)
        self.assertEqual(self.fired, [None, None, None])

    def test_given_up(self) -> None:
        """Waiting may be cancelled, and ends with the node."""
        self.wait(A).cancel()
        self.assertIsInstance(self.fired.pop().value, CancelledError)  # type: ignore[attr-defined]
        self.wait(A)
        self.presence.stop(UnreachableError("stopped"))
        self.assertIsInstance(self.fired.pop().value, UnreachableError)  # type: ignore[attr-defined]
        self.presence.came(A, 1.0)
        self.assertEqual(self.fired, [])

    def test_words(self) -> None:
        """Since when and why, in units that fit."""
        self.assertEqual(absence(12.2, "nothing listens there"), "lost 12 s ago: nothing listens there")
        self.assertEqual(absence(None, ""), "not linked yet")
        spans = [age(seconds) for seconds in (0, 119, 120, 7_300, 400_000)]
        self.assertEqual(spans, ["0 s", "119 s", "2 min", "2 h", "5 days"])
