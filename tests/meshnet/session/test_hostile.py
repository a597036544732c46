"""What a hostile peer can make a session hold or do: never more than the named maxima."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from meshnet.errors import Drop
from meshnet.limits import AUTH_HELD, AUTH_SECONDS, PACKET_HELD, SMALLEST_SEND, STREAM_HELD
from meshnet.session import items
from meshnet.session.congestion import Congestion
from meshnet.session.events import Closed
from meshnet.session.memory import Account, Memory
from meshnet.session.path import SKIP_LEAST, SKIP_MOST, skipped_numbers
from meshnet.session.rate import DeliveryRate
from meshnet.session.recovery import Recovery
from tests.meshnet.session.pair import Pair, circuit_keys


class BeforeAuthTests(SynchronousTestCase):
    """A caller that never says who it is."""

    def test_empty_cells_cost_too(self) -> None:
        """Each held cell counts with what it costs to keep, also one without content."""
        pair = Pair(1)
        most = AUTH_HELD // PACKET_HELD
        drops = [pair.inject(0, b"", 100 + number) for number in range(most + 50)]
        self.assertEqual(drops.count(Drop.NONE), most)
        self.assertEqual(drops[most:], [Drop.NOT_OPEN] * 50)

    def test_auth_must_come(self) -> None:
        """Held cells are not kept for long: without AUTH the session closes, and gives them back."""
        pair = Pair(2)
        pair._awake.clear()
        pair.inject(0, items.item(items.PING, 0))
        pair.run(AUTH_SECONDS - 0.1)
        self.assertTrue(pair.b.session.live)
        pair.run(10.0)
        self.assertFalse(pair.b.session.live)
        self.assertFalse(pair.b.session.held)
        (event,) = [event for event in pair.b.events if isinstance(event, Closed)]
        self.assertIn("did not say", str(event.error))

    def test_auth_in_time_ends_the_wait(self) -> None:
        """Whoever sends AUTH late but in time stays."""
        pair = Pair(3)
        pair._awake.clear()
        pair.inject(0, items.item(items.PING, 0))
        pair.now += AUTH_SECONDS - 1
        pair._awake.add(0)
        pair.run(5.0)
        self.assertTrue(pair.b.session.live and pair.b.session.trusted)
        pair.run(AUTH_SECONDS)
        self.assertTrue(pair.b.session.live)


class Counting(dict[int, Any]):
    """Counts look-ups."""

    looked = 0

    def pop(self, *args: Any) -> Any:
        self.looked += 1
        return super().pop(*args)

    def get(self, *args: Any) -> Any:
        self.looked += 1
        return super().get(*args)

    def __contains__(self, key: object) -> bool:
        self.looked += 1
        return super().__contains__(key)


class AckTests(SynchronousTestCase):
    """Acknowledgements made to cost much or to say what is not so."""

    def test_wide_ranges_are_cheap(self) -> None:
        """An ACK over very many numbers that carried nothing costs by what is in flight, not by its width."""
        recovery = Recovery(
            DeliveryRate(61_000), Congestion(), lambda contents: None, lambda contents: None, 0.05
        )
        recovery.sent = Counting()
        recovery.record(0.0, 100, [("x",)])
        recovery.next += 100_001  # one cell in flight, then only acknowledgements
        for _ in range(10):
            recovery.acknowledged(100_000, 0, 0, [(1, 100_000)], 1.0)
        self.assertLess(recovery.sent.looked, 200)
        self.assertTrue(recovery.acknowledged(100_000, 0, 0, [(0, 100_000)], 1.0))
        self.assertEqual(recovery.sent, {})

    def test_acknowledging_ahead_is_found_out(self) -> None:
        """Who acknowledges what cannot have arrived yet, to be sent more, names a number that never was."""
        pair = Pair(8, delay=0.2)
        pair.run(2.0)
        pair.send(bytes(2_000_000))
        session = pair.a.session
        for _ in range(200):
            if not session.live:
                break
            pair.run(0.01)
            largest = session.path.recovery.next - 1
            ack = bytearray(64)
            end = items.put_ack(memoryview(ack), 0, 64, 0, 0, [0], [largest])
            pair.inject(1, bytes(ack[:end]))
        self.assertFalse(session.live)
        self.assertLess(pair.a.session.path.cells_sent, 4 * SKIP_MOST)
        self.assertIn("never sent", str(session._fault))

    def test_skipped_numbers_differ(self) -> None:
        """Nobody but the sender can tell which numbers it leaves out."""
        numbers = []
        for name in ("one", "other"):
            ours = circuit_keys(name)[0]
            skips = skipped_numbers(ours)
            numbers.append([next(skips) for _ in range(20)])
            steps = [following - number for number, following in pairwise([0, *numbers[-1]])]
            self.assertTrue(all(SKIP_LEAST <= step <= SKIP_MOST for step in steps), steps)
        self.assertEqual(set(numbers[0]) & set(numbers[1]), set())


class WindowTests(SynchronousTestCase):
    """Windows that are opened by nothing, again and again."""

    def test_waiting_for_the_session_window_is_noted_once(self) -> None:
        """However often a stream is told or filled while the session's window is used up."""
        pair = Pair(5)
        reader = pair.open()
        pair.run(1.0)
        pair.a.session.outbox.credit = 0
        assert reader.stream is not None
        for number in range(200):
            reader.stream.write(b"x")
            pair.inject(1, items.item(items.WINDOW, 0, (1 << 20) + number))
        self.assertEqual(len(pair.a.session.outbox._starved), 1)
        pair.inject(1, items.item(items.SESSION_WINDOW, 1 << 26))
        self.assertTrue(pair.run(1.0, lambda: bool(pair.readers) and len(pair.readers[0].data) == 200))


