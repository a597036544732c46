"""The life of a session: AUTH, streams opened and refused, faults, CLOSE."""

from __future__ import annotations

import gc
import weakref

from twisted.trial.unittest import SynchronousTestCase

from meshnet.errors import (
    Drop,
    MeshError,
    ProtocolError,
    RefusedError,
    RemoteError,
    UnreachableError,
    UsageError,
)  # fmt: skip
from meshnet.limits import PACKETS
from meshnet.session import items, keys
from meshnet.session.codes import Code
from meshnet.session.events import Closed, DatagramReceived, Opened, Ponged
from meshnet.session.session import SessionLimits
from meshnet.session.streams import Stream
from tests.meshnet.session.pair import Pair, Recorder, circuit_keys, key
from tests.meshnet.session.test_items import data


class AuthTests(SynchronousTestCase):
    def test_anonymous(self) -> None:
        """Without an identity the last hop knows nobody."""
        pair = Pair(1)
        pair.run(1.0)
        self.assertEqual([event.identity for event in pair.event(Opened)], [None, None])
        self.assertIsNone(pair.b.session.identity)

    def test_caller(self) -> None:
        """A caller proves its key; streams know it."""
        pair = Pair(2, identity=key("caller"))
        pair.open()
        pair.run(1.0)
        self.assertEqual(pair.b.session.identity, key("caller").public)
        self.assertEqual(pair.streams[0].peer, key("caller").public)
        self.assertEqual(pair.a.session.peer, key("service").public)

    def test_lost_auth(self) -> None:
        """Cells that overtake AUTH are held, and acknowledged only when it came."""
        pair = Pair(3, identity=key("caller"))
        pair.cut = True
        pair.pump()
        pair.cut = False
        reader = pair.send(b"early" * 1_000)
        pair.run(0.1)
        self.assertEqual((pair.readers, pair.b.sizes), ([], []))
        self.assertTrue(pair.run(5.0, lambda: bool(pair.readers and pair.readers[0].ended)))
        self.assertEqual(pair.readers[0].data, reader.content)
        self.assertEqual(pair.streams[0].peer, key("caller").public)

    def test_held_is_bounded(self) -> None:
        """Before AUTH at most 64 KiB are held; the rest is dropped unacknowledged."""
        pair = Pair(4)
        drops = [pair.inject(0, data(0, 0, bytes(20_000), False), 100 + i) for i in range(8)]
        self.assertEqual(drops[:3], [Drop.NONE] * 3)
        self.assertEqual(drops[3:], [Drop.NOT_OPEN] * 5)
        self.assertEqual(pair.b.sizes, [])

    def closes(self, pair: Pair, code: Code) -> Closed:
        """Both sides end; the origin is told `code`."""
        pair.run(10.0)
        told = {end.events[-1] for end in pair.ends}
        self.assertEqual({type(event) for event in told}, {Closed})
        heard = [event for event in pair.event(Closed) if event.by_peer]
        self.assertEqual(len(heard), 1)
        if code not in (Code.AUTH, Code.GONE):
            self.assertIn(f"code {int(code)}", str(heard[0].error))
        for end in pair.ends:
            self.assertFalse(end.session.live)
            self.assertIsNone(end.timer)
        return heard[0]

    def test_wrong_mac(self) -> None:
        """A proof that is none, and a session to join that is not known, get the same CLOSE."""
        texts = set()
        circuit = circuit_keys("x")[0]
        for item in (
            items.auth_item(items.AUTH_CALLER, key("caller").public + bytes(32)),
            items.auth_item(items.AUTH_CALLER, bytes(65)),
            keys.join_auth(circuit, circuit),
        ):
            pair = Pair(5)
            self.assertEqual(pair.inject(0, item), Drop.MALFORMED)
            error = self.closes(pair, Code.AUTH).error
            self.assertIsInstance(error, RefusedError)
            texts.add(str(error))
            self.assertIsNone(pair.b.session.identity)
        self.assertEqual(len(texts), 1)

    def test_second_auth(self) -> None:
        """The same AUTH again is harmless, a different one closes."""
        pair = Pair(6)
        pair.run(1.0)
        self.assertEqual(pair.inject(0, items.auth_item(0)), Drop.NONE)
        self.assertEqual(
            pair.inject(0, keys.caller_auth(pair.keys_a, key("caller"))),
            Drop.MALFORMED,
        )
        self.closes(pair, Code.AUTH)
        self.assertIsNone(pair.b.session.identity)

    def test_auth_backward(self) -> None:
        """The last hop sends no AUTH."""
        pair = Pair(7)
        pair.run(1.0)
        self.assertEqual(pair.inject(1, items.auth_item(0)), Drop.MALFORMED)
        self.closes(pair, Code.AUTH)

    def test_cell_limit(self) -> None:
        """The last hop learns from the origin what the relays carry."""
        pair = Pair(9, max_cell=2_000)
        path = pair.b.session.path
        path.max_cell = path.rate.largest_cell = 61_000
        writer = pair.open()
        self.assertTrue(pair.run(10.0, lambda: bool(pair.streams)))
        pair.streams[0].write(bytes(1_000_000))
        pair.run(10.0, lambda: len(writer.data) == 1_000_000)
        self.assertEqual((path.max_cell, max(pair.b.sizes)), (2_000, 2_000))

    def test_last_hop_is_silent_first(self) -> None:
        """The last hop fills nothing before AUTH, whatever it wants to say."""
        pair = Pair(8)
        pair._awake.clear()
        pair.open(side=1)
        pair.b.session.ping(0.0)
        room = memoryview(bytearray(2_000))
        self.assertEqual(pair.b.session.path.fill(room, 0.0), 0)
        pair._awake.add(0)
        pair.run(1.0)
        self.assertEqual(len(pair.readers), 1)


