"""What a session costs for packets, over the crypto calls in it.

A source that always has a packet, two ends of one session in memory, a sink that looks at nothing: cells are
filled, handed over and opened, eight at a time, acknowledged, and everything that follows from that. No link,
no socket, no device, and nothing is copied. The denominator is sealing and opening the same bytes, in a loop
that does nothing else, measured alternately with it.
"""

from __future__ import annotations

import cProfile
import gc
import pstats
import statistics
import sys
import time
from typing import Any

from attrs import frozen

from lab.benches.rows import Options, Row, row_of
from meshnet.cipher.aead import TAG_SIZE, backend
from meshnet.cipher.keys import SecretKey
from meshnet.errors import MeshError
from meshnet.session import keys
from meshnet.session.session import Session

TURN = 8
TURNS = 60  # per sample
SAMPLES = 31
TRIP = 0.0004
NONCE = bytes(12)


@frozen
class Shape:
    """A packet, of `size` bytes with its frame."""

    name: str
    size: int


SHAPES = (
    Shape("packets_60k_ratio", 59_000),
    Shape("packets_1400_ratio", 1_400),
    Shape("packets_100_ratio", 100),
)


class _Source:
    """Has one packet for each cell."""

    def __init__(self, size: int) -> None:
        self._size = size

    def waiting(self) -> int:
        return self._size

    def accompany(self) -> None:
        """Nothing waits for more."""

    def pour(self, room: memoryview, now: float) -> int:
        return self._size if len(room) >= self._size else 0


class _Nobody:
    """Reads and sinks nothing; has nothing."""

    def waiting(self) -> int:
        return 0

    def accompany(self) -> None:
        """Nothing waits for more."""

    def pour(self, room: memoryview, now: float) -> int:
        return 0

    def packets_received(self, body: memoryview, marked: bool) -> None:
        """Nothing."""

    def data_received(self, data: memoryview) -> None:
        """Nothing."""

    def finished(self) -> None:
        """Nothing."""

    def lost(self, why: MeshError) -> None:
        """Nothing."""

    def drained(self) -> None:
        """Nothing."""


class Ends:
    """Both ends of a session, and the time between them."""

    def __init__(self, size: int) -> None:
        service, one, other = (SecretKey(bytes([number]) * 32) for number in (1, 2, 3))
        opening = keys.start(service.public, 1, one, backend())
        reply, last = keys.respond(service, 1, opening.first, other, backend())
        self.now = 0.0
        self._accepted: list[Any] = []
        self.near = Session(opening.finish(reply), wake=lambda path: None)
        self.far = Session(last, wake=lambda path: None, accept=self._accept)
        self._room = memoryview(bytearray(65_536))
        stream = self.near.open(80, 0.0, _Nobody())
        for _ in range(50):
            self.turn()
        self._accepted[0].carry(_Nobody(), _Nobody())
        stream.carry(_Source(size), _Nobody())
        for _ in range(300):  # until the window is as large as it will be
            self.turn()

    def _accept(self, stream: Any) -> _Nobody:
        self._accepted.append(stream)
        return _Nobody()

    def turn(self) -> int:
        """Some cells there, what is due back; how many cells there were."""
        self.now += TRIP
        now, room, near, far = self.now, self._room, self.near, self.far
        cells = 0
        while cells < TURN and (size := near.path.fill(room, now)):
            far.path.receive(near.path.number, room[:size], now + TRIP / 2, False)
            cells += 1
        while size := far.path.fill(room, now + TRIP / 2):
            near.path.receive(far.path.number, room[:size], now + TRIP, False)
        for end in (near, far):
            end.events()
            due = end.deadline()
            if due is not None and due <= now:
                end.tick(now)
        return cells


def _bare_seconds(size: int) -> float:
    """Seconds to seal and open a cell of one such packet."""
    aead = backend().aead(bytes(32))
    whole = memoryview(bytearray(size + TAG_SIZE))
    plain = whole[:size]
    start = time.perf_counter()
    for _ in range(TURN * TURNS):
        aead.encrypt_into(NONCE, plain, b"f", whole)
        aead.decrypt_into(NONCE, whole, b"f", plain)
    return (time.perf_counter() - start) / TURN / TURNS


def _cell_seconds(ends: Ends) -> float:
    """Seconds per cell, both ends together."""
    start, cells = time.perf_counter(), 0
    for _ in range(TURNS):
        cells += ends.turn()
    return (time.perf_counter() - start) / cells


def _measure(shape: Shape, options: Options) -> Row:
    ends = Ends(shape.size)
    ratios, steps, bares = [], [], []
    gc.disable()
    try:
        for _ in range(5 if options.quick else SAMPLES):
            bare, step = _bare_seconds(shape.size), _cell_seconds(ends)
            ratios.append(step / bare)
            steps.append(step * 1e6)
            bares.append(bare * 1e6)
    finally:
        gc.enable()
    if options.profile:
        profile = cProfile.Profile()
        profile.runcall(_cell_seconds, ends)
        print(f"--- {shape.name}", file=sys.stderr)
        pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(25)
    note = (
        f"one packet of {shape.size} B per cell, both ends; "
        f"cell {statistics.median(steps):.1f} µs, bare calls {statistics.median(bares):.1f} µs"
    )
    return row_of(shape.name, ratios, "", note=note)


def run(options: Options) -> list[Row]:
    """The ratios for large, common and small packets."""
    return [_measure(shape, options) for shape in SHAPES]
