"""Loss detection by number, by time and by probes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from meshnet.session.codes import SessionFaultError
from meshnet.session.congestion import SMALLEST_WINDOW, Congestion
from meshnet.session.rate import DeliveryRate
from meshnet.session.recovery import Recovery


class RecoveryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.arrived: list[int] = []
        self.lost: list[int] = []
        self.recovery = Recovery(
            DeliveryRate(61_000),
            Congestion(),
            lambda contents: self.arrived.append(contents[0][0]),
            lambda contents: self.lost.append(contents[0][0]),
            0.05,
        )

    def send(self, now: float, count: int = 1, size: int = 1_000) -> None:
        for _ in range(count):
            self.recovery.record(now, size, [(self.recovery.next,)])
            self.recovery.next += 1

    def ack(self, now: float, *ranges: tuple[int, int], delay: int = 0, marks: int = 0) -> bool:
        return self.recovery.acknowledged(ranges[0][1], delay, marks, list(ranges), now)

    def test_in_order(self) -> None:
        """What is acknowledged leaves; saying it again is no news."""
        self.send(0.0, 4)
        self.assertEqual(self.recovery.in_flight, 4_000)
        self.assertTrue(self.ack(0.05, (0, 1)))
        self.assertEqual((self.arrived, self.recovery.in_flight), ([1, 0], 2_000))
        self.assertFalse(self.ack(0.06, (0, 1)))
        self.assertTrue(self.ack(0.06, (0, 3)))
        self.assertEqual((self.recovery.in_flight, self.recovery.deadline()), (0, None))
        self.assertAlmostEqual(self.recovery.shortest, 0.05)

    def test_three_later(self) -> None:
        """A cell is lost when one sent three numbers later has arrived."""
        self.send(0.0, 5)
        self.ack(0.05, (1, 2))
        self.assertEqual(self.lost, [])
        self.ack(0.05, (1, 3))
        self.assertEqual((self.lost, self.recovery.in_flight), ([0], 1_000))
        self.assertEqual(self.recovery.congestion.events, 1)

    def test_too_late(self) -> None:
        """One or two numbers behind, it is lost after 9/8 of a round trip."""
        self.send(0.0, 2)
        self.ack(0.05, (1, 1))
        deadline = self.recovery.deadline()
        self.assertAlmostEqual(deadline, 0.05 * 9 / 8)
        self.recovery.tick(deadline - 0.001)
        self.assertEqual(self.lost, [])
        self.recovery.tick(deadline)
        self.assertEqual(self.lost, [0])
        self.assertIsNone(self.recovery.deadline())

    def test_probe(self) -> None:
        """Without any answer the oldest is said again after the time-out, which doubles."""
        self.send(0.0, 3)
        first = self.recovery.deadline()
        self.recovery.tick(first)
        self.assertEqual((self.lost, self.recovery.probes), ([0], 2))
        self.assertEqual(self.recovery.in_flight, 3_000)
        self.assertAlmostEqual(self.recovery.deadline() - first, 2 * first)
        self.send(first, 1)
        self.assertEqual(self.recovery.probes, 1)
        self.ack(first + 0.05, (3, 3))
        self.assertEqual(self.recovery.probes, 0)
        self.assertIn(0, self.lost[1:], "three later")

    def test_dead(self) -> None:
        """15 seconds without an acknowledgement while cells are in flight."""
        self.assertFalse(self.recovery.dead(1e9))
        self.send(100.0)
        self.assertFalse(self.recovery.dead(114.9))
        self.assertTrue(self.recovery.dead(115.0))
        self.ack(114.0, (0, 0))
        self.assertFalse(self.recovery.dead(1e9))

    def test_persistent(self) -> None:
        """Losing all for several time-outs collapses the window; losing one cell does not."""
        recovery = self.recovery
        self.send(0.0)
        self.ack(0.05, (0, 0))
        for now in (1.0, 2.0, 3.0, 3.01, 3.02, 3.03):
            self.send(now)
        self.ack(3.1, (6, 6))
        self.assertLess(recovery.congestion.window, 1.5 * SMALLEST_WINDOW)

    def test_marks(self) -> None:
        """A higher count of marks cuts the window, the same count again does not."""
        self.send(0.0, 3)
        self.ack(0.05, (0, 0), marks=1)
        self.send(0.06, 1)
        self.ack(0.1, (0, 1), marks=1)
        self.ack(0.2, (0, 3), marks=1)
        self.assertEqual(self.recovery.congestion.events, 1)

    def test_delay_is_taken_off(self) -> None:
        """The peer's delay does not count as round trip, unless it claims too much."""
        self.send(0.0)
        self.ack(0.05, (0, 0))
        self.send(1.0)
        self.ack(1.058, (0, 1), delay=5_000)
        self.assertAlmostEqual(self.recovery.trip, 0.05 + 0.003 / 8)

    def test_never_sent(self) -> None:
        """An acknowledgement of the future is a fault; a huge range costs nothing."""
        self.send(0.0, 2)
        self.assertRaises(SessionFaultError, self.ack, 0.1, (0, 2))
        self.recovery.next = 1 << 31
        self.assertTrue(self.ack(0.1, (0, 1 << 20)))


class RateTests(SynchronousTestCase):
    def test_clamp(self) -> None:
        """2 ms of the rate, at least 1,200 bytes, at most the path's."""
        for rate, cell in ((1e5, 1_200), (5e6, 10_000), (1e9, 61_000)):
            meter = DeliveryRate(61_000)
            self.assertEqual(meter.cell_size, 1_200)
            meter.restart(0.0)
            meter.delivered += int(rate * 0.1)
            meter.acknowledged(0.0, 0, 0.0, 0.0, False, 0.1, 0.1)
            self.assertAlmostEqual(meter.rate, rate)
            self.assertEqual(meter.cell_size, cell)

    def test_small_path(self) -> None:
        """A path below 1,200 bytes is not exceeded."""
        self.assertEqual(DeliveryRate(600).cell_size, 600)

    def test_idle_keeps(self) -> None:
        """Samples of a sender with nothing to send do not lower the rate."""
        meter = DeliveryRate(61_000)
        meter.restart(0.0)
        meter.delivered = 1_000_000
        meter.acknowledged(0.0, 0, 0.0, 0.0, False, 0.1, 0.1)
        for i in range(100):
            meter.delivered += 100
            meter.acknowledged(i, meter.delivered - 100, i, i, True, i + 0.1, 0.1)
        self.assertAlmostEqual(meter.rate, 1e7)

    def test_falls(self) -> None:
        """A slower path is believed after the window has passed twice."""
        meter = DeliveryRate(61_000)
        for i in range(60):
            before = meter.delivered
            meter.delivered += 1_000_000 if i < 2 else 100_000
            meter.acknowledged(i * 0.1, before, i * 0.1, i * 0.1, False, i * 0.1 + 0.1, 0.1)
        self.assertAlmostEqual(meter.rate, 1e6)
