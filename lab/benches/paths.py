"""Bench `paths`: a graph of ten thousand nodes in one node: how soon it gives four ways, how it is come by.

The graph is random, of degree 6, with delays drawn from 1 to 50 ms, and signed records. `paths_10k_ms` is
the search for four ways that share no relay, costs included: before each a record comes that moves links, as
some do every second in such a network. The note has what a whole choice takes, which makes some twenty
searches to say what was rejected and why. The wire is that of
two cores that meet, one of which knows all; the memory that of a process of its own, after a choice, above
the same process with an empty book.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from statistics import median

from attrs import evolve

from lab.benches.rows import Options, Row, row_of
from lab.simulation.gossip import START, GossipNetwork
from lab.simulation.graphs import tangle
from meshnet.cipher.keys import SecretKey
from meshnet.limits import HOPS, SPREAD_BURST
from meshnet.topology.book import Book
from meshnet.topology.choice import WEIGHTS, choose
from meshnet.topology.policy import Policy, Prefer, parse_policy
from meshnet.topology.record import RELAYS, LinkRow, Statement, issue, name_of
from meshnet.topology.search import disjoint

SEED = 10_000
NODES, DEGREE = 10_000, 6
WAYS = 4
POLICY = f"fast; disjoint {WAYS}"
LIFE = 1_440  # minutes
SIZE = 4  # bytes, of a record's length in the file


def policy() -> Policy:
    """That of the bench."""
    return parse_policy(POLICY, lambda name: SecretKey(bytes(31) + b"\1").public)


def records(count: int, degree: int, seed: int) -> tuple[list[SecretKey], list[Statement]]:
    """Keys and statements of a random network."""
    random = Random(f"{seed}/records")
    keys = [SecretKey(random.randbytes(32)) for _ in range(count)]
    names = [name_of(key.public) for key in keys]
    rows: list[list[LinkRow]] = [[] for _ in range(count)]
    for one, other in tangle(count, degree, seed).links:
        delay = random.randint(1_000, 50_000)
        rows[one].append(LinkRow(names[other], delay, 0, 0, 100_000))
        rows[other].append(LinkRow(names[one], delay, 0, 0, 100_000))
    statements = [
        Statement(
            1, 1, key.public, int(START), LIFE, RELAYS, b"\0\0", -128, 0, b"\0\0",
            bytes(8), 0, 0, bytes(33), tuple(stated),
        )
        for key, stated in zip(keys, rows, strict=True)
    ]  # fmt: skip
    return keys, statements


def run(options: Options) -> list[Row]:
    """The three rows."""
    count = 300 if options.quick else NODES
    keys, statements = records(count, DEGREE, SEED)
    datas = [issue(*each) for each in zip(statements, keys, strict=True)]
    asked = 6 if options.quick else 101
    return [
        searches(keys, statements, datas, asked),
        wire(keys, statements, datas),
        memory(datas),
    ]


def filled(keys: list[SecretKey], datas: list[bytes]) -> Book:
    """The book of the first node, with all records."""
    book = Book(1, name_of(keys[0].public))
    for number, data in enumerate(datas):
        if number:
            book.take(data, name_of(keys[1].public), 0.0, START)
        else:
            book.publish(book._read(data), 0.0)
    book.news()
    return book


def searches(keys: list[SecretKey], statements: list[Statement], datas: list[bytes], asked: int) -> Row:
    """Four ways each after a record that moves links."""
    random = Random(f"{SEED}/searches")
    book = filled(keys, datas)
    names = [name_of(key.public) for key in keys]
    weight, wanted = WEIGHTS[Prefer.LATENCY], policy()
    samples, wholes, found = [], [], 0
    for number in range(asked + 1):
        mover = random.randrange(1, len(keys))
        book.take(moved(statements[mover], number, keys[mover]), names[1], number * 60.0, START)
        target = names[random.randrange(1, len(keys))]
        start = time.perf_counter()
        ahead, back = book.graph.weighted(weight), book.graph.weighted_back(weight)
        found += len(disjoint(ahead, names[0], target, WAYS, HOPS, back=back))
        samples.append((time.perf_counter() - start) * 1e3)
        if number % 5 == 1:
            start = time.perf_counter()
            choose(book.graph, names[0], target, wanted)
            wholes.append((time.perf_counter() - start) * 1e3)
    note = (
        f"{len(keys)} nodes, degree {DEGREE}, {found / (asked + 1):.2f} ways on average, a record that moved "
        f"links before each; slowest {max(samples[1:]):.0f}, the first of all {samples[0]:.0f}; a whole "
        f"choice {median(wholes):.0f} to {max(wholes):.0f}; seed {SEED}"
    )
    return row_of("paths_10k_ms", samples[1:], "ms", target=30.0, note=note)


def moved(statement: Statement, number: int, key: SecretKey) -> bytes:
    """The same node's next record, whose links are slower."""
    links = tuple(evolve(link, delay=link.delay + 10_000) for link in statement.links)  # type: ignore[misc]
    later = evolve(statement, issued=statement.issued + 1 + number, links=links)  # type: ignore[misc]
    return issue(later, key)


