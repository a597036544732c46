"""Who knows the address of a hidden service, or carries its calls."""

from __future__ import annotations

import gc
import sys
from types import FrameType
from typing import Any

from lab.simulation.nodes import NETWORK_ID
from meshnet.cipher.address import Address, sign_address
from meshnet.cipher.aead import backend
from meshnet.cipher.blinding import enter
from meshnet.cipher.keys import PublicKey, SecretKey
from meshnet.circuit.messages import CREATE, FAILED, NO_PATH_KEY, Create
from meshnet.codec import decode
from meshnet.node.answering import Answering
from meshnet.session import keys as end_to_end
from tests.meshnet.circuit.network import FIRST, FakeNetwork
from tests.meshnet.circuit.test_tail import TailCase, hide
from tests.meshnet.node.test_hidden import SECRET, HiddenCase

STRANGER = SecretKey(b"\x99" * 32)


class TailTests(TailCase):
    """Relays of a tail."""

    def path_keys(self, network: FakeNetwork, address: Address, calls: int = 2) -> list[bytes]:
        """Those that t gets with CREATE, one for each call."""
        seen: list[bytes] = []

        def watch(kind: int, body: bytes) -> bytes:
            if kind == CREATE:
                seen.append(decode(Create, body).path_key)
            return body

        network["s"].link(network["t"]).tamper = watch
        for _ in range(calls):
            self.call(network, "r", address)
        return seen

    def test_calls_of_one_address_are_alike(self) -> None:
        """The limit is admitted: a relay of a tail tells calls by one address from those by another. A
        renewed address, the same relays, has nothing of the one before."""
        network = FakeNetwork("arstb")
        first = self.path_keys(network, hide(network, "stb"))
        renewed = self.path_keys(network, hide(network, "stb", session=0x56))
        self.assertEqual((len(first), len(set(first)), len(set(renewed))), (2, 1, 1))
        self.assertNotEqual(first[0], renewed[0])
        one, other = hide(network, "stb"), hide(network, "stb", session=0x56)
        parts = [
            {hop.key for hop in each.tail[1:]} | {hop.data for hop in each.tail} for each in (one, other)
        ]
        self.assertEqual(parts[0] & parts[1], set())

    def test_who_relays_and_knows_the_address(self) -> None:
        """The limit is admitted: with the path key of a call, a relay of the tail recognises the address in
        which it stands. A relay that stands in no tail of it cannot."""
        network = FakeNetwork("arstb")
        address = hide(network, "stb")
        (path_key,) = self.path_keys(network, address, 1)
        blinded = {hop.key for hop in address.tail}
        for name, stands in (("t", True), ("r", False), ("b", False)):
            secret = network[name].secret
            self.assertEqual(enter(secret, path_key).tweaked(secret).public in blinded, stands, name)

    def test_before_the_peel(self) -> None:
        """Where a path key came, every refusal before the peel is the same bare byte, the origin hears
        `blinded` of it: a replay, a full node, a rate limit, an onion for another key."""
        network = FakeNetwork("arstb")
        address = hide(network, "stb")
        creates: list[bytes] = []
        answers: list[bytes] = []

        def there(kind: int, body: bytes) -> bytes:
            if kind == CREATE:
                creates.append(body)
            return body

        def back(kind: int, body: bytes) -> bytes:
            if kind == FAILED:
                answers.append(body[4:])
            return body

        network["s"].link(network["t"]).tamper = there
        network["t"].link(network["s"]).tamper = back
        self.call(network, "r", address)
        t, s = network["t"], network["s"]
        first = decode(Create, creates[0])
        labels = s.circuits._shared.side(s.link(t), network.now)
        spoilt = bytes(first.onion[:-1]) + bytes([first.onion[-1] ^ 1])
        for onion, path_key, epoch in (
            (first.onion, first.path_key, 0),
            (spoilt, first.path_key, 0),
            (first.onion, first.path_key, 9),
            (first.onion, bytes([2]) + bytes(32), 0),
        ):
            frame = Create(labels.draw(), first.expiry, epoch, path_key, onion)
            network.deliver(t, s, CREATE, frame.__encode__())  # type: ignore[attr-defined]
            network.pump()
        self.assertEqual(answers, [b"\1"] * 4)
        self.assertNotEqual(first.path_key, NO_PATH_KEY)
        self.assertEqual(len(FIRST), 49)


