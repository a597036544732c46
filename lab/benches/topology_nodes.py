"""Whole routers that know the network, in virtual time: cold starts, partitions, black holes.

Nothing of a node is left out but sockets: links with their handshakes, redialling, circuits and streams are
those of `meshnet`. Delays are 10 ms a link unless told.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from attrs import define

from lab.benches.rows import Row
from lab.simulation.graphs import Shape, grid
from lab.simulation.nodes import Collector, Mesh
from meshnet.errors import Drop, MeshError
from meshnet.node.config import TopologySettings
from meshnet.node.topology import REFRESH, Topology
from meshnet.streams import Stream, StreamReader
from meshnet.topology.choice import long_way

SEED = 49
LOOKS = 0.05  # seconds between looks at what all nodes know
LIMIT = 120.0
APART = 90.0  # seconds
LONG_APART = 600.0
GRID961 = "grid961_routers_bytes_per_s"
PORT = 7
HOLE = "hole"
MEASURED = 60.0  # seconds in which links measure their delays, and say so


def converge(side: int, runs: int) -> Row:
    """A cold start: all dial at once; the slowest of `runs` seeds."""
    shape = grid(side)
    samples = []
    for seed in range(SEED, SEED + runs):
        mesh = started(shape, seed)
        samples.append(until(mesh, lambda mesh=mesh: whole(mesh)))  # type: ignore[misc]
        mesh.stop()
    note = (
        f"{shape.origin}, whole routers, 10 ms a link: every pair has a way, over waypoints beyond 8 hops; "
        f"the slowest of seeds {SEED} to {SEED + runs - 1}, median {median(samples):.2f}"
    )
    return Row("grid49_converge_s", max(samples), "s", runs, target=8.0, note=note)


def control(side: int, seconds: float) -> Row:
    """What a node of a large grid sends for the topology while nothing happens, once all know all. Records
    are due at any time of the half hour, as if all nodes had run for long."""
    shape = grid(side)
    mesh = started(shape, SEED)
    took = until(
        mesh, lambda: all(len(each.graph.component(each.own)) == shape.count for each in all_of(mesh))
    )
    mesh.network.run(2 * MEASURED)  # what links find out first makes one more record of each node
    random = mesh.network.random("renewals")
    for each in all_of(mesh):
        each._due = mesh.clock.now() + REFRESH * random.random()
    before = sum(each.spread.sent for each in all_of(mesh)), _on_links(mesh)
    mesh.network.run(seconds)
    told, sent = sum(each.spread.sent for each in all_of(mesh)) - before[0], _on_links(mesh) - before[1]
    share = seconds * shape.count
    note = (
        f"{shape.origin}, whole routers, seed {SEED}: all that a node's links send but handshakes, mean over "
        f"{seconds:g} s; {told / share:.0f} of it are of the topology; all knew all after {took:.2f} s"
    )
    return Row(GRID961, sent / share, "B/s", 1, target=600.0, note=note)


def all_of(mesh: Mesh) -> list[Topology]:
    """What each node knows."""
    return [knows(mesh, name) for name in mesh.nodes]


def _on_links(mesh: Mesh) -> int:
    return sum(link.bytes_sent for node in mesh.nodes.values() for link in node.router.links_now())


def heal(side: int, runs: int) -> Row:
    """Two halves of a grid are cut off from each other, one of them changes, and they meet again: the time
    from the first link between them until every pair has a way and the change is known."""
    shape = grid(side)
    found = [_healed(shape, seed, APART) for seed in range(SEED, SEED + runs)]
    found.append(_healed(shape, SEED, LONG_APART))
    samples = [whole - linked for linked, whole in found]
    pauses = ", ".join(f"{linked:.1f}" for linked, _ in found)
    note = (
        f"{shape.origin}, whole routers, halves apart for {APART:g} s, seeds {SEED} to {SEED + runs - 1}, "
        f"and for {LONG_APART:g} s; the slowest, from the first link between them on, median "
        f"{median(samples):.2f}; until it was dialled (pauses between dials grow) {pauses}"
    )
    return Row("heal_s", max(samples), "s", len(samples), target=5.0, note=note)


def _healed(shape: Shape, seed: int, length: float) -> tuple[float, float]:
    """Seconds from the end of the partition until the first link, and until all is known."""
    mesh = started(shape, seed)
    until(mesh, lambda: whole(mesh))
    mesh.network.run(30.0)
    half = near(shape, shape.count // 2)
    mesh.network.partition({_name(each) for each in half})
    mesh.network.run(length)
    if whole(mesh):
        raise MeshError(f"a partition of {length:g} s was not noticed (seed {seed})")
    changed = knows(mesh, _name(half[0]))
    changed._publish(mesh.clock.now())
    mesh.network.heal()
    names = [_name(each) for each in half]
    linked = until(mesh, lambda: crossed(mesh, names))
    taken = linked + until(mesh, lambda: whole(mesh) and fresh(mesh, changed))
    mesh.stop()
    return linked, taken


def crossed(mesh: Mesh, names: list[str]) -> bool:
    """Whether a link stands between these nodes and others."""
    inside = {mesh[name].public for name in names}
    return any(
        link.up and link.peer not in inside for name in names for link in mesh[name].router.links_now()
    )


def blackhole(runs: int) -> Row:
    """A relay near to everybody draws circuits and then drops what they carry, while its link and its records
    go on: the time until data of a stream that stood, or is begun now (and again where it fails), is answered
    another way."""
    samples: list[float] = []
    for seed in range(SEED, SEED + runs):
        samples += [_swallowed(seed, standing) for standing in (True, False)]
    note = (
        f"whole routers, {grid(4).origin} and a relay 2 ms from all: streams that stood, and new ones; the "
        f"slowest of seeds {SEED} to {SEED + runs - 1}, median {median(samples):.2f}"
    )
    return Row("blackhole_s", max(samples), "s", len(samples), target=10.0, note=note)


def _swallowed(seed: int, standing: bool) -> float:
    shape = grid(4)
    mesh = started(shape, seed)
    mesh.add(HOLE, about=TopologySettings())
    for number in range(shape.count):
        mesh.network.change(HOLE, _name(number), delay=0.002)
        mesh.link(HOLE, _name(number))
    ends = near(shape, shape.count)
    caller, called = _name(ends[0]), _name(ends[-1])
    mesh[called].router.listen(PORT, echo)
    until(mesh, lambda: whole(mesh))
    mesh.network.run(MEASURED)
    reader = Collector()
    if standing:
        reader = _open(mesh, caller, called)
        reader.send(b"here")
        until(mesh, lambda: bytes(reader.got) == b"here")
        if route(mesh, caller) != [HOLE]:
            raise MeshError(f"the hole draws nobody (seed {seed})")
    swallow(mesh, HOLE)
    start = mesh.clock.now()
    if not standing:
        reader = _open(mesh, caller, called)
    reader.got.clear()
    reader.send(b"again")
    while bytes(reader.got) != b"again":
        if reader.error is not None:  # as a program would
            reader = _open(mesh, caller, called)
            reader.send(b"again")
        mesh.network.run(LOOKS)
    taken = mesh.clock.now() - start
    if HOLE in route(mesh, caller):
        raise MeshError(f"the answer came through the hole (seed {seed})")
    return taken


@define(eq=False)
class Echo(Collector):
    """Sends back what it gets, which is little."""

    def data_received(self, data: memoryview) -> None:
        """There and back."""
        self.send(bytes(data))
        if self.stream is not None:
            self.stream.consumed(len(data))


def echo(stream: Stream) -> StreamReader:
    """For `listen`."""
    return Echo(stream=stream)


def _open(mesh: Mesh, caller: str, called: str) -> Collector:
    reader = Collector()
    opening = mesh[caller].router.connect(
        mesh[called].public, PORT, reader, via=None, identity="anonymous", policy=None
    )
    reader.stream = mesh.wait(opening)
    return reader


def route(mesh: Mesh, caller: str) -> list[str]:
    """The relays of a node's last open circuit."""
    names = {node.public.hex(): name for name, node in mesh.nodes.items()}
    circuits = [each for each in mesh[caller].router.snapshot()["circuits"] if each["state"] == "open"]
    return [names[key] for key in circuits[-1]["route"][:-1]]


