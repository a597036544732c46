"""What circuits need of the floors beside them: a lane's sending side, a neighbour, a session.

Circuits import neither links nor sessions; `meshnet/node/router.py` hands these in. A `memoryview`
argument is borrowed until return.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from meshnet.bundle import Bundle
from meshnet.cipher.keys import PublicKey
from meshnet.errors import Drop

Step = Callable[[int, memoryview, float, bool], Drop]
"""Takes a cell: (seq, body, now, marked). `body` is writable memory inside the receive buffer; `marked` is
the congestion bit. What it returns is what became of the cell."""

Steps = dict[int, Step]
"""By label."""

Run = Callable[[memoryview, int, int, float], int]
"""Takes cells that lie together in a bundle: (memory, position, end, now). The frame at `position` is a cell
of this label, none reaches beyond `end`. Takes as many as are its own, as long as that one and need no care;
returns how many it took."""

Random = Callable[[int], bytes]
"""So many random bytes."""


class Source(Protocol):
    """Something with cells to send."""

    def pour(self, now: float) -> bool:
        """Puts one cell into the outlet if it has one and there is room; true if it wants another turn."""


class Outlet(Protocol):
    """The sending side of a lane, the same object for the link's whole life."""

    @property
    def bundle(self) -> Bundle:
        """Where frames to send are gathered; where it has no room, queue the cell and ask `ready`."""

    @property
    def waiting(self) -> int:
        """Sources listed, but not the one that is being asked."""

    def ready(self, source: Source) -> None:
        """Asks for `source.pour` in turn, as soon as there is room; harmless if it is listed already."""


class Neighbour(Protocol):
    """A link: what a circuit sees of the node at its other end."""

    @property
    def peer(self) -> PublicKey:
        """The neighbour's key."""

    @property
    def lanes(self) -> int:
        """How many lanes it has: 1, 2, 4, 8 or 16."""

    @property
    def standing(self) -> Sequence[int]:
        """The lanes that a connection serves now, by number."""

    def outlet(self, label: int) -> Outlet:
        """Where cells of this label leave: lane `label` modulo `lanes`; the same object always."""

    @property
    def forward(self) -> Steps:
        """Labels the neighbour created: forward cells (kind 12) arrive here."""

    @property
    def backward(self) -> Steps:
        """Labels we created: backward cells (kind 13) arrive here."""

    @property
    def runs(self) -> dict[int, Run]:
        """What takes several cells of a label at once, for labels of either side, as far as they have one."""

    @property
    def max_cell(self) -> int:
        """The largest cell body, tag included, that the neighbour takes."""

    def send(self, kind: int, body: bytes, label: int) -> bool:
        """Sends a control frame about `label` by its lane, ahead of waiting cells; false if that lane is down
        or its queue full."""


class SessionEnd(Protocol):
    """One circuit as its session sees it: opens and seals the innermost layer."""

    @property
    def number(self) -> int:
        """The packet number of the cell that `fill` has just sealed."""

    @property
    def more(self) -> bool:
        """Whether the next `fill` may have something, after one that had."""

    @property
    def cell_size(self) -> int:
        """The most bytes that the next `fill` can use, its tag included."""

    def receive(self, number: int, body: memoryview, now: float, marked: bool) -> Drop:
        """Opens and takes a cell; `Drop.BAD_TAG` if it does not open."""

    def fill(self, room: memoryview, now: float) -> int:
        """Seals one cell into `room` and returns its size; 0 if there is nothing to send."""
