"""Who is asked for a block of ours that was found damaged: one peer at a time, with a deadline.

The block is known by its number; whether what comes is that block, the store says by its hash. A peer that
does not answer, or gives another block, is not asked again for a while. Pure: peers are numbers, `now` comes
with each call. It never asks for a block that the store did not name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from attrs import frozen

from coin.chain.block import Block
from coin.replication.sync import Ask

ANSWER_SECONDS: Final = 20.0
"""For a peer to answer."""
REST_SECONDS: Final = 60.0
"""For one that did not, or not rightly."""


@frozen
class _Question:
    peer: int
    sequence: int
    until: float


class Mending:
    """`wanted` are the numbers of damaged blocks, in order; `mended` counts those that were put back."""

    def __init__(self) -> None:
        self.wanted: list[int] = []
        self.mended = 0
        self._question: _Question | None = None
        self._storing = False
        self._rests: dict[int, float] = {}

    def want(self, sequences: Iterable[int]) -> None:
        """These blocks are damaged, and no others."""
        self.wanted = sorted(set(sequences))

    def ask(self, heights: Mapping[int, int | None], now: float) -> Ask | None:
        """The question to be sent now, if any, to one of the peers with these heights (None: never said)."""
        if self._question is not None or self._storing or not self.wanted:
            return None
        sequence = self.wanted[0]
        able = [
            peer
            for peer, height in heights.items()
            if (height is None or height >= sequence) and self._rests.get(peer, now) <= now
        ]
        if not able:
            return None
        peer = max(able, key=lambda each: (heights[each] is not None, -self._rests.get(each, 0.0), -each))
        self._question = _Question(peer, sequence, now + ANSWER_SECONDS)
        return Ask(peer, sequence - 1, 1)

    def given(self, peer: int, blocks: Sequence[Block]) -> Block | None:
        """The block of a GIVB that answers the question, if it does; `stored` follows for it."""
        question = self._question
        if question is None or question.peer != peer or not blocks:
            return None
        if blocks[0].header.sequence != question.sequence:
            return None
        self._question = None
        self._storing = True
        return blocks[0]

    def stored(self, peer: int, sequence: int, right: bool, now: float) -> None:
        """Whether what `peer` gave was the block, which is whole again then."""
        self._storing = False
        if not right:
            self._rests[peer] = now + REST_SECONDS
        elif sequence in self.wanted:
            self.wanted.remove(sequence)
            self.mended += 1

    def leave(self, peer: int) -> None:
        """A peer is gone; a question to it goes to another."""
        self._rests.pop(peer, None)
        if self._question is not None and self._question.peer == peer:
            self._question = None

    def tick(self, now: float) -> int | None:
        """The peer that has not answered in time."""
        question = self._question
        if question is None or question.until > now:
            return None
        self._question = None
        self._rests[question.peer] = now + REST_SECONDS
        return question.peer

    def whole(self, first: int, count: int) -> int:
        """How many of `count` blocks from `first` on may be given to others: up to the first damaged one."""
        return min((each - first for each in self.wanted if first <= each < first + count), default=count)
