"""The two halves of a stream against models."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.limits import STREAM_PIECES
from meshnet.session.codes import Code, SessionFaultError
from meshnet.session.receiving import ReceiveHalf
from meshnet.session.sending import SendHalf


def pattern(start: int, end: int) -> bytes:
    return bytes((i * 7 + (i >> 8)) & 0xFF for i in range(start, end))


class ReceiveHalfTests(SynchronousTestCase):
    @given(st.lists(st.tuples(st.integers(0, 9_000), st.integers(0, 3_000)), max_size=30))
    def test_reassembly(self, pieces: list[tuple[int, int]]) -> None:
        """Pieces in any order, overlapping at will, come out as one contiguous run, each byte once."""
        half, out, seen = ReceiveHalf(12_000, 12_000), bytearray(), set()
        for start, size in pieces:
            end = start + size
            half.extend(end, False)
            seen |= set(range(start, end))
            self.assertTrue(half.keep(start, memoryview(pattern(start, end))))
            while (data := half.take()) is not None:
                out += data
            expected = 0
            while expected in seen:
                expected += 1
            self.assertEqual(half.delivered, expected)
            self.assertEqual(out, pattern(0, expected))
            self.assertLessEqual(half.ring.capacity, 16_384)
        if not half.early.starts:
            self.assertEqual(half.ring.capacity, 0)

    def test_gaps_are_bounded(self) -> None:
        """More gaps than allowed are not remembered; pieces that extend one still are."""
        half = ReceiveHalf(1 << 20, 1 << 20)
        for i in range(STREAM_PIECES):
            self.assertTrue(half.keep(2 * i + 1, memoryview(b"x")))
        self.assertFalse(half.keep(2 * STREAM_PIECES + 1, memoryview(b"x")))
        self.assertEqual(len(half.early), STREAM_PIECES)

    def test_rules(self) -> None:
        """The window and the final size are binding."""
        half = ReceiveHalf(100, 100)
        self.assertEqual(half.extend(60, False), 60)
        self.assertEqual(half.extend(50, False), 0)
        error = self.assertRaises(SessionFaultError, half.extend, 101, False)
        self.assertEqual(error.code, Code.FLOW_CONTROL)
        self.assertEqual(self.assertRaises(SessionFaultError, half.extend, 59, True).code, Code.STREAM_STATE)
        self.assertEqual(half.extend(80, True), 20)
        for end, fin in ((81, False), (81, True), (70, True)):
            self.assertRaises(SessionFaultError, half.extend, end, fin)
        self.assertEqual(half.extend(80, True), 0)

    def test_window(self) -> None:
        """A new limit is due once half of the window was consumed."""
        half = ReceiveHalf(100, 100)
        half.consumed = 49
        self.assertFalse(half.window_due())
        half.consumed = 50
        self.assertTrue(half.window_due())
        self.assertEqual(half.grant(), 150)
        self.assertFalse(half.window_due())


class SendHalfTests(SynchronousTestCase):
    @given(st.data())
    def test_model(self, draw: st.DataObject) -> None:
        """However cells are cut, lost and acknowledged, the other side can put together what was written."""
        half = SendHalf(1 << 30, 4_000)
        flying: list[tuple[int, int, bool]] = []
        got: dict[int, int] = {}
        written = 0
        fin_got = False
        for _ in range(draw.draw(st.integers(1, 60))):
            what = draw.draw(st.sampled_from("wwsssalf"))
            if what == "w" and half.open:
                data = pattern(written, written + draw.draw(st.integers(0, 3_000)))
                taken = half.write(memoryview(data))
                self.assertEqual(taken, min(len(data), 4_000 - (written - half.base)))
                written += taken
            elif what == "f":
                half.finishing = True
            elif what == "s" and half.ready():
                most = draw.draw(st.integers(1, 2_000))
                start, end = half.piece(most, 1 << 30)
                fin = half.finishing and end == half.end
                self.assertTrue(0 < end - start <= most or (fin and start == end))
                into = bytearray(end - start)
                half.ring.take(start, end - start, memoryview(into))
                self.assertEqual(into, pattern(start, end))
                half.sent(start, end, fin)
                flying.append((start, end, fin))
            elif what in "al" and flying:
                start, end, fin = flying.pop(draw.draw(st.integers(0, len(flying) - 1)))
                if what == "l":
                    half.lost(start, end, fin)
                    continue
                got.update((i, 1) for i in range(start, end))
                fin_got = fin_got or fin
                half.acknowledged(start, end, fin)
        self.finish(half, flying, got, written, fin_got)

    def finish(self, half: SendHalf, flying: list, got: dict, written: int, fin_got: bool) -> None:
        """Loses all that flies, then delivers everything."""
        half.finishing = True
        for start, end, fin in flying:
            half.lost(start, end, fin)
        for _ in range(1_000):
            if not half.ready():
                break
            start, end = half.piece(700, 1 << 30)
            fin = half.finishing and end == half.end
            half.sent(start, end, fin)
            got.update((i, 1) for i in range(start, end))
            fin_got = fin_got or fin
            half.acknowledged(start, end, fin)
        self.assertEqual(sorted(got), list(range(written)))
        self.assertTrue(fin_got and half.done)
        self.assertEqual(half.base, written)

    def test_limits(self) -> None:
        """The peer's limit and the session's credit hold back new bytes, not those sent before."""
        half = SendHalf(1_000, 5_000)
        half.write(memoryview(pattern(0, 3_000)))
        self.assertEqual(half.piece(2_000, 400), (0, 400))
        half.sent(0, 400, False)
        self.assertEqual(half.piece(2_000, 5_000), (400, 1_000))
        half.sent(400, 1_000, False)
        self.assertFalse(half.ready())
        half.lost(0, 400, False)
        self.assertEqual(half.piece(2_000, 0), (0, 400))

    def test_reset_frees(self) -> None:
        """A RESET drops what is kept and names what was sent as the final size."""
        half = SendHalf(1_000, 1 << 20)
        half.write(memoryview(bytes(500_000)))
        half.sent(0, 1_000, False)
        half.reset(7)
        self.assertEqual((half.end, half.ring.capacity, half.ready(), half.writable), (1_000, 0, False, 0))
        half.lost(0, 1_000, False)
        half.acknowledged(0, 1_000, False)
        self.assertFalse(half.ready() or half.done)