class MemoryTests(SynchronousTestCase):
    """What all sessions of a node hold together is bounded, whatever each of them may hold by itself."""

    def pair(self, limit: int, **conditions: Any) -> Pair:
        """Two sessions, of which the last hop's lives on a node with so little memory."""
        self.memory = Memory(limit)
        pair = Pair(7, memory_b=self.memory, **conditions)
        pair.run(1.0)
        self.assertEqual(self.memory.used, 0)
        return pair

    def test_streams_by_number(self) -> None:
        """One small item may not make more streams than memory allows; the cell is not taken, nobody ends."""
        pair = self.pair(1 << 20)
        few = (1 << 20) // 5 // STREAM_HELD
        self.assertEqual(pair.inject(0, items.item(items.WINDOW, 2 * 100, 1)), Drop.NO_ROOM)
        self.assertEqual(pair.b.session.streams, 0)
        self.assertEqual(pair.inject(0, items.item(items.WINDOW, 2 * (few - 1), 1)), Drop.NONE)
        self.assertEqual((pair.b.session.streams, self.memory.used), (few, few * STREAM_HELD))
        self.assertTrue(pair.b.session.live)

    def test_unread_bytes(self) -> None:
        """A reader that passes nothing on holds a share; what it passes on flows again, all is given back."""
        pair = self.pair(1 << 20, greedy=False)
        writer = pair.send(bytes(1_000_000))
        pair.run(5.0)
        (reader,), (stream,) = pair.readers, pair.streams
        self.assertLess(len(reader.data), (1 << 20) // 4)
        self.assertGreater(len(reader.data), (1 << 20) // 10)
        self.assertLessEqual(self.memory.used, 1 << 20)
        reader.greedy = True
        stream.consumed(len(reader.data))
        self.assertTrue(pair.run(120.0, lambda: bool(reader.ended)))
        self.assertEqual(len(reader.data), len(writer.content))
        pair.run(5.0)
        stream.finish()
        pair.run(5.0)
        self.assertEqual((pair.b.session.streams, self.memory.used), (0, 0))

    def test_unsent_bytes(self) -> None:
        """Writers of many streams that nobody acknowledges hold a share, and a little each."""
        pair = self.pair(4 << 20)
        readers = [pair.open(port=port) for port in range(1, 21)]
        pair.run(1.0)
        pair.cut = True
        taken = [stream.write(bytes(1 << 20)) for stream in pair.streams]
        self.assertLess(sum(taken), 1 << 20)
        self.assertGreaterEqual(min(taken), SMALLEST_SEND)
        self.assertEqual(pair.streams[0].writable, 0)
        self.assertEqual(self.memory.used, sum(taken) + 20 * STREAM_HELD)
        pair.cut = False
        self.assertTrue(pair.run(20.0, lambda: sum(len(reader.data) for reader in readers) == sum(taken)))
        pair.run(1.0)
        self.assertEqual(self.memory.used, 20 * STREAM_HELD)
        pair.streams[0].write(bytes(50_000))
        pair.streams[0].reset()
        pair.b.session.close(0, "", pair.now)
        self.assertEqual(self.memory.used, 0)

    def test_one_session_leaves_room_for_another(self) -> None:
        """A session that holds all it can get leaves others a share."""
        memory = Memory(1 << 20)
        first, second = Account(memory), Account(memory)
        while first.room() > 0:
            first.take(first.room())
        self.assertGreater(second.room(), 1 << 17)
        second.take(second.room())
        self.assertLess(memory.used, 1 << 20)
        first.close()
        first.close()
        self.assertEqual(memory.used, second.held)

    def test_what_is_read_after_the_end_is_credited(self) -> None:
        """Bytes that a reader has not passed on when it resets a finished stream are the session's again."""
        pair = self.pair(8 << 20, greedy=False)
        for _ in range(3):
            pair.send(bytes(10_000))
            pair.run(2.0)
            self.assertTrue(pair.readers[-1].ended)
            pair.streams[-1].reset()
            pair.streams[-1].consumed(10_000)
            pair.run(2.0)
        self.assertEqual((pair.b.session.streams, self.memory.used), (0, 0))
        self.assertEqual(pair.b.session._inbox.received, pair.b.session._inbox.consumed)
