"""The link handshake: Noise XK over secp256k1 in three acts of 50, 50 and 66 bytes (BOLT 8).

    act one   00 | e.pub 33 | tag 16          dialler to acceptor
    act two   00 | e.pub 33 | tag 16          acceptor to dialler
    act three 00 | s.pub 33, tag 16 | tag 16  dialler to acceptor

Sans-IO and without framing: the owner collects each act's bytes. A fault is a `HandshakeError` naming act
and fault; BOLT 8 then closes the connection without an answer. With the prologue `lightning` these are the
bytes of Lightning; ours is `meshnet/1` and the network id (docs/wire-format.md §1).
"""

from __future__ import annotations

from typing import Final

from meshnet.cipher.aead import Backend, Buffer
from meshnet.cipher.dh import SECP256K1
from meshnet.cipher.keys import PublicKey, SecretKey
from meshnet.cipher.noise import WRONG_LENGTH, XK, Handshake
from meshnet.errors import HandshakeError, UsageError

ACT_ONE_SIZE: Final = 50
ACT_TWO_SIZE: Final = 50
ACT_THREE_SIZE: Final = 66
VERSION: Final = b"\x00"
BAD_VERSION: Final = "bad version"

_STEPS = ("act one", "act two", "act three")


class _Acts:
    """What both sides have in common."""

    __slots__ = ("_initiator", "_noise")

    def __init__(self, noise: Handshake, initiator: bool) -> None:
        self._noise = noise
        self._initiator = initiator

    @property
    def keys(self) -> tuple[bytes, bytes, bytes]:
        """After act three: our sending key, our receiving key and the chaining key, 32 bytes each."""
        first, second = self._noise.split()
        chaining_key = self._noise.chaining_key
        return (first, second, chaining_key) if self._initiator else (second, first, chaining_key)

    @property
    def hash(self) -> bytes:
        """h, 32 bytes, binding the whole handshake; raises `UsageError` before its end."""
        if not self._noise.finished:
            raise UsageError("the handshake has not finished")
        return self._noise.hash

    def _read(self, step: str, data: Buffer, size: int) -> None:
        if len(data) != size:
            raise HandshakeError(f"{step}: {WRONG_LENGTH}")
        if data[0] != VERSION[0]:
            raise HandshakeError(f"{step}: {BAD_VERSION} {data[0]}")
        self._noise.read(memoryview(data)[1:])


class Initiator(_Acts):
    """The dialler: `act_one()`, send it; `act_two(answer)` gives act three to send; then `keys`.

    `secret` is our static key, `remote` the public key the other side must prove to hold, `ephemeral` a
    fresh key used for nothing else.
    """

    __slots__ = ()

    def __init__(
        self, secret: SecretKey, remote: PublicKey, prologue: bytes, ephemeral: SecretKey, backend: Backend
    ) -> None:
        noise = Handshake(
            XK, SECP256K1, backend,
            initiator=True, prologue=prologue, s=secret, e=ephemeral, rs=remote, steps=_STEPS,
        )  # fmt: skip
        super().__init__(noise, initiator=True)

    def act_one(self) -> bytes:
        """50 bytes to send first."""
        return VERSION + self._noise.write()

    def act_two(self, data: Buffer) -> bytes:
        """Read the 50 bytes of act two; the 66 bytes of act three to send. Raises `HandshakeError`.

        The acceptor has proven by act two that it holds `remote`.
        """
        self._read("act two", data, ACT_TWO_SIZE)
        return VERSION + self._noise.write()


class Responder(_Acts):
    """The acceptor: `act_one(data)` gives act two to send, `act_three(data)` the dialler's key; then `keys`.

    `secret` is our static key, `ephemeral` a fresh key used for nothing else.
    """

    __slots__ = ()

    def __init__(self, secret: SecretKey, prologue: bytes, ephemeral: SecretKey, backend: Backend) -> None:
        noise = Handshake(
            XK, SECP256K1, backend,
            initiator=False, prologue=prologue, s=secret, e=ephemeral, steps=_STEPS,
        )  # fmt: skip
        super().__init__(noise, initiator=False)

    def act_one(self, data: Buffer) -> bytes:
        """Read the 50 bytes of act one; the 50 bytes of act two to send. Raises `HandshakeError`."""
        self._read("act one", data, ACT_ONE_SIZE)
        return VERSION + self._noise.write()

    def act_three(self, data: Buffer) -> PublicKey:
        """Read the 66 bytes of act three; the dialler's proven public key. Raises `HandshakeError`."""
        self._read("act three", data, ACT_THREE_SIZE)
        return PublicKey(self._noise.remote_static)
