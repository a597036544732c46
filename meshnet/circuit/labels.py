"""The labels of one link: drawing our own, and keeping used ones out of use for a while.

A label is a random u32 chosen by the sender of CREATE, its top bit 1 iff that node's key is the greater
of the two (docs/wire-format.md §3), so both ends can open circuits without asking. After use a label
rests for 60 s: cells and frames still on their way must not meet a new circuit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container
from itertools import islice
from typing import Final

from meshnet.circuit.interface import Random
from meshnet.limits import LABEL_QUARANTINE, QUARANTINED_LABELS

TOP: Final = 1 << 31


class Labels:
    """Which labels of one link rest, and new ones for circuits that we open."""

    __slots__ = ("_order", "_random", "_resting", "ours")

    def __init__(self, own_key: bytes, peer_key: bytes, random: Random) -> None:
        self.ours = TOP if own_key > peer_key else 0
        """The top bit of the labels that we create."""
        self._random = random
        self._resting: set[int] = set()
        self._order: deque[tuple[float, int]] = deque()

    def is_ours(self, label: int) -> bool:
        """Whether only we may open a circuit under this label."""
        return label & TOP == self.ours

    def draw(self, taken: Container[int], residue: int = 0, modulus: int = 1) -> int:
        """A fresh label, neither resting nor in `taken`, equal to `residue` modulo `modulus` (a power of
        two: the number of lanes)."""
        while True:
            label = int.from_bytes(self._random(4), "big") & ~(TOP | modulus - 1) | self.ours
            label |= residue & modulus - 1
            if label not in taken and label not in self._resting:
                return label

    def rest(self, label: int, now: float) -> None:
        """`label` is not used for 60 s."""
        self.settle(now)
        if label not in self._resting:
            self._resting.add(label)
            self._order.append((now + LABEL_QUARANTINE, label))

    def rests(self, label: int, now: float) -> bool:
        """Whether `label` may not be used yet."""
        self.settle(now)
        return label in self._resting

    def latest(self, most: int) -> list[int]:
        """The labels that rest, at most the `most` that were used last."""
        return [label for _, label in islice(reversed(self._order), most)]

    @property
    def crowded(self) -> bool:
        """So many labels rest that no further unknown one is remembered."""
        return len(self._resting) >= QUARANTINED_LABELS

    def settle(self, now: float) -> None:
        """Frees the labels whose time is over."""
        order = self._order
        while order and order[0][0] <= now:
            self._resting.discard(order.popleft()[1])

    def __len__(self) -> int:
        return len(self._resting)