def swallow(mesh: Mesh, name: str) -> None:
    """From now on a relay builds circuits and drops what they carry."""
    for link in mesh[name].router.links.by_key.values():
        link.runs.clear()
        for table in (link.forward, link.backward):
            for label in table:
                table[label] = lambda seq, body, now, marked: Drop.NONE
    mesh.network.clock.callLater(0.0005, swallow, mesh, name)


# what all nodes know


def started(shape: Shape, seed: int) -> Mesh:
    """Routers that begin to dial their neighbours now."""
    mesh = Mesh((), seed)
    for number in range(shape.count):
        mesh.add(_name(number), about=TopologySettings())
    for one, other in shape.links:
        mesh.link(_name(one), _name(other))
    return mesh


def _name(number: int) -> str:
    return f"n{number}"


def near(shape: Shape, count: int) -> list[int]:
    """So many nodes, the nearest to node 0 first."""
    beside: dict[int, list[int]] = {}
    for one, other in shape.links:
        beside.setdefault(one, []).append(other)
        beside.setdefault(other, []).append(one)
    found = [0]
    for each in found:
        found += [other for other in beside[each] if other not in found]
    return found[:count]


def knows(mesh: Mesh, name: str) -> Topology:
    """What a node knows."""
    topology = mesh[name].router.topology
    if topology is None:
        raise MeshError(f"{name} knows no network")
    return topology


def whole(mesh: Mesh) -> bool:
    """Whether every node has a way of circuits to every other."""
    known = [knows(mesh, name) for name in mesh.nodes]
    if any(len(each.graph.component(each.own)) < len(known) for each in known):
        return False
    return all(
        long_way(each.graph, each.own, other.own) for each in known for other in known if each is not other
    )


def fresh(mesh: Mesh, changed: Topology) -> bool:
    """Whether all know a node's last record."""
    issued = changed.book.issued(changed.own)
    return all(knows(mesh, name).book.issued(changed.own) == issued for name in mesh.nodes)


def until(mesh: Mesh, done: Callable[[], bool]) -> float:
    """Lets time pass until `done`, which is asked every `LOOKS` seconds; how long that took."""
    start, limit = mesh.clock.now(), mesh.clock.now() + LIMIT
    while not done():
        if mesh.clock.now() >= limit:
            raise MeshError(f"not done in {LIMIT:g} simulated seconds (seed {mesh.network.seed})")
        mesh.network.run(LOOKS)
    return mesh.clock.now() - start
