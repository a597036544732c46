"""Sockets of our own under a reactor: under a kernel that answers what a test wants."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from meshnet.errors import LinkLostError, MeshError, TimedOutError, UnreachableError
from meshnet.limits import ACCEPT_BURST, STRANGER_BURST
from meshnet.transports.conformance import Sink
from meshnet.transports.sockets import (
    ACCEPT_AGAIN,
    ACCEPT_SOON,
    ACCEPTS_PER_TURN,
    Connecting,
    SocketCarrier,
    SocketListener,
    remote,
)


class NamedSocket:
    """A socket that knows, or does not know, the other end's name."""

    def __init__(self, name: object) -> None:
        self.name = name

    def getpeername(self) -> object:
        if isinstance(self.name, OSError):
            raise self.name
        return self.name


class FakeSocket:
    """A socket that does what its lists say, one entry for each call."""

    def __init__(self) -> None:
        self.open = True
        self.arrives: list[bytes | int] = []
        self.takes: list[int] = []
        self.taken = bytearray()
        self.accepts: list[FakeSocket | int] = []
        self.connects = 0
        self.error = 0

    def setblocking(self, on: bool) -> None:
        assert not on

    def getpeername(self) -> tuple[str, int]:
        return "192.0.2.7", 40222

    def fileno(self) -> int:
        return 99 if self.open else -1

    def close(self) -> None:
        self.open = False

    def recv_into(self, memory: memoryview) -> int:
        data = self.arrives.pop(0)
        if isinstance(data, int):
            raise OSError(data, "receive")
        memory[: len(data)] = data
        return len(data)

    def send(self, data: memoryview) -> int:
        size = self.takes.pop(0) if self.takes else len(data)
        if size < 0:
            raise OSError(-size, "send")
        self.taken += data[:size]
        return min(size, len(data))

    def accept(self) -> tuple[FakeSocket, tuple[str, int]]:
        if not self.accepts:
            raise BlockingIOError(errno.EAGAIN, "nobody")
        found = self.accepts.pop(0)
        if isinstance(found, int):
            raise OSError(found, "accept")
        return found, ("192.0.2.1", 1)

    def connect_ex(self, address: object) -> int:
        return self.connects

    def getsockopt(self, level: int, option: int) -> int:
        assert self.open, "asked of a closed socket"
        assert (level, option) == (socket.SOL_SOCKET, socket.SO_ERROR)
        return self.error


