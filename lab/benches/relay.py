"""The relay step against the bare crypto calls it makes.

One read event brings one record: it is opened in place, every cell gets its circuit layer on the way into
the outgoing bundle, and the bundle is sealed and handed to a carrier that takes everything. All of that is
the numerator, sockets excepted. The denominator is the same library calls on the same sizes, in a loop that
does nothing else, measured alternately with it.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable

from attrs import frozen

from lab.benches.rows import Options, Row, row_of
from meshnet.cipher.aead import Backend, backend
from meshnet.cipher.keys import PublicKey, SecretKey
from meshnet.cipher.rotation import NONCES, RotatingKey
from meshnet.circuit.relay import Hop
from meshnet.errors import Drop
from meshnet.link.connection import Connection
from meshnet.link.driver import Identity, Links
from meshnet.link.frame import CELL, our_hello
from meshnet.link.lane import Lane
from meshnet.link.link import Link
from meshnet.link.record import LENGTH_SIZE, Sealer
from meshnet.transports.registry import Transports

KEY = bytes(range(32))
LABEL = 0x4A3B_2C1D
FIRST_SEQ = 0x5EED_0123_4567_89AB  # as random as a real one, and no wrap
OFFSET = 0xFACE_0123_4567_89AB
HEAD = 12
RECORDS = 400  # per sample
SAMPLES = 61


@frozen
class Shape:
    """What a record carries."""

    name: str
    cell: int
    cells: int
    target: float


SHAPES = (
    Shape("relay_1400_single_ratio", 1_400, 1, 1.8),
    Shape("relay_1400_packed_ratio", 1_400, 10, 1.5),
    Shape("relay_16k_ratio", 16_384, 1, 1.25),
)


class _Clock:
    now = staticmethod(time.monotonic)

    @staticmethod
    def call_later(delay: float, call: Callable[[], None]) -> Callable[[], None]:
        """Nothing is late here: every read event flushes what it made."""
        return lambda: None


class _Carrier:
    """Takes everything at once."""

    remote = "bench"

    @staticmethod
    def write(data: memoryview) -> int:
        return len(data)

    @staticmethod
    def pause() -> None:
        """Never asked for."""

    resume = close = pause


class _Owner:
    """Nobody: the links are joined by hand."""

    def link_up(self, link: Link, now: float) -> None:
        """Nothing to do."""

    def link_gone(self, link: Link, now: float) -> None:
        """Nothing to do."""

    link_restarted = link_gone


class Relay:
    """A relay's two links, joined by one circuit, with hand-made keys instead of handshakes."""

    def __init__(self, library: Backend) -> None:
        secret = SecretKey(bytes([1]) * 32)
        identity = Identity(secret, 1, library)
        self.links = Links(identity, Transports(()), _Clock(), bytes, _Owner(), {})
        self.incoming, source = self._link(SecretKey(bytes([2]) * 32).public, library)
        _, target = self._link(SecretKey(bytes([3]) * 32).public, library)
        self.hop = Hop(target.outlet(LABEL), CELL, LABEL, library.stream(KEY), OFFSET, 61_000, 0.0)
        source.forward[LABEL] = self.hop.relay
        source.runs[LABEL] = self.hop.run

    def _link(self, peer: PublicKey, library: Backend) -> tuple[Connection, Link]:
        lane = Lane(self.links.identity.secret, 1, SecretKey(bytes([4]) * 32), library, self.links, 0.0)
        lane.keyed((KEY, KEY, KEY))
        connection = Connection(self.links, _Carrier(), lane, "bench")
        connection.link = link = Link(peer, self.links.outbox, {})
        link.greet(our_hello())
        connection.seat = link.seats[0]
        link.serve(0, lane, _Carrier.write, "bench", 0.0)
        return connection, link


def _records(shape: Shape, count: int, library: Backend) -> list[bytes]:
    sealer = Sealer(RotatingKey(KEY, KEY, library))
    records = []
    seq = FIRST_SEQ
    for _ in range(count):
        for _ in range(shape.cells):
            room = sealer.room(CELL, HEAD + shape.cell)
            assert room is not None
            room[:HEAD] = LABEL.to_bytes(4, "big") + seq.to_bytes(8, "big")
            sealer.commit(HEAD + shape.cell)
            seq += 1
        record = sealer.seal()
        records.append(bytes(record))
        sealer.sent(len(record))
    return records


def _step_seconds(records: list[bytes], library: Backend, cells: int) -> float:
    """Seconds per record through a fresh relay."""
    relay = Relay(library)
    connection = relay.incoming
    filled = connection.filled
    total = 0.0
    clock = time.perf_counter
    for record in records:
        size = len(record)
        connection.buffer()[:size] = record
        start = clock()
        filled(size)
        total += clock() - start
    assert relay.hop.cells == len(records) * cells
    assert relay.hop.drops[Drop.UNKNOWN_LABEL] == 0
    return total / len(records) - _clock_seconds()


def _clock_seconds() -> float:
    """What reading the clock twice adds to each measured event."""
    clock, count = time.perf_counter, 20_000
    total = 0.0
    for _ in range(count):
        start = clock()
        total += clock() - start
    return total / count


def _bare_seconds(shape: Shape, count: int, library: Backend) -> float:
    """Seconds of the same calls alone: two to open, one layer a cell, two to seal."""
    aead, stream = library.aead(KEY), library.stream(KEY)
    encrypt, decrypt = aead.encrypt_into, aead.decrypt_into
    reset, update = stream.reset_nonce, stream.update_into
    body = shape.cells * (15 + shape.cell)
    plain = memoryview(bytearray(body))
    sealed = memoryview(bytearray(body + 16))
    length, head = memoryview(bytearray(2)), memoryview(bytearray(LENGTH_SIZE))
    ends = range(15 + shape.cell, body + 1, 15 + shape.cell)
    out = memoryview(bytearray(body + 16))
    bundle = out[:body]
    cells = [(plain[end - shape.cell : end], out[end - shape.cell : end]) for end in ends]
    nonce = NONCES[0]
    nonce16 = bytes(16)
    encrypt(nonce, length, None, head)
    encrypt(nonce, plain, None, sealed)
    start = time.perf_counter()
    for _ in range(count):
        decrypt(nonce, head, None, length)
        decrypt(nonce, sealed, None, plain)
        for cell, room in cells:
            reset(nonce16)
            update(cell, room)
        encrypt(nonce, length, None, head)
        encrypt(nonce, bundle, None, out)
    return (time.perf_counter() - start) / count


def _measure(shape: Shape, options: Options) -> Row:
    library = backend("openssl")
    count = RECORDS if shape.cells == 1 else RECORDS // 4
    records = _records(shape, count, library)
    ratios, steps, bares = [], [], []
    gc.disable()
    try:
        for _ in range(5 if options.quick else SAMPLES):
            bare = _bare_seconds(shape, count, library)
            step = _step_seconds(records, library, shape.cells)
            ratios.append(step / bare)
            steps.append(step * 1e6)
            bares.append(bare * 1e6)
    finally:
        gc.enable()
    note = (
        f"{shape.cell} B cells, {shape.cells} per record; one record per read event; "
        f"step {statistics.median(steps):.1f} µs, bare calls {statistics.median(bares):.1f} µs"
    )
    return row_of(shape.name, ratios, "", target=shape.target, note=note)


def run(options: Options) -> list[Row]:
    """The three ratios of the relay step."""
    return [_measure(shape, options) for shape in SHAPES]
