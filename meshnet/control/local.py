"""UNIX sockets under the reactor as two-way streams: what the local door and its callers are made of.

A `LocalStream` is a `Stream` (`meshnet/streams.py`) over a socket of this machine: it receives into one
memory that all of them share, hands out borrowed views of it, and reads no further until what it gave has
been consumed; it sends from the caller's memory. The end of one direction is a shutdown, so half-closed
connections work, and a process that goes on sending after the other end has gone is not cut off before its
bytes have arrived. Nothing here knows lines, keys or nodes.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from meshnet.cipher.keys import PublicKey
from meshnet.control.witness import Witness, receive_first
from meshnet.errors import MeshError, UnreachableError
from meshnet.limits import DOOR_LINGER_BYTES, DOOR_LINGER_SECONDS, DOOR_READ
from meshnet.streams import NoPackets, StreamReader

AGAIN: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR, errno.ENOBUFS})
EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
ACCEPTS_PER_TURN: Final = 64
ACCEPT_AGAIN: Final = 0.5  # seconds, after descriptors or memory ran out
BACKLOG: Final = 1_024
LOOK_SECONDS: Final = (
    5.0  # so often a connection that the other side half-closed is asked whether it still is
)
KERNEL_BUFFER: Final = 1 << 20  # asked of the kernel for bytes on their way; it may grant less

_memory = memoryview(bytearray(DOOR_READ))  # where all of them receive: views of it are borrowed until return
_log = Logger()


@implementer(IReadWriteDescriptor)
class LocalStream(NoPackets):
    """A connected UNIX stream socket. `reader` hears of it and may be changed; `port` and `peer` are what
    the connection is about, for those who ask. `gone` is called once, when the socket is closed.

    Where both sides have a `witness` it tells whether the other one ended in order. Where they have none,
    `lasting` says what it means that the other end is closed without having been shut down first: for a
    door, that its process has said all it wanted; for a process (False), that the stream broke. A door
    takes the witness that comes with the first bytes.
    """

    __slots__ = (
        "_asleep", "_deaf", "_ended", "_finished", "_gone", "_greeted", "_look", "_orphan", "_reactor",
        "_send", "_socket", "_spilt", "_unread", "_witness", "_writing", "lasting", "peer", "port", "reader",
    )  # fmt: skip

    def __init__(
        self,
        reactor: Any,
        sock: socket.socket,
        reader: StreamReader,
        gone: Callable[[LocalStream], None],
        lasting: bool,
        witness: Witness | None = None,
    ) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER)
        self.reader = reader
        self.port = 0
        self.peer: PublicKey | None = None
        self._reactor = reactor
        self._socket = sock
        self._send = sock.send
        self._gone = gone
        self.lasting = lasting
        self._witness = witness
        self._greeted = not lasting  # the first bytes have come, and perhaps a witness with them
        self._unread = 0  # given to the reader and not consumed
        self._asleep = False  # not under the reactor's readers
        self._writing = False  # under its writers: `drained` is owed
        self._ended = False  # the other end sends no more
        self._finished = False  # we send no more
        self._orphan = False  # the other end is closed: what we write goes nowhere
        self._spilt = 0  # bytes written since
        self._deaf = False  # the reader hears nothing more
        self._look: Any = None
        reactor.addReader(self)

    # -- Stream

    @property
    def open(self) -> bool:
        """Whether the socket is."""
        return self._socket.fileno() >= 0

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Bytes that the kernel took; `drained` follows a short write. Once finished, or where nobody is
        left to read them, bytes are taken and dropped."""
        if self._orphan or self._finished:
            return self._spill(len(data))
        if self._writing:
            return 0
        try:
            taken = self._send(data)
        except OSError as problem:
            if problem.errno == errno.EPIPE:  # it may have left bytes for us to read
                self._orphan = True
                return self._spill(len(data))
            if problem.errno not in AGAIN:
                self._lose(problem)
                return len(data)
            taken = 0
        if taken < len(data):
            self._writing = True
            self._reactor.addWriter(self)
        return taken

    @property
    def stopped(self) -> bool:
        """Whether the socket is closed. One that only nobody reads takes bytes, up to DOOR_LINGER_BYTES."""
        return not self.open

    def finish(self) -> None:
        """Tells the other end that no more follows. It may go on sending."""
        if self._finished or not self.open:
            return
        self._finished = True
        if self._ended:
            self._close(orderly=True)
            return
        if self._witness is not None:
            self._witness.leave()
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._orphan = True

    def reset(self, code: int = 0) -> None:
        """Closes the socket; the reader hears nothing more. Harmless if it is closed."""
        self._deaf = True
        self._close()

    def consumed(self, size: int) -> None:
        """So many bytes were passed on; when all were, the socket is read again."""
        self._unread -= size
        if self._asleep and self._unread <= 0 and not self._ended and self.open:
            self._asleep = False
            self._reactor.addReader(self)

    def when_met(self, call: Callable[[], None]) -> None:
        """Calls at once: the kernel joined both ends."""
        call()

    # -- for a program that must know at once

    def wait(self, seconds: float) -> None:
        """Lets the reactor stand until the other end has sent something, so long at most, and reads it."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if poll.poll(seconds * 1_000):
            self.doRead()

    def peer_process(self) -> int:
        """The process at the other end; 0 where the platform does not tell."""
        option = getattr(socket, "SO_PEERCRED", None)
        if option is None:
            return 0
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i"))
        return int(struct.unpack("3i", credentials)[0])

    # -- the reactor

    def fileno(self) -> int:
        """For the reactor."""
        return self._socket.fileno()

    def doRead(self) -> None:
        """One receive; further ones wait until the reader has passed on what it got."""
        try:
            size = self._socket.recv_into(_memory) if self._greeted else self._greet()
        except OSError as problem:
            if problem.errno not in AGAIN:
                self._lose(problem)
            return
        if not size:
            self._end()
            return
        self._unread += size
        self.reader.data_received(_memory[:size])
        if self._unread > 0 and self.open and not self._asleep:
            self._asleep = True
            self._reactor.removeReader(self)

    def doWrite(self) -> None:
        """The kernel takes bytes again."""
        self._reactor.removeWriter(self)
        self._writing = False
        self._drained()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor found the socket broken, or is stopping; or our reader raised."""
        if not self.open:
            return
        if not ((self._asleep or self._ended) and self._broken()):
            self._lose(None)
            return
        self._orphan = True  # what it sent lies there still, until the reader wants it
        if self._writing:
            self._writing = False
            self._reactor.callLater(0, self._drained)

    def logPrefix(self) -> str:
        """For the reactor's log."""
        return "mesh door"

    # -- within

    def _greet(self) -> int:
        """The first bytes of a process."""
        size, self._witness = receive_first(self._socket, _memory)
        self._greeted = True
        return size

    def _drained(self) -> None:
        if self.open:  # it may have been closed in this turn's doRead
            self.reader.drained()

    def _end(self) -> None:
        """The other end sends no more."""
        if self._ended:
            return
        self._ended = True
        self._reactor.removeReader(self)
        closed = self._broken()
        if self._witness is not None:
            breach = not self._witness.found()
        else:
            breach = closed and not self.lasting and not self._finished
        if breach:
            self._lose(None)
            return
        self._orphan = self._orphan or closed
        self.reader.finished()
        if not self.open:
            return
        if self._finished:
            self._close()
        else:
            self._watch()

    def _watch(self) -> None:
        """The reactor says nothing of a connection that is neither read nor written."""
        if not self._broken():
            self._look = self._reactor.callLater(LOOK_SECONDS, self._watch)
        elif self.lasting:
            self._orphan = True
            self._look = self._reactor.callLater(DOOR_LINGER_SECONDS, self._lose, None)
        else:
            self._lose(None)

    def _broken(self) -> bool:
        """Whether both directions are shut: the other end has closed, or each has shut its own."""
        poll = select.poll()
        poll.register(self._socket, 0)
        return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))

    def _spill(self, size: int) -> int:
        self._spilt += size
        if self._spilt > DOOR_LINGER_BYTES and self.open:
            self._lose(None)
        return size

    def _lose(self, problem: OSError | None) -> None:
        """The connection broke: the reader hears it in a later turn."""
        if self.open:
            self._close()
            why = os.strerror(problem.errno or 0).lower() if problem is not None else "it was closed"
            error = UnreachableError(f"the local connection ended before the stream did: {why}")
            self._reactor.callLater(0, self._tell, error)

    def _tell(self, why: MeshError) -> None:
        if not self._deaf:
            self.reader.lost(why)

    def _close(self, orderly: bool = False) -> None:
        if not self.open:
            return
        if self._witness is not None:
            if orderly:
                self._witness.leave()
            self._witness.close()
        if self._look is not None and self._look.active():
            self._look.cancel()
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        self._socket.close()
        self._gone(self)


