"""Streams over channels that lose, delay, reorder and duplicate."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.errors import Drop
from meshnet.session.session import SessionLimits
from tests.meshnet.session.pair import Pair, Recorder, Writer


def content(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


class TransferTests(SynchronousTestCase):
    def transfer(self, pair: Pair, sizes: list[int]) -> None:
        """Sends all at once on a stream each, and back what came; compares."""
        contents = [content(size, seed) for seed, size in enumerate(sizes)]
        writers = [pair.send(data) for data in contents]
        done = pair.run(
            600.0,
            lambda: len(pair.readers) == len(sizes) and all(reader.ended for reader in pair.readers),
        )
        self.assertTrue(done, f"{pair.now} {pair.a.session.path!r}")
        by_id = {reader.stream.id: reader for reader in pair.readers if reader.stream}
        for writer, data in zip(writers, contents, strict=True):
            self.assertEqual(bytes(by_id[writer.stream.id].data), data)
        for reader in pair.readers:
            reader.stream.write(b"thanks")
            reader.stream.finish()
        self.assertTrue(pair.run(600.0, lambda: all(writer.ended for writer in writers)))
        self.assertTrue(all(writer.data == b"thanks" for writer in writers))
        pair.run(60.0)
        for end in pair.ends:
            self.assertEqual(end.session.streams, 0)
            self.assertTrue(end.session.idle)
            self.assertIsNone(end.timer, "an idle session costs nothing")
            self.assertEqual(end.session.path.in_flight, 0)

    def test_clean(self) -> None:
        """Without loss nothing is sent twice."""
        pair = Pair(1)
        self.transfer(pair, [2_000_000, 0, 1, 1_200])
        self.assertEqual(pair.a.session.path.recovery.lost_cells, 0)
        self.assertEqual(pair.a.session.path.recovery.probes_sent, 0)
        self.assertLess(sum(pair.a.sizes), 2_000_000 * 1.03)

    def test_one_percent(self) -> None:
        """1 % loss: every byte once and in order."""
        self.transfer(Pair(2, loss=0.01, jitter=0.001), [500_000, 100_000, 5])

    def test_twenty_percent(self) -> None:
        """20 % loss, reordering and duplicates: the same."""
        self.transfer(Pair(3, loss=0.2, jitter=0.005, duplicate=0.1, late=0.05), [100_000, 20_000, 100])

    def test_losses_are_seen(self) -> None:
        """The channel of these tests does lose, and lost cells are found without waiting for a probe."""
        pair = Pair(9, loss=0.05)
        self.transfer(pair, [400_000])
        recovery = pair.a.session.path.recovery
        self.assertGreater(recovery.lost_cells, 5)
        self.assertLess(recovery.probes_sent, recovery.lost_cells)

    def test_duplicates_are_dropped(self) -> None:
        """A cell that comes twice is counted, not read."""
        pair = Pair(4, duplicate=1.0)
        self.transfer(pair, [50_000])
        self.assertGreater(pair.b.drops[Drop.REPLAYED], 10)

    def test_reordering(self) -> None:
        """Cells that overtake each other are no loss as long as they are not three late."""
        self.transfer(Pair(5, jitter=0.03, late=0.1), [200_000])

    def test_small_cells(self) -> None:
        """A path of 1,200 bytes carries the same."""
        pair = Pair(6, max_cell=1_200, loss=0.03)
        self.transfer(pair, [100_000])
        self.assertEqual(max(pair.a.sizes), 1_200)

    @given(
        seed=st.integers(0, 1 << 30),
        loss=st.sampled_from([0.0, 0.02, 0.1, 0.2]),
        late=st.sampled_from([0.0, 0.1]),
        sizes=st.lists(st.integers(0, 30_000), min_size=1, max_size=4),
    )
    def test_any(self, seed: int, loss: float, late: float, sizes: list[int]) -> None:
        """Whatever the channel does, streams arrive whole."""
        self.transfer(Pair(seed, loss=loss, late=late, duplicate=loss / 2, jitter=0.002), sizes)

    def test_many_one_after_another(self) -> None:
        """Thousands of short streams leave nothing behind."""
        pair = Pair(7, delay=0.001, loss=0.002)
        for _ in range(2_000):
            writer = pair.send(b"hello")
            self.assertTrue(pair.run(20.0, lambda: bool(pair.readers and pair.readers[0].ended)))
            pair.readers[0].stream.finish()
            self.assertTrue(pair.run(20.0, lambda w=writer: w.ended == 1))
            pair.readers.clear()
            pair.streams.clear()
        pair.run(20.0)
        for end in pair.ends:
            self.assertEqual((end.session.streams, end.session.outbox.work), (0, False))
            self.assertEqual(end.session._inbox.peer_count + end.session._inbox.own_count, 0)
            self.assertLess(len(end.session.path.recovery.sent), 2)

    def test_both_ways_at_once(self) -> None:
        """Acknowledgements travel with data of the other direction."""
        pair = Pair(8, loss=0.01)
        writer = pair.send(content(300_000))
        pair.run(1.0, lambda: bool(pair.readers))
        back = Writer(content(300_000, 2))
        back.stream = pair.streams[0]
        reader = pair.readers[0]
        reader.on_drained = back.pump
        back.pump()
        self.assertTrue(pair.run(60.0, lambda: bool(reader.ended and writer.ended)))
        self.assertEqual(bytes(writer.data), bytes(back.content))
        self.assertEqual(bytes(reader.data), bytes(writer.content))


class SlowReaderTests(SynchronousTestCase):
    def test_window_bounds_memory(self) -> None:
        """Who does not read gets no more than his window; others go on; reading resumes the flow."""
        limits = SessionLimits(stream_window=100_000, session_buffer=1 << 20)
        pair = Pair(11, greedy=False, limits_b=limits, loss=0.01)
        slow = pair.send(content(1_000_000))
        self.assertTrue(pair.run(60.0, lambda: bool(pair.readers)))
        pair.run(10.0)
        # Before the first WINDOW the fixed first window holds.
        held = len(pair.readers[0].data)
        self.assertLessEqual(held, 256 << 10)
        self.assertGreaterEqual(held, 100_000)
        pair.greedy = True
        other = pair.send(content(500_000, 2))
        self.assertTrue(pair.run(60.0, lambda: len(pair.readers) == 2 and pair.readers[1].ended == 1))
        self.assertEqual(len(pair.readers[0].data), held)
        reader = pair.readers[0]
        reader.greedy = True
        reader.stream.consumed(held)
        self.assertTrue(pair.run(60.0, lambda: reader.ended == 1))
        self.assertEqual(bytes(reader.data), bytes(slow.content))
        self.assertEqual(other.why, None)

    def test_session_window_bounds_all(self) -> None:
        """Many slow readers together hold at most the session's buffer."""
        limits = SessionLimits(stream_window=300_000, session_buffer=1 << 20)
        pair = Pair(12, greedy=False, limits_b=limits)
        for seed in range(8):
            pair.send(content(400_000, seed))
        pair.run(30.0)
        held = [len(reader.data) for reader in pair.readers]
        self.assertEqual(sum(held), 1 << 20)
        for reader in pair.readers:
            reader.greedy = True
            reader.stream.consumed(len(reader.data))
        self.assertTrue(pair.run(60.0, lambda: all(reader.ended for reader in pair.readers)))

    def test_send_buffer(self) -> None:
        """`write` takes no more than the send buffer; `drained` says when it goes on."""
        pair = Pair(13, limits=SessionLimits(send_buffer=50_000))
        reader = pair.open()
        data = content(80_000)
        self.assertEqual(reader.stream.writable, 50_000)
        self.assertEqual(reader.stream.write(data), 50_000)
        self.assertEqual(reader.stream.write(data), 0)
        self.assertTrue(pair.run(10.0, lambda: reader.drains > 0))
        self.assertGreater(reader.stream.writable, 0)

    def test_fair(self) -> None:
        """Streams with much to send take turns: none is more than a few cells ahead."""
        pair = Pair(14, max_cell=1_200, rate=200_000.0)
        writers = [Writer(content(60_000, seed)) for seed in range(5)]
        for writer in writers:
            pair.open(writer)
        for writer in writers:
            writer.pump()
        pair.run(60.0, lambda: any(reader.ended for reader in pair.readers))
        self.assertEqual(len(pair.readers), 5)
        self.assertGreater(min(len(reader.data) for reader in pair.readers), 45_000)