class StreamTests(SynchronousTestCase):
    def test_half_close(self) -> None:
        """One direction ends, the other goes on."""
        pair = Pair(10)
        writer = pair.send(b"question")
        self.assertTrue(pair.run(1.0, lambda: bool(pair.readers and pair.readers[0].ended)))
        stream = pair.streams[0]
        pair.run(5.0)
        self.assertEqual(stream.write(b"answer"), 6)
        pair.run(1.0)
        self.assertEqual((writer.data, writer.ended), (b"answer", 0))
        stream.finish()
        stream.finish()
        pair.run(1.0)
        self.assertEqual((writer.ended, pair.a.session.streams, pair.b.session.streams), (1, 0, 0))
        self.assertRaises(UsageError, stream.write, b"more")

    def test_ids(self) -> None:
        """The origin's streams are even, the other side's odd."""
        pair = Pair(11)
        pair.run(1.0)
        readers = [pair.open(side=side) for side in (0, 0, 1, 1)]
        self.assertEqual([reader.stream.id for reader in readers], [0, 2, 1, 3])
        pair.run(1.0)
        self.assertEqual(len(pair.readers), 4)

    def test_ports(self) -> None:
        """The port arrives; 0 and 65,536 are none."""
        pair = Pair(12)
        pair.open(port=65_535)
        pair.run(1.0)
        self.assertEqual(pair.streams[0].port, 65_535)
        for port in (0, 65_536, -1):
            self.assertRaises(UsageError, pair.open, None, port)

    def test_refused(self) -> None:
        """A port nobody listens on: RefusedError that names it, and nothing is left."""
        pair = Pair(13, accept=False)
        reader = pair.open(port=443)
        reader.stream.write(b"x" * 5_000)
        pair.run(5.0)
        self.assertIsInstance(reader.why, RefusedError)
        self.assertIn("port 443 is not open there", str(reader.why))
        self.assertEqual((pair.a.session.streams, pair.b.session.streams), (0, 0))
        self.assertEqual(reader.stream.write(b"late"), 0)

    def test_reset(self) -> None:
        """Either side ends both directions; the other reader hears it, the caller's hears nothing."""
        for side in (0, 1):
            pair = Pair(14, loss=0.1)
            opener = pair.open()
            opener.stream.write(bytes(100_000))
            self.assertTrue(pair.run(5.0, lambda p=pair: bool(p.readers)))
            pair.run(0.05)
            ours, other = (opener, pair.readers[0]) if side == 0 else (pair.readers[0], opener)
            ours.stream.reset(300)
            pair.run(20.0)
            self.assertEqual(getattr(other.why, "code", None), 300)
            self.assertIsInstance(other.why, RemoteError)
            self.assertIsNone(ours.why)
            self.assertEqual((pair.a.session.streams, pair.b.session.streams), (0, 0))
            for end in pair.ends:
                inbox = end.session._inbox
                self.assertEqual(inbox.received, inbox.consumed, "all credit is given back")

    def test_reset_at_once(self) -> None:
        """A stream that is reset before its OPEN was sent leaves nothing on either side."""
        pair = Pair(15, loss=0.3)
        for _ in range(20):
            pair.open().stream.reset()
        pair.run(60.0)
        self.assertEqual((pair.a.session.streams, pair.b.session.streams), (0, 0))

    def test_stop(self) -> None:
        """`stop` ends the peer's direction only; what he writes then is not taken."""
        pair = Pair(16)
        opener = pair.open()
        pair.run(1.0)
        answer = pair.streams[0]
        answer.write(b"a")
        pair.run(1.0)
        opener.stream.stop()
        answer.write(b"b")
        pair.run(1.0)
        self.assertEqual(opener.data, b"a")
        self.assertEqual((answer.stopped, answer.write(bytes(10 << 20))), (True, 0))
        self.assertFalse(opener.stream.stopped)
        opener.stream.write(b"still here")
        opener.stream.finish()
        pair.run(1.0)
        self.assertEqual((pair.readers[0].data, pair.readers[0].ended), (b"still here", 1))
        self.assertIsNone(opener.why)
        self.assertEqual((pair.a.session.streams, pair.b.session.streams), (0, 0))

    def test_reset_after_the_end(self) -> None:
        """Who has ended in order and then resets does not want the rest: the writer hears it, though only
        STOP can say it. Where all had arrived nobody hears anything."""
        for sent, arrives in ((1 << 20, False), (10, True)):
            pair = Pair(19, greedy=False)
            opener = pair.open()
            pair.run(1.0)
            answer = pair.streams[0]
            answer.finish()
            pair.run(1.0)
            self.assertEqual(opener.ended, 1)
            opener.stream.write(bytes(sent))
            if arrives:
                opener.stream.finish()
            pair.run(1.0)
            answer.reset()
            pair.run(5.0)
            self.assertEqual(opener.why is None, arrives)
            self.assertEqual((pair.a.session.streams, pair.b.session.streams), (0, 0))

    def test_stop_wakes_a_writer(self) -> None:
        """Who waits for room hears `drained` when the reader has stopped."""
        pair = Pair(17, greedy=False)
        opener = pair.open()
        pair.run(1.0)
        while opener.stream.write(bytes(1 << 20)) == 1 << 20:
            pass
        pair.run(5.0)
        drains = opener.drains
        opener.stream.write(bytes(10 << 20))
        pair.streams[0].stop()
        pair.run(1.0)
        self.assertGreater(opener.drains, drains)

    def test_an_eager_writer(self) -> None:
        """Who writes for as long as all is taken comes to an end after STOP and after RESET."""
        for end in (Stream.stop, Stream.reset):
            pair = Pair(18, greedy=False)
            opener = pair.open()
            pair.run(1.0)

            def write(opener: Recorder = opener) -> None:
                for _ in range(10_000):
                    if opener.stream.write(bytes(1 << 16)) < 1 << 16:
                        return
                self.fail("it writes without end")

            opener.drained = write  # type: ignore[method-assign]
            write()
            pair.run(1.0)
            end(pair.streams[0])
            pair.run(5.0)
            write()
            self.assertTrue(opener.stream.stopped)

    def test_too_many(self) -> None:
        """Our own limit is an error at once, the peer's refuses the stream above it."""
        pair = Pair(18, limits=SessionLimits(streams=5), limits_b=SessionLimits(streams=3))
        readers = [pair.open() for _ in range(5)]
        self.assertRaises(RefusedError, pair.open)
        pair.run(5.0)
        self.assertEqual([reader.why is None for reader in readers], [True] * 3 + [False] * 2)
        self.assertIn("too many streams", str(readers[4].why))
        readers[0].stream.reset()
        pair.run(5.0)
        again = pair.open()
        pair.run(5.0)
        self.assertIsNone(again.why)

    def test_consumed_too_much(self) -> None:
        """Nobody consumes what he was not given."""
        pair = Pair(19, greedy=False)
        pair.send(b"12345")
        pair.run(1.0)
        self.assertRaises(UsageError, pair.streams[0].consumed, 6)
        self.assertRaises(UsageError, pair.streams[0].consumed, -1)
        pair.streams[0].consumed(5)

    def test_write_any_buffer(self) -> None:
        """bytes, bytearray, memoryviews of any shape."""
        pair = Pair(20)
        stream = pair.open().stream
        for piece in (b"ab", bytearray(b"cd"), memoryview(b"efgh").cast("H"), memoryview(b"xix")[1:2], b""):
            self.assertEqual(stream.write(piece), memoryview(piece).nbytes)
        pair.run(1.0)
        self.assertEqual(pair.readers[0].data, b"abcdefghi")

    def test_open_from_accept(self) -> None:
        """An app may open, write, finish and reset from inside the calls it gets."""
        pair = Pair(21)

        class Echo(Recorder):
            def data_received(self, data: memoryview) -> None:
                self.stream.write(data)
                self.stream.consumed(len(data))

            def finished(self) -> None:
                self.stream.finish()

        def accept(stream):
            reader = Echo()
            reader.stream = stream
            return reader

        pair.b.session.accept = accept
        writer = pair.send(bytes(range(256)) * 100)
        self.assertTrue(pair.run(10.0, lambda: writer.ended == 1))
        self.assertEqual(bytes(writer.data), bytes(writer.content))