class CarrierTests(SynchronousTestCase):
    """A connected socket."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.socket = FakeSocket()
        self.carrier = SocketCarrier(self.reactor, self.socket, Sink)  # type: ignore[arg-type]
        assert isinstance(self.carrier._sink, Sink)
        self.sink = self.carrier._sink

    def lost(self) -> str:
        """Why it ended: told in a later turn, with the socket closed and out of the reactor."""
        self.assertIsNone(self.sink.why)
        self.assertFalse(self.socket.open)
        self.assertEqual((self.reactor.getReaders(), self.reactor.getWriters()), ([], []))
        self.reactor.advance(0)
        assert isinstance(self.sink.why, LinkLostError)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        return str(self.sink.why)

    def test_remote(self) -> None:
        """It says where the other end is, for people; nothing if the socket no longer knows."""
        for name, shown in (
            (("192.0.2.7", 40222), "tcp:192.0.2.7:40222"),
            (("2001:db8::7", 40222, 0, 0), "tcp:[2001:db8::7]:40222"),
            ("/run/mesh", "unix:/run/mesh"),
            ("", ""),
            (OSError(errno.ENOTCONN, "not connected"), ""),
        ):
            self.assertEqual(remote(NamedSocket(name)), shown)  # type: ignore[arg-type]

    def test_reads(self) -> None:
        """Each event is one receive; nothing there after all, and an interrupt, are no end."""
        self.socket.arrives = [b"one", errno.EAGAIN, errno.EINTR, b"two"]
        for _ in range(4):
            self.carrier.doRead()
        self.assertEqual(self.sink.got, b"onetwo")
        self.assertIsNone(self.sink.why)

    def test_ends(self) -> None:
        """The other side's end, a reset, the reactor's word: each has its sentence."""
        for arrives, says in ((b"", "other side closed"), (errno.ECONNRESET, "reset")):
            self.setUp()
            self.socket.arrives = [arrives]
            self.carrier.doRead()
            self.assertIn(says, self.lost())
        self.setUp()
        self.carrier.connectionLost(Failure(ValueError()))
        self.assertIn("broke", self.lost())

    def test_short_writes(self) -> None:
        """A full kernel buffer takes a part or nothing; when there is room again the sink hears it, once."""
        self.socket.takes = [3, -errno.EAGAIN, -errno.ENOBUFS]
        self.assertEqual(self.carrier.write(memoryview(b"hello")), 3)
        self.assertEqual(self.carrier.write(memoryview(b"lo")), 0)
        self.assertEqual(self.carrier.write(memoryview(b"lo")), 0)
        self.assertEqual(self.reactor.getWriters(), [self.carrier])
        self.carrier.doWrite()
        self.assertEqual((self.sink.drains, self.reactor.getWriters()), (1, []))
        self.assertEqual(self.carrier.write(memoryview(b"lo")), 2)
        self.assertEqual((self.socket.taken, self.reactor.getWriters()), (b"hello", []))

    def test_a_write_that_fails(self) -> None:
        """The connection ends; the writer is told by `lost` in a later turn, not by an exception."""
        self.socket.takes = [-errno.EPIPE]
        self.assertEqual(self.carrier.write(memoryview(b"hello")), 5)
        self.assertIn("broke", self.lost())
        self.assertEqual(self.carrier.write(memoryview(b"hello")), 5)

    def test_closed_in_the_turn_that_could_write(self) -> None:
        """A reactor may still call `doWrite` after `doRead` closed: the sink hears nothing of it."""
        self.socket.takes = [0]
        self.sink.send(b"x")
        self.socket.arrives = [b"bye"]
        self.sink.on_filled = self.carrier.close
        self.carrier.doRead()
        self.carrier.doWrite()
        self.assertEqual(self.sink.drains, 0)
        self.lost()

    def test_pause(self) -> None:
        """Out of the reactor and in again; a closed one stays out."""
        self.carrier.pause()
        self.carrier.pause()
        self.assertEqual(self.reactor.getReaders(), [])
        self.carrier.resume()
        self.assertEqual(self.reactor.getReaders(), [self.carrier])
        self.carrier.pause()
        self.carrier.close()
        self.carrier.resume()
        self.lost()

    def test_attach_pauses_or_writes(self) -> None:
        """A sink may do so while it is made."""

        def attach(carrier: Any) -> Sink:
            carrier.pause()
            assert carrier.write(memoryview(b"first")) == 2
            return Sink(carrier)

        sock = FakeSocket()
        sock.takes = [2]
        carrier = SocketCarrier(self.reactor, sock, attach)  # type: ignore[arg-type]
        self.assertEqual(self.reactor.getReaders(), [self.carrier])
        self.assertEqual(self.reactor.getWriters(), [carrier])

    def test_attach_raises(self) -> None:
        """The socket is closed, though the sink had begun to use it; the error goes on."""

        def attach(carrier: Any) -> Sink:
            carrier.write(memoryview(b"first"))
            raise ZeroDivisionError

        sock = FakeSocket()
        sock.takes = [2]
        self.assertRaises(ZeroDivisionError, SocketCarrier, self.reactor, sock, attach)
        self.assertFalse(sock.open)
        self.reactor.advance(0)
        self.assertEqual((self.reactor.getReaders(), self.reactor.getWriters()), ([self.carrier], []))


class ConnectingTests(SynchronousTestCase):
    """A socket on its way."""

    def start(self, code: int = errno.EINPROGRESS) -> Connecting:
        self.reactor = MemoryReactorClock()
        self.socket = FakeSocket()
        self.socket.connects = code
        self.told: list[MeshError | None] = []
        return Connecting(self.reactor, self.socket, ("192.0.2.1", 1), 10.0, self.told.append)  # type: ignore[arg-type]

    def settled(self) -> MeshError | None:
        """What was told: once, with nothing left in the reactor."""
        self.assertEqual(len(self.told), 1)
        self.assertEqual((self.reactor.getWriters(), self.reactor.getDelayedCalls()), ([], []))
        self.assertEqual(self.socket.open, self.told[0] is None)
        return self.told[0]

    def test_connected(self) -> None:
        """The kernel says it stands; what the reactor says afterwards is not heard."""
        for code in (0, errno.EINPROGRESS, errno.EISCONN):
            connecting = self.start(code)
            connecting.doWrite()
            self.assertIsNone(self.settled())
            connecting.connectionLost(Failure(ValueError()))
            connecting.cancel()
            self.assertIsNone(self.settled())

    def test_refused(self) -> None:
        """At once, later, or by the reactor's own finding."""
        self.start(errno.ECONNREFUSED)
        self.assertEqual(self.told, [], "never while it is being made")
        self.reactor.advance(0)
        self.assertIn("nothing listens", str(self.settled()))
        for hear in (lambda it: it.doWrite(), lambda it: it.connectionLost(Failure(ValueError()))):
            connecting = self.start()
            self.socket.error = errno.ECONNREFUSED
            hear(connecting)
            why = self.settled()
            assert isinstance(why, UnreachableError)
            self.assertIn("nothing listens", str(why))
            connecting.connectionLost(Failure(ValueError()))  # epoll does, after doWrite has closed

    def test_unreachable(self) -> None:
        """The kernel's reason is in the sentence."""
        connecting = self.start()
        self.socket.error = errno.ENETUNREACH
        connecting.doWrite()
        self.assertIn("unreachable", str(self.settled()))

    def test_timeout(self) -> None:
        """Without an answer it ends by itself."""
        self.start()
        self.reactor.advance(9.9)
        self.assertEqual(self.told, [])
        self.reactor.advance(0.1)
        why = self.settled()
        assert isinstance(why, TimedOutError)
        self.assertIn("10 s", str(why))

    def test_cancel(self) -> None:
        """Nobody is told, the socket is closed, nothing is left; also where it had failed at once."""
        for code in (errno.EINPROGRESS, errno.ECONNREFUSED):
            connecting = self.start(code)
            connecting.cancel()
            connecting.cancel()
            self.reactor.advance(0)
            self.assertEqual((self.told, self.socket.open), ([], False))
            self.assertEqual((self.reactor.getWriters(), self.reactor.getDelayedCalls()), ([], []))