class AckTests(SynchronousTestCase):
    def test_frequency(self) -> None:
        """A bulk transfer is acknowledged about every second cell, not every one."""
        pair = Pair(21)
        pair.send(content(3_000_000))
        pair.run(60.0)
        self.assertLess(len(pair.b.sizes), 0.7 * len(pair.a.sizes))

    def test_delay(self) -> None:
        """A lone cell is acknowledged within a few milliseconds, once."""
        pair = Pair(22, delay=0.01)
        reader = pair.open()
        pair.run(5.0)
        self.assertIsNone(pair.a.timer)
        before = len(pair.b.sizes)
        reader.stream.write(b"x")
        start = pair.now
        self.assertTrue(pair.run(1.0, lambda: not pair.a.session.path.in_flight))
        self.assertLess(pair.now - start, 0.02 + 0.006)
        self.assertEqual(len(pair.b.sizes) - before, 1)

    def test_unread_nothing(self) -> None:
        """Acknowledgements are not acknowledged: silence follows a finished exchange."""
        pair = Pair(23)
        pair.send(b"once")
        pair.run(30.0)
        sent = len(pair.a.sizes) + len(pair.b.sizes)
        pair.run(3_600.0)
        self.assertEqual(len(pair.a.sizes) + len(pair.b.sizes), sent)