class FaultTests(SynchronousTestCase):
    def test_faults_close(self) -> None:
        """Authenticated nonsense closes the session with a code, on both sides, at once."""
        two = items.open_item(0, 80, 1 << 20)
        cases = {
            b"\x3f": Code.MALFORMED,
            b"\x02\x40\xff\x00\x00\x00\x00": Code.MALFORMED,  # an ACK of what was never sent
            data(0, 1 << 20, b"x", False): Code.FLOW_CONTROL,
            two + data(0, 0, b"abc", True) + data(0, 3, b"d", False): Code.STREAM_STATE,
            two + data(0, 3, b"abc", False) + data(0, 0, b"d", True): Code.STREAM_STATE,
            data(1, 0, b"x", False): Code.STREAM_STATE,  # a stream of ours that was never opened
            items.open_item(1, 80, 5): Code.STREAM_STATE,
            items.open_item(0, 0, 5): Code.STREAM_STATE,
            items.item(items.CELL_LIMIT, 1_199): Code.MALFORMED,
            items.open_item(2 * 5_000, 80, 5): Code.LIMIT,
            two + items.item(items.RESET, 0, 0, 1 << 40): Code.FLOW_CONTROL,
        }
        for cell, code in cases.items():
            pair = Pair(30)
            pair.run(1.0)
            pair.readers.clear()
            drop = pair.inject(0, cell)
            self.assertEqual(drop, Drop.MALFORMED, cell.hex())
            closed = AuthTests.closes(self, pair, code)
            self.assertIsInstance(closed.error, RemoteError)
            own = [event for event in pair.b.events if isinstance(event, Closed)]
            self.assertIsInstance(own[0].error, ProtocolError)
            for reader in pair.readers:
                self.assertIsInstance(reader.why, MeshError)

    def test_session_window(self) -> None:
        """More than the session's window over many streams closes too."""
        pair = Pair(31, greedy=False)
        pair.b.session.outbox._items.clear()  # it never says SESSION-WINDOW
        pair.run(1.0)
        drops = [pair.inject(0, data(2 * i, 0, bytes(50_000), False)) for i in range(30)]
        self.assertIn(Drop.MALFORMED, drops)
        AuthTests.closes(self, pair, Code.FLOW_CONTROL)

    def test_gaps(self) -> None:
        """Too many gaps: the cell is not taken and not acknowledged; the session lives."""
        pair = Pair(32)
        pair.run(1.0)
        pair.inject(0, items.open_item(0, 80, 1 << 20))
        drops = {pair.inject(0, data(0, 2 * i + 1, b"x", False)) for i in range(1_100)}
        self.assertEqual(drops, {Drop.NONE, Drop.NO_ROOM})
        self.assertTrue(pair.b.session.live)

    def test_bad_cells(self) -> None:
        """Forged, short, replayed and impossible cells are dropped by name and change nothing."""
        pair = Pair(33)
        pair.run(1.0)
        number = pair.a.session.path.recovery.next
        good = pair.seal(0, number, b"\0")
        self.assertEqual(pair.arrive(1, number, good[:-1] + bytes((good[-1] ^ 1,))), Drop.BAD_TAG)
        self.assertEqual(pair.arrive(1, number + 1, good), Drop.BAD_TAG)
        self.assertEqual(pair.arrive(0, number, good), Drop.BAD_TAG)
        for short in (b"", b"x" * 15, b"x" * 16):
            self.assertEqual(pair.arrive(1, number, short), Drop.BAD_TAG)
        for impossible in (PACKETS, (1 << 64) - 1, -1):
            self.assertEqual(pair.arrive(1, impossible, good), Drop.TOO_LARGE)
        self.assertEqual(pair.arrive(1, number, good), Drop.NONE)
        self.assertEqual(pair.arrive(1, number, good), Drop.REPLAYED)
        self.assertEqual(pair.arrive(1, number + 9_000, pair.seal(0, number + 9_000, b"")), Drop.NONE)
        self.assertEqual(pair.arrive(1, number + 1, pair.seal(0, number + 1, b"")), Drop.TOO_OLD)
        path = pair.b.session.path
        self.assertEqual((path.bad_tags, path.replayed), (5, 2))
        self.assertTrue(pair.b.session.live)

    def test_numbers_end(self) -> None:
        """No packet number is used twice: at 2³² the circuit ends."""
        pair = Pair(34)
        pair.run(1.0)
        pair.a.session.path.recovery.next = PACKETS - 1
        reader = pair.open()
        pair.pump()
        reader.stream.write(b"x")
        pair.pump()
        self.assertIn("used up its packet numbers", str(reader.why))
        self.assertEqual(pair.a.session.path.number, PACKETS - 1)


