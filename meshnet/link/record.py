"""BOLT 8 records on a stream connection: opening them in place and sealing bundles of frames.

    record   length, sealed 18 | body, sealed size + 16          (docs/wire-format.md §1)
    bundle   the frames of one record: length u16 | kind u8 | body, many times over

The `Opener` decrypts over the ciphertext's own bytes in the receive buffer. The `Sealer` hands out room
inside the outgoing bundle, so that whoever makes a frame writes it where it will be sealed. Neither does
I/O, reads a clock or makes an object per frame.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final

from meshnet.bundle import FRAME_HEAD, Bundle, nothing
from meshnet.cipher.aead import TAG_SIZE, BadTag
from meshnet.cipher.rotation import NONCES, NONCES_PER_KEY, RotatingKey
from meshnet.errors import ProtocolError
from meshnet.limits import LARGEST_RECORD

LENGTH_SIZE: Final = 2 + TAG_SIZE
OVERHEAD: Final = LENGTH_SIZE + TAG_SIZE
BUNDLES: Final = 4  # a sealer's buffer holds so many full bundles, one `write` for all
BUFFER_SIZE: Final = BUNDLES * (LARGEST_RECORD + OVERHEAD)

_UNKNOWN = -1


_length = Struct(">H").pack


class Opener:
    """Opens the records of one direction of a connection, in the buffer they were received into."""

    __slots__ = ("_decrypt", "_key", "_length", "_nonce", "_size")

    def __init__(self, key: RotatingKey) -> None:
        self._key = key
        self._decrypt = key.aead.decrypt_into
        self._nonce = 0
        self._length = bytearray(2)
        self._size = _UNKNOWN

    def open_next(self, buffer: memoryview, start: int, end: int) -> int:
        """Opens the record that begins at `start` if all of it lies before `end`.

        Returns where the next record begins, 0 if more bytes are needed. The frames then lie in
        `buffer[start + LENGTH_SIZE : returned - TAG_SIZE]`. Raises ProtocolError on a bad tag.
        """
        size, nonce = self._size, self._nonce
        body = start + LENGTH_SIZE
        try:
            if size < 0:
                if end < body:
                    return 0
                if nonce == NONCES_PER_KEY:
                    nonce = self._nonce = self._rotate()
                length = self._length
                self._decrypt(NONCES[nonce], buffer[start:body], None, length)
                size = length[0] << 8 | length[1]
            stop = body + size + TAG_SIZE
            if stop > end:
                self._size = size
                return 0
            self._decrypt(NONCES[nonce + 1], buffer[body:stop], None, buffer[body : stop - TAG_SIZE])
        except BadTag:
            raise ProtocolError("a record did not open: bytes were changed on the way") from None
        self._nonce = nonce + 2
        self._size = _UNKNOWN
        return stop

    def _rotate(self) -> int:
        self._decrypt = self._key.rotate().decrypt_into
        return 0


class Sealer(Bundle):
    """Gathers frames into bundles, seals each as a record, and holds them until they are sent.

    `touched` is called when the first frame enters an empty bundle: somebody should `seal` and send at
    the end of this turn. `flush` is called when the buffer is full before that; it sends what it can.
    A sealer is `blocked` while sealed bytes wait for the carrier: then `room` gives None, so that what
    comes queues where it is counted, by circuit. It outlives connections: `adopt` brings fresh keys.
    """

    __slots__ = (
        "_cap", "_encrypt", "_flush", "_key", "_most", "_nonce", "_sealed", "_sent", "_whole",
        "blocked", "bytes_sent",
    )  # fmt: skip

    def __init__(
        self,
        key: RotatingKey | None = None,
        touched: Callable[[], object] = nothing,
        flush: Callable[[], object] = nothing,
        size: int = BUFFER_SIZE,
    ) -> None:
        super().__init__(size, touched)
        self._most = size - TAG_SIZE
        self.cap(LARGEST_RECORD)
        self._flush = flush
        self._sent = self._sealed = 0
        self.first = self.end = LENGTH_SIZE
        self.limit = 0
        self._nonce = 0
        self.blocked = True
        self.bytes_sent = 0
        self._key = key
        if key is not None:
            self._encrypt = key.aead.encrypt_into
            self.unblock()

    def seal(self) -> memoryview:
        """Closes the open bundle; returns all bytes sealed and not sent yet, valid until `sent`, which must
        follow."""
        end, body, view = self.end, self.first, self.view
        if end > body:
            nonce = self._nonce
            if nonce == NONCES_PER_KEY:
                self._encrypt = self._key.rotate().encrypt_into  # type: ignore[union-attr]
                nonce = 0
            encrypt = self._encrypt
            stop = end + TAG_SIZE
            encrypt(NONCES[nonce], _length(end - body), None, view[body - LENGTH_SIZE : body])
            encrypt(NONCES[nonce + 1], view[body:end], None, view[body:stop])
            self._nonce = nonce + 2
            self._sealed = stop
            self.first = self.end = stop + LENGTH_SIZE
        return self.view[self._sent : self._sealed]

    def sent(self, size: int) -> None:
        """The carrier took `size` of the bytes that `seal` returned; blocks if some are left."""
        self.bytes_sent += size
        sent = self._sent + size
        if sent == self._sealed:
            self._sent = self._sealed = 0
            self.first = self.end = LENGTH_SIZE
            self.limit = 0 if self.blocked else self._whole
        else:
            self._sent = sent
            self.block()

    @property
    def unsent(self) -> int:
        """Sealed bytes that the carrier has not taken yet."""
        return self._sealed - self._sent

    def cap(self, size: int) -> None:
        """From the next record on, one closes at `size` bytes (at most LARGEST_RECORD), or behind the one
        frame that is larger."""
        self._cap = size
        self._whole = min(LENGTH_SIZE + size, self._most)

    def block(self) -> None:
        """No more room until `unblock`."""
        self.blocked = True
        self.limit = 0

    def unblock(self) -> None:
        """Room again, as far as the buffer goes."""
        self.blocked = False
        self._bound()

    def adopt(self, other: Sealer) -> None:
        """Goes on with another sealer's keys and unsent bytes; its own unsent bytes are forgotten."""
        rest = bytes(other.seal())
        self._key, self._encrypt, self._nonce = other._key, other._encrypt, other._nonce
        self.view[: len(rest)] = rest
        self._sent, self._sealed = 0, len(rest)
        self.first = self.end = self._sealed + LENGTH_SIZE
        if rest:
            self.block()
        else:
            self.unblock()

    def stop(self) -> None:
        """The connection has ended: everything unsent is forgotten, no room until `adopt`."""
        self._sent = self._sealed = 0
        self.first = self.end = LENGTH_SIZE
        self.block()

    def _bound(self) -> None:
        """Sets how far the open bundle may reach, its tag not counted."""
        self.limit = min(self.first + self._cap, self._most)

    def _turn(self, most: int) -> bool:
        """Closes a full bundle and opens the next; true if a body of `most` bytes fits there."""
        if self.blocked or FRAME_HEAD + most > LARGEST_RECORD:
            return False
        self.seal()
        if self.first + FRAME_HEAD + most > self._most:
            self._flush()
            if self.unsent:
                return False
        first = self.first
        end = first + FRAME_HEAD + most
        limit = first + self._cap
        if limit < end:
            limit = end
        self.limit = limit = limit if limit < self._most else self._most
        return end <= limit
