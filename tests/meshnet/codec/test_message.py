"""Messages: round trips, and what decoding does with bytes that are none."""

from __future__ import annotations

import copy
import pickle
import struct
import traceback
from typing import Annotated

import attrs
from attrs.exceptions import FrozenInstanceError
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.codec import (
    U8,
    U16,
    U32,
    U64,
    BigSize,
    Bool,
    Fixed,
    Many,
    Rest,
    Tail,
    Tlv,
    Var,
    VarInt,
    decode,
    encode,
    encode_into,
    message,
    size_of,
    tlvs,
)
from meshnet.errors import CodecError, EncodeError


@message
class Plain:
    """Only fields of fixed size: one struct."""

    a: U8
    b: U16
    c: U32
    d: U64
    key: Annotated[bytes, Fixed(33)]
    yes: Bool


@message
class Point:
    """A message inside others."""

    x: U16
    note: Annotated[bytes, Var(U8, 10)]


@tlvs
class Extras:
    """A tail."""

    port: Annotated[int | None, Tlv(2, U16)] = None
    label: Annotated[str | None, Tlv(3, Rest(20))] = None
    point: Annotated[Point | None, Tlv(4, Point)] = None


@message
class Everything:
    """One field of each kind."""

    first: U8
    body: Annotated[bytes, Var(U16, 300)]
    text: Annotated[str, Var(VarInt, 40)]
    number: VarInt
    big: BigSize
    point: Point
    points: Annotated[tuple[Point, ...], Many(U8, 4)]
    ports: Annotated[tuple[U16, ...], Many(BigSize, 5)]
    yes: Bool
    key: Annotated[bytes, Fixed(4)]
    extras: Annotated[Extras, Tail(200)] = Extras()


@message
class Ends:
    """Bytes to the end."""

    code: U8
    rest: Annotated[bytes, Rest(16)] = b""


@message
class Row:
    """Items to the end."""

    items: Annotated[tuple[VarInt, ...], Many(None, 6)]


@message
class Nothing:
    """No field at all."""


plains = st.builds(
    Plain,
    a=st.integers(0, 0xFF),
    b=st.integers(0, 0xFFFF),
    c=st.integers(0, 0xFFFF_FFFF),
    d=st.integers(0, (1 << 64) - 1),
    key=st.binary(min_size=33, max_size=33),
    yes=st.booleans(),
)
points = st.builds(Point, x=st.integers(0, 0xFFFF), note=st.binary(max_size=10))
extras = st.builds(
    Extras,
    port=st.none() | st.integers(0, 0xFFFF),
    label=st.none() | st.text("aé☃", max_size=6),
    point=st.none() | points,
)
everythings = st.builds(
    Everything,
    first=st.integers(0, 0xFF),
    body=st.binary(max_size=300),
    text=st.text("ab€", max_size=13),
    number=st.integers(0, (1 << 62) - 1),
    big=st.integers(0, (1 << 64) - 1),
    point=points,
    points=st.lists(points, max_size=4).map(tuple),
    ports=st.lists(st.integers(0, 0xFFFF), max_size=5).map(tuple),
    yes=st.booleans(),
    key=st.binary(min_size=4, max_size=4),
    extras=extras,
)
ends = st.builds(Ends, code=st.integers(0, 0xFF), rest=st.binary(max_size=16))
rows = st.builds(Row, items=st.lists(st.integers(0, (1 << 62) - 1), max_size=6).map(tuple))
messages = plains | points | extras | everythings | ends | rows | st.just(Nothing())
classes = (Plain, Point, Extras, Everything, Ends, Row, Nothing)


