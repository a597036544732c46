"""Streams of the simulated network keep the promises of meshnet/transports/interface.py."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lab.simulation.network import Conditions, Network
from lab.simulation.transport import WINDOW, Internet
from meshnet.errors import ConfigError, LocalError, MeshError, TimedOutError, UnreachableError
from meshnet.transports.interface import ByteCarrier, Transport


class Sink:
    """Collects what it receives through a small buffer; sends `queue` as the carrier allows."""

    def __init__(self, carrier: ByteCarrier, room: int = 1000) -> None:
        self.carrier = carrier
        self.got = bytearray()
        self.why: MeshError | None = None
        self.queue = b""
        self._memory = memoryview(bytearray(room))

    def buffer(self) -> memoryview:
        return self._memory

    def filled(self, size: int) -> None:
        self.got += self._memory[:size]

    def drained(self) -> None:
        self.send(b"")

    def lost(self, why: MeshError) -> None:
        assert self.why is None, "lost() is called once"
        self.why = why

    def send(self, data: bytes) -> None:
        self.queue += data
        taken = self.carrier.write(memoryview(self.queue))
        self.queue = self.queue[taken:]


class StreamTests(SynchronousTestCase):
    """Two places and a connection between them."""

    def connect(self, seed: int = 0, **conditions: float) -> tuple[Sink, Sink]:
        """A standing connection: the dialler's sink and the listener's."""
        self.network = Network(seed, Conditions(**conditions))  # type: ignore[arg-type]
        self.internet = Internet(self.network)
        one: Transport = self.internet.transport("a")
        two: Transport = self.internet.transport("b")
        sinks: list[Sink] = []

        def attach(carrier: ByteCarrier) -> Sink:
            sinks.append(Sink(carrier))
            return sinks[-1]

        self.listener = self.successResultOf(two.listen("b:1", attach))
        dialled = one.dial("b:1", attach)
        self.network.run(1)
        self.successResultOf(dialled)
        return sinks[1], sinks[0]

    @given(st.integers(), st.lists(st.binary(max_size=5000), max_size=20))
    def test_bytes_arrive_in_order(self, seed: int, pieces: list[bytes]) -> None:
        """Whatever the conditions, what is sent arrives whole and in order."""
        near, far = self.connect(seed, loss=0.3, jitter=0.05, rate=1e6)
        for piece in pieces:
            near.send(piece)
        self.network.run(600)
        self.assertEqual(bytes(far.got), b"".join(pieces))

    def test_a_slow_reader_stops_the_writer(self) -> None:
        """While the reader pauses, the writer can place one window and no more; then all flows."""
        near, far = self.connect()
        far.carrier.pause()
        near.send(bytes(3 * WINDOW))
        self.network.run(5)
        self.assertEqual((len(near.queue), len(far.got)), (2 * WINDOW, 0))
        far.carrier.resume()
        self.network.run(5)
        self.assertEqual((len(near.queue), len(far.got)), (0, 3 * WINDOW))

    def test_close_delivers_what_was_sent(self) -> None:
        """The peer reads everything, then learns of the end; both learn it once."""
        near, far = self.connect()
        near.send(b"last words")
        near.carrier.close()
        self.assertIsNone(near.why)
        self.network.run(1)
        self.assertEqual(bytes(far.got), b"last words")
        self.assertTrue(near.why and far.why)
        self.assertEqual(self.internet.connections, [])

    def test_sever(self) -> None:
        """A cut loses what is in flight, at both ends."""
        near, far = self.connect()
        near.send(b"never read")
        self.assertEqual(self.internet.sever("a", "b"), 1)
        self.network.run(1)
        self.assertEqual(bytes(far.got), b"")
        self.assertTrue(near.why and far.why)
        self.assertEqual(near.carrier.write(memoryview(b"x")), 0)

    def test_partition_holds_bytes_back(self) -> None:
        """A stream survives a partition; its bytes arrive after it."""
        near, far = self.connect()
        self.network.partition({"a"})
        near.send(b"one")
        near.send(b"two")
        self.network.run(20)
        self.assertEqual(bytes(far.got), b"")
        self.network.heal()
        self.network.run(1)
        self.assertEqual(bytes(far.got), b"onetwo")

    def test_dialling_nobody(self) -> None:
        """Nobody listening, a taken address, a partition, a bad address: each has its error."""
        self.connect()
        transport = self.internet.transport("a")
        nobody = transport.dial("b:2", Sink)
        self.network.partition({"a"})
        silence = transport.dial("b:1", Sink)
        self.network.heal()
        self.network.partition({"b"})
        self.network.run(30)
        self.failureResultOf(nobody, UnreachableError, TimedOutError)
        self.failureResultOf(silence, TimedOutError)
        self.failureResultOf(self.internet.transport("b").listen("b:1", Sink), LocalError)
        self.assertRaises(ConfigError, transport.check, ":1")

    def test_remove(self) -> None:
        """A place that is gone resets its connections and listens no more."""
        near, _ = self.connect()
        self.internet.remove("b")
        dialled = self.internet.transport("a").dial("b:1", Sink)
        self.network.run(1)
        self.assertTrue(near.why)
        self.failureResultOf(dialled, UnreachableError)
