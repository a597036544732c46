"""The lines of the local door: any bytes in any pieces, and exactly where a line ends."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.keys import SecretKey
from meshnet.control.lines import (
    Accept,
    Connect,
    Incoming,
    LineReader,
    Listen,
    Ok,
    Request,
    read_answer,
    read_incoming,
    read_request,
    write_error,
    write_incoming,
    write_ok,
    write_request,
)
from meshnet.errors import (
    CodecError,
    LocalError,
    MeshError,
    RefusedError,
    TimedOutError,
    UnreachableError,
    UsageError,
)
from meshnet.limits import DOOR_LINE

KEY = SecretKey(bytes([7]) * 32).public
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=40)
HOPS = st.lists(WORDS.filter(lambda word: "," not in word), max_size=5).map(tuple)
PORTS = st.integers(1, 65_535)
REQUESTS: st.SearchStrategy[Request] = st.one_of(
    st.builds(Connect, WORDS, PORTS, st.sampled_from(["anonymous", "node"]), st.none() | HOPS),
    st.builds(Listen, PORTS, st.none() | WORDS),
    st.builds(Accept, st.integers(0, (1 << 64) - 1)),
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """The bytes cut at these places."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


class LineReaderTests(SynchronousTestCase):
    @given(st.binary(max_size=2 * DOOR_LINE), st.lists(st.integers(0, 5_000), max_size=8))
    def test_any_bytes(self, data: bytes, cuts: list[int]) -> None:
        """However bytes are cut: the first line and where it ended, or CodecError, and nothing else."""
        reader, line, used = LineReader(), None, 0
        wrong = False
        try:
            for piece in pieces(data, cuts):
                line, taken = reader.feed(piece)
                used += taken
                if line is not None:
                    break
                self.assertEqual(taken, len(piece))
        except CodecError:
            wrong = True
        whole, end, _ = data[:DOOR_LINE].partition(b"\n")
        try:
            text = whole.decode()
        except UnicodeDecodeError:
            self.assertTrue(wrong or not end)
            return
        self.assertEqual(wrong, not end and len(data) >= DOOR_LINE)
        if not wrong:
            self.assertEqual((line, used), (text, len(whole) + 1) if end else (None, len(data)))

    def test_longest(self) -> None:
        """A line has 1,024 bytes with its end; one more is too many, ended or not."""
        self.assertEqual(LineReader().feed(b"x" * 1023 + b"\nrest")[1], 1024)
        for data in (b"x" * 1024, b"x" * 1024 + b"\n", b"x" * 100_000):
            self.assertRaises(CodecError, LineReader().feed, data)

    def test_several(self) -> None:
        """One line after the other, as a listening connection brings them."""
        reader, data, lines = LineReader(), b"one\ntwo\n\nrest", []
        while True:
            line, used = reader.feed(data)
            data = data[used:]
            if line is None:
                break
            lines.append(line)
        self.assertEqual(lines, ["one", "two", ""])


