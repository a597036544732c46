"""`./mesh lab simulate [--seed N] …`: whole routers in a row on the simulated network, in virtual time.

One transfer; the same arguments give the same result. It is for looking at what conditions do to a circuit;
the figures that count come from `./mesh bench`, over real processes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from lab.simulation.network import Conditions
from lab.simulation.nodes import Collector, Mesh
from meshnet.errors import MeshError
from meshnet.streams import Stream, StreamReader

PORT = 7


def main(arguments: list[str]) -> int:
    """Exit code: 0 all arrived, 1 not in time, else the error's."""
    options = _options(arguments)
    conditions = Conditions(
        delay=options.delay / 1e3,
        jitter=options.jitter / 1e3,
        loss=options.loss,
        rate=options.rate * 1e6 / 8 if options.rate else None,
    )
    begun = time.monotonic()
    try:
        report = transfer(options, conditions)
    except MeshError as error:
        print(f"./mesh lab simulate: {error}", file=sys.stderr)
        return error.exit_code
    report["real_seconds"] = round(time.monotonic() - begun, 2)
    if options.json:
        print(json.dumps(report))
    else:
        print("\n".join(f"{name:18} {value}" for name, value in report.items()))
    return 0 if report["ok"] else 1


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./mesh lab simulate", description="A transfer on a simulated network."
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--relays", type=int, default=3, help="0 to 7 (default 3)")
    parser.add_argument("--megabytes", type=float, default=8.0, help="how much is sent (default 8)")
    parser.add_argument("--delay", type=float, default=10.0, help="ms of each link, one way (default 10)")
    parser.add_argument("--jitter", type=float, default=0.0, help="ms added evenly")
    parser.add_argument("--loss", type=float, default=0.0, help="share of segments that come late, 0 to 1")
    parser.add_argument("--rate", type=float, default=0.0, help="Mbit/s of each link (default: no limit)")
    parser.add_argument(
        "--cut", type=float, metavar="S", help="cut the first link's connection after so long"
    )
    parser.add_argument("--limit", type=float, default=600.0, help="simulated seconds to wait (default 600)")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(arguments)


def transfer(options: argparse.Namespace, conditions: Conditions) -> dict[str, Any]:
    """Sends the bytes; what came of it, times in simulated seconds. Raises MeshError if no circuit stands."""
    names = ["source", *(f"r{number + 1}" for number in range(options.relays)), "sink"]
    mesh = Mesh(names, options.seed, conditions)
    if not mesh.linked():
        raise MeshError("the links did not come up")
    far = Collector()

    def accept(stream: Stream) -> StreamReader:
        far.stream = stream
        return far

    mesh["sink"].router.listen(PORT, accept)
    source, via = mesh["source"].router, mesh.route(*names[1:-1])
    measured = mesh.wait(source.ping(mesh["sink"].public, via, 5))
    near = Collector()
    opened = source.connect(mesh["sink"].public, PORT, near, via=via, identity="anonymous")
    near.stream = mesh.wait(opened)
    data = mesh.network.random("data").randbytes(int(options.megabytes * 1e6))
    begun = mesh.network.clock.seconds()
    if options.cut is not None:
        mesh.network.clock.callLater(options.cut, mesh.internet.sever, names[0], names[1])
    near.send(data, finish=True)
    mesh.network.run_until(lambda: far.ended or near.error is not None, options.limit)
    seconds = mesh.network.clock.seconds() - begun
    report = {
        "ok": bytes(far.got) == data,
        "setup_ms": measured["setup_ms"],
        "rtt_ms": measured["rtt_ms"],
        "bytes": len(far.got),
        "seconds": round(seconds, 3),
        "mbps": round(len(far.got) * 8 / 1e6 / seconds, 2) if seconds else 0.0,
        "error": str(near.error) if near.error else None,
        "dropped": {node.name: dropped for node in mesh.nodes.values() if (dropped := node.router.dropped)},
    }
    mesh.stop()
    return report
