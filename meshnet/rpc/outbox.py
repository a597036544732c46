"""What a connection has to send: frames encoded straight into one buffer, which leaves in one write.

The buffer is made once and grows only while the other side does not read; it goes back to its first size
when it is empty. Nothing here writes: the driver takes `pending` and says how much of it was `sent`.
"""

from __future__ import annotations

from typing import Any, Final

from meshnet.codec.parts import FAULTS
from meshnet.errors import EncodeError
from meshnet.limits import RPC_QUEUE
from meshnet.rpc.frames import HEAD, HEAD_SIZE, REQUEST_HEAD

FIRST: Final = 64 << 10
_head = HEAD.pack_into
_request_head = REQUEST_HEAD.pack_into
_CALL_HEAD: Final = REQUEST_HEAD.size
_TIME: Final = _CALL_HEAD - HEAD_SIZE


class Outbox:
    """Frames that wait to be written. `stuck` says that there were more than RPC_QUEUE bytes of them: then
    they are dropped, and the connection has to end."""

    __slots__ = ("_buffer", "end", "start", "stuck")

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(FIRST))
        self.start = 0
        self.end = 0
        self.stuck = False

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

    def put(self, word: int, call_id: int, message: Any, size: int) -> None:
        """A frame of one message that takes `size` bytes. Raises EncodeError, and then puts nothing."""
        end = self.end
        body = end + HEAD_SIZE
        if body + size > len(self._buffer):
            self._reserve(HEAD_SIZE + size)
            end = self.end
            body = end + HEAD_SIZE
        _head(self._buffer, end, word | size, call_id)
        try:
            self.end = message.__codec__.write(message, self._buffer, body)
        except FAULTS as fault:
            raise EncodeError(f"{type(message).__qualname__}: {fault}") from fault

    def put_call(self, word: int, call_id: int, time: int, message: Any, size: int) -> None:
        """The same of a CALL, with its time."""
        end = self.end
        body = end + _CALL_HEAD
        if body + size > len(self._buffer):
            self._reserve(_CALL_HEAD + size)
            end = self.end
            body = end + _CALL_HEAD
        _request_head(self._buffer, end, word | size + _TIME, call_id, time)
        try:
            self.end = message.__codec__.write(message, self._buffer, body)
        except FAULTS as fault:
            raise EncodeError(f"{type(message).__qualname__}: {fault}") from fault

    def put_bytes(self, word: int, call_id: int, body: bytes = b"") -> None:
        """A frame of plain bytes."""
        end = self.end + HEAD_SIZE
        if end + len(body) > len(self._buffer):
            self._reserve(HEAD_SIZE + len(body))
            end = self.end + HEAD_SIZE
        _head(self._buffer, self.end, word | len(body), call_id)
        self._buffer[end : end + len(body)] = body
        self.end = end + len(body)

    def _reserve(self, size: int) -> None:
        held = self.end - self.start
        if held + size > RPC_QUEUE:
            self.stuck, self.start, self.end, held = True, 0, 0, 0
        capacity = len(self._buffer)
        while capacity < held + size:
            capacity *= 2
        grown = memoryview(bytearray(capacity))
        grown[:held] = self._buffer[self.start : self.end]
        self._buffer, self.start, self.end = grown, 0, held
