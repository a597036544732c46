"""A Twisted connection as a stream: bytes both ways, back-pressure both ways, and how it ends."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from meshnet.errors import UnreachableError
from meshnet.stream_protocol import WINDOW, StreamProtocol


class Reader:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.told: list[Any] = []

    def data_received(self, data: memoryview) -> None:
        """Bytes."""
        self.got += data

    def finished(self) -> None:
        """The end."""
        self.told.append("finished")

    def lost(self, why: Exception) -> None:
        """The connection is gone."""
        self.told.append(why)

    def drained(self) -> None:
        """Room."""
        self.told.append("drained")


class StreamTests(SynchronousTestCase):
    """One connection over a transport in memory."""

    def setUp(self) -> None:
        self.reader = Reader()
        self.stream = StreamProtocol(lambda stream: self.reader)
        self.transport: Any = StringTransport()
        self.stream.makeConnection(self.transport)

    def test_bytes(self) -> None:
        """In and out; whoever asks when the other side is there hears it at once."""
        self.stream.dataReceived(b"hello")
        self.assertEqual(self.reader.got, b"hello")
        self.assertEqual(self.stream.write(memoryview(b"world")), 5)
        self.assertEqual(self.transport.value(), b"world")
        met: list[bool] = []
        self.stream.when_met(lambda: met.append(True))
        self.assertEqual(met, [True])

    def test_a_full_transport(self) -> None:
        """It takes nothing until there is room; who was told so hears of that, once."""
        self.stream.pauseProducing()
        self.assertEqual(self.stream.write(b"x"), 0)
        self.stream.resumeProducing()
        self.stream.pauseProducing()
        self.stream.resumeProducing()
        self.assertEqual(self.reader.told, ["drained"])
        self.assertEqual(self.stream.write(b"x"), 1)

    def test_a_slow_reader(self) -> None:
        """Beyond the window the connection is not read, until half of it was consumed."""
        self.stream.dataReceived(bytes(WINDOW))
        self.assertEqual(self.transport.producerState, "producing")
        self.stream.dataReceived(b"x")
        self.assertEqual(self.transport.producerState, "paused")
        self.stream.consumed(WINDOW // 2)
        self.assertEqual(self.transport.producerState, "paused")
        self.stream.consumed(1)
        self.assertEqual(self.transport.producerState, "producing")

    def test_ends(self) -> None:
        """In order, lost, reset by us: the reader hears what it has to, once."""
        self.stream.connectionLost(Failure(ConnectionDone()))
        self.stream.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.reader.told[0], "finished")
        self.assertIsInstance(self.reader.told[1], UnreachableError)
        self.assertEqual(len(self.reader.told), 2)
        self.setUp()
        self.stream.connectionLost(Failure(ConnectionLost()))
        self.assertIsInstance(self.reader.told[0], UnreachableError)
        self.setUp()
        self.stream.reset()
        self.assertTrue(self.transport.disconnected)
        self.stream.dataReceived(b"late")
        self.stream.connectionLost(Failure(ConnectionLost()))
        self.assertEqual((self.reader.told, self.reader.got), ([], b""))
        self.setUp()
        self.stream.finish()
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual(self.stream.write(b"late"), 0)
        self.assertEqual(self.transport.value(), b"")

    def test_refused(self) -> None:
        """Nobody wants the connection: it is aborted."""
        stream, transport = StreamProtocol(lambda stream: None), StringTransport()
        stream.makeConnection(transport)
        self.assertTrue(transport.disconnected)
        stream.dataReceived(b"x")
        stream.connectionLost(Failure(ConnectionLost()))
