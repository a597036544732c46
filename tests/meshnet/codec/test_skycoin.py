"""Skycoin's profile: its golden struct of every type, its blocks and messages, and what it refuses."""

from __future__ import annotations

import json
from typing import Annotated, Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.codec import (
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    SKYCOIN,
    U8,
    U16,
    U32,
    U64,
    Array,
    Bool,
    Fixed,
    Many,
    OmitEmpty,
    Rest,
    Since,
    Var,
    VarInt,
    decode,
    encode,
    message,
)
from meshnet.errors import CodecError, EncodeError
from tests.support.vectors import vectors


@message(profile=SKYCOIN)
class Inner:
    """A struct in a struct."""

    a: I8
    b: U16


@message(profile=SKYCOIN)
class Pair:
    """A pair of a Go map."""

    key: Annotated[bytes, Var(U32, 16)]
    value: Annotated[bytes, Var(U32, 16)]


@message(profile=SKYCOIN)
class EveryType:
    """The struct of skycoin/encoder's golden file."""

    a: I8
    b: I16
    c: I32
    d: I64
    e: U8
    f: U16
    g: U32
    h: U64
    i: Bool
    j: U8
    k: Annotated[str, Var(U32, 100)]
    l: Annotated[bytes, Var(U32, 100)]  # noqa: E741
    m: Annotated[tuple[I64, ...], Many(U32, 100)]
    n: Annotated[bytes, Fixed(3)]
    o: Annotated[tuple[I64, ...], Array(3)]
    p: Inner
    q: Annotated[tuple[Pair, ...], Many(U32, 100, unique="key")]
    r: F32
    s: F64


@message(profile=SKYCOIN)
class Address:
    version: U8
    key: Annotated[bytes, Fixed(20)]


@message(profile=SKYCOIN)
class Output:
    address: Address
    coins: U64
    hours: U64


@message(profile=SKYCOIN)
class Transaction:
    length: U32
    type: U8
    inner: Annotated[bytes, Fixed(32)]
    sigs: Annotated[tuple[Annotated[bytes, Fixed(65)], ...], Many(U32, 65_535)]
    inputs: Annotated[tuple[Annotated[bytes, Fixed(32)], ...], Many(U32, 65_535)]
    outputs: Annotated[tuple[Output, ...], Many(U32, 65_535)]


@message(profile=SKYCOIN)
class Header:
    version: U32
    time: U64
    seq: U64
    fee: U64
    previous: Annotated[bytes, Fixed(32)]
    body: Annotated[bytes, Fixed(32)]
    unspent: Annotated[bytes, Fixed(32)]


@message(profile=SKYCOIN)
class Block:
    header: Header
    transactions: Annotated[tuple[Transaction, ...], Many(U32, 65_535)]


@message(profile=SKYCOIN)
class Introduction:
    """INTR of the daemon: its last field came later and may be missing."""

    mirror: U32
    port: U16
    version: U32
    extra: Annotated[bytes, Var(U32, 1_024), OmitEmpty()] = b""


@message(profile=SKYCOIN)
class Names:
    """A list that is omitted when it is empty."""

    number: U8
    names: Annotated[tuple[Annotated[str, Var(U32, 8)], ...], Many(U32, 3), OmitEmpty()] = ()


EVERY_TYPE = EveryType(
    *(-127, 32767, (1 << 31) - 1, (1 << 63) - 1, 128, 32768, 1 << 31, 1 << 63, True, 128),
    *("foo", b"bar", ((1 << 63) - 1, (1 << 62) - 1, -10000), b"baz", ((1 << 63) - 1, (1 << 62) - 1, -10000)),
    *(Inner(-127, 65535), (Pair(b"foo", b"bar"),), 123.45, 123.45),
)


