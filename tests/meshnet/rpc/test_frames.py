"""Frames: their sizes, and the times in them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet import limits
from meshnet.rpc import frames
from meshnet.rpc.failure import Fault, from_wire, heard, said, to_wire
from meshnet.rpc.wire import OURS
from tests.meshnet.rpc.pairs import Side


class FrameTests(SynchronousTestCase):
    """Bytes."""

    def test_overhead(self) -> None:
        """A call costs 14 bytes beside its two messages."""
        self.assertEqual(frames.OVERHEAD, 14)

    def test_lengths(self) -> None:
        """The largest bodies fit into the 20 bits of a length, and ids into 16."""
        self.assertLess(limits.RPC_BODY + frames.TIME_SIZE, frames.LENGTH)
        self.assertLess(limits.RPC_ITEM + frames.HEAD_SIZE, limits.RPC_CREDIT)
        self.assertLess(limits.RPC_CALLS, frames.IDS // 2)
        self.assertLess(limits.RPC_LONGEST, frames.time_of(0xFFFF))
        self.assertLess(2 * limits.RPC_QUEUE_MARK + limits.RPC_BODY, limits.RPC_QUEUE)

    def test_hello(self) -> None:
        """The first frame, to the byte."""
        hello = Side(True).output()
        self.assertEqual(hello.hex(), "000000150000" + b"mRPC".hex() + "0101000020004000000002000000040000")
        self.assertEqual(frames.HELLO_SIZE, len(hello) - frames.HEAD_SIZE)
        self.assertEqual(OURS.calls, limits.RPC_CALLS)

    @given(st.floats(0, limits.RPC_LONGEST))
    def test_times(self, seconds: float) -> None:
        """A time never gets shorter on the wire, and longer by little."""
        code = frames.time_code(seconds)
        self.assertTrue(0 < code <= 0xFFFF)
        self.assertTrue(seconds <= frames.time_of(code) <= seconds * 1.001 + 0.0011)


class FailureTests(SynchronousTestCase):
    """Texts and codes."""

    @given(st.text())
    def test_said(self, text: str) -> None:
        """A text is cut between characters, and shown without what plays with a terminal."""
        octets = said(text)
        self.assertLessEqual(len(octets), limits.RPC_TEXT)
        self.assertTrue(heard(octets).isprintable())
        self.assertTrue(text.encode(errors="replace").startswith(octets))

    @given(st.binary(max_size=300), st.integers(0, 0xFFFF))
    def test_heard(self, octets: bytes, code: int) -> None:
        """Any bytes are a text, any code an error with a sentence."""
        self.assertTrue(str(from_wire(code, heard(octets), "a.b")))

    def test_every_fault(self) -> None:
        """Each code of a failed call has an error that says which call; those that travel come back alike."""
        for fault in set(Fault) - {Fault.NONE, Fault.PROTOCOL}:
            error = from_wire(fault, "", "clock.now")
            self.assertIn("clock.now", str(error))
            if fault not in (Fault.DEADLINE, Fault.SCHEMA, Fault.INTERNAL):
                self.assertEqual(to_wire(error)[0], fault)