@implementer(IReadWriteDescriptor)
class LocalListener:
    """A listening UNIX socket; `take` gets each connection's socket."""

    def __init__(self, reactor: Any, sock: socket.socket, take: Callable[[socket.socket], None]) -> None:
        sock.setblocking(False)
        self._reactor = reactor
        self._socket = sock
        self._take = take
        self._pause: Any = None
        reactor.addReader(self)

    def stop(self) -> None:
        """Closes the listening socket; connections stay."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._socket.fileno() >= 0:
            self._reactor.removeReader(self)
            self._socket.close()

    def fileno(self) -> int:
        """For the reactor."""
        return self._socket.fileno()

    def doRead(self) -> None:
        """Accepts what waits, a bounded number each turn."""
        for _ in range(ACCEPTS_PER_TURN):
            try:
                sock, _address = self._socket.accept()
            except OSError as problem:
                if problem.errno in EXHAUSTED:
                    self._rest(problem)
                return
            self._take(sock)

    def _rest(self, problem: OSError) -> None:
        """Whoever waits keeps the socket readable: without a pause the reactor would ask without end."""
        _log.warn("the local door takes nobody now: {why}", why=os.strerror(problem.errno or 0))
        self._reactor.removeReader(self)
        self._pause = self._reactor.callLater(ACCEPT_AGAIN, self._again)

    def _again(self) -> None:
        self._pause = None
        self._reactor.addReader(self)

    def doWrite(self) -> None:
        """Never asked for."""

    def connectionLost(self, reason: Failure) -> None:
        """The reactor is stopping."""
        self.stop()

    def logPrefix(self) -> str:
        """For the reactor's log."""
        return "mesh door"
