"""Which loose transactions are asked of whom, and who is told of ours.

Ids are heard of by ANNT, asked for by GETT, answered by GIVT. An id is asked of one peer at a time; what does
not come may be asked of the next that has it. What was refused is not asked for again for a while. A peer may
give what nobody asked for (the Go node does that with transactions made there), at a bounded rate.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from coin.chain.transaction import Transaction
from meshnet.limits import COIN_ASKED, COIN_ASKED_OF_PEER, COIN_REFUSED, COIN_UNASKED_BURST

ANSWER_SECONDS: Final = 20.0
UNASKED_PER_SECOND: Final = 5.0


class Gossip:
    """Ids on their way. Peers are numbers."""

    def __init__(self) -> None:
        self._asked: dict[bytes, tuple[int, float]] = {}  # id → peer, until
        self._of_peer: dict[int, int] = {}
        self._refused: dict[bytes, None] = {}
        self._free: dict[int, tuple[float, float]] = {}  # peer → unasked ones allowed, when

    def leave(self, peer: int) -> None:
        """A peer is gone."""
        for number in [number for number, (whom, _) in self._asked.items() if whom == peer]:
            del self._asked[number]
        self._of_peer.pop(peer, None)
        self._free.pop(peer, None)

    def wanted(self, ids: Iterable[bytes], now: float) -> list[bytes]:
        """Those of announced ids that are neither asked for nor refused, each once: look which we have."""
        return [
            number
            for number in dict.fromkeys(ids)
            if number not in self._refused and ((asked := self._asked.get(number)) is None or asked[1] <= now)
        ]

    def ask(self, peer: int, unknown: Sequence[bytes], now: float) -> tuple[bytes, ...]:
        """Those of unknown ids that are to be asked of a peer now; as many as it may owe us."""
        room = min(COIN_ASKED_OF_PEER - self._of_peer.get(peer, 0), COIN_ASKED - len(self._asked))
        chosen = tuple(self.wanted(unknown, now)[: max(0, room)])
        for number in chosen:
            self._take(number)
            self._asked[number] = (peer, now + ANSWER_SECONDS)
        if chosen:
            self._of_peer[peer] = self._of_peer.get(peer, 0) + len(chosen)
        return chosen

    def given(self, peer: int, transactions: Sequence[Transaction], now: float) -> list[Transaction]:
        """Those of a GIVT that are to be looked at."""
        kept = []
        for each in transactions:
            asked = self._asked.get(each.id)
            if asked is not None and asked[0] == peer:
                self._take(each.id)
            elif each.id in self._refused or not self._allowed(peer, now):
                continue
            kept.append(each)
        return kept

    def refuse(self, number: bytes) -> None:
        """It breaks a hard rule: not again soon."""
        self._refused.pop(number, None)
        self._refused[number] = None
        if len(self._refused) > COIN_REFUSED:
            del self._refused[next(iter(self._refused))]

    def forgive(self) -> None:
        """There is a new block: what was refused may be right now."""
        self._refused.clear()

    def tick(self, now: float) -> None:
        """Forgets what did not come."""
        for number in [number for number, (_, until) in self._asked.items() if until <= now]:
            self._take(number)

    @property
    def size(self) -> int:
        """Ids that are remembered."""
        return len(self._asked) + len(self._refused)

    def _take(self, number: bytes) -> None:
        asked = self._asked.pop(number, None)
        if asked is not None:
            left = self._of_peer.get(asked[0], 0) - 1
            if left > 0:
                self._of_peer[asked[0]] = left
            else:
                self._of_peer.pop(asked[0], None)

    def _allowed(self, peer: int, now: float) -> bool:
        free, at = self._free.get(peer, (float(COIN_UNASKED_BURST), now))
        free = min(float(COIN_UNASKED_BURST), free + (now - at) * UNASKED_PER_SECOND)
        self._free[peer] = (max(0.0, free - 1.0), now)
        return free >= 1.0
