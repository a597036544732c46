"""Items: exact bytes, every shape, and hostile input."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.errors import CodecError
from meshnet.limits import CLOSE_TEXT
from meshnet.session import items


class Log:
    """A sink that notes everything."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        def note(*arguments: Any) -> None:
            self.told.append((name, *(bytes(a) if isinstance(a, memoryview) else a for a in arguments)))

        return note


def read(cell: bytes) -> tuple[list[tuple[Any, ...]], bool]:
    log = Log()
    asks = items.read(memoryview(cell), log)
    return log.told, asks


def data(stream: int, offset: int, payload: bytes, fin: bool) -> bytes:
    room = bytearray(items.DATA_HEADER + len(payload))
    items.put_data(memoryview(room), 0, stream, offset, len(payload), fin)
    room[items.DATA_HEADER :] = payload
    return bytes(room)


VARINT = st.integers(0, (1 << 62) - 1)
ITEMS = st.one_of(
    st.tuples(st.just("data"), st.integers(0, (1 << 30) - 1), VARINT, st.binary(max_size=50), st.booleans()),
    st.tuples(st.just("ping"), VARINT),
    st.tuples(st.just("pong"), VARINT),
    st.tuples(st.just("reset"), VARINT, VARINT, VARINT),
    st.tuples(st.just("stop"), VARINT, VARINT),
    st.tuples(st.just("window"), VARINT, VARINT),
    st.tuples(st.just("session_window"), VARINT),
    st.tuples(st.just("cell_limit"), VARINT),
    st.tuples(st.just("spare")),
    st.tuples(st.just("use")),
    st.tuples(st.just("probe"), VARINT),
    st.tuples(st.just("report"), VARINT, VARINT, VARINT, VARINT),
    st.tuples(st.just("open"), VARINT, st.integers(0, 0xFFFF), VARINT),
    st.tuples(st.just("datagram"), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.binary(max_size=50)),
    st.tuples(st.just("packets"), st.integers(0, (1 << 30) - 1), st.binary(max_size=50)),
)
KINDS = {
    "ping": 1,
    "pong": 3,
    "reset": 4,
    "stop": 5,
    "window": 10,
    "session_window": 11,
    "cell_limit": 14,
    "spare": 48,
    "use": 49,
    "probe": 50,
    "report": 51,
}


def encoded(told: tuple[Any, ...]) -> bytes:
    name = told[0]
    if name == "data":
        return data(*told[1:])
    if name == "open":
        return items.open_item(*told[1:])
    if name == "datagram":
        room = bytearray(items.DATAGRAM_HEADER)
        items.put_datagram(memoryview(room), 0, told[1], told[2], len(told[3]))
        return bytes(room) + told[3]
    if name == "packets":
        room = bytearray(items.PACKETS_HEADER)
        items.put_packets(memoryview(room), 0, told[1], len(told[2]))
        return bytes(room) + told[2]
    return items.item(KINDS[name], *told[1:])


