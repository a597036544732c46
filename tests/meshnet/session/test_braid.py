"""Circuits added, lost and cut at random under streams both ways: every byte arrives once and in order."""

from __future__ import annotations

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from meshnet.limits import SESSION_PATHS
from tests.meshnet.session.braid import Braid, Strand
from tests.meshnet.session.pair import Recorder

LONGEST = 20.0
"""Seconds that the session may be without a circuit here: less than it survives."""


class BraidMachine(RuleBasedStateMachine):
    """Two sessions, and what befalls their circuits."""

    def __init__(self) -> None:
        super().__init__()
        self.braid = Braid(7, loss=0.03)
        self.random = random.Random(7)
        self.braid.run(2.0)
        assert self.braid.a.confirmed
        self.written: dict[Recorder, bytearray] = {}  # by the opener's reader, what its side has written
        self.pairs: list[tuple[Recorder, int]] = []  # the opener's reader, and its side
        self.alone = 0.0
        for side in (0, 1):
            self.open(side)
        self.braid.run(2.0)  # both ends have something to wait for

    def alive(self) -> list[Strand]:
        """Strands that both ends know and that carry."""
        paths = self.braid.a.paths
        return [each for each in self.braid.strands if not each.cut and each.paths[0] in paths]

    def open(self, side: int) -> None:
        """A stream from one end."""
        reader = Recorder()
        session = (self.braid.a, self.braid.b)[side]
        reader.stream = session.open(len(self.pairs) + 1, self.braid.now, reader)
        self.pairs.append((reader, side))
        self.written[reader] = bytearray()

    @precondition(lambda self: len(self.pairs) < 6)
    @rule(side=st.sampled_from([0, 1]))
    def another(self, side: int) -> None:
        """A stream from either end."""
        self.open(side)

    @rule(which=st.integers(0, 5), size=st.sampled_from([1, 1_000, 50_000]))
    def write(self, which: int, size: int) -> None:
        """More bytes, as many as are taken."""
        reader, _ = self.pairs[which % len(self.pairs)]
        data = self.random.randbytes(size)
        assert reader.stream is not None
        self.written[reader] += data[: reader.stream.write(data)]

    @precondition(lambda self: len(self.braid.a.paths) < SESSION_PATHS)
    @rule(
        loss=st.sampled_from([0.0, 0.03, 0.2]),
        delay=st.sampled_from([0.005, 0.02, 0.15]),
        spare=st.booleans(),
    )
    def join(self, loss: float, delay: float, spare: bool) -> None:
        """Another circuit, to be used or kept in reserve."""
        self.braid.join(loss, delay, spare)

    @rule(side=st.sampled_from([0, 1]))
    def turn(self, side: int) -> None:
        """An end is told that its circuit leads nowhere, though it may."""
        (self.braid.a, self.braid.b)[side].paths.turn(self.braid.now)

    @precondition(lambda self: bool(self.alive()))
    @rule(which=st.integers(0, 9), side=st.sampled_from([0, 1]))
    def probe(self, which: int, side: int) -> None:
        """A circuit is asked."""
        alive = self.alive()
        alive[which % len(alive)].paths[side].probe(self.braid.now)

    @precondition(lambda self: bool(self.alive()))
    @rule(which=st.integers(0, 9), sides=st.sampled_from([(0, 1), (0,), (1,)]))
    def lose(self, which: int, sides: tuple[int, ...]) -> None:
        """A circuit ends; both ends learn it, or one does and the other never."""
        alive = self.alive()
        self.braid.lose(alive[which % len(alive)], *sides)

    @precondition(lambda self: len(self.alive()) > 1)
    @rule(which=st.integers(0, 9))
    def cut(self, which: int) -> None:
        """A circuit carries nothing any more, and nobody knows."""
        alive = self.alive()
        alive[which % len(alive)].cut = True

    @rule(seconds=st.sampled_from([0.01, 0.05, 0.3, 2.0]))
    def wait(self, seconds: float) -> None:
        """Time passes; not so long without a circuit that the session ends."""
        self.alone = 0.0 if self.alive() else self.alone + seconds
        if self.alone > LONGEST:
            self.heal()
        self.braid.run(seconds)

    @invariant()
    def nothing_is_wrong(self) -> None:
        """What has arrived is the beginning of what was sent, and nobody has lost a stream."""
        assert self.braid.a.live and self.braid.b.live
        for reader in self.braid.readers:
            opener = self.pairs[reader.stream.port - 1][0]
            assert self.written[opener].startswith(reader.data)
            assert reader.why is None and opener.why is None

    def heal(self) -> None:
        """A good circuit, as far as there is room for one. Of a bad one every answer of fifteen seconds may
        get lost, and then it is rightly given up."""
        for strand in self.braid.strands:
            strand.loss = 0.0
            if strand.cut:
                self.braid.lose(strand)
        if not self.alive():
            self.braid.join(0.0, 0.01)
        self.alone = 0.0

    def teardown(self) -> None:
        """In the end, with one good circuit, everything arrives, and nothing is held."""
        self.heal()
        for reader, _ in self.pairs:
            assert reader.stream is not None
            reader.stream.finish()
        everything = self.braid.run(
            300.0,
            lambda: (
                len(self.braid.readers) == len(self.pairs)
                and all(reader.ended for reader in self.braid.readers)
            ),
        )
        assert everything, f"at {self.braid.now}"
        for reader in self.braid.readers:
            assert bytes(reader.data) == self.written[self.pairs[reader.stream.port - 1][0]]
            reader.stream.finish()
        self.braid.run(60.0)
        for session, memory in zip((self.braid.a, self.braid.b), self.braid.memories, strict=True):
            assert (session.streams, memory.used) == (0, 0)
            assert not session.outbox.work


BraidTests = BraidMachine.TestCase
BraidTests.settings = settings(stateful_step_count=30)
