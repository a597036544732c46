"""Our own vectors, `tests/vectors/cipher.json`: bytes that must not change without a new version."""

from __future__ import annotations

import json
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.aead import BACKENDS, backend
from meshnet.cipher.bolt8 import Initiator, Responder
from meshnet.cipher.dh import SECP256K1
from meshnet.cipher.keys import SecretKey, dns_label, mesh_ipv6
from meshnet.cipher.noise import NK, Handshake
from meshnet.cipher.onion_error import add_layer, create, open_error
from meshnet.cipher.sphinx import build, peel

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "cipher.json").read_text())


def secret(text: str) -> SecretKey:
    return SecretKey(bytes.fromhex(text))


class OwnVectorTests(SynchronousTestCase):
    """Identity, link handshake, circuit handshake, onion and its error."""

    def test_identity(self) -> None:
        """The names of a key (§0)."""
        expected = VECTORS["identity"]
        public = secret(expected["secret"]).public
        self.assertEqual(public.hex(), expected["public"])
        self.assertEqual(dns_label(public), expected["dns_label"])
        self.assertEqual(str(mesh_ipv6(public)), expected["ipv6"])

    def test_link_handshake(self) -> None:
        """The three acts under our prologue (§1), by either backend."""
        case = VECTORS["link_handshake"]
        prologue = bytes.fromhex(case["prologue"])
        dialler_key, acceptor_key = secret(case["initiator_static"]), secret(case["responder_static"])
        for name in BACKENDS:
            chosen = backend(name)
            ephemeral = secret(case["initiator_ephemeral"])
            dialler = Initiator(dialler_key, acceptor_key.public, prologue, ephemeral, chosen)
            acceptor = Responder(acceptor_key, prologue, secret(case["responder_ephemeral"]), chosen)
            acts = [dialler.act_one()]
            acts.append(acceptor.act_one(acts[0]))
            acts.append(dialler.act_two(acts[1]))
            self.assertEqual(acceptor.act_three(acts[2]), dialler_key.public)
            self.assertEqual([act.hex() for act in acts], case["acts"])
            keys = [case["initiator_sends"], case["responder_sends"], case["chaining_key"]]
            self.assertEqual([key.hex() for key in dialler.keys], keys)
            self.assertEqual(acceptor.hash.hex(), case["hash"])

    def test_circuit_handshake(self) -> None:
        """Noise NK with the last hop (§5), by either backend."""
        case = VECTORS["circuit_handshake"]
        prologue, service_key = bytes.fromhex(case["prologue"]), secret(case["service_static"])
        for name in BACKENDS:
            chosen = backend(name)
            e, re = secret(case["origin_ephemeral"]), secret(case["service_ephemeral"])
            origin = Handshake(
                NK, SECP256K1, chosen, initiator=True, prologue=prologue, e=e, rs=service_key.public
            )
            service = Handshake(
                NK, SECP256K1, chosen, initiator=False, prologue=prologue, e=re, s=service_key
            )
            first = origin.write()
            service.read(first)
            second = service.write()
            origin.read(second)
            self.assertEqual([first.hex(), second.hex()], case["messages"])
            for one in (origin, service):
                found = [*one.split(), one.chaining_key, one.hash]
                names = ("forward", "backward", "chaining_key", "hash")
                self.assertEqual([value.hex() for value in found], [case[name] for name in names])

    def test_onion(self) -> None:
        """Three hops with our associated data (§3), and the second one's error."""
        case = VECTORS["onion"]
        associated = bytes.fromhex(case["associated"])
        keys = [secret(hop["secret"]) for hop in case["hops"]]
        payloads = [bytes.fromhex(hop["payload"]) for hop in case["hops"]]
        route = [(key.public, payload) for key, payload in zip(keys, payloads, strict=True)]
        built = build(secret(case["session_key"]), route, associated)
        self.assertEqual(built.packet.hex(), case["packet"])
        packet = built.packet
        for key, hop in zip(keys, case["hops"], strict=True):
            peeled = peel(key, packet, associated)
            found = [peeled.payload, peeled.shared_secret, peeled.ephemeral]
            expected = [hop[name] for name in ("payload", "shared_secret", "ephemeral")]
            self.assertEqual([value.hex() for value in found], expected)
            packet = peeled.next_packet or b""
        self.assertEqual(packet, b"")
        error = case["error"]
        failure, secrets = bytes.fromhex(error["failure"]), built.shared_secrets
        made = create(secrets[error["hop"]], failure)
        self.assertEqual(made.hex(), error["at_hop"])
        arrived = add_layer(secrets[0], made)
        self.assertEqual(arrived.hex(), error["at_origin"])
        self.assertEqual(open_error(secrets, arrived), (error["hop"], failure))