class RoundTripTests(SynchronousTestCase):
    @given(messages)
    def test_round_trip(self, value: object) -> None:
        """Every message comes back from its bytes, whatever buffer holds them, and has the size it says."""
        data = encode(value)
        self.assertEqual(size_of(value), len(data))
        for buffer in (data, bytearray(data), memoryview(bytearray(data))):
            self.assertEqual(decode(type(value), buffer), value)

    @given(messages, st.integers(0, 4))
    def test_encode_into(self, value: object, spare: int) -> None:
        """Writing into a buffer gives the same bytes and leaves the rest; one byte too few is refused."""
        data = encode(value)
        for buffer in (bytearray(b"\xee" * (len(data) + spare)), bytearray(b"\xee" * (len(data) + spare))):
            self.assertEqual(encode_into(value, memoryview(buffer)), len(data))
            self.assertEqual(buffer, data + b"\xee" * spare)
        if data:
            self.assertRaises(EncodeError, encode_into, value, bytearray(len(data) - 1))

    def test_layout(self) -> None:
        """Integers are big-endian and nothing pads."""
        value = Plain(1, 2, 3, 4, bytes(range(33)), True)
        self.assertEqual(encode(value), struct.pack(">BHIQ33sB", 1, 2, 3, 4, bytes(range(33)), 1))
        self.assertEqual(encode(Ends(5, b"xy")), b"\x05xy")
        self.assertEqual(encode(Point(0x0102, b"n")), b"\x01\x02\x01n")

    def test_bytes_are_kept(self) -> None:
        """Bytes in a message stay as they were when the receive buffer is used again."""
        buffer = bytearray(encode(Ends(1, b"abc")))
        value = decode(Ends, memoryview(buffer))
        buffer[:] = bytes(len(buffer))
        self.assertEqual(value.rest, b"abc")
        self.assertIs(type(value.rest), bytes)

    def test_values_are_values(self) -> None:
        """Messages are frozen, compare by content and can be keys."""
        value = Point(1, b"")
        self.assertEqual({value: 1}[Point(1, b"")], 1)
        with self.assertRaises(FrozenInstanceError):
            value.x = 2  # type: ignore[misc]

    def test_copies(self) -> None:
        """Messages are copied and pickled by their fields, and shown with them."""
        value = Everything(1, b"b", "t", 2, 3, Point(4, b"p"), (), (5,), True, b"abcd")
        for made in (copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
            self.assertEqual(made, value)
            self.assertEqual(hash(made), hash(value))
        self.assertEqual(repr(Point(4, b"p")), "Point(x=4, note=b'p')")
        self.assertEqual(attrs.evolve(Point(4, b"p"), x=5), Point(5, b"p"))
        self.assertNotEqual(Point(1, b""), Ends(1, b""))

    def test_own_constructors(self) -> None:
        """What a class asks of attrs (a converter, a check, defaults made anew) holds for decoded ones."""

        @message
        class Checked:
            low: U8
            high: U8 = attrs.field(converter=int)

            def __attrs_post_init__(self) -> None:
                if self.low > self.high:
                    raise CodecError("low is above high")

        @message
        class Made:
            items: Annotated[tuple[U8, ...], Many(U8, 3)] = attrs.field(factory=lambda: (1, 2))

        self.assertEqual(decode(Checked, b"\x01\x02"), Checked(1, 2))
        self.assertRaises(CodecError, decode, Checked, b"\x02\x01")
        self.assertEqual(Made(), Made((1, 2)))
        self.assertRaises(TypeError, Made, (), 2)
        self.assertRaises(TypeError, Point)


class HostileInputTests(SynchronousTestCase):
    @given(st.binary(max_size=120))
    def test_arbitrary_bytes(self, data: bytes) -> None:
        """Any bytes are a message, which then says the same again, or a CodecError."""
        for cls in classes:
            for buffer in (data, memoryview(data)):
                try:
                    value = decode(cls, buffer)
                except CodecError:
                    continue
                self.assertEqual(decode(cls, encode(value)), value)

    @given(plains | points | everythings | rows.filter(lambda row: bool(row.items)))
    def test_truncations(self, value: object) -> None:
        """Cut at any length, or with a byte more, it is a CodecError, unless the end is open."""
        data = encode(value)
        for size in range(len(data)):
            try:
                shorter = decode(type(value), memoryview(data)[:size])
            except CodecError:
                continue
            self.assertIsInstance(shorter, Everything | Row)  # their tails may end anywhere between items
            self.assertNotEqual(shorter, value)
        if not isinstance(value, Everything | Row):
            self.assertRaises(CodecError, decode, type(value), data + b"\0")

    @given(everythings, st.data())
    def test_flipped_bytes(self, value: Everything, data: st.DataObject) -> None:
        """A changed byte gives another message or a CodecError."""
        changed = bytearray(encode(value))
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at] ^= data.draw(st.integers(1, 255))
        try:
            self.assertNotEqual(decode(Everything, changed), value)
        except CodecError:
            pass

    def test_declared_maxima(self) -> None:
        """A length or count above the declared maximum is refused before its bytes are looked for."""
        for cls, data in (
            (Point, b"\0\0\x0b" + bytes(11)),
            (Ends, bytes(18)),
            (Row, bytes(7)),
            (Everything, b"\0\xff\xff"),
        ):
            error = self.assertRaises(CodecError, decode, cls, data)
            self.assertIn("at most", str(error))

    def test_count_without_items(self) -> None:
        """A count that cannot fit into what is left makes no list."""
        start = encode(Everything(0, b"", "", 0, 0, Point(0, b""), (), (), False, b"abcd"))
        spoilt = bytearray(start)
        self.assertEqual(spoilt[9], 0)
        spoilt[9] = 4  # four points, and not even the bytes of three
        error = self.assertRaises(CodecError, decode, Everything, spoilt)
        self.assertIn("points: 12 bytes are needed", str(error))

    def test_strict_values(self) -> None:
        """A truth value of 2 and text that is not UTF-8 are refused."""
        data = bytearray(encode(Plain(1, 2, 3, 4, bytes(33), True)))
        data[-1] = 2
        self.assertRaises(CodecError, decode, Plain, data)
        self.assertRaises(CodecError, decode, Extras, b"\x03\x01\xff")

    def test_empty_message(self) -> None:
        """A message without fields is no bytes, and nothing else."""
        self.assertEqual(encode(Nothing()), b"")
        self.assertRaises(CodecError, decode, Nothing, b"\0")

    def test_traceback_shows_the_source(self) -> None:
        """An error in generated code shows its line."""
        try:
            decode(Point, b"\0")
        except CodecError as error:
            shown = "".join(traceback.format_exception(error))
        self.assertIn("raise short('Point.x', 3, end - pos)", shown)


