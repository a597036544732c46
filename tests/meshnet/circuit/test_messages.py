"""The frames' bytes, and decoders fed with anything."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.circuit.messages import (
    Create,
    Created,
    Destroy,
    Failed,
    Failure,
    FailureTerms,
    HopTerms,
)
from meshnet.codec import decode, encode
from meshnet.errors import CodecError, Reason

KEY = bytes([2]) + bytes(32)


class Layouts(SynchronousTestCase):
    """The bytes are those of docs/wire-format.md."""

    def test_frames(self) -> None:
        create = encode(Create(0x01020304, 0x05060708, 0x090A, KEY, b"o" * 1366))
        self.assertEqual(create, bytes(range(1, 11)) + KEY + b"o" * 1366)
        self.assertEqual(encode(Created(1, b"s" * 459)), b"\0\0\0\x01" + b"s" * 459)
        self.assertEqual(encode(Failed(1, 3)), b"\0\0\0\x01\x03")
        self.assertEqual(encode(Destroy(1, 1, b"e" * 292)), b"\0\0\0\x01\x01" + b"e" * 292)

    def test_terms(self) -> None:
        relay = HopTerms(next_node=KEY, suite=0, idle=60)
        self.assertEqual(encode(relay), b"\x02\x21" + KEY + b"\x08\x01\0\x0c\x02\0\x3c")
        last = HopTerms(first_message=b"n" * 49)
        self.assertEqual(encode(last), b"\x40\x31" + b"n" * 49)

    def test_failures(self) -> None:
        failure = Failure(Reason.CLOCK_SKEW, "no", FailureTerms(unix=5))
        self.assertEqual(encode(failure), b"\x05\x02no\x01\x08" + bytes(7) + b"\x05")

    def test_the_longest_failure_fits(self) -> None:
        failure = Failure(255, "ä" * 100, FailureTerms(unix=1 << 63))
        self.assertLessEqual(len(encode(failure)), 256)


class Hostile(SynchronousTestCase):
    @given(st.sampled_from([Create, Created, Failed, Destroy, HopTerms, Failure]), st.binary(max_size=600))
    def test_anything(self, cls: type[object], data: bytes) -> None:
        """Any bytes are a message, which encodes to the same bytes, or a CodecError."""
        try:
            message: object = decode(cls, data)
        except CodecError:
            return
        self.assertEqual(decode(cls, encode(message)), message)

    @given(
        st.builds(Failed, st.integers(0, 2**32 - 1), st.integers(0, 255), st.binary(max_size=292))
        | st.builds(Destroy, st.integers(0, 2**32 - 1), st.integers(0, 255), st.binary(max_size=292))
    )
    def test_round_trip(self, message: Failed | Destroy) -> None:
        self.assertEqual(decode(type(message), encode(message)), message)
