"""Targets below circuits: the handshake of a lane, its records, and the frames inside them."""

from __future__ import annotations

from functools import cache

from meshnet.bundle import FRAME_HEAD
from meshnet.cipher.rotation import RotatingKey
from meshnet.circuit.messages import CREATE
from meshnet.codec import encode
from meshnet.errors import ProtocolError, RemoteError
from meshnet.link.frame import HELLO, PAD, PING, PONG, Hello, HelloTail, Ping, Pong
from meshnet.link.lane import Lane
from meshnet.link.link import Link
from meshnet.link.outlet import Outbox
from meshnet.link.record import Opener, Sealer
from tests.fuzz.target import MEGABYTE, Choices, Target
from tests.meshnet.link.lanes import ALICE, OPENSSL, Owner, Voice, acceptor, calling, dialler, feed, take
from tests.meshnet.test_bundle import put

CHUNKS = (1 << 20, 1, 7, 50)


def handshake(data: bytes) -> None:
    """Byte 0: which side (bit 0), in which pieces (bits 1 and 2); then all that the other side sends."""
    mode = data[0] if data else 0
    owner = Owner()
    lane = dialler(owner) if mode & 1 else acceptor(owner)
    feed(lane, data[1:], CHUNKS[mode >> 1 & 3])


def _handshakes() -> list[bytes]:
    owner, found = Owner(), []
    one, other = dialler(owner), acceptor(owner)
    said: tuple[bytearray, bytearray] = (bytearray(), bytearray())
    while one.outgoing or other.outgoing:
        for side, (source, sink) in enumerate(((one, other), (other, one))):
            data = take(source)
            said[side].extend(data)
            feed(sink, data)
    for mode in range(8):
        found.append(bytes([mode]) + bytes(said[mode & 1]))
    return found


def _rotating(first: bytes) -> RotatingKey:
    return RotatingKey(first * 32, b"c" * 32, OPENSSL)


@cache
def _sealed() -> list[bytes]:
    sealer, found = Sealer(_rotating(b"k")), []
    for content in (b"x", b"", bytes(40)):
        assert put(sealer, PAD, content)
        found.append(bytes(sealer.seal()))
        sealer.sent(len(found[-1]))
    return found


def record(data: bytes) -> None:
    """Byte 0: how many sound records come first; then one whose bits were changed and whose end is cut off;
    then any bytes. All is received in pieces."""
    choices, sound = Choices(data), _sealed()
    count, size = choices.number() % 3, 1 + choices.number()
    whole = sound[count]
    mask, cut = choices.bytes(len(whole)), choices.number() % (len(whole) + 1)
    changed = bytes(one ^ other for one, other in zip(whole, mask, strict=True))[: len(whole) - cut]
    received = b"".join(sound[:count]) + changed + choices.rest()
    buffer, opener = memoryview(bytearray(received)), Opener(_rotating(b"k"))
    start, most = 0, count + (changed == whole)
    opened = 0
    for end in range(size, len(received) + size, size):
        while after := opener.open_next(buffer, start, min(end, len(received))):
            start, opened = after, opened + 1
            assert opened <= most, "a record opened that was not sealed"


class _Bundles:
    """One connection that is used again and again: what a bundle spoilt is put right behind it."""

    def __init__(self, first: bool) -> None:
        self.first = first
        self.owner = Owner()
        self.link = Link(
            ALICE.public,
            Outbox(lambda call: None, lambda: 0.0),
            {CREATE: lambda link, kind, body, now: None},
            1,
        )
        self.used = 0
        self.lane, self.voice = self._new()

    def _new(self) -> tuple[Lane, Voice]:
        lane = acceptor(Owner())
        voice = calling(lane)
        if not self.first:
            feed(lane, voice.hello())
            self.link.hello = None
            self.link.read(0, lane)
        return lane, voice

    def run(self, bundle: bytes) -> None:
        """Takes one bundle."""
        self.used += 1
        if self.used % 400 == 0 or (self.first and self.lane.is_up):
            self.lane, self.voice = self._new()
        lane = self.lane
        record = self.voice.bundle(bundle) if bundle else self.voice.empty()
        try:
            feed(lane, record)
        finally:
            lane._start = lane._end = 0


_bundles: dict[bool, _Bundles] = {}


def frame(data: bytes) -> None:
    """Byte 0, bit 0: the first bundle of a connection, or a later one; then the bundle."""
    first = bool(data[:1] and data[0] & 1)
    if first not in _bundles:
        _bundles[first] = _Bundles(first)
    _bundles[first].run(data[1:60_000])


def _frame(kind: int, body: bytes) -> bytes:
    return (len(body) + FRAME_HEAD - 2).to_bytes(2, "big") + bytes([kind]) + body


def _frames() -> list[bytes]:
    tail = encode(HelloTail(instance=7))
    hello = _frame(HELLO, encode(Hello(1, 0, 61_440, 0, 1, tail)))
    ping, pong = _frame(PING, encode(Ping(1, 2))), _frame(PONG, encode(Pong(1, 2, 3, 4, 5)))
    cell = _frame(12, bytes(12) + b"body")
    marked = _frame(141, b"\xff" * 12)
    return [
        b"\1" + hello,
        b"\1" + _frame(PAD, b"") + hello,
        b"\0" + ping + pong + cell + marked + _frame(31, b""),
    ]


TARGETS = [
    Target("handshake", handshake, _handshakes, (RemoteError,), 2 * MEGABYTE, 300),
    Target("record", record, lambda: [b"", b"\2" + bytes(90)], (ProtocolError,), 2 * MEGABYTE, 400),
    Target("frame", frame, _frames, (RemoteError,), 2 * MEGABYTE),
]
