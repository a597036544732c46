"""QUIC varints and BigSize: published examples, round trips, short buffers."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.codec.varint import (
    bigsize_size,
    read_bigsize,
    read_varint,
    varint_size,
    write_bigsize,
    write_varint,
)
from meshnet.errors import CodecError, EncodeError
from tests.support.vectors import vectors

# RFC 9000, appendix A.1
RFC_9000 = [
    ("c2197c5eff14e88c", 151_288_809_941_952_652),
    ("9d7f3e7d", 494_878_333),
    ("7bbd", 15_293),
    ("25", 37),
]


class VarintTests(SynchronousTestCase):
    def test_rfc_9000(self) -> None:
        """The examples of the RFC read and write; its two-byte form of 37 is read too."""
        for text, value in RFC_9000:
            data = bytes.fromhex(text)
            self.assertEqual(read_varint(data, 0), (value, len(data)))
            buffer = bytearray(len(data))
            self.assertEqual(write_varint(value, buffer, 0), len(data))
            self.assertEqual(buffer, data)
        self.assertEqual(read_varint(bytes.fromhex("4025"), 0), (37, 2))

    @given(st.integers(0, (1 << 62) - 1), st.integers(0, 5))
    def test_round_trip(self, value: int, start: int) -> None:
        """What is written is read back, at any position, from any kind of buffer; cut short it is refused."""
        buffer = bytearray(start + varint_size(value))
        end = write_varint(value, buffer, start)
        self.assertEqual(end, len(buffer))
        for data in (buffer, bytes(buffer), memoryview(buffer)):
            self.assertEqual(read_varint(data, start), (value, end))
        for size in range(start, end):
            self.assertRaises(CodecError, read_varint, bytes(buffer[:size]), start)
            self.assertRaises(EncodeError, write_varint, value, bytearray(size), start)
            self.assertRaises(EncodeError, write_varint, value, memoryview(bytearray(size)), start)

    @given(st.integers(max_value=-1) | st.integers(min_value=1 << 62))
    def test_out_of_range(self, value: int) -> None:
        """Negative values and those above 2^62 - 1 are refused."""
        self.assertRaises(EncodeError, write_varint, value, bytearray(8), 0)
        self.assertRaises(EncodeError, varint_size, value)


class BigSizeTests(SynchronousTestCase):
    def cases(self, name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(vectors("bolt/bolt01-bigsize.json").read_text())[name]
        self.assertTrue(found)
        return found

    def test_bolt_1_decode(self) -> None:
        """The published values decode; what is not minimal or ends early is refused."""
        for case in self.cases("decode"):
            data = bytes.fromhex(case["bytes"])
            if "exp_error" in case:
                self.assertRaises(CodecError, read_bigsize, data, 0)
            else:
                self.assertEqual(read_bigsize(data, 0), (case["value"], len(data)), case["name"])

    def test_bolt_1_encode(self) -> None:
        """The published values encode."""
        for case in self.cases("encode"):
            buffer = bytearray(bigsize_size(case["value"]))
            write_bigsize(case["value"], buffer, 0)
            self.assertEqual(buffer.hex(), case["bytes"], case["name"])

    @given(st.integers(0, (1 << 64) - 1), st.integers(0, 5))
    def test_round_trip(self, value: int, start: int) -> None:
        """What is written is read back; cut short it is refused."""
        buffer = bytearray(start + bigsize_size(value))
        end = write_bigsize(value, buffer, start)
        self.assertEqual(read_bigsize(memoryview(buffer), start), (value, end))
        for size in range(start, end):
            self.assertRaises(CodecError, read_bigsize, bytes(buffer[:size]), start)
            self.assertRaises(EncodeError, write_bigsize, value, bytearray(size), start)

    @given(st.integers(max_value=-1) | st.integers(min_value=1 << 64))
    def test_out_of_range(self, value: int) -> None:
        """Negative values and those above 2^64 - 1 are refused."""
        self.assertRaises(EncodeError, write_bigsize, value, bytearray(9), 0)
        self.assertRaises(EncodeError, bigsize_size, value)