class ListenerTests(SynchronousTestCase):
    """A listening socket."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.socket = FakeSocket()
        self.sinks: list[Sink] = []
        self.attach: Callable[[Any], Sink] = Sink
        self.tuned: list[FakeSocket] = []
        self.listener = SocketListener(
            self.reactor,
            self.socket,  # type: ignore[arg-type]
            "test:1",
            lambda carrier: self.take(carrier),
            self.tuned.append,  # type: ignore[arg-type]
        )

    def take(self, carrier: Any) -> Sink:
        sink = self.attach(carrier)
        self.sinks.append(sink)
        return sink

    def test_some_each_turn(self) -> None:
        """A crowd is taken in portions, so that others get their turn; each socket is tuned."""
        self.socket.accepts = [FakeSocket() for _ in range(ACCEPTS_PER_TURN + 1)]
        self.listener.doRead()
        self.assertEqual(len(self.sinks), ACCEPTS_PER_TURN)
        self.listener.doRead()
        self.assertEqual((len(self.sinks), len(self.tuned)), (ACCEPTS_PER_TURN + 1, ACCEPTS_PER_TURN + 1))

    def test_a_flood_from_one_place(self) -> None:
        """Who comes too often is hung up on before it costs anything, and not too many a second even of
        those are taken; a neighbour's address is told to the gate, and strangers go on being taken later."""
        crowd = [FakeSocket() for _ in range(2_000)]
        self.socket.accepts = list(crowd)
        while self.listener in self.reactor.getReaders():
            self.listener.doRead()
        self.assertEqual((len(self.sinks), len(self.tuned)), (STRANGER_BURST, STRANGER_BURST))
        self.assertEqual(self.listener.turned_away, ACCEPT_BURST - STRANGER_BURST)
        self.assertFalse(any(sock.open for sock in crowd[STRANGER_BURST:ACCEPT_BURST]))
        self.listener.know("tcp:192.0.2.1:7001")
        self.reactor.advance(ACCEPT_SOON)
        self.assertIn(self.listener, self.reactor.getReaders())

    def test_gone_before_it_was_accepted(self) -> None:
        """A connection that was aborted while it waited is nobody's problem."""
        self.socket.accepts = [errno.ECONNABORTED, FakeSocket()]
        self.listener.doRead()
        self.listener.doRead()
        self.assertEqual(len(self.sinks), 1)

    def test_no_descriptors(self) -> None:
        """It rests for a while instead of asking without end, says so, and goes on by itself."""
        self.socket.accepts = [errno.EMFILE, FakeSocket()]
        self.listener.doRead()
        self.assertEqual(self.reactor.getReaders(), [])
        self.reactor.advance(ACCEPT_AGAIN)
        self.assertEqual(self.reactor.getReaders(), [self.listener])
        self.listener.doRead()
        self.assertEqual(len(self.sinks), 1)

    def test_stop_while_resting(self) -> None:
        """Nothing is left."""
        self.socket.accepts = [errno.EMFILE]
        self.listener.doRead()
        self.listener.stop()
        self.listener.stop()
        self.assertEqual((self.reactor.getReaders(), self.reactor.getDelayedCalls()), ([], []))

    def test_attach_raises(self) -> None:
        """That connection is closed, those behind it are taken, the listener stands."""
        good = self.attach

        def attach(carrier: Any) -> Sink:
            self.attach = good
            raise ZeroDivisionError

        self.attach = attach
        self.socket.accepts = [bad := FakeSocket(), FakeSocket()]
        self.listener.doRead()
        self.assertEqual((bad.open, len(self.sinks), self.socket.open), (False, 1, True))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_stopped_by_its_own_sink(self) -> None:
        """No more are taken in that turn."""
        good = self.attach

        def attach(carrier: Any) -> Sink:
            self.listener.stop()
            return good(carrier)

        self.attach = attach
        self.socket.accepts = [FakeSocket(), FakeSocket()]
        self.listener.doRead()
        self.assertEqual((len(self.sinks), len(self.socket.accepts)), (1, 1))
