"""A node that lies about its links: `python -m lab.liar up …` is `meshnet up …` with a false tongue.

It states a link of 1 µs and 10 Gbit/s to every node that it has heard of. How it lies is here and nowhere in
the product: `Topology` is replaced before the node is made. What it does with circuits is honest.
"""

from __future__ import annotations

import sys
from typing import Final

from meshnet.cli import main
from meshnet.node import wiring
from meshnet.node.topology import Topology
from meshnet.topology.record import LinkRow

HEARD: Final = 6
"""It begins to lie when it has heard of so many nodes; the more there are, the more it has links with."""
DELAY: Final = 1  # µs
CAPACITY: Final = 10_000_000  # kbit/s


class Liar(Topology):
    """States links that no other end states."""

    _told = False

    def tick(self, now: float) -> None:
        """As ever, and once more when there is somebody to lie about."""
        if len(self.graph) >= HEARD and not self._told:
            self._told = True
            self._soon(now)
        super().tick(now)

    def _rows(self) -> tuple[LinkRow, ...]:
        rows: dict[bytes, LinkRow] = {row.name: row for row in super()._rows()}
        if len(self.graph) < HEARD:
            return tuple(rows.values())
        for name in self.graph.nodes:
            if name != self.own:
                rows[name] = LinkRow(name, DELAY, 0, 0, CAPACITY)
        return tuple(rows[name] for name in sorted(rows))


def run(arguments: list[str]) -> int:
    """The command, of a node that lies; its exit code."""
    setattr(wiring, "Topology", Liar)  # noqa: B010  (of another module, for this process alone)
    return main.main(arguments)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
