"""A mesh stream behaves like a TCP connection to a Twisted protocol."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableDescriptor,
    IHalfCloseableProtocol,
    IPushProducer,
    ITransport,
)
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from meshnet.errors import RefusedError
from meshnet.session.codes import StreamResetError
from meshnet.stream_transport import (
    LINGER_BYTES,
    LINGER_SECONDS,
    PIECE,
    MeshAddress,
    StreamTransport,
    accept_transport,
    connect_transport,
)
from tests.support.streams import FakeMesh


class Record(Protocol):
    """Writes down what a transport does to it."""

    transport: Any

    def __init__(self) -> None:
        self.data = b""
        self.reason: Failure | None = None
        self.made = 0
        self.pause_at: int | None = None

    def connectionMade(self) -> None:
        self.made += 1

    def dataReceived(self, data: bytes) -> None:
        assert type(data) is bytes
        self.data += data
        if self.pause_at is not None and len(self.data) >= self.pause_at:
            self.transport.pauseProducing()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        assert self.reason is None, "connectionLost twice"
        self.reason = reason


@implementer(IHalfCloseableProtocol)
class HalfRecord(Record):
    """The same, staying open when the other side finishes."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[str] = []

    def readConnectionLost(self) -> None:
        self.ends.append("read")

    def writeConnectionLost(self) -> None:
        self.ends.append("write")


