"""End-to-end keys of one circuit, and what AUTH proves with them (docs/wire-format.md §5).

One Noise handshake `NK_secp256k1_ChaChaPoly_SHA256` per circuit between its origin and its last hop: message
1 (49 B) travels in the onion, message 2 (49 B) in CREATED. Prologue `"meshnet/e2e/1" ‖ network_id u32`,
payloads empty. The first split key is forward. Nothing here sends, stores or draws randomness: the ephemeral
keys are arguments, each to be used once.

AUTH kinds: 1 caller: `pubkey 33 ‖ HMAC(ECDH(s_caller, e_last), "meshnet/caller" ‖ h ‖ pubkey)`;
2 join: `session id 16 ‖ HMAC(session secret, h)`, with session id = `HMAC(ck, "sid")[:16]` and session secret
= `HMAC(ck, "session")` of the circuit that opened the session. h is the handshake hash, e_last the last hop's
ephemeral key.
"""

from __future__ import annotations

from typing import Final

from attrs import field, frozen

from meshnet.cipher.aead import Backend
from meshnet.cipher.dh import SECP256K1
from meshnet.cipher.hashing import hmac256, same
from meshnet.cipher.keys import BadKeyError, PublicKey, SecretKey, public_key
from meshnet.cipher.noise import NK, Handshake
from meshnet.errors import HandshakeError
from meshnet.session.items import AUTH_CALLER, AUTH_JOIN, auth_item

PROLOGUE: Final = b"meshnet/e2e/1"
MESSAGE_SIZE: Final = 49
"""Bytes of either handshake message: a public key and a tag."""
FORWARD: Final = b"f"
BACKWARD: Final = b"b"
SESSION_ID_SIZE: Final = 16
MAC_SIZE: Final = 32
_STEPS: Final = ("end-to-end message one", "end-to-end message two")


@frozen
class CircuitKeys:
    """What one end of a circuit holds. `initiator` is true at the origin.

    `send` and `receive` are the 32-byte AEAD keys, `send_ad` and `receive_ad` the associated data of each
    direction (`b"f"` or `b"b"`). `hash` is h, `chaining_key` is ck after message 2. `ephemeral` is our own
    ephemeral key, `remote_ephemeral` theirs.
    """

    initiator: bool
    send: bytes = field(repr=False)
    receive: bytes = field(repr=False)
    hash: bytes = field(repr=False)
    chaining_key: bytes = field(repr=False)
    ephemeral: SecretKey = field(repr=False)
    remote_ephemeral: PublicKey
    backend: Backend = field(repr=False)

    @property
    def send_ad(self) -> bytes:
        """Associated data of the cells we send."""
        return FORWARD if self.initiator else BACKWARD

    @property
    def receive_ad(self) -> bytes:
        """Associated data of the cells we receive."""
        return BACKWARD if self.initiator else FORWARD

    @property
    def session_id(self) -> bytes:
        """The 16 bytes that name a session opened by this circuit."""
        return hmac256(self.chaining_key, b"sid")[:SESSION_ID_SIZE]

    @property
    def session_secret(self) -> bytes:
        """The 32 bytes that let another circuit join a session opened by this circuit."""
        return hmac256(self.chaining_key, b"session")


class Opening:
    """The origin between its two handshake messages; `first` is message 1, 49 bytes."""

    __slots__ = ("_backend", "_ephemeral", "_handshake", "first")

    def __init__(self, service: PublicKey, network_id: int, ephemeral: SecretKey, backend: Backend) -> None:
        self._backend = backend
        self._ephemeral = ephemeral
        self._handshake = Handshake(
            NK,
            SECP256K1,
            backend,
            initiator=True,
            prologue=_prologue(network_id),
            e=ephemeral,
            rs=service,
            steps=_STEPS,
        )
        self.first = self._handshake.write()

    def finish(self, reply: bytes) -> CircuitKeys:
        """Reads message 2 (49 bytes); raises HandshakeError if the last hop is not who we asked for."""
        _read(self._handshake, reply, 1)
        return _keys(self._handshake, self._ephemeral, self._backend, initiator=True)


def start(service: PublicKey, network_id: int, ephemeral: SecretKey, backend: Backend) -> Opening:
    """Begins at the origin, towards whoever holds the secret of `service`."""
    return Opening(service, network_id, ephemeral, backend)


def respond(
    secret: SecretKey, network_id: int, first: bytes, ephemeral: SecretKey, backend: Backend
) -> tuple[bytes, CircuitKeys]:
    """Answers message 1 at the last hop: message 2 and the keys. Raises HandshakeError."""
    handshake = Handshake(
        NK,
        SECP256K1,
        backend,
        initiator=False,
        prologue=_prologue(network_id),
        e=ephemeral,
        s=secret,
        steps=_STEPS,
    )
    _read(handshake, first, 0)
    reply = handshake.write()
    return reply, _keys(handshake, ephemeral, backend, initiator=False)


def caller_auth(keys: CircuitKeys, identity: SecretKey) -> bytes:
    """The AUTH item by which the origin proves that it holds `identity`."""
    mac = _caller_mac(identity.ecdh(keys.remote_ephemeral), keys.hash, identity.public)
    return auth_item(AUTH_CALLER, identity.public + mac)


def check_caller(keys: CircuitKeys, body: bytes) -> PublicKey | None:
    """At the last hop: whose key the body of an AUTH of kind 1 proves; None if it proves nothing."""
    try:
        caller = public_key(body[:-MAC_SIZE])
        shared = keys.ephemeral.ecdh(caller)
    except BadKeyError:
        return None
    return caller if same(_caller_mac(shared, keys.hash, caller), body[-MAC_SIZE:]) else None


def join_auth(keys: CircuitKeys, session: CircuitKeys) -> bytes:
    """The AUTH item by which a new circuit joins the session that the circuit of `session` opened."""
    return auth_item(AUTH_JOIN, session.session_id + hmac256(session.session_secret, keys.hash))


def check_join(keys: CircuitKeys, session: CircuitKeys, body: bytes) -> bool:
    """At the last hop: whether the body of an AUTH of kind 2 joins the session opened by `session`."""
    known = same(session.session_id, body[:SESSION_ID_SIZE])
    return same(hmac256(session.session_secret, keys.hash), body[SESSION_ID_SIZE:]) and known


def _prologue(network_id: int) -> bytes:
    return PROLOGUE + network_id.to_bytes(4, "big")


def _read(handshake: Handshake, message: bytes, step: int) -> None:
    if len(message) != MESSAGE_SIZE:
        raise HandshakeError(f"{_STEPS[step]}: wrong length")
    handshake.read(message)


def _caller_mac(shared: bytes, handshake_hash: bytes, caller: bytes) -> bytes:
    return hmac256(shared, b"meshnet/caller" + handshake_hash + caller)


def _keys(handshake: Handshake, ephemeral: SecretKey, backend: Backend, *, initiator: bool) -> CircuitKeys:
    forward, backward = handshake.split()
    return CircuitKeys(
        initiator=initiator,
        send=forward if initiator else backward,
        receive=backward if initiator else forward,
        hash=handshake.hash,
        chaining_key=handshake.chaining_key,
        ephemeral=ephemeral,
        remote_ephemeral=public_key(handshake.remote_ephemeral),
        backend=backend,
    )
