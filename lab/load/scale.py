"""What knowing the network costs a node, by the size of the network: flooding, and route services.

`python -m lab.load.scale [--long]`: lines of JSON, then the growth as powers of the size. Random graphs of
degree 6.

    flooded   measured: the cores of all nodes over modelled links, while nothing happens but renewals; up to
              400 nodes, 1,000 with --long
    served    a model of bytes, made of real records: each node tells SERVICES services its record every half
              hour. One that wants the whole graph fetches what changed, each HOURS; a small one keeps nothing
              and asks for ways, ASKED times an hour; a service takes all records and holds the graph

The graph that a service holds, its memory, and the time of a search in it are measured at each size, up to
10,000 nodes, 100,000 with --long. Signatures are not checked again: 60 µs for each record are added up in
`service_check_s`.
"""

from __future__ import annotations

import argparse
import json
import time
from math import log
from random import Random
from statistics import median

from lab.benches.paths import resident
from lab.simulation.gossip import FRAME_COST, REFRESH, START, GossipNetwork
from lab.simulation.graphs import tangle
from meshnet.limits import HOPS
from meshnet.topology.choice import WEIGHTS
from meshnet.topology.graph import Graph
from meshnet.topology.policy import Prefer
from meshnet.topology.record import RELAYS, LinkRow, Name, Record, Statement
from meshnet.topology.search import disjoint

SEED = 100_000
DEGREE = 6
SERVICES = 2
HOURS = 3.0  # between two fetches; a record lives as long
ASKED = 20  # questions an hour of a node that keeps nothing
WAYS = 4
CHECK = 60e-6  # seconds for a signature
FLOODED = (50, 100, 200, 400)
SERVED = (1_000, 3_000, 10_000)
LONG = ((*FLOODED, 1_000), (*SERVED, 30_000, 100_000))


def flooded(count: int, seconds: float = 600.0) -> dict[str, float]:
    """What a node sends and keeps where all tell all."""
    network = GossipNetwork(SEED, count)
    network.build(tangle(count, DEGREE, SEED))
    network.run(30.0)
    network.settle()
    before, start = sum(link.carried for link in network.links.values()), network.now
    network.run(start + seconds)
    carried = sum(link.carried for link in network.links.values()) - before
    held = len(network.nodes[0].book)
    return {"nodes": count, "flooded_bytes_per_s": round(carried / seconds / count, 1), "records_held": held}


def records(count: int) -> list[Record]:
    """Those of a random graph, unsigned but of their real size."""
    random = Random(f"{SEED}/{count}")
    names = [Name(random.randbytes(8)) for _ in range(count)]
    rows: list[list[LinkRow]] = [[] for _ in range(count)]
    for one, other in tangle(count, DEGREE, SEED).links:
        delay = random.randint(1_000, 50_000)
        rows[one].append(LinkRow(names[other], delay, 0, 0, 100_000))
        rows[other].append(LinkRow(names[one], delay, 0, 0, 100_000))
    key, none = bytes(33), bytes(8)
    made = []
    for name, stated in zip(names, rows, strict=True):
        statement = Statement(
            1, 1, key, int(START), 180, RELAYS, b"\0\0", -128, 0, b"\0\0", none, 0, 0, key, tuple(stated)
        )
        size = 166 + 26 * len(stated)
        made.append(Record(statement, bytes(size), name, {row.name: row for row in stated}))
    return made


def served(count: int, searches: int = 9) -> dict[str, float]:
    """What a service holds and each kind of node sends and gets."""
    before = resident()
    held = records(count)
    graph = Graph()
    for record in held:
        graph.put(record)
    memory = resident() - before
    random = Random(SEED)
    weight = WEIGHTS[Prefer.LATENCY]
    table, back = graph.weighted(weight), graph.weighted_back(weight)
    times, answers, hops = [], [], []
    for _ in range(searches):
        start, target = random.sample(held, 2)
        begun = time.perf_counter()
        paths = disjoint(table, start.name, target.name, WAYS, HOPS, back=back)
        times.append(time.perf_counter() - begun)
        on_them = {name for path in paths for name in path}
        answers.append(sum(len(graph.nodes[name].record.data) for name in on_them))
        hops += [len(path) - 1 for path in paths]
    size = sum(len(record.data) for record in held) / count
    told = SERVICES * (size + FRAME_COST) / REFRESH
    fetched = count * size / (HOURS * 3_600)
    answer = sum(answers) / len(answers)
    return {
        "nodes": count,
        "told_bytes_per_s": round(told, 2),
        "whole_view_bytes_per_s": round(told + fetched, 1),
        "small_bytes_per_s": round(told + ASKED * (answer + 2 * FRAME_COST) / 3_600, 1),
        "service_in_bytes_per_s": round(count * (size + FRAME_COST) / REFRESH),
        "service_memory_mb": round(memory / 1e6, 1),
        "service_check_s": round(count * CHECK, 2),
        "search_ms": round(median(times) * 1e3, 1),
        "answer_bytes": round(answer),
        "hops": round(sum(hops) / len(hops), 2) if hops else 0.0,
    }


def powers(rows: list[dict[str, float]]) -> dict[str, float]:
    """With which power of the number of nodes each value grows, from the first row to the last."""
    first, last = rows[0], rows[-1]
    growth = log(last["nodes"] / first["nodes"])
    return {
        what: round(log(last[what] / first[what]) / growth, 2)
        for what in first
        if what != "nodes" and first[what] > 0 and last[what] > 0
    }


def main(arguments: list[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--long", action="store_true")
    sizes = LONG if parser.parse_args(arguments).long else (FLOODED, SERVED)
    for measure, counts in zip((flooded, served), sizes, strict=True):
        rows = []
        for count in counts:
            rows.append(measure(count))
            print(json.dumps(rows[-1]), flush=True)
        print(json.dumps({"grows_with_power": powers(rows), "seed": SEED}), flush=True)


if __name__ == "__main__":
    main()
