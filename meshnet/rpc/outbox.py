"""What a connection has to send: frames encoded straight into one buffer, which leaves in one write.

The buffer is made once and grows only while the other side does not read; it goes back to its first size
when it is empty. Nothing here writes: the driver takes `pending` and says how much of it was `sent`.
"""

from __future__ import annotations

from typing import Any, Final

from meshnet.codec import FAULTS, codec_of
from meshnet.errors import EncodeError
from meshnet.limits import RPC_QUEUE
from meshnet.rpc.frames import CALL_HEAD, HEAD, HEAD_SIZE, time_code

FIRST: Final = 64 << 10
_head = HEAD.pack_into
_call_head = CALL_HEAD.pack_into
_CALL_HEAD: Final = CALL_HEAD.size
_TIME: Final = _CALL_HEAD - HEAD_SIZE


class Outbox:
    """Frames that wait to be written. `stuck` says that there were more than RPC_QUEUE bytes of them: then
    they are dropped, and the connection has to end."""

    __slots__ = ("_buffer", "_seconds", "_time", "end", "start", "stuck")

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(FIRST))
        self.start = 0
        self.end = 0
        self.stuck = False
        self._seconds = 0.0  # of the last CALL
        self._time = 0

    def __len__(self) -> int:
        return self.end - self.start

    @property
    def pending(self) -> memoryview:
        """What is to be written; borrowed until the next frame is put."""
        return self._buffer[self.start : self.end]

    def sent(self, size: int) -> None:
        """So many bytes of `pending` were taken."""
        self.start += size
        if self.start == self.end:
            self.start = self.end = 0
            if len(self._buffer) > FIRST:
                self._buffer = memoryview(bytearray(FIRST))

    def put(self, word: int, call_id: int, message: Any, most: int) -> int:
        """A frame of one message; the size of that, at most `most`. Raises EncodeError, and puts nothing."""
        codec = codec_of(message)
        try:
            size: int = codec.size(message)
            if size > most:
                raise _too_large(message, size, most)
            body = self.end + HEAD_SIZE
            if body + size > len(self._buffer):
                body = self._reserve(HEAD_SIZE + size) + HEAD_SIZE
            _head(self._buffer, self.end, word | size, call_id)
            end = codec.write(message, self._buffer, body)
        except FAULTS as fault:
            raise EncodeError(f"{type(message).__qualname__}: {fault}") from fault
        self.end = end
        return size

    def put_call(self, word: int, call_id: int, seconds: float, message: Any, most: int) -> int:
        """The same of a CALL, with the time that is left for it."""
        if seconds != self._seconds:
            self._seconds, self._time = seconds, time_code(seconds)
        codec = codec_of(message)
        try:
            size: int = codec.size(message)
            if size > most:
                raise _too_large(message, size, most)
            body = self.end + _CALL_HEAD
            if body + size > len(self._buffer):
                body = self._reserve(_CALL_HEAD + size) + _CALL_HEAD
            _call_head(self._buffer, self.end, word | size + _TIME, call_id, self._time)
            end = codec.write(message, self._buffer, body)
        except FAULTS as fault:
            raise EncodeError(f"{type(message).__qualname__}: {fault}") from fault
        self.end = end
        return size

    def put_bytes(self, word: int, call_id: int, body: bytes = b"") -> None:
        """A frame of plain bytes."""
        end = self.end + HEAD_SIZE
        if end + len(body) > len(self._buffer):
            end = self._reserve(HEAD_SIZE + len(body)) + HEAD_SIZE
        _head(self._buffer, self.end, word | len(body), call_id)
        self._buffer[end : end + len(body)] = body
        self.end = end + len(body)

    def _reserve(self, size: int) -> int:
        """Makes room for so many bytes; where they begin."""
        held = self.end - self.start
        if held + size > RPC_QUEUE:
            self.stuck, self.start, self.end, held = True, 0, 0, 0
        capacity = len(self._buffer)
        while capacity < held + size:
            capacity *= 2
        grown = memoryview(bytearray(capacity))
        grown[:held] = self._buffer[self.start : self.end]
        self._buffer, self.start, self.end = grown, 0, held
        return held


def _too_large(message: Any, size: int, most: int) -> EncodeError:
    return EncodeError(f"a {type(message).__qualname__} of {size} bytes is too large for one frame ({most})")
