"""Packets beside a stream: whole, once, in turn with bytes, gone with their stream."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.errors import Drop
from meshnet.session import items
from meshnet.session.events import AppFailed
from meshnet.session.session import Session
from tests.meshnet.session.pair import Pair, Recorder
from tests.support.carrying import FRAME, Kept, Pile


class Way:
    """A stream of a pair whose two ends carry packets."""

    def __init__(self, pair: Pair, packets: Iterable[bytes] = (), back: Iterable[bytes] = ()) -> None:
        self.pair = pair
        self.near, self.far = Kept(), Kept()
        self.reader = pair.open()
        assert pair.run(60.0, lambda: bool(pair.streams))
        self.source, self.back = Pile(packets, self.stream.largest_packets), Pile(back)
        pair.streams[-1].carry(self.back, self.far)
        self.stream.carry(self.source, self.near)

    @property
    def stream(self) -> Any:
        """The opener's end."""
        return self.reader.stream

    def send(self, *packets: bytes) -> None:
        """More for the opener's source."""
        self.source.packets.extend(packets)
        self.stream.packets_ready()


class Cuttable(Pile):
    """Would cut a packet at any byte where it does not fit whole."""

    def waiting(self) -> int:
        return FRAME + 1 if self.packets else 0

    def pour(self, room: memoryview, now: float) -> int:
        written = super().pour(room, now)
        if not written and self.packets:
            first = self.packets.popleft()
            fits = len(room) - FRAME
            self.packets.extendleft((first[fits:], first[:fits]))
            return super().pour(room, now)
        return written


def some(count: int, size: int, seed: int = 1) -> list[bytes]:
    """Packets of that size."""
    return [random.Random(seed + number).randbytes(size) for number in range(count)]


