"""What knowing the network costs a node, by the size of the network: flooding, and route services.

`python -m lab.load.scale [--long]`: lines of JSON, then the growth as powers of the size. Random graphs of
degree 6.

    flooded   measured: the cores of all nodes over modelled links, while nothing happens but renewals; up to
              400 nodes, 1,000 with --long. `beside` is the same where neighbours tell each other their own
              records only, as they do in networks with route services
    served    a model of bytes, made of real records: each node tells SERVICES services its record. One that
              wants the whole graph looks at them as often as `meshnet.node.route_sync.spacing` says, fetches
              what was renewed meanwhile from one of them, and is shown it by the other; a small one keeps
              nothing and asks for ways, ASKED times an hour; a service takes all records and holds the graph

The graph that a service holds, its memory, and the times of a search and of a whole choice in it are measured
at each size, up to 10,000 nodes, 100,000 with --long; `--served N` does one size alone. Signatures are not
checked again: 60 µs for each record are added up in `service_check_s`.
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
from meshnet.cipher.keys import PublicKey
from meshnet.limits import HOPS
from meshnet.node import route_sync
from meshnet.topology.book import LEVELS
from meshnet.topology.choice import WEIGHTS, choose
from meshnet.topology.graph import Graph
from meshnet.topology.policy import Prefer, parse_policy
from meshnet.topology.record import RELAYS, LinkRow, Name, Record, Statement
from meshnet.topology.search import disjoint
from meshnet.topology.sync import FEW

SEED = 100_000
DEGREE = 6
SERVICES = 2
SHOWN = 12  # bytes of a row that says what has changed
DIGEST = 8  # bytes of a bucket
ASKED = 20  # questions an hour of a node that keeps nothing
WAYS = 4
CHECK = 60e-6  # seconds for a signature
FLOODED = (50, 100, 200, 400)
SERVED = (1_000, 3_000, 10_000)
LONG = ((*FLOODED, 1_000), (*SERVED, 30_000, 100_000))


def flooded(count: int, seconds: float = 600.0, everything: bool = True) -> dict[str, float]:
    """What a node sends and keeps where all tell all, or where neighbours tell their own records only."""
    network = GossipNetwork(SEED, count)
    for node in network.nodes:
        node.spread.pass_on(everything, 0.0)
    network.build(tangle(count, DEGREE, SEED))
    network.run(30.0)
    network.settle()
    before, start = sum(link.carried for link in network.links.values()), network.now
    network.run(start + seconds)
    carried = sum(link.carried for link in network.links.values()) - before
    held = len(network.nodes[0].book)
    what = "flooded" if everything else "beside"
    return {"nodes": count, f"{what}_bytes_per_s": round(carried / seconds / count, 1), "records_held": held}


def beside(count: int) -> dict[str, float]:
    """What a node tells its neighbours where all else comes from route services."""
    return flooded(count, everything=False)


def records(count: int) -> list[Record]:
    """Those of a random graph, unsigned but of their real size."""
    random = Random(f"{SEED}/{count}")
    names = [Name(random.randbytes(8)) for _ in range(count)]
    rows: list[list[LinkRow]] = [[] for _ in range(count)]
    for one, other in tangle(count, DEGREE, SEED).links:
        delay = random.randint(1_000, 50_000)
        rows[one].append(LinkRow(names[other], delay, 0, 0, 100_000))
        rows[other].append(LinkRow(names[one], delay, 0, 0, 100_000))
    key, none = b"\2" + bytes(31) + b"\1", bytes(8)
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
    pause = route_sync.spacing(count)
    told = SERVICES * (size + FRAME_COST) / max(REFRESH, pause)
    renewed = count * min(pause / REFRESH, 1.0)
    buckets = 1 << min((count // FEW).bit_length(), LEVELS)
    fetched = (renewed * (size + SERVICES * SHOWN) + SERVICES * buckets * DIGEST) / pause
    answer = sum(answers) / len(answers)
    wanted, choices = parse_policy(f"disjoint {WAYS}", lambda name: PublicKey(held[0].statement.key)), []
    for _ in range(searches):
        start, target = random.sample(held, 2)
        begun = time.perf_counter()
        choose(graph, start.name, target.name, wanted)
        choices.append(time.perf_counter() - begun)
    return {
        "nodes": count,
        "told_bytes_per_s": round(told, 2),
        "whole_view_bytes_per_s": round(told + fetched, 1),
        "small_bytes_per_s": round(told + ASKED * (answer + 2 * FRAME_COST) / 3_600, 1),
        "service_in_bytes_per_s": round(count * (size + FRAME_COST) / max(REFRESH, pause)),
        "service_memory_mb": round(memory / 1e6, 1),
        "service_check_s": round(count * CHECK, 2),
        "search_ms": round(median(times) * 1e3, 1),
        "search_slowest_ms": round(max(times) * 1e3, 1),
        "choice_ms": round(median(choices[1:]) * 1e3, 1),
        "choice_slowest_ms": round(max(choices[1:]) * 1e3, 1),
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
    parser.add_argument("--served", type=int, metavar="N", help="route services for so many nodes, alone")
    options = parser.parse_args(arguments)
    if options.served is not None:
        print(json.dumps(served(options.served)))
        return
    told, asked = LONG if options.long else (FLOODED, SERVED)
    for measure, counts in ((flooded, told), (beside, told), (served, asked)):
        rows = []
        for count in counts:
            rows.append(measure(count))
            print(json.dumps(rows[-1]), flush=True)
        print(json.dumps({"grows_with_power": powers(rows), "seed": SEED}), flush=True)


if __name__ == "__main__":
    main()
