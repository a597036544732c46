"""The receiver, the exit, and whoever is asked to believe something."""

from __future__ import annotations

from itertools import pairwise

from twisted.trial.unittest import SynchronousTestCase

from meshnet.circuit.arrival import Arrival
from meshnet.session import items, keys
from meshnet.session.keys import caller_auth, check_caller, check_join, join_auth
from tests.meshnet.node.routers import ROW, RouterCase
from tests.meshnet.session.pair import Pair, circuit_keys, key
from tests.threats.taps import Taps, holds, pieces
from tests.threats.test_wire import RELAYS


class ReceiverTests(RouterCase):
    """Bob, who is called."""

    def test_callers_who_say_who_they_are(self) -> None:
        """An anonymous caller stays so; one that says `node` has proved its key, and is known by it."""
        self.mesh()
        self.exchange(self.open(*RELAYS))
        alice = {"alice": self.m["alice"].public}
        self.assertEqual(holds([self.m["bob"].router, self.accepted], alice), set())
        self.exchange(self.open(*RELAYS, identity="node"), b"it is me")
        self.assertEqual(self.accepted[-1].stream.peer, alice["alice"])  # type: ignore[union-attr]
        self.assertEqual(holds([self.m["bob"].router, self.accepted], alice), {"alice"})

    def test_circuits_of_one_session_are_linked(self) -> None:
        """The limit is admitted: circuits that replace each other are one session, and the last hop knows
        that. Relays are told nothing: a join shows in no cell."""
        taps = Taps(self)
        self.mesh()
        near = self.open(*RELAYS)
        self.exchange(near)
        taps.forget()
        self.m.wait(self.m["alice"].router.renew(None))
        bob = self.m["bob"].router
        (conversation,) = set(bob._conversations.values())
        self.assertEqual(len([leg for leg in conversation.legs if isinstance(leg, Arrival)]), 2)
        assert conversation.session is not None
        identity = conversation.session.keys.session_id
        seen = [body for way in pairwise(ROW[1:]) for body in taps.of_kind(*way, 10, 12, 13)]
        self.assertTrue(seen)
        self.assertFalse(any(identity[:8] in body for body in seen))

    def test_two_sessions_have_nothing_alike(self) -> None:
        """Two sessions of one anonymous caller: bob gets no bytes by which to tell that they are of one, but
        the relay they come from and when."""
        self.mesh()
        taken = []
        for _ in range(2):
            near = self.open(*RELAYS)
            self.exchange(near)
            bob = self.m["bob"].router
            (arrival,) = [each for each in bob.circuits if isinstance(each, Arrival)]
            (conversation,) = bob._sessions.values()
            assert conversation.session is not None
            material = conversation.session.keys
            taken.append(
                pieces(arrival.first_message + arrival.ephemeral + material.hash + material.remote_ephemeral)
            )
            near.stream.reset(0)  # type: ignore[union-attr]
            self.m.network.run(100)
        self.assertEqual(taken[0] & taken[1], set())


class ProofTests(SynchronousTestCase):
    """Proofs that somebody takes elsewhere."""

    def test_a_caller_cannot_be_impersonated(self) -> None:
        """Who was called by alice cannot use her proof to call a third as alice: it holds in one handshake
        only. Nor can he make one without her key, though he knows his own."""
        near, far = circuit_keys("one")
        body = caller_auth(near, key("alice"))[2:]
        self.assertEqual(check_caller(far, body), key("alice").public)
        other_near, other_far = circuit_keys("two")
        self.assertIsNone(check_caller(other_far, body))
        own = caller_auth(other_near, key("mallory"))[2:]
        self.assertIsNone(check_caller(other_far, key("alice").public + own[33:]))

    def test_a_wrong_caller_is_closed(self) -> None:
        """A session whose AUTH does not hold ends, and no stream of it was opened."""
        pair = Pair(1)
        pair._awake.clear()
        wrong = items.auth_item(items.AUTH_CALLER, key("alice").public + bytes(32))
        pair.inject(0, wrong + items.open_item(0, 80, 10_000))
        self.assertFalse(pair.b.session.live)
        self.assertEqual(pair.streams, [])

    def test_a_session_cannot_be_joined(self) -> None:
        """Who knows the id of a session, or has seen another circuit's join, cannot join it."""
        first, first_far = circuit_keys("first")
        second, second_far = circuit_keys("second")
        body = join_auth(second, first)[2:]
        self.assertTrue(check_join(second_far, first_far, body))
        third_far = circuit_keys("third")[1]
        self.assertFalse(check_join(third_far, first_far, body))
        self.assertFalse(check_join(second_far, first_far, first.session_id + bytes(32)))
        self.assertNotEqual(first.session_secret, keys.hmac256(second.chaining_key, b"session"))