class CloseTests(SynchronousTestCase):
    def test_close(self) -> None:
        """CLOSE ends both sides; readers hear why; both are silent afterwards."""
        pair = Pair(40)
        reader = pair.open()
        pair.run(1.0)
        pair.a.session.close(Code.GONE, "the node stops", pair.now)
        pair.run(10.0)
        self.assertIn("the node stops", str(reader.why))
        self.assertIn("the other node closed the session: the node stops", str(pair.readers[0].why))
        self.assertEqual([event.by_peer for event in pair.event(Closed)], [False, True])
        self.assertRaises(UnreachableError, pair.open)
        self.assertFalse(pair.a.session.send_datagram(1, b"x"))
        pair.a.session.close(0, "again", pair.now)
        pair.a.session.ping(pair.now)
        pair.run(10.0)
        self.assertEqual(len(pair.event(Closed)), 2)

    def test_lost_close(self) -> None:
        """A lost CLOSE is repeated when the other side goes on sending."""
        pair = Pair(41)
        reader = pair.open()
        pair.run(1.0)
        pair.cut = True
        pair.b.session.close(Code.GONE, "bye", pair.now)
        pair.pump()
        pair.cut = False
        self.assertIsNone(reader.why)
        reader.stream.write(b"are you there?")
        pair.run(10.0)
        self.assertIn("bye", str(reader.why))

    def test_path_lost(self) -> None:
        """The owner says that the circuit is gone: readers hear that very error."""
        pair = Pair(42)
        reader = pair.open()
        pair.run(1.0)
        why = UnreachableError("relay 2 is gone")
        pair.a.session.paths.lose(pair.a.session.path, why, pair.now)
        pair.pump()
        self.assertIs(reader.why, why)
        self.assertIs(pair.event(Closed)[0].error, why)
        self.assertIsNone(pair.a.timer)

    def test_memory(self) -> None:
        """A closed session keeps no stream alive."""
        pair = Pair(43)
        pair.send(bytes(1_000_000))
        pair.run(0.1)
        pair.a.session.close(0, "", pair.now)
        reader = weakref.ref(pair.readers[0])
        pair.run(10.0)
        pair.streams.clear()
        pair.readers.clear()
        gc.collect()
        self.assertIsNone(reader())