class VectorTests(SynchronousTestCase):
    def test_every_type(self) -> None:
        """The golden file of skycoin/encoder, byte for byte, both ways."""
        golden = vectors("skycoin/encoder/encode-every-type.golden").read_bytes()
        self.assertEqual(encode(EVERY_TYPE), golden)
        value = decode(EveryType, golden)
        self.assertEqual(encode(value), golden)
        for name in "abcdefghijklmnopqs":
            self.assertEqual(getattr(value, name), getattr(EVERY_TYPE, name))
        self.assertAlmostEqual(value.r, 123.45, places=5)
        for size in range(len(golden)):
            self.assertRaises(CodecError, decode, EveryType, golden[:size])
        self.assertRaises(CodecError, decode, EveryType, golden + b"\0")

    def test_blocks(self) -> None:
        """The first 181 blocks of the main net decode, and encode to the same bytes."""
        lines = vectors("skycoin/blocks-180.jsonl").read_text().splitlines()
        self.assertGreater(len(lines), 180)
        for line in lines:
            case: dict[str, Any] = json.loads(line)
            data = bytes.fromhex(case["block"])
            block = decode(Block, data)
            self.assertEqual(block.header.seq, case["seq"])
            self.assertEqual(encode(block), data)

    def test_introduction(self) -> None:
        """The daemon's INTR with and without the field that is omitted when empty (id and length cut off)."""
        plain = vectors("skycoin/daemon-messages/intro-msg.golden").read_bytes()
        more = vectors("skycoin/daemon-messages/intro-msg-extra.golden").read_bytes()
        for data, extra in ((plain, 0), (more, 97)):
            body = data[data.index(b"INTR") + 4 :] if b"INTR" in data else data
            value = decode(Introduction, body)
            self.assertEqual((value.mirror, value.port, value.version), (99998888, 8888, 12341234))
            self.assertEqual(len(value.extra), extra)
            self.assertEqual(encode(value), body)


class RuleTests(SynchronousTestCase):
    def test_layout(self) -> None:
        """Little-endian, counts of four bytes."""
        self.assertEqual(encode(Inner(-2, 0x0102)), b"\xfe\x02\x01")
        self.assertEqual(encode(Pair(b"ab", b"")), b"\x02\0\0\0ab\0\0\0\0")

    def test_omitted(self) -> None:
        """An empty last field is not written; both ways of saying nothing are read."""
        self.assertEqual(encode(Names(1)), b"\x01")
        for data in (b"\x01", b"\x01\0\0\0\0"):
            self.assertEqual(decode(Names, data), Names(1))
        self.assertEqual(decode(Names, encode(Names(1, ("a", "bc")))), Names(1, ("a", "bc")))
        for data in (b"\x01\0", b"\x01\x04\0\0\0", b"\x01\x01\0\0\0"):
            self.assertRaises(CodecError, decode, Names, data)

    def test_maps(self) -> None:
        """Equal keys are refused on both sides."""
        golden = bytearray(encode(EVERY_TYPE))
        at = golden.index(b"\x03\0\0\0foo\x03\0\0\0bar", 60)
        pair = bytes(golden[at : at + 14])
        twice = bytes(golden[: at - 4]) + b"\x02\0\0\0" + pair + pair + bytes(golden[at + 14 :])
        self.assertIn("equal key", str(self.assertRaises(CodecError, decode, EveryType, twice)))

        @message(profile=SKYCOIN)
        class Map:
            pairs: Annotated[tuple[Pair, ...], Many(U32, 9, unique="key")]

        self.assertRaises(EncodeError, encode, Map((Pair(b"", b""), Pair(b"", b"1"))))

    def test_counts(self) -> None:
        """A count of 2^32 - 1, or one above the maximum, makes nothing."""
        for count in (b"\xff\xff\xff\xff", b"\x11\0\0\0"):
            self.assertRaises(CodecError, decode, Pair, count + bytes(100))
        self.assertRaises(EncodeError, encode, Pair(bytes(17), b""))

    def test_strict_booleans(self) -> None:
        """Only 0 and 1 are truth values."""
        golden = bytearray(encode(EVERY_TYPE))
        self.assertEqual(golden[30], 1)
        golden[30] = 2
        self.assertRaises(CodecError, decode, EveryType, golden)

    @given(st.binary(max_size=120))
    def test_arbitrary_bytes(self, data: bytes) -> None:
        """Any bytes are a message or a CodecError."""
        for cls in (EveryType, Transaction, Block, Introduction, Names):
            try:
                value = decode(cls, data)
            except CodecError:
                continue
            self.assertEqual(repr(decode(cls, encode(value))), repr(value))  # as repr: NaN is not NaN

    def test_declarations(self) -> None:
        """What Skycoin's encoder does not have cannot be declared."""

        @message
        class Wire:
            x: U8

        for hint in (
            VarInt,
            Wire,
            Annotated[bytes, Rest(4)],
            Annotated[bytes, Var(U16, 4)],
            Annotated[tuple[U8, ...], Many(None, 4)],
            Annotated[U8, OmitEmpty()],
            Annotated[U8, Since(2)],
        ):
            wrong = type("Wrong", (), {"__annotations__": {"x": hint}, "x": 0})
            self.assertRaises(TypeError, message(profile=SKYCOIN), wrong)

        with self.assertRaises(TypeError):

            @message(profile=SKYCOIN)
            class Middle:
                names: Annotated[bytes, Var(U32, 8), OmitEmpty()]
                x: U8
