"""Bench `topology`: how soon nodes know their network, what that costs all the time, what outlives faults.

Whole routers with real crypto in virtual time: `grid49_converge_s`, `heal_s`, `blackhole_s`, and with --long
`grid961_routers_bytes_per_s` (`lab.benches.topology_nodes`). The cores of the topology over modelled links:
`grid961_control_bytes_per_s`, `freifunk_delivery_percent`; there a signature is checked once for all nodes,
and everything else is done by each. Graphs are those of meshnet-lab where they lie beside the checkout; the
notes say which.

A circuit has at most eight hops. A node is reachable if there is a way of circuits to it: over waypoints
where it is longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from attrs import frozen

from lab.benches import topology_nodes
from lab.benches.rows import Options, Row
from lab.simulation.gossip import GossipNetwork, GossipNode
from lab.simulation.graphs import Shape, grid, published, tangle
from meshnet.topology.choice import long_way

SEED = 961
FREIFUNK = ("freifunk-altdorf", "freifunk-berlin", "freifunk-bremen")
"""Graphs of 660, 795 and 835 nodes, those that others were measured on."""
STANDING = 60.0  # seconds after the start when probes are sent
FALLEN = 0.01  # of all links fall …
AFTER = 10.0  # … and probes are sent again so many seconds later
PROBES = 3  # of each node
PROCESSES = 2
DELIVERY = "freifunk_delivery_percent"
ROWS = (
    *("grid49_converge_s", "grid961_control_bytes_per_s", topology_nodes.GRID961),
    *(DELIVERY, "heal_s", "blackhole_s"),
)
"""That of whole routers in the large grid is made with --long."""


def run(options: Options) -> list[Row]:
    """The rows. Two processes at a time make them: what is measured passes in virtual time, whatever else the
    machine does. With a profile all of it is one process."""
    jobs = parts_of(options.quick, options.long)
    if options.profile or options.quick:
        found = [job(*arguments) for job, *arguments in jobs]
    else:
        spawned = get_context("spawn")  # what one has taken is the machine's again before the next begins
        with ProcessPoolExecutor(PROCESSES, mp_context=spawned, max_tasks_per_child=1) as pool:
            running = [pool.submit(job, *arguments) for job, *arguments in jobs]
            found = [each.result() for each in running]
    rows = {each.name: each for each in found if isinstance(each, Row)}
    rows[DELIVERY] = together([each for each in found if isinstance(each, Delivered)])
    return [rows[name] for name in ROWS if name in rows]


def parts_of(quick: bool, long: bool) -> list[tuple[Any, ...]]:
    """What is run, with its arguments: what takes longest first."""
    whole = [(topology_nodes.control, 4 if quick else 31, 30.0 if quick else 300.0)]
    return [
        *(whole if long else ()),
        (control, 5 if quick else 31, 60.0 if quick else 600.0),
        *((delivery, shape) for shape in shapes(quick)),
        (topology_nodes.heal, 3 if quick else 7, 1 if quick else 3),
        (topology_nodes.blackhole, 1 if quick else 5),
        (topology_nodes.converge, 3 if quick else 7, 1 if quick else 3),
    ]


def control(side: int, seconds: float) -> Row:
    """What a node of a grid sends for the topology while nothing happens."""
    shape = grid(side)
    network = GossipNetwork(SEED, shape.count)
    network.build(shape)
    started = network.run(120.0, lambda: whole(network))
    network.settle()
    before, start = carried(network), network.now
    network.run(start + seconds)
    rate = (carried(network) - before) / seconds / shape.count
    note = (
        f"{shape.origin}, cores and modelled links, seed {SEED}: sent by a node, mean over {seconds:g} s "
        f"with heads, 50 B a bundle; all knew all after {started:.2f} s"
    )
    return Row("grid961_control_bytes_per_s", rate, "B/s", 1, target=600.0, note=note)


def shapes(quick: bool) -> list[Shape]:
    """The graphs that probes are sent in."""
    if quick:
        return [tangle(40, 4, SEED)]
    known = [shape for shape in (published(f"freifunk/{name}") for name in FREIFUNK) if shape]
    return known or [tangle(count, 4, SEED) for count in (660, 795, 835)]


@frozen
class Delivered:
    """Percent of probes that arrive `still`, and when some links have just fallen (`faulty`)."""

    shape: Shape
    still: float
    faulty: float


def together(found: Sequence[Delivered]) -> Row:
    """The share of probes that arrive: each node sends to others of its part of the network, along the way it
    knows, over the links as they are."""
    notes = [
        f"{each.shape.origin} ({each.shape.count}): {each.still:.2f} %, {each.faulty:.2f} %" for each in found
    ]
    note = (
        f"cores and modelled links, seed {SEED}: the least of {'; '.join(notes)}: {STANDING:g} s after the "
        f"start, and {AFTER:g} s after {FALLEN:.0%} of the links fell"
    )
    return Row(DELIVERY, min(each.still for each in found), "%", len(found), 0.0, 99.5, "higher", note)


def delivery(shape: Shape) -> Delivered:
    """After a cold start, and after some links fell."""
    network = GossipNetwork(SEED, shape.count)
    network.build(shape)
    network.run(STANDING)
    still = probed(network)
    links = sorted(network.links)
    for pair in network.random.sample(links, max(1, int(len(links) * FALLEN))):
        network.cut(network.links[pair])
    network.run(network.now + AFTER)
    return Delivered(shape, still, probed(network))


def probed(network: GossipNetwork) -> float:
    """Percent of probes that arrive now. Nobody sends to where no links lead."""
    sent = arrived = 0
    for part in parts(network):
        if len(part) > 1:
            for node in part:
                others = network.random.sample(part, min(PROBES + 1, len(part)))
                for other in [each for each in others if each is not node][:PROBES]:
                    sent += 1
                    arrived += arrives(network, node, other)
    return 100.0 * arrived / sent


def arrives(network: GossipNetwork, node: GossipNode, other: GossipNode) -> bool:
    """Whether a probe does, along the way that `node` knows."""
    pieces = long_way(node.book.graph, node.name, other.name)
    here = node
    for piece in pieces:
        for name in piece[1:]:
            link = here.links.get(name)
            if link is None or not link.up:
                return False
            here = link.other(here)
    return here is other


def parts(network: GossipNetwork) -> list[list[GossipNode]]:
    """The nodes, by what links connect."""
    found, listed = [], set[int]()
    for first in network.nodes:
        if first.index in listed:
            continue
        part = [first]
        listed.add(first.index)
        for node in part:
            for link in node.links.values():
                other = link.other(node)
                if link.up and other.index not in listed:
                    listed.add(other.index)
                    part.append(other)
        found.append(part)
    return found


def whole(network: GossipNetwork) -> bool:
    """Whether every node knows a way to every other."""
    count = len(network.nodes)
    return all(len(node.book.graph) == count for node in network.nodes) and all(
        network.reachable(node) == count for node in network.nodes
    )


def carried(network: GossipNetwork) -> int:
    """Bytes over all links, both ways, since the start."""
    return sum(link.carried for link in network.links.values())
