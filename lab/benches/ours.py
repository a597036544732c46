"""The project as one of the networks of the contest: nodes as users run them, with their mesh interfaces.

The ends have `[tun]` and reach each other at their mesh addresses; those between are relays and nothing else.
"""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

from lab.hosted import Hosted
from lab.nodes import Node, Sections, command
from lab.peers import Peers
from lab.processes import Process, python
from lab.profiled import START
from lab.shapes import Cable, Place, Shape
from meshnet.cipher.keys import mesh_ipv6


class Meshnet(Peers):
    """Our nodes in a row; each dials the next."""

    name = "meshnet"
    most = 9
    profile: ClassVar[Path | None] = None
    """Where the nodes of networks started from now on leave profiles of themselves."""
    hosted: Hosted

    def prepare(self) -> None:
        """Keys and configs."""
        names = [host.name for host in self.row]
        places = {name: Place(name, relay=name in names[1:-1]) for name in names}
        made = Shape(places, tuple(Cable(pair) for pair in pairwise(names)))
        self.hosted = Hosted.plan(made, {host.name: host for host in self.row}, self.folder, self._more)

    @staticmethod
    def _more(place: Place) -> Sections:
        return {} if place.relay else {"tun": {"enabled": True}}

    def words(self, place: int) -> list[str]:
        """A node; where it is to be profiled, one that waits for the signal to begin with that."""
        plan = self.hosted.plans[self.row[place].name]
        if self.profile is None:
            return command(plan)
        config = str(plan.folder / "node.toml")
        return python(
            "-m", "lab.profiled", str(self.profile / f"{plan.name}.pstats"), "up", "--config", config
        )

    def profile_from_now(self) -> None:
        """Begins the profiles."""
        for process in self.processes:
            os.kill(process.pid, START)

    def standing(self, process: Process, place: int) -> None:
        """Until it answers."""
        name = self.row[place].name
        node = self.hosted.nodes[name] = Node(self.hosted.plans[name], process)
        node.wait_for_links(0)

    def started(self) -> None:
        """Until all are linked."""
        for name, neighbours in self.hosted.shape.neighbours().items():
            self.hosted[name].wait_for_links(len(neighbours))

    @property
    def address(self) -> str:
        """The last node's mesh address."""
        return str(mesh_ipv6(self.hosted.plans[self.row[-1].name].public))
