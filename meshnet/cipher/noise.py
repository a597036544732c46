"""Noise handshakes (rev 34) with ChaChaPoly and SHA-256, over any pattern and either DH group.

Sans-IO: `write` gives the next message, `read` takes one. Never frames, never draws randomness (the
ephemeral key is an argument, to be used once), never sends transport messages: `split` hands out the keys.
A message is the pattern's tokens (`e`: public key; `s`: public key, encrypted once there is a key) and the
payload. Any failure in `read` ends the handshake.

Each fault is a `HandshakeError` whose text is the step and one of the constants below, as `act two: bad
tag`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from meshnet.cipher.aead import TAG_SIZE, Aead, Backend, BadTag, Buffer, nonce96
from meshnet.cipher.dh import DhFunction, KeyPair
from meshnet.cipher.hashing import hkdf2, hkdf3, sha256
from meshnet.cipher.keys import BadKeyError
from meshnet.cipher.patterns import NK, XK, Pattern, pattern
from meshnet.errors import HandshakeError, UsageError

__all__ = ["LARGEST_MESSAGE", "NK", "XK", "Handshake", "Pattern", "pattern"]

LARGEST_MESSAGE: Final = 65_535  # Noise §3
PSK_SIZE: Final = 32

WRONG_LENGTH: Final = "wrong length"
BAD_PUBLIC_KEY: Final = "bad public key"
BAD_CIPHERTEXT: Final = "bad ciphertext"  # of an encrypted static key
BAD_TAG: Final = "bad tag"  # of the payload


class Handshake:
    """One side of a handshake.

    `s` is our static key pair, `e` our ephemeral one, `rs` the other side's static public key, each where
    the pattern needs it; `psks` are its 32-byte pre-shared keys in order. `steps` names the messages for
    error texts. Raises `UsageError` when what the pattern needs is not given.

    `finished` says that no message is left; then `split` gives the transport keys. `hash` is h, which
    binds everything said so far; `chaining_key` is ck. `remote_static` and `remote_ephemeral` are the other
    side's public keys, empty as long as unknown; a static key is proven only when its DH token has been
    followed by a payload that opened.
    """

    __slots__ = (
        "_aead", "_at", "_backend", "_dh", "_e", "_failed", "_key", "_n", "_ours", "_pattern", "_psks", "_s",
        "_steps", "chaining_key", "hash", "remote_ephemeral", "remote_static",
    )  # fmt: skip

    def __init__(
        self,
        pattern: Pattern,
        dh: DhFunction,
        backend: Backend,
        *,
        initiator: bool,
        prologue: bytes,
        e: KeyPair,
        s: KeyPair | None = None,
        rs: bytes = b"",
        psks: Sequence[bytes] = (),
        steps: Sequence[str] = (),
    ) -> None:
        self._pattern = pattern
        self._dh = dh
        self._backend = backend
        self._ours = 0 if initiator else 1  # parity of the messages we write
        self._s = s
        self._e = e
        self._psks = list(psks)
        self._steps = steps
        self._at = 0
        self._failed = False
        self._key = b""
        self._aead: Aead | None = None
        self._n = 0
        self.remote_static = rs
        self.remote_ephemeral = b""
        self._check_needs()
        name = f"Noise_{pattern.name}_{dh.name}_ChaChaPoly_SHA256".encode()
        self.hash = name.ljust(32, b"\0") if len(name) <= 32 else sha256(name)
        self.chaining_key = self.hash
        self._mix_hash(prologue)
        for known, own in ((pattern.initiator_known, initiator), (pattern.responder_known, not initiator)):
            if known:
                self._mix_hash(self._static().public if own else self.remote_static)

    @property
    def finished(self) -> bool:
        """Whether all messages have been written and read."""
        return self._at == len(self._pattern.messages)

    def write(self, payload: Buffer = b"") -> bytes:
        """The next message, carrying `payload`. Raises `UsageError` when it is not our turn.

        Raises `HandshakeError` when the other side's key has no secret with ours.
        """
        words = self._turn(self._ours)
        parts: list[bytes] = []
        for word in words:
            if word == "e":
                parts.append(self._e.public)
                self._mix_ephemeral(self._e.public)
            elif word == "s":
                parts.append(self._seal(self._static().public))
            else:
                self._mix_word(word)
        parts.append(self._seal(payload))
        message = b"".join(parts)
        if len(message) > LARGEST_MESSAGE:
            self._failed = True  # the payload has been mixed in already
            raise UsageError(f"a Noise message has at most {LARGEST_MESSAGE} bytes, not {len(message)}")
        self._at += 1
        return message

    def read(self, message: Buffer) -> bytes:
        """The payload of the other side's next message. Raises `HandshakeError`, after which all is over.

        Raises `UsageError` when it is not the other side's turn.
        """
        words = self._turn(1 - self._ours)
        if len(message) > LARGEST_MESSAGE:
            raise self._fail(WRONG_LENGTH)
        rest = bytes(message)
        for word in words:
            if word == "e":
                key, rest = self._cut(rest, self._dh.size)
                self.remote_ephemeral = self._checked(key)
                self._mix_ephemeral(key)
            elif word == "s":
                sealed, rest = self._cut(rest, self._dh.size + (TAG_SIZE if self._key else 0))
                self.remote_static = self._checked(self._open(sealed, BAD_CIPHERTEXT))
            else:
                self._mix_word(word)
        payload = self._open(rest, BAD_TAG)
        self._at += 1
        return payload

    def split(self) -> tuple[bytes, bytes]:
        """The two 32-byte transport keys: the initiator's sending key first (Noise §5.2).

        In a one-way pattern the second is not used. Raises `UsageError` before the end.
        """
        if not self.finished:
            raise UsageError("the handshake has not finished")
        return hkdf2(self.chaining_key, b"")

    def __repr__(self) -> str:
        side = "responder" if self._ours else "initiator"
        return f"<Handshake {self._pattern.name} {side} at message {self._at + 1}>"

    # Turns and faults

    def _check_needs(self) -> None:
        """Raise UsageError for a missing static key or a wrong number of pre-shared keys."""
        tokens = {token for row in self._pattern.messages[self._ours :: 2] for token in row}
        known = (self._pattern.initiator_known, self._pattern.responder_known)
        if (known[self._ours] or "s" in tokens) and self._s is None:
            raise UsageError(f"the pattern {self._pattern.name} needs our static key")
        if known[1 - self._ours] and not self.remote_static:
            raise UsageError(f"the pattern {self._pattern.name} needs the other side's static key")
        if len(self._psks) != self._pattern.psks or any(len(psk) != PSK_SIZE for psk in self._psks):
            raise UsageError(f"the pattern {self._pattern.name} needs {self._pattern.psks} keys of 32 bytes")

    def _turn(self, parity: int) -> tuple[str, ...]:
        """The tokens of the next message, which must be of that parity."""
        if self._failed or self.finished or self._at % 2 != parity:
            raise UsageError(f"it is not the turn of this message in {self!r}")
        return self._pattern.messages[self._at]

    def _fail(self, what: str) -> HandshakeError:
        self._failed = True
        step = self._steps[self._at] if self._at < len(self._steps) else f"message {self._at + 1}"
        return HandshakeError(f"{step}: {what}")

    def _cut(self, data: bytes, size: int) -> tuple[bytes, bytes]:
        if len(data) < size:
            raise self._fail(WRONG_LENGTH)
        return data[:size], data[size:]

    def _checked(self, key: bytes) -> bytes:
        try:
            return self._dh.check(key)
        except BadKeyError:
            raise self._fail(BAD_PUBLIC_KEY) from None

    def _static(self) -> KeyPair:
        if self._s is None:
            raise UsageError("the handshake has no static key")
        return self._s

    # The symmetric state (Noise §5.2) and its tokens (§5.3, §9.2)

    def _mix_hash(self, data: Buffer) -> None:
        self.hash = sha256(self.hash + data)

    def _mix_key(self, material: bytes) -> None:
        self.chaining_key, key = hkdf2(self.chaining_key, material)
        self._set_key(key)

    def _set_key(self, key: bytes) -> None:
        self._key = key
        self._aead = self._backend.aead(key)
        self._n = 0

    def _mix_ephemeral(self, public: bytes) -> None:
        self._mix_hash(public)
        if self._pattern.psks:  # §9.2: with pre-shared keys ephemerals are mixed into the key too
            self._mix_key(public)

    def _mix_word(self, word: str) -> None:
        if word == "psk":
            self.chaining_key, digest, key = hkdf3(self.chaining_key, self._psks.pop(0))
            self._mix_hash(digest)
            self._set_key(key)
            return
        # The first letter is the initiator's key, the second the responder's.
        ours, theirs = word[self._ours], word[1 - self._ours]
        pair = self._e if ours == "e" else self._static()
        remote = self.remote_ephemeral if theirs == "e" else self.remote_static
        try:
            self._mix_key(pair.ecdh(remote))
        except BadKeyError:
            raise self._fail(BAD_PUBLIC_KEY) from None

    def _seal(self, plaintext: Buffer) -> bytes:
        text = bytes(plaintext)
        if self._aead is not None:
            text = self._aead.encrypt(nonce96(self._n), text, self.hash)
            self._n += 1
        self._mix_hash(text)
        return text

    def _open(self, text: bytes, what: str) -> bytes:
        plaintext = text
        if self._aead is not None:
            if len(text) < TAG_SIZE:
                raise self._fail(WRONG_LENGTH)
            try:
                plaintext = self._aead.decrypt(nonce96(self._n), text, self.hash)
            except BadTag:
                raise self._fail(what) from None
            self._n += 1
        self._mix_hash(text)
        return plaintext
