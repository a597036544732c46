"""TLV streams: the vectors of BOLT 1, and our own fixed-width form."""

from __future__ import annotations

import json
from typing import Annotated, Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.codec import (
    TU16,
    TU32,
    TU64,
    U8,
    U16,
    U64,
    Fixed,
    Many,
    Rest,
    SignedInt,
    Tlv,
    decode,
    encode,
    message,
    tlvs,
)
from meshnet.errors import CodecError, EncodeError
from tests.support.vectors import vectors


@message
class Amounts:
    node_id: Annotated[bytes, Fixed(33)]
    amount_1: U64
    amount_2: U64


@tlvs
class N1:
    amount: Annotated[int | None, Tlv(1, TU64)] = None
    channel: Annotated[bytes | None, Tlv(2, Fixed(8))] = None
    amounts: Annotated[Amounts | None, Tlv(3, Amounts)] = None
    delta: Annotated[int | None, Tlv(254, U16)] = None


@tlvs
class N2:
    amount: Annotated[int | None, Tlv(0, TU64)] = None
    expiry: Annotated[int | None, Tlv(11, TU32)] = None


@tlvs
class Own:
    key: Annotated[bytes, Tlv(64, Fixed(3))]
    small: Annotated[int | None, Tlv(1, TU16)] = None
    ports: Annotated[tuple[U16, ...] | None, Tlv(6, Many(None, 3))] = None
    blob: Annotated[bytes | None, Tlv(70_000, Rest(400))] = None
    offset: Annotated[int | None, Tlv(9, SignedInt)] = None


@message
class Change:
    by: SignedInt


owns = st.builds(
    Own,
    key=st.binary(min_size=3, max_size=3),
    small=st.none() | st.integers(0, 0xFFFF),
    ports=st.none() | st.lists(st.integers(0, 0xFFFF), max_size=3).map(tuple),
    blob=st.none() | st.binary(max_size=400),
    offset=st.none() | st.integers(-(1 << 63), (1 << 63) - 1),
)


class Bolt1Tests(SynchronousTestCase):
    def cases(self, *names: str) -> list[tuple[bytes, str]]:
        found: dict[str, Any] = json.loads(vectors("bolt/bolt01-tlv.json").read_text())
        cases = [
            (bytes.fromhex(one["stream"]), str(one.get("reason"))) for name in names for one in found[name]
        ]
        self.assertTrue(cases)
        return cases

    def test_refused(self) -> None:
        """Streams that must fail do; but whether a point lies on the curve is for its reader to say."""
        for cls, names in (
            (N1, ("fail_any", "fail_either_unknown_even", "fail_n1", "fail_stream_n1")),
            (N2, ("fail_any", "fail_either_unknown_even", "fail_stream_n2")),
        ):
            for stream, reason in self.cases(*names):
                if reason.endswith("not a valid point."):
                    self.assertEqual(decode(N1, stream).amounts.node_id[0], 4)  # type: ignore[union-attr]
                else:
                    self.assertRaises(CodecError, decode, cls, stream)

    def test_accepted(self) -> None:
        """Streams that must pass do; those of known types encode to the same bytes."""
        for cls in (N1, N2):
            for stream, _ in self.cases("ok_either"):
                self.assertEqual(decode(cls, stream), cls())
        for stream, _ in self.cases("ok_n1"):
            self.assertEqual(encode(decode(N1, stream)), stream)
        self.assertEqual(decode(N1, bytes.fromhex("01020100")).amount, 256)
        self.assertEqual(decode(N1, bytes.fromhex("fd00fe020226")).delta, 550)

    def test_signed(self) -> None:
        """Appendix D: signed integers in their shortest form, both ways."""
        for case in json.loads(vectors("bolt/bolt01-signed-int.json").read_text())["signed"]:
            data = bytes.fromhex(case["bytes"])
            self.assertEqual(decode(Change, data), Change(case["value"]))
            self.assertEqual(encode(Change(case["value"])), data)
        for long in (b"", bytes(2), bytes(3), b"\xff\xff", bytes(9)):
            self.assertRaises(CodecError, decode, Change, long)
        self.assertRaises(EncodeError, encode, Change(1 << 63))


class OwnTests(SynchronousTestCase):
    @given(owns)
    def test_round_trip(self, value: Own) -> None:
        """Whatever is set comes back; types are written in order whatever the order of declaration."""
        self.assertEqual(decode(Own, encode(value)), value)

    @given(owns, st.sampled_from([3, 7, 63, 65, 99_999, (1 << 64) - 1]), st.binary(max_size=5))
    def test_unknown_types(self, value: Own, number: int, body: bytes) -> None:
        """An unknown odd type at its place is skipped; made even it is refused."""
        odd = _with(encode(value), number, body)
        self.assertEqual(decode(Own, odd), value)
        even = _with(encode(value), number - 1 if number != 65 else 66, body)
        if number - 1 not in (6, 64):
            self.assertRaises(CodecError, decode, Own, even)

    def test_missing(self) -> None:
        """A field without a default must be there, on both sides."""
        self.assertIn("lacks key", str(self.assertRaises(CodecError, decode, Own, b"\x01\x01\x05")))
        self.assertRaises(EncodeError, encode, Own(key=None))  # type: ignore[arg-type]

    def test_left_over(self) -> None:
        """A value longer than its kind is refused, as is one whose items do not fill it."""
        self.assertRaises(CodecError, decode, N1, bytes.fromhex("fd00fe03010101"))
        self.assertRaises(CodecError, decode, Own, b"\x06\x03abc" + b"\x40\x03abc")

    def test_length_beyond_the_value(self) -> None:
        """A length of 2^64 - 1 is refused without room being made for it."""
        self.assertRaises(CodecError, decode, N1, b"\x05\xff" + b"\xff" * 8)

    @given(st.binary(max_size=80))
    def test_arbitrary_bytes(self, data: bytes) -> None:
        """Any bytes are a stream or a CodecError."""
        for cls in (N1, N2, Own):
            try:
                value = decode(cls, data)
            except CodecError:
                continue
            self.assertEqual(decode(cls, encode(value)), value)

    def test_small_kinds_in_messages(self) -> None:
        """An unsigned value that does not fit its truncated kind is refused."""
        self.assertRaises(EncodeError, encode, Own(key=b"abc", small=0x1_0000))
        self.assertRaises(EncodeError, encode, Own(key=b"abc", small=-1))

    def test_nested_needs_its_bytes(self) -> None:
        """A message inside a TLV may not reach beyond it into the next one."""

        @message
        class Pair:
            a: U8
            b: U8

        @tlvs
        class Holder:
            pair: Annotated[Pair | None, Tlv(2, Pair)] = None

        self.assertRaises(CodecError, decode, Holder, b"\x02\x01\x00\x03\x00")
        self.assertEqual(decode(Holder, b"\x02\x02\x01\x02\x03\x00"), Holder(pair=Pair(1, 2)))


def _bigsize(number: int) -> bytes:
    from meshnet.codec.varint import bigsize_size, write_bigsize

    buffer = bytearray(bigsize_size(number))
    write_bigsize(number, buffer, 0)
    return bytes(buffer)


def _with(stream: bytes, number: int, body: bytes) -> bytes:
    """The stream with one record more, at its place."""
    from meshnet.codec.varint import read_bigsize

    pos = 0
    while pos < len(stream):
        found, after = read_bigsize(stream, pos)
        if found > number:
            break
        size, after = read_bigsize(stream, after)
        pos = after + size
    return stream[:pos] + _bigsize(number) + _bigsize(len(body)) + body + stream[pos:]