class ItemsTests(SynchronousTestCase):
    def test_bytes(self) -> None:
        """The layouts of docs/wire-format.md, byte for byte."""
        self.assertEqual(items.item(items.PING, 0).hex(), "0100")
        self.assertEqual(items.item(items.RESET, 4, 1, 70).hex(), "0404014046")
        self.assertEqual(items.open_item(2, 80, 1 << 20).hex(), "0702005080100000")
        self.assertEqual(data(4, 5, b"hi", True).hex(), "0980000004c000000000000005800000026869")
        self.assertEqual(items.auth_item(0).hex(), "0600")
        self.assertEqual(items.close_item(16, "no").hex(), "0d10026e6f")
        room = memoryview(bytearray(64))
        end = items.put_ack(room, 0, 64, 100, 0, [0], [9])
        self.assertEqual(bytes(room[:end]).hex(), "02800000098000006480000000008000" + "0009")
        end = items.put_ack(room, 0, 64, 100, 0, [0, 5], [2, 9])
        self.assertEqual(bytes(room[:end]).hex(), "02094064000104" + "0102")

    def test_short_forms(self) -> None:
        """DATA with any varints is read as well as ours."""
        cell = bytes((9, 4, 5, 2)) + b"hi" + bytes((8, 4, 7, 20)) + b"x" * 20
        told, asks = read(cell)
        self.assertEqual(told, [("data", 4, 5, b"hi", True), ("data", 4, 7, b"x" * 20, False)])
        self.assertTrue(asks)

    @given(st.lists(ITEMS, max_size=8), st.binary(max_size=5))
    def test_round_trip(self, told: list[tuple[Any, ...]], padding: bytes) -> None:
        """What is written is read, in order, and padding ends it."""
        cell = b"".join(encoded(one) for one in told) + b"\0" + padding
        self.assertEqual(read(cell), (told, bool(told)))

    def test_what_asks(self) -> None:
        """PAD, ACK and CLOSE ask for no acknowledgement."""
        room = memoryview(bytearray(64))
        end = items.put_ack(room, 0, 64, 1, 0, [0], [9])
        for cell in (b"", b"\0\0", bytes(room[:end]), items.close_item(0, "")):
            self.assertFalse(read(cell)[1])

    def test_auth(self) -> None:
        """The three kinds, with their lengths."""
        for kind, size in ((0, 0), (1, 65), (2, 48)):
            body = bytes(range(size))
            self.assertEqual(read(items.auth_item(kind, body))[0], [("auth", kind, body)])
            if size:
                self.assertRaises(CodecError, read, items.auth_item(kind, body[:-1]))
        self.assertRaises(CodecError, read, items.auth_item(3, bytes(100)))

    def test_close(self) -> None:
        """A long sentence is cut between letters, a hostile one cannot move a cursor."""
        told, _ = read(items.close_item(1, "é" * 500))
        self.assertEqual(told, [("close", 1, "é" * (CLOSE_TEXT // 2))])
        told, _ = read(items.close_item(1, "a\x1b[2J\nb"))
        self.assertEqual(told, [("close", 1, "a?[2J?b")])
        self.assertRaises(CodecError, read, b"\x0d\x00\x40\xc9" + b"x" * 201)

    def test_malformed(self) -> None:
        """Unknown and reserved types, lengths beyond the cell, ACKs of too much or of nothing."""
        cells = [
            b"\x0f", b"\x20", b"\x21", b"\x34", b"\xff", b"\x01", b"\x32", b"\x33\x01\x02\x03",
            b"\x07\x02\x00", b"\x0c\x00\x00\x00", b"\x06",
            data(4, 0, b"abc", False)[:-1], b"\x08\x04\x00\x05abcd", b"\x08\x04",
            b"\x20\x80\x00\x00\x04\x80\x00\x00\x03ab", b"\x20\x04\x03ab", b"\x20\x04",
            b"\x20\x80\x00\x00\x04\x41\xff\0\0",
            b"\x02\x05\x00\x00\x00\x06",  # 6 numbers below 5
            b"\x02\x05\x00\x00\x01\x00\x05\x00",  # a gap below 0
            b"\x02\x40\xff\x00\x00\x20\x00" + b"\x00" * 64,  # 33 ranges
        ]  # fmt: skip
        for cell in cells:
            self.assertRaises(CodecError, read, cell)

    @given(st.binary(max_size=200))
    @example(b"\x02\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x1f" + b"\x00" * 70)
    def test_arbitrary(self, cell: bytes) -> None:
        """Any bytes are items or CodecError, nothing else."""
        try:
            told, _ = read(cell)
        except CodecError:
            return
        self.assertLessEqual(len(told), len(cell))

    @given(st.lists(ITEMS, min_size=1, max_size=4), st.data())
    def test_damaged(self, told: list[tuple[Any, ...]], draw: st.DataObject) -> None:
        """Good items with one byte changed, or cut short, are the same."""
        cell = bytearray(b"".join(encoded(one) for one in told))
        cell[draw.draw(st.integers(0, len(cell) - 1))] = draw.draw(st.integers(0, 255))
        self.test_arbitrary.hypothesis.inner_test(self, bytes(cell[: draw.draw(st.integers(0, len(cell)))]))