class EncodeErrorTests(SynchronousTestCase):
    def test_out_of_range(self) -> None:
        """What the declaration does not allow is refused by name."""
        good = Plain(1, 2, 3, 4, bytes(33), True)
        for field, wrong in (("a", 256), ("b", -1), ("c", 1 << 32), ("d", 1 << 64), ("key", bytes(32))):
            values = {"a": 1, "b": 2, "c": 3, "d": 4, "key": good.key, "yes": True, field: wrong}
            error = self.assertRaises(EncodeError, encode, Plain(**values))  # type: ignore[arg-type]
            self.assertIn(f"Plain.{field}", str(error))

    def test_too_long(self) -> None:
        """Bytes, text and tuples above their maximum are refused, by `encode` and `encode_into` alike."""
        for value in (
            Point(0, bytes(11)),
            Ends(0, bytes(17)),
            Row((0,) * 7),
            Row((1 << 62,)),
            Extras(label="x" * 21),
            Everything(0, b"", "", 0, 0, Point(0, b""), (Point(0, b""),) * 5, (), False, b"abcd"),
        ):
            self.assertRaises(EncodeError, encode, value)
            self.assertRaises(EncodeError, encode_into, value, bytearray(1000))

    @given(st.sampled_from(["a", "key", "yes"]), st.none() | st.text() | st.floats() | st.tuples())
    def test_wrong_types(self, field: str, wrong: object) -> None:
        """Values of a wrong type raise EncodeError; a truth value takes whatever Python does."""
        values = {"a": 1, "b": 2, "c": 3, "d": 4, "key": bytes(33), "yes": True, field: wrong}
        try:
            encode(Plain(**values))  # type: ignore[arg-type]
        except EncodeError:
            return
        self.assertEqual(field, "yes")


class DeclarationTests(SynchronousTestCase):
    def test_mistakes(self) -> None:
        """A wrong declaration fails at once."""

        def bare() -> None:
            @message
            class Bare:
                x: int

        def open_in_the_middle() -> None:
            @message
            class Open:
                rest: Annotated[bytes, Rest(4)]
                x: U8

        def prefix_too_small() -> None:
            @message
            class Small:
                body: Annotated[bytes, Var(U8, 256)]

        def twice() -> None:
            @tlvs
            class Twice:
                a: Annotated[int | None, Tlv(2, U8)] = None
                b: Annotated[int | None, Tlv(2, U8)] = None

        def no_type_number() -> None:
            @tlvs
            class Unnumbered:
                a: Annotated[int | None, U8] = None

        def endless_items() -> None:
            @message
            class Endless:
                items: Annotated[tuple[Nothing, ...], Many(U8, 4)]

        def hidden() -> None:
            @message
            class Hidden:
                _x: U8

        for declare in (
            bare,
            open_in_the_middle,
            prefix_too_small,
            twice,
            no_type_number,
            endless_items,
            hidden,
        ):
            self.assertRaises(TypeError, declare)