class MessageTests(SynchronousTestCase):
    def test_datagrams(self) -> None:
        """Datagrams arrive with their ports, up to the size of the path, each once or never."""
        pair = Pair(50, max_cell=16_384)
        pair.run(1.0)
        largest = 16_384 - 16 - items.DATAGRAM_HEADER
        for size in (0, 100, largest):
            self.assertTrue(pair.a.session.send_datagram(53, bytes(size), 1_000))
        self.assertFalse(pair.a.session.send_datagram(53, bytes(largest + 1)))
        pair.run(1.0)
        got = pair.event(DatagramReceived)
        self.assertEqual(
            [(event.source, event.target, len(event.data)) for event in got],
            [(1_000, 53, 0), (1_000, 53, 100), (1_000, 53, largest)],
        )

    def test_no_room_for_a_datagram(self) -> None:
        """One that the circuit's room never holds is dropped and blocks nobody."""
        pair = Pair(55)
        pair.run(1.0)
        pair._room = pair._room[:2_000]
        pair.a.session.send_datagram(53, bytes(5_000))
        pair.a.session.send_datagram(53, b"small")
        pair.send(b"stream")
        pair.run(1.0)
        self.assertEqual([event.data for event in pair.event(DatagramReceived)], [b"small"])
        self.assertEqual(pair.readers[0].data, b"stream")

    def test_datagrams_are_not_resent(self) -> None:
        """What is lost stays lost, and the queue is bounded."""
        pair = Pair(51)
        pair.run(1.0)
        pair.cut = True
        taken = sum(pair.a.session.send_datagram(53, bytes(1_000)) for _ in range(2_000))
        self.assertEqual(taken, 256)
        pair.run(0.01)
        pair.cut = False
        pair.run(30.0)
        self.assertGreater(len(pair.event(DatagramReceived)), 200)
        self.assertLess(len(pair.event(DatagramReceived)), 256)

    def test_ping(self) -> None:
        """The answer comes after one round trip."""
        pair = Pair(52, delay=0.03)
        pair.run(1.0)
        token = pair.a.session.ping(pair.now)
        pair.run(1.0)
        (pong,) = pair.event(Ponged)
        self.assertEqual(pong.token, token)
        self.assertAlmostEqual(pong.trip, 0.06)
        self.assertAlmostEqual(pair.a.session.path.rtt, 0.06, places=2)

    def test_ping_flood(self) -> None:
        """A cell full of PINGs is answered by a few PONGs."""
        pair = Pair(53)
        pair.run(1.0)
        before = sum(pair.b.sizes)
        pair.inject(0, b"".join(items.item(items.PING, i + 1) for i in range(5_000)))
        pair.run(1.0)
        self.assertLess(sum(pair.b.sizes) - before, 200)

    def test_reserved(self) -> None:
        """Other packets and PATH are reserved: whoever sends them is told."""
        for kind in (33, 39, 52, 63):
            pair = Pair(54)
            pair.run(1.0)
            self.assertEqual(pair.inject(0, bytes((kind,)) + bytes(20)), Drop.MALFORMED)
