"""Who is asked for blocks. One peer at a time; the next one if it is slow, has nothing or lies.

Peers say how high they are. The one that served last is asked again as long as it has more; while its blocks
are checked the next run is on its way already, so that neither side waits. Who does not answer in time gets
no question for a while, which doubles each time. A peer that has said nothing of its height may have more:
it is asked once for each height of ours, and owes no answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attrs import define, frozen

from coin.chain.block import Block
from meshnet.limits import COIN_BLOCKS

ANSWER_SECONDS: Final = 20.0
"""For a peer to answer GETB."""
GUESS_SECONDS: Final = 3.0
"""For one that may have nothing to answer."""
RESTS: Final = 30.0
"""After the first time that it did not."""
_LONGEST_REST: Final = 3_600.0
RUNS: Final = 2
"""Runs of blocks that are received and not checked yet."""


@frozen
class Ask:
    """A question for `peer`: blocks after `last`."""

    peer: int
    last: int
    wanted: int = COIN_BLOCKS


@define
class _Source:
    height: int | None = None  # None: never said
    asked_at: int = -1  # our height when it was last asked, before it had said its own
    failures: int = 0
    rests_until: float = 0.0
    served: int = 0  # grows: who served last


@define
class _Question:
    peer: int
    last: int
    until: float
    owed: bool


class Sync:
    """Heights and questions. Peers are numbers; `head` is our last block, `ahead` the last that has come."""

    def __init__(self, head: int) -> None:
        self.head = head
        self.ahead = head
        self.runs = 0
        self._sources: dict[int, _Source] = {}
        self._question: _Question | None = None
        self._turn = 0

    @property
    def highest(self) -> int:
        """What anybody says there is, our own height included."""
        return max((each.height or 0 for each in self._sources.values()), default=self.head)

    def join(self, peer: int) -> None:
        """A peer has introduced itself."""
        self._sources[peer] = _Source()

    def leave(self, peer: int) -> None:
        """It is gone; a question to it goes to another."""
        self._sources.pop(peer, None)
        if self._question is not None and self._question.peer == peer:
            self._question = None

    def height_of(self, peer: int) -> int | None:
        """What a peer said, or showed."""
        source = self._sources.get(peer)
        return source.height if source is not None else None

    def says(self, peer: int, height: int) -> None:
        """A peer has blocks up to `height`; the last word counts."""
        source, question = self._sources.get(peer), self._question
        if source is not None:
            source.height = height
        if question is not None and question.peer == peer and not question.owed:
            question.owed = height > question.last
            question.until += ANSWER_SECONDS - GUESS_SECONDS
            if not question.owed:  # it has nothing
                self._question = None

    def ask(self, now: float, unknown: bool = False) -> Ask | None:
        """What to ask now, if anything: to be sent at once. With `unknown`, perhaps of a peer that has said
        nothing of its height."""
        if self._question is not None or self.runs >= RUNS:
            return None
        best = max(self._candidates(now, unknown), key=self._worth, default=None)
        if best is None:
            return None
        source = self._sources[best]
        owed = source.height is not None
        if not owed:
            source.asked_at = self.ahead
        patience = ANSWER_SECONDS if owed else GUESS_SECONDS
        self._question = _Question(best, self.ahead, now + patience, owed)
        return Ask(best, self.ahead)

    def _candidates(self, now: float, unknown: bool) -> list[int]:
        return [
            peer
            for peer, source in self._sources.items()
            if source.rests_until <= now
            and (
                unknown and source.asked_at < self.ahead
                if source.height is None
                else source.height > self.ahead
            )
        ]

    def _worth(self, peer: int) -> tuple[bool, int, int]:
        source = self._sources[peer]
        return source.height is not None, source.served, -source.failures

    def given(self, peer: int, blocks: Sequence[Block], now: float) -> tuple[Block, ...]:
        """Those of the blocks of a GIVB that are to be checked now; `executed` follows for them, if any.

        Blocks that nobody asked for count only if they follow the last one directly: who makes blocks sends
        them around.
        """
        question, source = self._question, self._sources.get(peer)
        if source is None or not blocks:
            return ()
        top = blocks[-1].header.sequence
        if source.height is None or source.height < top:
            source.height = top
        answers = question is not None and question.peer == peer
        if answers:
            self._question = None
        elif question is not None or self.runs:
            return ()
        fresh = _following(blocks, self.ahead)
        if fresh:
            self._turn += 1
            source.served, source.failures = self._turn, 0
            self.ahead += len(fresh)
            self.runs += 1
        elif answers:
            self._rest(source, now)
        return fresh

    def executed(self, head: int, whole: bool) -> None:
        """A run was checked: our height now. If it was not right as a `whole`, what was received is void."""
        self.runs -= 1
        self.head = head
        if not whole or self.ahead < head:
            self.ahead = head
            self._question = None  # its answer would not follow the head

    def made(self, head: int) -> None:
        """We have a block from elsewhere, our own for instance."""
        self.head = head
        self.ahead = max(self.ahead, head)

    def shortened(self, head: int) -> None:
        """We have lost blocks: `head` is our last one now. An answer on its way is void."""
        self.head = self.ahead = head
        self._question = None

    def heights(self) -> dict[int, int | None]:
        """What each peer said, or showed; None: nothing."""
        return {peer: source.height for peer, source in self._sources.items()}

    def tick(self, now: float) -> int | None:
        """The peer that has not answered in time, if it owed an answer."""
        question = self._question
        if question is None or question.until > now:
            return None
        self._question = None
        source = self._sources.get(question.peer)
        if source is None or not question.owed:
            return None
        self._rest(source, now)
        return question.peer

    def _rest(self, source: _Source, now: float) -> None:
        source.failures += 1
        source.rests_until = now + min(_LONGEST_REST, RESTS * 2 ** min(source.failures - 1, 10))
        source.height = None
        source.asked_at = self.ahead
        source.served = 0

    def deadline(self) -> float | None:
        """When `tick` has something to do."""
        return self._question.until if self._question is not None else None


def _following(blocks: Sequence[Block], last: int) -> tuple[Block, ...]:
    """The run of blocks after number `last`, as far as it is one."""
    found: list[Block] = []
    for block in blocks:
        if block.header.sequence == last + 1 + len(found):
            found.append(block)
        elif block.header.sequence > last:
            break
    return tuple(found)
