"""A Twisted connection with the face of a mesh stream, for what is written for streams.

The reverse of `stream_transport.py`: `StreamProtocol` is the protocol of any Twisted connection and a
`Stream` for a reader. While more than `WINDOW` bytes were not said to be consumed, the connection is not
read; what its transport takes no more of is not taken here. It opens nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from meshnet.errors import MeshError, UnreachableError
from meshnet.streams import NoPackets, StreamReader

WINDOW: Final = 256 << 10
"""So many bytes may be with the reader before the connection is no longer read."""


@implementer(IPushProducer)
class StreamProtocol(NoPackets, Protocol):
    """`made(self)` is called with the connection; it gives the reader, or None to refuse it."""

    port = 0
    peer = None

    def __init__(self, made: Callable[[StreamProtocol], StreamReader | None]) -> None:
        self._made = made
        self._reader: StreamReader | None = None
        self._unread = 0
        self._held_back = False  # we do not read
        self._full = False  # the transport takes no more
        self._short = False  # and the reader was told so
        self._over = False

    # -- Twisted calls these

    def connectionMade(self) -> None:
        """The connection stands."""
        transport: Any = self.transport
        transport.registerProducer(self, True)
        self._reader = self._made(self)
        if self._reader is None:
            self._end(transport.abortConnection)

    def dataReceived(self, data: bytes) -> None:
        """Bytes came."""
        if self._reader is None:
            return
        self._unread += len(data)
        if self._unread > WINDOW and not self._held_back:
            self._held_back = True
            cast(Any, self.transport).pauseProducing()
        self._reader.data_received(memoryview(data))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is over."""
        reader, self._reader = self._reader, None
        self._over = True
        if reader is None:
            return
        if reason.check(ConnectionDone) is not None:
            reader.finished()
        error = reason.value
        why = error if isinstance(error, MeshError) else UnreachableError(f"the connection was lost: {error}")
        reader.lost(why)

    def pauseProducing(self) -> None:
        """The transport takes no more."""
        self._full = True

    def resumeProducing(self) -> None:
        """It does again."""
        self._full = False
        if self._short and self._reader is not None:
            self._short = False
            self._reader.drained()

    def stopProducing(self) -> None:
        """`connectionLost` follows."""

    # -- the reader calls these (Stream)

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Bytes taken: all or none."""
        if self._over:
            return 0
        if self._full:
            self._short = True
            return 0
        cast(Any, self.transport).write(bytes(data))
        return len(data)

    @property
    def stopped(self) -> bool:
        """Whether the connection is over, or was ended here: then nothing is taken."""
        return self._over

    def finish(self) -> None:
        """Ends the connection once all is written: without the other direction, too."""
        self._end(cast(Any, self.transport).loseConnection)

    def reset(self, code: int = 0) -> None:
        """Ends it now; the reader hears nothing more."""
        self._reader = None
        self._end(cast(Any, self.transport).abortConnection)

    def consumed(self, size: int) -> None:
        """So many bytes were passed on."""
        self._unread -= size
        if self._held_back and self._unread <= WINDOW // 2:
            self._held_back = False
            cast(Any, self.transport).resumeProducing()

    def when_met(self, call: Callable[[], None]) -> None:
        """At once: a connection that stands has two ends."""
        call()

    def _end(self, how: Callable[[], None]) -> None:
        self._over = True
        cast(Any, self.transport).unregisterProducer()
        how()