class PacketTests(SynchronousTestCase):
    def test_both_ways(self) -> None:
        """What one end pours the other reads, in order on a path that keeps it, many to a cell."""
        there, back = some(300, 90), some(50, 1_000, 1_000)
        way = Way(Pair(1), there, back)
        way.pair.run(5.0)
        self.assertEqual(way.far.packets, there)
        self.assertEqual(way.near.packets, back)
        self.assertLess(len(way.far.bodies), 60)
        flow = way.stream.flow()
        self.assertEqual(flow.cells_out, flow.cells_arrived)
        self.assertEqual(flow.bytes_out, 300 * 92)
        self.assertEqual(flow.bytes_in, 50 * 1_002)
        self.assertAlmostEqual(flow.rtt, 0.04, places=2)
        self.assertGreater(flow.rate, 0)
        self.assertTrue(way.pair.a.session.path.outbox.work is False)

    def test_a_packet_makes_its_cell_larger(self) -> None:
        """While cells are small one large packet goes all the same, whole, up to what the path carries."""
        way = Way(Pair(2))
        self.assertLess(way.pair.a.session.path.cell_size, 2_000)
        largest = some(1, way.stream.largest_packets - FRAME)
        way.send(*largest)
        way.pair.run(1.0)
        self.assertEqual(way.far.packets, largest)
        self.assertEqual(max(way.pair.a.sizes), 61_000)

    def test_larger_than_any_cell(self) -> None:
        """The source is given the largest cell, drops what does not fit, and what follows still goes."""
        way = Way(Pair(3, max_cell=2_000))
        self.assertEqual(way.stream.largest_packets, 2_000 - 16 - items.PACKETS_HEADER)
        large, small = some(1, way.stream.largest_packets - FRAME + 1), some(1, 1_900)
        way.send(*large, *small)
        way.pair.run(1.0)
        self.assertEqual(way.source.dropped, large)
        self.assertEqual(way.far.packets, small)

    def test_exactly_a_cell(self) -> None:
        """Packets of each size up to what a cell takes, while acknowledgements wait for room beside them."""
        way = Way(Pair(6, max_cell=1_200), back=some(60, 300))
        largest = way.stream.largest_packets - FRAME
        packets = [bytes([size % 256]) * size for size in range(largest - 60, largest + 1)]
        way.send(*packets)
        way.pair.run(5.0)
        self.assertEqual(way.far.packets, packets)
        self.assertEqual(len(way.near.packets), 60)

    def test_a_source_that_never_cuts(self) -> None:
        """One that keeps a packet larger than every cell blocks nobody: not asked again, the rest goes on."""
        way = Way(Pair(4, max_cell=2_000))
        way.source.largest = 60_000
        way.send(*some(1, 5_000))
        way.pair.send(b"stream")
        way.pair.run(1.0)
        self.assertEqual(way.pair.readers[-1].data, b"stream")
        self.assertFalse(way.pair.a.session.path.outbox.work)

    def test_asked_once_for_a_cell(self) -> None:
        """A source that can cut is not asked to tear a packet for what it has left of a cell."""
        way = Way(Pair(4, max_cell=2_000))
        way.source = Cuttable(some(40, 400))
        way.stream.carry(way.source, way.near)
        way.pair.run(5.0)
        self.assertEqual(b"".join(way.far.packets), b"".join(some(40, 400)))
        self.assertLess(len(way.far.packets), 45)  # only the end of the window tears some

    def test_loss(self) -> None:
        """What is lost is not sent again, is counted, and cuts the window."""
        packets = [number.to_bytes(4, "big") + bytes(996) for number in range(3_000)]
        way = Way(Pair(5, loss=0.05), packets)
        way.pair.run(60.0)
        path = way.pair.a.session.path
        self.assertFalse(way.source.packets)
        self.assertEqual(len(set(way.far.packets)), len(way.far.packets))
        self.assertLess(len(way.far.packets), 2_950)
        self.assertGreater(len(way.far.packets), 2_700)
        self.assertGreater(path.congestion.events, 3)
        flow = way.stream.flow()
        self.assertLess(flow.cells_arrived, flow.cells_out)
        self.assertEqual(path.in_flight, 0)

    def test_the_window_is_the_back_pressure(self) -> None:
        """A source is asked for as much as may be in flight; the rest waits in front of it."""
        way = Way(Pair(6, rate=100_000.0, queue=20_000), some(2_000, 1_200))
        way.pair.run(2.0)
        self.assertGreater(len(way.source.packets), 1_500)
        self.assertLess(way.pair.a.session.path.in_flight, 60_000)

    def test_no_reserve_of_the_window_is_lost(self) -> None:
        """Packets larger than what is free of the window wait for half of it, and one alone for nothing."""
        way = Way(Pair(7), some(40, 50_000))
        way.pair.run(10.0)
        self.assertEqual(len(way.far.packets), 40)

    def test_beside_streams(self) -> None:
        """Bytes and packets of one session take turns: either gets about half."""
        pair = Pair(8, rate=200_000.0)
        way = Way(pair, some(4_000, 1_000))
        bulk = pair.send(bytes(4_000_000))
        pair.run(10.0)
        bytes_there, packets_there = len(pair.readers[-1].data), 1_000 * len(way.far.packets)
        self.assertLess(abs(bytes_there - packets_there), 0.25 * bytes_there)
        self.assertTrue(bulk.at)

    def test_marks(self) -> None:
        """The sink hears which packets came by a congested relay."""
        pair = Pair(9, rate=100_000.0, mark=5_000)
        way = Way(pair, some(1_000, 1_000))
        pair.run(4.0)
        self.assertGreater(way.far.marked, 0)
        self.assertLess(way.far.marked, len(way.far.bodies))
        self.assertEqual(pair.streams[0].flow().marked_in, way.far.marked)

    def test_probe(self) -> None:
        """A sign of life is asked for on a quiet stream: it comes within a round trip, and nothing else does;
        from a stream that has ended nothing is heard any more."""
        way = Way(Pair(10), some(3, 90))
        way.pair.run(5.0)
        before = way.stream.flow()
        way.pair.run(5.0)
        self.assertEqual(way.stream.flow().heard, before.heard)
        way.stream.probe()
        way.pair.run(0.2)
        after = way.stream.flow()
        self.assertGreater(after.heard, before.heard)
        self.assertEqual((after.in_flight, after.cells_out), (0, before.cells_out))
        way.pair.a.session.close(0, "", way.pair.now)
        way.stream.probe()