@implementer(IPushProducer)
class Producer:
    """Counts what a consumer asks of it."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


class Base(SynchronousTestCase):
    """Two nodes and a stream between two protocols."""

    def join(self, near: Record, far: Record, window: int = 1000) -> None:
        self.mesh = FakeMesh(window=window)
        self.a, self.b = self.mesh.node("a"), self.mesh.node("b")
        self.b.listen(7, lambda stream: accept_transport(self.b, stream, lambda peer: far))
        d = connect_transport(self.a, self.b.public_key, 7, lambda peer: near)
        self.mesh.flush()
        self.assertIs(self.successResultOf(d), near)
        self.near, self.far = near, far


class StreamTransportTests(Base):
    def test_interfaces(self) -> None:
        """It provides what it says, and knows both addresses."""
        self.join(Record(), Record())
        transport = self.near.transport
        for interface in (ITransport, IPushProducer, IConsumer, IHalfCloseableDescriptor):
            verifyObject(interface, transport)
        self.assertEqual(transport.getPeer(), MeshAddress(self.b.public_key, 7))
        self.assertEqual(transport.getHost(), MeshAddress(self.a.public_key, 0))
        self.assertEqual(self.far.transport.getPeer(), MeshAddress(None, 0))
        self.assertEqual(self.far.transport.getHost(), MeshAddress(self.b.public_key, 7))

    def test_bytes_both_ways(self) -> None:
        """Bytes arrive in order, also more than a window of them."""
        self.join(Record(), Record(), window=10)
        self.near.transport.write(b"0123456789" * 5)
        self.near.transport.writeSequence([b"ab", b"cd"])
        self.far.transport.write(b"answer")
        self.mesh.flush()
        self.assertEqual(self.far.data, b"0123456789" * 5 + b"abcd")
        self.assertEqual(self.near.data, b"answer")
        self.assertEqual(self.near.transport.sent, 54)
        self.assertEqual(self.far.transport.received, 54)

    @given(st.lists(st.binary(max_size=40), max_size=12), st.integers(1, 30))
    def test_any_writes_through_any_window(self, pieces: list[bytes], window: int) -> None:
        """Whatever the pieces and the window, the bytes are the same and all credit comes back."""
        self.join(Record(), Record(), window=window)
        for piece in pieces:
            self.near.transport.write(piece)
        self.near.transport.loseConnection()
        self.mesh.flush(2000)
        self.assertEqual(self.far.data, b"".join(pieces))
        self.assertEqual(self.b.streams[0].credited, len(self.far.data))
        assert self.far.reason is not None and self.near.reason is not None
        self.assertTrue(self.far.reason.check(ConnectionDone))
        self.assertTrue(self.near.reason.check(ConnectionDone))

    def test_paused_reader_closes_the_window(self) -> None:
        """What arrives while paused is held, not delivered, not credited; the writer's producer pauses."""
        far = Record()
        far.pause_at = 1
        self.join(Record(), far, window=10)
        producer = Producer()
        self.near.transport.registerProducer(producer, True)
        self.near.transport.write(b"x")
        self.mesh.flush()
        self.near.transport.write(b"y" * 30)
        self.mesh.flush()
        self.assertEqual(far.data, b"x")
        self.assertEqual(self.b.streams[0].credited, 0)
        self.assertEqual(producer.calls, ["pause"])
        far.pause_at = None
        far.transport.resumeProducing()
        self.mesh.flush()
        self.assertEqual(far.data, b"x" + b"y" * 30)
        self.assertEqual(producer.calls, ["pause", "resume"])

    def test_end_waits_for_a_paused_reader(self) -> None:
        """A paused protocol hears of the end only after the last byte."""
        far = HalfRecord()
        far.pause_at = 1
        self.join(Record(), far)
        self.near.transport.write(b"one")
        self.mesh.flush()
        self.near.transport.write(b"two")
        self.near.transport.loseConnection()
        self.mesh.flush()
        self.assertEqual((far.data, far.ends), (b"one", []))
        far.pause_at = None
        far.transport.resumeProducing()
        self.assertEqual((far.data, far.ends), (b"onetwo", ["read"]))

    def test_half_close(self) -> None:
        """After loseWriteConnection the other side may answer at leisure; then both are done."""
        near, far = HalfRecord(), HalfRecord()
        self.join(near, far, window=4)
        near.transport.write(b"question")
        near.transport.loseWriteConnection()
        near.transport.write(b"ignored")
        self.mesh.flush()
        self.assertEqual((far.data, far.ends, near.ends), (b"question", ["read"], ["write"]))
        self.assertIsNone(near.reason)
        far.transport.write(b"the answer")
        far.transport.loseWriteConnection()
        self.mesh.flush()
        self.assertEqual((near.data, near.ends), (b"the answer", ["write", "read"]))
        for side in (near, far):
            assert side.reason is not None
            self.assertTrue(side.reason.check(ConnectionDone))

    def test_plain_protocol_ends_with_its_peer(self) -> None:
        """A protocol that knows no half close is done when the peer is, and nothing lingers."""
        self.join(HalfRecord(), Record())
        self.near.transport.loseWriteConnection()
        self.mesh.flush()
        assert self.far.reason is not None and self.near.reason is not None
        self.assertTrue(self.far.reason.check(ConnectionDone))
        self.assertEqual(self.mesh.reactor.getDelayedCalls(), [])

    def test_abort(self) -> None:
        """abortConnection resets: the peer gets an error."""
        self.join(Record(), Record())
        self.near.transport.abortConnection()
        self.assertIsNone(self.near.reason)  # never from within the call
        self.mesh.flush()
        assert self.far.reason is not None and self.near.reason is not None
        self.assertTrue(self.near.reason.check(ConnectionAborted))
        self.assertTrue(self.far.reason.check(StreamResetError))

    def test_close_waits_for_the_producer(self) -> None:
        """loseConnection lets a registered producer write to its end."""
        self.join(Record(), Record())
        producer = Producer()
        self.near.transport.registerProducer(producer, True)
        self.near.transport.loseConnection()
        self.near.transport.write(b"late")
        self.mesh.flush()
        self.assertIsNone(self.near.reason)
        self.near.transport.unregisterProducer()
        self.mesh.flush()
        self.assertEqual(self.far.data, b"late")
        self.assertIsNotNone(self.near.reason)

    def test_pull_producer(self) -> None:
        """A pull producer is asked once per turn, and not while bytes wait."""
        self.join(Record(), Record(), window=3)
        transport = self.near.transport
        pieces = [b"ab", b"cd", b"ef", b"gh"]

        class Pull:
            def resumeProducing(self) -> None:
                if pieces:
                    transport.write(pieces.pop(0))
                else:
                    transport.unregisterProducer()

            def stopProducing(self) -> None:
                raise AssertionError("not stopped")

        transport.registerProducer(Pull(), False)
        self.mesh.flush()
        self.assertEqual(self.far.data, b"abcdefgh")
        self.assertRaises(RuntimeError, self._register_two)

    def _register_two(self) -> None:
        self.near.transport.registerProducer(Producer(), True)
        self.near.transport.registerProducer(Producer(), True)

    def test_producer_stops_with_the_stream(self) -> None:
        """A lost stream stops its producer, and one that comes late."""
        self.join(Record(), Record())
        producer, late = Producer(), Producer()
        self.near.transport.registerProducer(producer, True)
        self.far.transport.abortConnection()
        self.mesh.flush()
        self.near.transport.registerProducer(late, True)
        self.assertEqual((producer.calls, late.calls), (["stop"], ["stop"]))

    def test_a_peer_that_wants_no_more(self) -> None:
        """STOP ends the writing half: what waits is dropped, producers are stopped, reading goes on, and the
        connection is done when the peer has finished."""
        near, far = HalfRecord(), Record()
        self.join(near, far, window=4)
        producer, late = Producer(), Producer()
        near.transport.registerProducer(producer, True)
        far.transport.pauseProducing()
        near.transport.write(b"question")
        self.b.streams[0].stop()
        self.mesh.flush()
        self.assertEqual((producer.calls, near.ends), (["pause", "stop"], ["write"]))
        near.transport.write(b"ignored")
        near.transport.registerProducer(late, True)
        self.assertEqual(late.calls, ["stop"])
        far.transport.write(b"an answer")
        far.transport.loseConnection()
        self.mesh.flush()
        self.assertEqual((near.data, near.ends), (b"an answer", ["write", "read"]))
        assert near.reason is not None
        self.assertTrue(near.reason.check(ConnectionDone))

    def test_a_write_after_stop(self) -> None:
        """Who has not waited for room learns it by its next write; a plain protocol then only reads."""
        near, far = Record(), Record()
        self.join(near, far)
        self.b.streams[0].stop()
        near.transport.write(b"nobody wants it")
        far.transport.write(b"an answer")
        self.mesh.flush()
        self.assertEqual((near.data, near.reason, far.data), (b"an answer", None, b""))
        near.transport.loseConnection()
        self.mesh.flush()
        assert near.reason is not None
        self.assertTrue(near.reason.check(ConnectionDone))

    def test_talkative_peer_after_close(self) -> None:
        """After our close the peer's bytes are thrown away up to a bound, then the stream is reset."""
        self.join(HalfRecord(), HalfRecord(), window=1 << 16)
        self.near.transport.loseConnection()
        self.mesh.flush()
        self.far.transport.write(bytes(LINGER_BYTES - 1))
        self.mesh.flush()
        self.assertIsNone(self.far.reason)
        self.far.transport.write(bytes(2))
        self.mesh.flush()
        assert self.far.reason is not None
        self.assertTrue(self.far.reason.check(StreamResetError))
        self.assertEqual(self.mesh.reactor.getDelayedCalls(), [])

    def test_silent_peer_after_close(self) -> None:
        """A peer that never finishes is reset after a while."""
        self.join(HalfRecord(), HalfRecord())
        self.near.transport.loseConnection()
        self.mesh.flush()
        self.mesh.reactor.advance(LINGER_SECONDS)
        self.mesh.flush()
        assert self.far.reason is not None
        self.assertTrue(self.far.reason.check(StreamResetError))

    def test_many_small_pieces(self) -> None:
        """A sender of single bytes costs a paused reader no more than the bytes."""
        far = Record()
        far.pause_at = 1
        self.join(Record(), far, window=PIECE + 10)
        for number in range(500):
            self.near.transport.write(bytes([number % 256]))
        self.near.transport.write(bytes(PIECE))
        self.mesh.flush(1000)
        self.assertEqual(far.data, b"\0")
        far.pause_at = None
        far.transport.resumeProducing()
        self.mesh.flush(1000)
        self.assertEqual(far.data, bytes(number % 256 for number in range(500)) + bytes(PIECE))
        self.assertEqual(self.b.streams[0].credited, PIECE + 500)

    def test_bytes_before_attach(self) -> None:
        """What arrives before the protocol is there is held, an early loss too."""
        mesh = FakeMesh()
        node = mesh.node("a")
        transport = StreamTransport(node.clock, MeshAddress(None, 0), MeshAddress(None, 0))
        transport.data_received(memoryview(b"early"))
        transport.lost(RefusedError("gone"))
        mesh.flush()
        record = Record()
        transport.attach(None, record)  # type: ignore[arg-type]
        mesh.flush()
        self.assertEqual(record.made, 1)
        assert record.reason is not None
        self.assertTrue(record.reason.check(RefusedError))