class GuessTests(HiddenCase):
    """Somebody with the service's key, or the address, who guesses the node."""

    def work(self, route: tuple[Any, ...], key: PublicKey) -> tuple[str, list[str]]:
        """A circuit along a route whose handshake wants `key`: the error, and every function, ours and of
        the libraries, that the last hop called to decide on it, in order."""
        calls: list[str] = []
        arrived = Answering.arrived

        def watched(self: Any, arrival: Any, sessions: int, now: float) -> None:
            def note(frame: FrameType, event: str, argument: Any) -> None:
                if event == "call":
                    calls.append(f"{frame.f_code.co_filename}:{frame.f_code.co_firstlineno}")
                elif event == "c_call":
                    calls.append(str(getattr(argument, "__qualname__", argument)))

            gc.disable()  # hypothesis listens to it, if its tests ran before
            sys.setprofile(note)
            try:
                arrived(self, arrival, sessions, now)
            finally:
                sys.setprofile(None)
                gc.enable()

        alice = self.m["alice"].router
        opening = end_to_end.start(key, NETWORK_ID, SecretKey(b"\x98" * 32), backend())
        with_patch = self.patch(Answering, "arrived", watched)
        failed: list[str] = []
        self.patch(alice.dialling, "failed", lambda circuit, error, now: failed.append(str(error)))
        now = self.m.network.clock.seconds()
        alice.circuits.open(list(route), opening.first, now, self.m.clock.unix())
        alice.links.outbox.flush(now)
        self.until(lambda: bool(failed), 15)
        with_patch.restore()
        return failed[0], calls

    def test_a_service_key_alone(self) -> None:
        """Asked for a service's key without its path id, the service's node answers as any node does for any
        key that is not its own: the same error, and by the same steps, each function called in the same
        order. What shows by time is not more than what processors do with other bytes."""
        self.mesh()
        self.hide("r2", "r3")
        way = (*self.m.route("r1", "r2", "r3"), self.m["bob"].public)
        guessed = self.work(way, SECRET.public)
        wrong = self.work(way, STRANGER.public)
        self.assertIn("does not answer under the key", guessed[0])
        self.assertEqual(guessed, wrong)
        self.assertGreater(len(guessed[1]), 30)
        elsewhere = self.work((*self.m.route("r1", "r2"), self.m["r3"].public), SECRET.public)
        self.assertEqual(elsewhere[1], guessed[1])

    def test_a_path_id_that_is_not(self) -> None:
        """Behind a tail of his own making, with any path id, the same: the node does not tell whether the
        service is there, whatever key is asked for. So with an address that was withdrawn, and with the tail
        of a good one under another key."""
        self.mesh()
        self.hide("r3")
        seen = []
        for secret in (SECRET, STRANGER):
            forged = self.hide("r3", path_id=b"\xee" * 16, session=9)
            forged = sign_address(secret, NETWORK_ID, forged.expiry, forged.path_key, forged.tail)
            seen.append(self.work((*self.m.route("r1", "r2"), forged), secret.public))
        withdrawn = self.hide("r3")
        other = sign_address(STRANGER, NETWORK_ID, withdrawn.expiry, withdrawn.path_key, withdrawn.tail)
        seen.append(self.work((*self.m.route("r1", "r2"), other), STRANGER.public))
        self.m["bob"].router.services.remove(bytes(range(16)))
        seen.append(self.work((*self.m.route("r1", "r2"), withdrawn), SECRET.public))
        self.assertEqual(len({error for error, _ in seen}), 1)
        self.assertIn("cannot reach the hidden service", seen[0][0])
        for _, steps in seen:
            self.assertEqual(steps, seen[0][1])