class RequestTests(SynchronousTestCase):
    @given(REQUESTS)
    def test_round_trip(self, request: Request) -> None:
        """What is asked is what is read."""
        line, used = LineReader().feed(data := write_request(request))
        assert line is not None
        self.assertEqual((read_request(line), used), (request, len(data)))

    @given(st.text(max_size=200))
    def test_any_text(self, text: str) -> None:
        """Any line is a request or a CodecError, and so are answers (which may also be the node's error)."""
        for read, errors in (
            (read_request, CodecError),
            (read_answer, MeshError),
            (read_incoming, MeshError),
        ):
            try:
                read(text)
            except errors:
                pass

    def test_as_written(self) -> None:
        """The lines of the page, to the letter."""
        key = KEY.hex()
        for line, request in {
            f"CONNECT {key} 80": Connect(key, 80),
            "CONNECT bob 80 as=node via=a,b": Connect("bob", 80, "node", ("a", "b")),
            "CONNECT bob 80 via=": Connect("bob", 80, via=()),
            "LISTEN 80": Listen(80),
            "LISTEN 80 address=mesh1xyz": Listen(80, "mesh1xyz"),
            "ACCEPT 18446744073709551615": Accept((1 << 64) - 1),
        }.items():
            self.assertEqual(read_request(line), request)
            self.assertEqual(write_request(request), line.encode() + b"\n")

    def test_wrong(self) -> None:
        """Other words, numbers, spaces and options are refused."""
        for line in (
            "", " ", "HELLO", "connect a 80", "CONNECT", "CONNECT a", "CONNECT a 0", "CONNECT a 65536",
            "CONNECT a 080", "CONNECT a +80", "CONNECT a ８０", "CONNECT  a 80", "CONNECT a 80 ",
            "CONNECT a 80\r", "CONNECT a 80 as=me", "CONNECT a 80 as=node as=node", "CONNECT a 80 x=1",
            "CONNECT a 80 via", "LISTEN", "LISTEN x", "LISTEN 80 81", "LISTEN 80 as=node", "ACCEPT",
            "ACCEPT -1", "ACCEPT 18446744073709551616", "ACCEPT 1 2", "ACCEPT " + "9" * 900, "a\tb",
        ):  # fmt: skip
            self.assertRaises(CodecError, read_request, line)

    def test_not_one_line(self) -> None:
        """What would not fit a line, or would be more than one word, is a usage error of ours."""
        wrong: list[Any] = [
            Connect("a b", 80), Connect("a\nLISTEN 1", 80), Connect("", 80), Connect("a", 0), Listen(70_000),
            Connect("a", 80, via=("b,c",)), Connect("a", 80, via=("",)), Connect("a" * 1_100, 80),
            Connect("a", 80, "me"), Listen(80, "a b"), Accept(-1),
        ]  # fmt: skip
        for request in wrong:
            with self.subTest(request=request):
                self.assertRaises(UsageError, write_request, request)


class AnswerTests(SynchronousTestCase):
    def test_ok(self) -> None:
        """OK names the peer, or anonymous, or nobody."""
        self.assertEqual(write_ok(KEY), f"OK {KEY.hex()}\n".encode())
        for line, answer in {f"OK {KEY.hex()}": Ok(KEY), "OK anonymous": Ok(), "OK": Ok()}.items():
            self.assertEqual(read_answer(line), answer)
        for line in ("", "OK 1", "OKAY", "OK " + "0" * 66, f"OK {KEY.hex()} 1", "ERR"):
            self.assertRaises(CodecError, read_answer, line)

    def test_incoming(self) -> None:
        """An id and a key, or anonymous."""
        self.assertEqual(write_incoming(5, None), b"INCOMING 5 anonymous\n")
        for key in (KEY, None):
            line = write_incoming(1 << 63, key).decode().rstrip("\n")
            self.assertEqual(read_incoming(line), Incoming(1 << 63, key))
        for line in ("INCOMING 5", "INCOMING x anonymous", "INCOMING 5 me", "OK", "OK anonymous"):
            self.assertRaises(CodecError, read_incoming, line)

    @given(st.text(max_size=2_000))
    def test_any_error(self, text: str) -> None:
        """Whatever an error says becomes one readable line, and the same kind of error again."""
        for kind in (LocalError, UsageError, UnreachableError, RefusedError, TimedOutError):
            data = write_error(kind(text))
            line, used = LineReader().feed(data)
            assert line is not None
            self.assertEqual(used, len(data))
            self.assertTrue(line.isprintable())
            error = self.assertRaises(kind, read_answer, line)
            self.assertTrue(str(error))

    def test_numbers(self) -> None:
        """The numbers of the page."""
        for error, number in (
            (LocalError("mesh port 80 is taken"), 1),
            (CodecError("no"), 2),
            (UsageError("no"), 2),
            (UnreachableError("no"), 4),
            (RefusedError("no"), 5),
            (TimedOutError("no"), 6),
        ):
            self.assertTrue(write_error(error).startswith(f"ERR {number} ".encode()))
        self.assertEqual(write_error(LocalError("it is taken")), b"ERR 1 It is taken.\n")
        with pytest.raises(MeshError, match="gave no reason"):
            read_answer("ERR 99 ")
