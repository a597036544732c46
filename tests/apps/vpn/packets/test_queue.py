"""A queue that is fair, and does not stand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from apps.vpn.packets.ecn import mark
from apps.vpn.packets.faults import Fault, named, new_counts
from apps.vpn.packets.headers import check
from apps.vpn.packets.queue import PacketQueue
from tests.support.packets import plain, udp

FOUR = "10.0.0.1", "10.0.0.2"


def frame(port: int, size: int = 1_000, **more: int) -> bytes:
    return plain(udp(*FOUR, (port, 2), bytes(size), **more))


def new_queue(most: int = 1 << 20) -> PacketQueue:
    return PacketQueue(most, new_counts())


class QueueTests(SynchronousTestCase):
    """`PacketQueue`."""

    def test_order(self) -> None:
        """One flow keeps its order; nothing is lost."""
        queue, frames = new_queue(), [frame(1, size) for size in range(1, 40)]
        for each in frames:
            queue.push(each, 0.0)
        self.assertEqual([queue.pull(0.0) for _ in frames], frames)
        self.assertIsNone(queue.pull(0.0))
        self.assertEqual((queue.held, len(queue)), (0, 0))

    def test_newcomer(self) -> None:
        """Who has just begun does not wait behind who has filled the queue."""
        queue = new_queue()
        for _ in range(100):
            queue.push(frame(1, 10_000), 0.0)
        for _ in range(3):
            queue.pull(0.0)
        queue.push(frame(7, 10), 0.0)
        self.assertEqual(queue.pull(0.0), frame(7, 10))

    def test_shares(self) -> None:
        """Large packets get no larger share than small ones."""
        queue = new_queue(8 << 20)
        for _ in range(100):
            queue.push(frame(1, 20_000), 0.0)
        for _ in range(2_000):
            queue.push(frame(2, 1_000), 0.0)
        sent = {1: 0, 2: 0}
        for _ in range(500):
            each = queue.pull(0.0)
            assert each is not None
            sent[each[31]] += len(each)
        self.assertLess(abs(sent[1] - sent[2]), 60_000)

    def test_full(self) -> None:
        """Beyond its bytes the longest flow loses its oldest, and only that one."""
        queue = new_queue(100_000)
        queue.push(frame(2, 500), 0.0)
        for _ in range(300):
            queue.push(frame(1, 1_000), 0.0)
            self.assertLessEqual(queue.held, 100_000)
        left = 0
        while queue.pull(0.0) is not None:
            left += 1
        self.assertEqual(queue.faults[Fault.FULL] + left, 301)
        self.assertEqual(named(queue.faults), {"full": 301 - left})

    def stand(self, tos: int) -> PacketQueue:
        """Packets come twice as fast as they leave, for two seconds."""
        queue, now = new_queue(64 << 20), 0.0
        for _ in range(4_000):
            queue.push(frame(1, 100, tos=tos), now)
            queue.push(frame(1, 100, tos=tos), now)
            queue.pull(now)
            now += 0.0005
        return queue

    def test_standing(self) -> None:
        """A queue that does not get shorter loses packets now and then, more and more of them."""
        queue = self.stand(0)
        self.assertGreater(queue.faults[Fault.STANDING], 20)
        self.assertLess(queue.faults[Fault.STANDING], 1_000)
        self.assertEqual(queue.marked, 0)

    def test_marked(self) -> None:
        """Where the ends understand, packets are marked instead."""
        queue = self.stand(2)
        self.assertEqual(queue.faults[Fault.STANDING], 0)
        self.assertGreater(queue.marked, 20)

    def test_burst(self) -> None:
        """What waits for less than an interval is a burst, and is let be."""
        queue, now = new_queue(), 0.0
        for _ in range(80):
            queue.push(frame(1), now)
        while queue.pull(now) is not None:
            now += 0.001
        self.assertEqual(named(queue.faults), {})

    def test_clear(self) -> None:
        """What is thrown away is counted."""
        queue = new_queue()
        for port in range(5):
            queue.push(frame(port), 0.0)
        queue.clear()
        self.assertEqual(named(queue.faults), {"gone": 5})
        self.assertIsNone(queue.pull(0.0))

    @given(st.lists(st.one_of(st.tuples(st.integers(0, 9), st.integers(1, 3_000)), st.none()), max_size=200))
    def test_accounts(self, steps: list[tuple[int, int] | None]) -> None:
        """Whatever comes and goes, when: bytes add up, and every packet is either pulled or counted."""
        queue, now, came, went = new_queue(40_000), 0.0, 0, 0
        for step in steps:
            now += 0.01
            if step is None:
                went += queue.pull(now) is not None
            else:
                queue.push(frame(*step), now)
                came += 1
            held = sum(len(each) for flow in queue._flows.values() for _, each in flow.frames)
            self.assertEqual(queue.held, held)
            self.assertEqual(came, went + len(queue) + sum(queue.faults))


class MarkTests(SynchronousTestCase):
    """`ecn.mark`."""

    def test_mark(self) -> None:
        """ECT becomes CE with its checksum mended; CE stays; who does not understand is let be."""
        for ends in (FOUR, ("fc00::1", "fc00::2")):
            for tos, marked, after in (
                (0, False, 0),
                (1, True, 3),
                (2, True, 3),
                (3, True, 3),
                (0xB9, True, 0xBB),
            ):
                each = bytearray(plain(udp(*ends, (1, 2), b"x", tos=tos)))
                self.assertEqual(mark(each), marked)
                self.assertEqual(bytes(each), plain(udp(*ends, (1, 2), b"x", tos=after)))
                self.assertFalse(check(memoryview(each)))
