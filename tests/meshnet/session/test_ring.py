"""Bytes by offset, over the edge and while growing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.session.ring import KEPT, SMALLEST, Ring


class RingTests(SynchronousTestCase):
    @given(st.integers(0, 1 << 40), st.lists(st.tuples(st.integers(1, 5_000), st.integers(0, 6_000))))
    def test_model(self, base: int, steps: list[tuple[int, int]]) -> None:
        """What was put comes out, from any offset, after any growth."""
        ring, model, start = Ring(), bytearray(), base
        for mark, (put, drop) in enumerate(steps):
            data = bytes((mark + i) & 0xFF for i in range(put))
            end = start + len(model)
            ring.reserve(start, end, end + put)
            ring.put(end, memoryview(data))
            model += data
            drop = min(drop, len(model))
            del model[:drop]
            start += drop
            into = bytearray(len(model))
            ring.take(start, len(model), memoryview(into))
            self.assertEqual(into, model)
            if model:
                piece = ring.piece(start, len(model))
                self.assertTrue(piece)
                self.assertEqual(piece, model[: len(piece)])

    def test_memory(self) -> None:
        """Small to begin with, doubled as needed, given back when empty."""
        ring = Ring()
        self.assertEqual(ring.capacity, 0)
        ring.reserve(7, 7, 8)
        self.assertEqual(ring.capacity, SMALLEST)
        ring.reserve(7, 8, 8 + KEPT)
        self.assertEqual(ring.capacity, 2 * KEPT)
        ring.release()
        self.assertEqual(ring.capacity, 0)
        ring.reserve(0, 0, KEPT)
        ring.release()
        self.assertEqual(ring.capacity, KEPT)
        ring.drop()
        self.assertEqual(ring.capacity, 0)