def wire(keys: list[SecretKey], statements: list[Statement], datas: list[bytes]) -> Row:
    """What goes both ways over the link of one that knows all and one that knows nothing yet."""
    network = GossipNetwork(SEED, 0)
    full, empty = network.add(keys[0]), network.add()
    for number, data in enumerate(datas):
        if number:
            full.book.take(data, full.name, 0.0, START)
        else:
            full.book.publish(network.read(data), 0.0)
    full.book.news()
    full.issued, full.beside = int(START), statements[0].links
    link = network.connect(0, 1)
    seconds = network.run(3_600.0, lambda: empty.book.attached > len(datas))
    note = (
        f"{len(datas)} records, {sum(map(len, datas)) / 1e6:.2f} MB of them; both ways, frames with heads; "
        f"{seconds:.0f} s at 2 % of 10 Mbit/s after a burst of {SPREAD_BURST >> 10} KiB"
    )
    return Row("graph_10k_wire_mb", link.carried / 1e6, "MB", 1, target=4.0, note=note)


def memory(datas: list[bytes]) -> Row:
    """What a node that knows all is larger by."""
    with tempfile.TemporaryDirectory(prefix="meshnet-") as folder:
        path = Path(folder) / "records"
        path.write_bytes(b"".join(len(data).to_bytes(SIZE, "big") + data for data in datas))
        command = [sys.executable, "-P", "-c", "from lab.benches.paths import held; held()", str(path)]
        root = Path(__file__).resolve().parents[2]
        shown = subprocess.run(
            command, check=True, capture_output=True, cwd=root, env={"PYTHONPATH": str(root)}
        )
    empty, full = json.loads(shown.stdout)
    note = f"{len(datas)} records, after a choice; a process of its own, {empty / 1e6:.0f} MB before"
    return Row("graph_10k_rss_mb", (full - empty) / 1e6, "MB", 1, target=100.0, note=note)


def held() -> None:
    """In a process of its own: prints what is resident before and after it has read the records."""
    with Path(sys.argv[1]).open("rb") as file:
        first = file.read(int.from_bytes(file.read(SIZE), "big"))
        book = Book(1, name_of(first[5:38]))
        book.publish(book._read(first), 0.0)
        before = resident()
        name = book.own
        while size := file.read(SIZE):
            data = file.read(int.from_bytes(size, "big"))
            book.take(data, book.own, 0.0, START)
            name = name_of(data[5:38])
        book.news()
    choose(book.graph, book.own, name, policy())
    print(json.dumps([before, resident()]))


def resident() -> int:
    """Bytes of this process in memory."""
    words = Path("/proc/self/status").read_text().split("VmRSS:")[1].split()
    return int(words[0]) << 10
