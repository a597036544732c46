"""Targets inside sessions: the items of cells, at both ends, before and after AUTH."""

from __future__ import annotations

from functools import cache

from meshnet.codec.varint import read_varint
from meshnet.errors import CodecError
from meshnet.session import items
from meshnet.session.keys import CircuitKeys
from meshnet.session.session import Session
from meshnet.session.streams import Stream
from tests.fuzz.target import MEGABYTE, Choices, Target, piece
from tests.meshnet.session.pair import Recorder, circuit_keys
from tests.support.carrying import Kept, Pile


@cache
def _keys() -> tuple[CircuitKeys, CircuitKeys]:
    return circuit_keys("fuzz")


def _accept(stream: Stream) -> Recorder:
    reader = Recorder()
    reader.stream = stream
    stream.carry(Pile([b"answer"]), Kept())
    return reader


class _End:
    """A session at one end, and the other end's keys to seal with."""

    def __init__(self, origin: bool, trusted: bool) -> None:
        ours, theirs = _keys() if origin else _keys()[::-1]
        self.session = Session(ours, wake=lambda path: None, accept=_accept)
        self._aead = theirs.backend.aead(theirs.send)
        self._ad = theirs.send_ad
        self.number = 0
        self._room = memoryview(bytearray(65_536))
        if origin:
            reader = Recorder()
            reader.stream = self.session.open(80, 0.0, reader)
            reader.stream.write(b"some bytes")
            self.answer(0.0)
        if trusted and not origin:
            self.cell(items.auth_item(items.AUTH_ANONYMOUS) + items.item(items.CELL_LIMIT, 1_200), 0.0)

    def cell(self, plain: bytes, now: float) -> None:
        """One cell with this plaintext arrives."""
        nonce = bytes(4) + self.number.to_bytes(8, "little")
        sealed = bytearray(self._aead.encrypt(nonce, plain, self._ad))
        self.session.path.receive(self.number, memoryview(sealed), now, False)
        self.number += 1

    def answer(self, now: float) -> None:
        """Lets it say what it wants to say."""
        for _ in range(4):
            if not self.session.path.fill(self._room, now):
                break


def item(data: bytes) -> None:
    """Byte 0: which end (bit 0), before AUTH (bit 1); then cells. The session may close, and say why."""
    choices = Choices(data)
    mode = choices.number()
    end = _End(bool(mode & 1), not mode & 2)
    now = 0.0
    for _ in range(8):
        end.cell(choices.piece(), now)
        end.answer(now)
        now += choices.number() / 16
        end.session.tick(now)
        end.session.events()
        if not choices or not end.session.live:
            break


class _Deaf:
    """Takes every item and does nothing."""

    def __getattr__(self, name: str) -> object:
        return lambda *rest: None


def plain(data: bytes) -> None:
    """One cell's plaintext, read without a session, and a varint."""
    try:
        items.read(memoryview(data), _Deaf())  # type: ignore[arg-type]
    finally:
        if data:
            read_varint(data, 0)


def _cells() -> list[bytes]:
    opened = items.open_item(0, 80, 100_000)
    data = bytearray(64)
    items.put_data(memoryview(data), 0, 0, 0, 5, True)
    near = bytearray(64)
    size = items.put_ack(memoryview(near), 0, 64, 10, 0, [0], [1])
    others = [
        items.item(items.PING, 9), items.item(items.RESET, 0, 2, 5), items.item(items.STOP, 0, 2),
        items.item(items.WINDOW, 0, 1 << 20), items.item(items.SESSION_WINDOW, 1 << 22), b"\x0c\0\1\0\2\3abc",
        b"\x20\0\3abc",
        items.close_item(16, "no"), items.auth_item(items.AUTH_ANONYMOUS), bytes(near[:size]), opened,
        opened + bytes(data), items.auth_item(items.AUTH_JOIN, bytes(48)),
        items.auth_item(items.AUTH_CALLER, b"\2" + bytes(64)),
    ]  # fmt: skip
    return others


def _sessions() -> list[bytes]:
    cells = _cells()
    found = [bytes([mode]) + piece(cell) for mode in range(4) for cell in cells]
    return [*found, b"\0" + b"".join(piece(cell) + b"\1" for cell in cells[:8])]


TARGETS = [
    Target("items", item, _sessions, (), 8 * MEGABYTE, 1_500),
    Target("plain-items", plain, _cells, (CodecError,), MEGABYTE),
]