class CongestionTests(SynchronousTestCase):
    def test_marks_slow_down(self) -> None:
        """A relay's congestion bit keeps its queue short, without loss."""
        pair = Pair(31, rate=2e6, delay=0.02, queue=1 << 20, mark=64 << 10)
        pair.send(content(10_000_000))
        self.assertTrue(pair.run(60.0, lambda: bool(pair.readers and pair.readers[0].ended)))
        self.assertEqual(pair.queue_drops, 0)
        congestion = pair.a.session.path.congestion
        self.assertGreater(congestion.events, 0)
        self.assertGreater(congestion.events + congestion.standing.cuts, 3)
        self.assertLess(pair.now, 1.35 * 10e6 / 2e6)

    def test_bottleneck_is_filled(self) -> None:
        """A drop-tail bottleneck is used to most of its rate."""
        pair = Pair(32, rate=1e6, delay=0.02, queue=100_000)
        pair.send(content(5_000_000))
        self.assertTrue(pair.run(60.0, lambda: bool(pair.readers and pair.readers[0].ended)))
        self.assertLess(pair.now, 1.35 * 5.0)

    def test_cell_size_follows_the_rate(self) -> None:
        """Cells start at 1,200 bytes and grow to about 2 ms of the bottleneck's rate, no further."""
        for rate in (0.3e6, 5e6):
            pair = Pair(33, rate=rate, delay=0.01, queue=200_000)
            pair.send(content(int(rate * 3)))
            self.assertTrue(pair.run(60.0, lambda p=pair: bool(p.readers and p.readers[0].ended)))
            self.assertEqual(pair.a.sizes[1], 1_200)
            wanted = max(1_200, 0.002 * rate)
            tail = sorted(pair.a.sizes[-len(pair.a.sizes) // 2 :])
            self.assertLess(abs(tail[len(tail) // 2] - wanted), 0.3 * wanted, f"rate {rate}")

    def test_window_is_respected(self) -> None:
        """No more is in flight than the window allows."""
        pair = Pair(34, rate=1e6, loss=0.01)
        pair.send(content(1_000_000))
        path = pair.a.session.path

        def over() -> bool:
            return path.in_flight > max(path.cwnd, pair.high)

        pair.high = 0

        def watch() -> bool:
            pair.high = max(pair.high, path.cwnd) if path.recovery.sent else path.cwnd
            self.assertFalse(over())
            return bool(pair.readers and pair.readers[0].ended)

        self.assertTrue(pair.run(60.0, watch))


class DeadPathTests(SynchronousTestCase):
    def test_silence(self) -> None:
        """A path that answers no more is given up after about 15 s, with a sentence."""
        pair = Pair(41)
        reader = pair.send(content(1_000_000))
        pair.run(0.2)
        pair.cut = True
        sent = len(pair.a.sizes)
        start = pair.now
        self.assertTrue(pair.run(60.0, lambda: reader.why is not None))
        self.assertApproximates(pair.now - start, 15.0, 1.0)
        self.assertIn("has not answered for 15 seconds", str(reader.why))
        self.assertLess(len(pair.a.sizes) - sent, 60)
        kinds = [type(event).__name__ for event in pair.a.events]
        self.assertEqual(kinds, ["Opened", "PathDead", "Closed"])
        pair.run(1.0)
        self.assertIsNone(pair.a.timer)

    def test_comes_back(self) -> None:
        """After an outage of some seconds the stream goes on, carefully."""
        pair = Pair(42)
        pair.send(content(2_000_000))
        pair.run(0.2)
        pair.cut = True
        pair.run(6.0)
        pair.cut = False
        self.assertTrue(pair.run(20.0, lambda: pair.readers[0].ended == 1))
        self.assertEqual(len(pair.readers[0].data), 2_000_000)


class ReaderTests(SynchronousTestCase):
    def test_a_failing_reader(self) -> None:
        """An app that raises loses its stream; the session and other streams go on."""

        class Broken(Recorder):
            def data_received(self, data: memoryview) -> None:
                raise RuntimeError("app bug")

        pair = Pair(51)
        pair.run(1.0)
        pair.b.session.accept = lambda stream: Broken()
        bad = pair.send(b"x" * 5_000)
        pair.run(1.0)
        self.assertIn("service on port 80 failed", str(bad.why))
        pair.b.session.accept = pair._accept
        pair.send(b"y" * 5_000)
        self.assertTrue(pair.run(5.0, lambda: bool(pair.readers and pair.readers[0].ended)))
        self.assertEqual([type(event).__name__ for event in pair.b.events], ["Opened", "AppFailed"])
