"""A neighbour over its connections: pings, silence, counts, and frames that belong to nobody."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from meshnet.codec import decode, encode
from meshnet.errors import CodecError, Drop, ProtocolError, TimedOutError
from meshnet.limits import LARGEST_CELL, LINK_SILENCE
from meshnet.link.frame import HELLO, PAD, PING, PONG, Hello, Ping, Pong, our_hello
from meshnet.link.lane import Lane
from meshnet.link.link import Link
from meshnet.link.outlet import Outbox
from meshnet.link.seat import PING_EVERY
from tests.meshnet.link.lanes import ALICE, Owner, Voice, acceptor, calling, feed, take
from tests.meshnet.link.test_outlet import Turns
from tests.meshnet.link.test_record import Carrier
from tests.meshnet.test_bundle import Frame


class _Joins(Owner):
    """Lets each lane serve one link."""

    def __init__(self, link: Link, carrier: Carrier) -> None:
        super().__init__()
        self.link = link
        self.carrier = carrier
        self.now = 0.0

    def up(self, lane: Lane, hello: Hello, now: float) -> None:
        self.link.greet(hello)
        self.link.serve(lane.number, lane, self.carrier.write, "test:", now)


class LinkTests(SynchronousTestCase):
    """Bob's link to alice, who says what a test wants."""

    def setUp(self) -> None:
        self.turns = Turns()
        self.frames: list[Frame] = []
        outbox = Outbox(self.turns.calls.append, lambda: 0.0)
        self.link = Link(ALICE.public, outbox, {10: self.receive, 31: self.receive})

    def receive(self, link: Link, kind: int, body: memoryview, now: float) -> None:
        self.frames.append((kind, bytes(body)))

    def connect(self, now: float = 0.0, takes: list[int] | None = None, **hello: int) -> Voice:
        """A connection that serves the link, with alice at its far end."""
        self.carrier = Carrier(takes)
        self.lane = acceptor(_Joins(self.link, self.carrier))
        voice = calling(self.lane)
        voice.hear(take(self.lane))
        feed(self.lane, voice.hello(**hello), now=now)
        self.turns.run()
        return voice

    def heard(self, voice: Voice) -> list[Frame]:
        """The frames that bob has said since the last call, after his HELLO."""
        self.turns.run()
        data = bytes(self.carrier.taken)
        self.carrier.taken.clear()
        return voice.hear(data)

    def test_up_and_down(self) -> None:
        """It is up with a connection, keeps its tables without, and says since when."""
        self.assertFalse(self.link.up)
        self.assertIsNone(self.link.lost_at)
        self.connect(3.0)
        self.link.forward[1] = lambda seq, body, now, marked: Drop.NONE
        self.assertTrue(self.link.up)
        self.assertEqual((self.link.up_since, self.link.connections, self.link.lost_at), (3.0, 1, None))
        self.link.stop(0, 7.0)
        self.assertFalse(self.link.up)
        self.assertEqual((self.link.lost_at, list(self.link.forward)), (7.0, [1]))
        self.link.stop(0, 9.0)
        self.assertEqual(self.link.lost_at, 7.0, "it was lost once")
        self.connect(10.0)
        self.assertEqual((self.link.lost_at, self.link.connections), (None, 2))
        self.assertFalse(self.link.send(31, bytes(70_000)))
        self.assertTrue(self.link.send(31, b"x"))

    def test_ping_is_answered(self) -> None:
        """PONG carries the ping's token and time, our clock, and what this connection has received."""
        voice = self.connect()
        ping = voice.frames((12, bytes(12)), (PING, encode(Ping(token=2**64 - 1, time=123))))
        feed(self.lane, ping, now=4.5)
        ((kind, body),) = self.heard(voice)
        pong = decode(Pong, body)
        self.assertEqual((kind, pong.token, pong.ping_time, pong.time), (PONG, 2**64 - 1, 123, 4_500_000))
        self.assertEqual(pong.bytes, self.lane.bytes_received)
        self.assertEqual(self.link.drops[Drop.UNKNOWN_LABEL], 1)

    def test_pong(self) -> None:
        """An answer gives the round trip and the peer's counts; one that nobody asked for gives nothing."""
        voice = self.connect()
        token = self.link.seats[0].ping(1.0)
        self.assertTrue(self.link.telemetry.waits_for(token))
        feed(self.lane, voice.frames((PONG, encode(Pong(token + 1, 0, 0, 99, 9)))), now=1.5)
        self.assertEqual((self.link.telemetry.pongs, self.link.telemetry.peer_bytes), (0, 0))
        feed(self.lane, voice.frames((PONG, encode(Pong(token, 0, 0, 99, 9)))), now=1.5)
        self.assertAlmostEqual(self.link.telemetry.rtt, 0.5)
        self.assertEqual((self.link.telemetry.peer_bytes, self.link.telemetry.peer_cells), (99, 9))
        self.assertFalse(self.link.telemetry.waits_for(token))

    def test_unknown_frames(self) -> None:
        """Odd kinds are skipped, even ones close the connection, the congestion bit aside; PAD is nothing."""
        voice = self.connect()
        for kind in (5, 7, 9, 11, 29, 255, PAD, HELLO, 0x80 | 5):
            feed(self.lane, voice.frames((kind, b"whatever")))
        for kind in (4, 6, 8, 14, 20, 254, 0x80, 0x80 | 10):
            voice = self.connect()
            self.assertRaises(ProtocolError, feed, self.lane, voice.frames((kind, b"")))
        self.assertEqual(self.frames, [])

    def test_frames_of_circuits(self) -> None:
        """Kinds somebody registered for go there; a malformed PING closes."""
        voice = self.connect()
        feed(self.lane, voice.frames((10, b"create"), (31, b"topology")))
        self.assertEqual(self.frames, [(10, b"create"), (31, b"topology")])
        for body in (b"", bytes(15), bytes(17)):
            voice = self.connect()
            self.assertRaises(CodecError, feed, self.lane, voice.frames((PING, body)))

    def test_largest_cell(self) -> None:
        """It is ours or the neighbour's, whichever is less; before HELLO ours."""
        self.assertEqual(self.link.max_cell, LARGEST_CELL)
        self.connect(largest_frame=4_000)
        self.assertEqual(self.link.max_cell, 4_000 - 13)
        self.connect(largest_frame=65_535)
        self.assertEqual(self.link.max_cell, LARGEST_CELL)

    def test_pings_and_silence(self) -> None:
        """It pings every few seconds; a neighbour that says nothing at all for long is given up."""
        voice = self.connect()
        now = 0.0
        while now < 60:
            self.link.seats[0].tick(now)
            feed(self.lane, voice.frames((PAD, b"")), now=now)
            now += 1.0
        self.assertEqual(self.link.telemetry.pings, 60 / PING_EVERY)
        began = now
        with self.assertRaises(TimedOutError):
            while now < began + 100:
                self.link.seats[0].tick(now)
                now += 1.0
        self.assertLessEqual(abs(now - began - LINK_SILENCE), 2)

    def test_an_idle_link_is_not_silent(self) -> None:
        """Answered pings are enough."""
        voice = self.connect()
        for second in range(100):
            before = self.link.telemetry.pings
            self.link.seats[0].tick(float(second))
            if self.link.telemetry.pings > before:
                ((_, ping),) = self.heard(voice)
                token = decode(Ping, ping).token
                feed(self.lane, voice.frames((PONG, encode(Pong(token, 0, 0, 0, 0)))), now=second + 0.25)
        self.assertEqual((self.link.telemetry.loss, self.link.telemetry.rtt_min), (0, 0.25))

    def test_a_fresh_connection_is_not_silent(self) -> None:
        """Pings of a lost connection do not count against the next one."""
        self.connect()
        for second in range(15):
            self.link.seats[0].tick(float(second))
        self.link.stop(0, 15.0)
        self.link.seats[0].tick(16.0)
        self.connect(30.0)
        for second in range(30, 30 + int(LINK_SILENCE)):
            self.link.seats[0].tick(float(second))
        self.assertRaises(TimedOutError, self.link.seats[0].tick, 30 + LINK_SILENCE + 6)

    def test_counts_go_on(self) -> None:
        """Bytes and cells received and sent run on over connections; also when one replaces another."""
        received = 0
        for number in range(1, 4):
            voice = self.connect(float(number))
            feed(self.lane, voice.frames((12, bytes(20)), (12, bytes(20))))
            received += self.lane.bytes_received
            if number == 2:
                self.link.stop(0, 5.0)
        self.assertEqual(self.link.bytes_received, received)
        self.assertEqual(self.link.cells_received, 6)
        sent = self.link.bytes_sent
        self.link.send(31, b"x")
        self.turns.run()
        self.assertEqual(self.link.bytes_sent - sent, 34 + 4)

    def test_snapshot(self) -> None:
        """Up or down, it is JSON-able and says what is known."""
        self.link.drops[Drop.REPLAYED] = 3
        shown = json.loads(json.dumps(self.link.snapshot(1.0)))
        self.assertEqual((shown["up"], shown["rtt_ms"], shown["dropped"]), (False, None, {"replayed": 3}))
        self.connect()
        shown = json.loads(json.dumps(self.link.snapshot(2.5)))
        self.assertEqual((shown["up"], shown["peer"], shown["lanes"]), (True, ALICE.public.hex(), 1))
        self.assertEqual(shown["up_seconds"], 2.5)

    def test_hello_is_kept(self) -> None:
        """What the neighbour said of itself."""
        self.connect()
        self.assertEqual(self.link.hello, our_hello())
