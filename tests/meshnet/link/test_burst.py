"""How much an outlet seals ahead of a carrier that is slow: what lies sealed cannot be overtaken."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.aead import backend
from meshnet.cipher.rotation import RotatingKey
from meshnet.link.outlet import Outbox, Outlet
from meshnet.link.pace import LEAST_AHEAD
from meshnet.link.record import BUFFER_SIZE, Sealer

CELL = 1_000


class Endless:
    """A source that always has a cell."""

    def __init__(self, outlet: Outlet) -> None:
        self.outlet = outlet
        self.cells = 0

    def pour(self, now: float) -> bool:
        room = self.outlet.room(12, CELL)
        if room is not None:
            self.outlet.commit(CELL)
            self.cells += 1
        return True


class BurstTests(SynchronousTestCase):
    """An outlet with a source that never ends, over a carrier of a given speed."""

    def drain(self, rate: float, seconds: float = 2.0, step: float = 0.02) -> tuple[int, list[int], float]:
        """The carrier takes `rate` bytes a second: cells sent, bytes left sealed after each step, and calls
        of its `write` per step."""
        free, calls, now = 64 << 10, 0, 100.0

        def write(data: memoryview) -> int:
            nonlocal free, calls
            calls += 1
            taken = min(free, len(data))
            free -= taken
            return taken

        outlet = Outlet(Outbox(lambda call: None, lambda: now))
        source = Endless(outlet)
        outlet.ready(source)
        outlet.serve(Sealer(RotatingKey(b"s" * 32, b"c" * 32, backend())), write)
        outlet.flush(now)
        left = []
        for _ in range(int(seconds / step)):
            now += step
            free = int(rate * step)
            outlet.drained(now)
            left.append(outlet.sealer.unsent)
        return source.cells, left, calls / len(left)

    def test_a_slow_carrier(self) -> None:
        """Little is sealed ahead of it, and nothing of its rate is lost."""
        cells, left, _ = self.drain(2e6)
        self.assertLess(max(left[5:]), 2 * LEAST_AHEAD)
        self.assertGreater(cells * CELL, 0.95 * 4e6)

    def test_a_fast_carrier(self) -> None:
        """It is given as much at once as the buffer holds."""
        cells, left, calls = self.drain(200e6)
        self.assertGreater(max(left), BUFFER_SIZE // 2)
        self.assertGreater(cells * CELL, 0.95 * 400e6)
        self.assertLess(calls, 3 * 200e6 * 0.02 / BUFFER_SIZE)