class LifeTests(SynchronousTestCase):
    def test_nobody_carries(self) -> None:
        """PACKETS for a stream that carries none, or that is not there, are dropped and counted."""
        pair = Pair(20)
        reader = pair.open()
        pair.run(1.0)
        reader.stream.carry(Pile(some(3, 100)), Kept())
        pair.run(1.0)
        session = pair.b.session
        self.assertGreater(session.packets_dropped, 0)
        before = session.packets_dropped
        for stream in (b"\x08", b"\x09", b"\x40\xff"):
            self.assertEqual(pair.inject(0, b"\x20" + stream + b"\x01x"), Drop.NONE)
        self.assertEqual(session.packets_dropped, before + 3)
        self.assertEqual(session.streams, 1, "none of them opened a stream")
        self.assertTrue(session.live)

    def test_before_open(self) -> None:
        """The same where OPEN has not come yet."""
        pair = Pair(21)
        pair.run(1.0)
        self.assertEqual(pair.inject(0, b"\x20\x00\x01x"), Drop.NONE)
        self.assertEqual(pair.b.session.packets_dropped, 1)
        self.assertEqual(pair.b.session.streams, 0)

    def test_lost_streams_are_not_asked(self) -> None:
        """After `reset` of either end neither source is asked, neither sink told, and work ends."""
        for side in (0, 1):
            way = Way(Pair(22 + side), some(5_000, 1_000), some(5_000, 1_000))
            way.pair.run(0.2)
            (way.stream, way.pair.streams[0])[side].reset()
            way.pair.run(0.2)
            asked = len(way.source.moments), len(way.back.moments)
            told = len(way.far.bodies), len(way.near.bodies)
            way.send(b"more")
            way.pair.streams[0].packets_ready()
            way.pair.run(2.0)
            self.assertEqual(asked, (len(way.source.moments), len(way.back.moments)))
            self.assertEqual(told, (len(way.far.bodies), len(way.near.bodies)))
            self.assertTrue(all(end.session.idle for end in way.pair.ends))

    def test_closed_sessions(self) -> None:
        """The end of the session is the end of its packets."""
        way = Way(Pair(24), some(5_000, 1_000))
        way.pair.a.session.close(0, "", way.pair.now)
        asked = len(way.source.moments)
        way.stream.packets_ready()
        way.pair.run(5.0)
        self.assertEqual(asked, len(way.source.moments))
        self.assertIsNotNone(way.reader.why)

    def test_ended_streams(self) -> None:
        """A stream that both ends finished carries none, nor takes a source."""
        way = Way(Pair(25))
        way.stream.finish()
        way.pair.streams[0].finish()
        way.pair.run(1.0)
        self.assertEqual(way.pair.a.session.streams, 0)
        way.send(b"late")
        way.stream.carry(Pile([b"late"]), Kept())
        way.pair.run(1.0)
        self.assertTrue(way.pair.a.session.idle)
        self.assertEqual(way.far.packets, [])

    def test_others_take_over(self) -> None:
        """Who carries again replaces source and sink."""
        way = Way(Pair(26), some(10, 100))
        other = Pile(some(10, 200))
        way.stream.carry(other, way.near)
        way.pair.run(1.0)
        self.assertEqual([len(packet) for packet in way.far.packets], [200] * 10)

    def test_apps_that_raise(self) -> None:
        """A source or a sink that raises costs its stream, and nothing else."""

        class Broken(Pile, Kept):
            def __init__(self, method: str) -> None:
                Pile.__init__(self, [b"x"])
                Kept.__init__(self)
                self.packets = Pile([b"x"]).packets  # type: ignore[assignment]
                setattr(self, method, self.fail)

            def fail(self, *rest: object) -> int:
                raise ValueError("broken")

        for number, method in enumerate(("waiting", "pour", "packets_received")):
            pair = Pair(30 + number)
            way = Way(pair)
            broken: Any = Broken(method)
            way.stream.carry(broken, broken)
            way.back.packets.append(b"y")
            pair.streams[0].packets_ready()
            pair.send(b"alive")
            pair.run(2.0)
            self.assertEqual(pair.readers[-1].data, b"alive")
            self.assertEqual(len(pair.event(AppFailed)), 1, method)
            self.assertTrue(way.stream.over)

    def test_a_source_that_lies(self) -> None:
        """One that says it wrote more than the room, or less than nothing, sends nothing."""
        for lie in (-1, 70_000):
            way = Way(Pair(33))
            way.source.pour = lambda room, now, lie=lie: lie  # type: ignore[method-assign, misc]
            way.send(b"x")
            way.pair.run(1.0)
            self.assertEqual(way.far.bodies, [])

    def test_nothing_after_all(self) -> None:
        """A source that says it has packets, and has none, makes no cell, not even one that acknowledges."""
        way = Way(Pair(38))
        session = way.pair.b.session
        way.send(b"x")
        way.pair.run(0.021, lambda: bool(way.far.packets))
        sent = session.path.cells_sent
        way.pair.streams[0].packets_ready()
        way.pair.pump()
        self.assertEqual(session.path.cells_sent, sent)
        self.assertFalse(session.outbox.work)

    def test_wrong_guesses(self) -> None:
        """A source that learns the size of a packet only by taking it: it goes all the same, at once."""

        class Guessing(Pile):
            taken = b""

            def waiting(self) -> int:
                return FRAME + len(self.taken) if self.taken else 100 * bool(self.packets)

            def pour(self, room: memoryview, now: float) -> int:
                self.taken = self.taken or self.packets.popleft()
                end = FRAME + len(self.taken)
                if end > len(room):
                    return 0
                room[:FRAME] = len(self.taken).to_bytes(FRAME, "big")
                room[FRAME:end], self.taken = self.taken, b""
                return end

        way = Way(Pair(37, delay=0.01))
        way.stream.carry(Guessing(some(30, 3_000) + some(30, 40)), way.near)
        way.pair.run(2.0)
        self.assertEqual([len(packet) for packet in way.far.packets], [3_000] * 30 + [40] * 30)

    def test_ready_while_asked(self) -> None:
        """A source may say that it has more while it is asked."""
        way = Way(Pair(34))
        pour = way.source.pour

        def again(room: memoryview, now: float) -> int:
            way.stream.packets_ready()
            return pour(room, now)

        way.source.pour = again  # type: ignore[method-assign]
        way.send(*some(50, 1_000))
        way.pair.run(2.0)
        self.assertEqual(len(way.far.packets), 50)

    @given(
        st.integers(0, 1 << 32),
        st.lists(st.one_of(st.integers(0, 200), st.integers(1_000, 6_000)), max_size=60),
        st.sampled_from([0.0, 0.1]),
        st.sampled_from([1_200, 4_000, 61_000]),
    )
    def test_any_packets(self, seed: int, sizes: list[int], loss: float, max_cell: int) -> None:
        """Whatever their sizes: each arrives once and whole, or not at all; without loss all that fit."""
        packets = [random.Random(n).randbytes(size) for n, size in enumerate(sizes)]
        way = Way(Pair(seed, loss=loss, max_cell=max_cell))
        fitting = [packet for packet in packets if FRAME + len(packet) <= way.stream.largest_packets]
        way.send(*packets)
        way.pair.run(30.0)
        self.assertFalse(way.source.packets)
        if not loss:
            self.assertEqual(way.far.packets, fitting)
        self.assertFalse(Counter(way.far.packets) - Counter(fitting))
        session: Session = way.pair.a.session
        self.assertTrue(session.live)
        self.assertEqual(session.path.in_flight, 0)

    def test_in_place(self) -> None:
        """Source and sink see the cell itself: no byte is copied between."""
        way = Way(Pair(35))
        rooms: list[memoryview] = []
        pour = way.source.pour

        def noting(room: memoryview, now: float) -> int:
            rooms.append(room)
            return pour(room, now)

        way.source.pour = noting  # type: ignore[method-assign]
        way.send(b"x")
        way.pair.run(1.0)
        self.assertIs(rooms[0].obj, way.pair._room.obj)

    def test_reader_hears_no_packets(self) -> None:
        """Bytes of the stream and its packets do not mix."""
        way = Way(Pair(36), some(5, 100))
        way.stream.write(b"bytes")
        way.pair.run(1.0)
        reader: Recorder = way.pair.readers[0]
        self.assertEqual(reader.data, b"bytes")
        self.assertEqual(len(way.far.packets), 5)
