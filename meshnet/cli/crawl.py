"""The verbs `crawl` and `route-service`: what of the network answers, and keeping its graph for others.

meshnet crawl [--out FILE] [--seconds S]   asks the route services, pings every node known, writes a snapshot;
                                            exit 7 if a service did not answer or the time was too short
meshnet route-service [--database FILE|URL] makes the node one until it stops; --stop, --status

A snapshot is JSON, written whole or not at all:

    {"schema": "meshnet/snapshot/1", "unix", "own", "complete", "why": […], "services": […],
     "nodes": [{"key", "country", …, "answers": true | false | null, "rtt_ms", "setup_ms", "error"}],
     "links": [{"ends": [key, key], "delay_ms", "loss", "capacity_mbit", "marks"}]}

`answers` is null for a node that was not asked. What each probe costs is one anonymous circuit.
"""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import Any, Final

from meshnet.cli.show import print_json, print_table, progress, progress_done, size
from meshnet.errors import UsageError
from meshnet.node.app import Json, Verb
from meshnet.storage.disk import RealDisk
from meshnet.storage.files import write_file

Call = Callable[[str, str, Json | None], Json]
SCHEMA: Final = "meshnet/snapshot/1"
PARTIAL: Final = 7  # exit code
AT_A_TIME: Final = 16  # nodes probed at once
SECONDS: Final = 300.0


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value <= 86_400.0:
        raise UsageError(f"--seconds {text} is not a number of seconds above 0, at most 86400.")
    return value


def _crawl_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--out", metavar="FILE", help="writes the snapshot there")
    parser.add_argument(
        "--seconds", type=_positive, default=SECONDS, metavar="S", help="begins no probe later than that"
    )
    parser.add_argument("--no-probes", action="store_true", help="asks no node whether it answers")


def crawl(
    call: Call,
    seconds: float,
    probes: bool = True,
    clock: Callable[[], float] = time.monotonic,
    unix: Callable[[], float] = time.time,
) -> Json:
    """The snapshot; raises MeshError where the node does not answer or keeps no topology."""
    end = clock() + seconds
    services = call("POST", "/topology/sync", {})["services"]
    why = [f"Route service {each['key'][:16]}: {each['why']}" for each in services if not each["complete"]]
    found = call("GET", "/topology", None)
    nodes = {each["key"]: {**each, "answers": None} for each in found["nodes"]}
    asked = [key for key in nodes if key != found["own"]] if probes else []
    for start in range(0, len(asked), AT_A_TIME):
        if clock() >= end:
            why.append(f"{len(asked) - start} of {len(asked)} nodes were not probed within {seconds:g} s.")
            break
        progress(f"{start} of {len(asked)} nodes probed")
        batch = asked[start : start + AT_A_TIME]
        for row in call("POST", "/probe", {"targets": batch})["probed"]:
            nodes[row.pop("key")].update(row, answers="error" not in row)
    progress_done()
    return {
        "schema": SCHEMA,
        "unix": int(unix()),
        "own": found["own"],
        "complete": not why,
        "why": why,
        "services": services,
        "nodes": list(nodes.values()),
        "links": found["links"],
    }


def _crawl(arguments: Namespace, call: Call) -> int:
    snapshot = crawl(call, arguments.seconds, not arguments.no_probes)
    if arguments.out is not None:
        text = json.dumps(snapshot, indent=1) + "\n"
        write_file(RealDisk(), arguments.out, text.encode(), mode=0o644)
    if arguments.json:
        print_json(snapshot)
    else:
        _summary(snapshot)
    return 0 if snapshot["complete"] else PARTIAL


def _summary(snapshot: Json) -> None:
    nodes = snapshot["nodes"]
    answers = [each["answers"] for each in nodes]
    countries = len({each["country"] for each in nodes if each["country"]})
    print(f"{len(nodes)} nodes in {countries} countries known, {len(snapshot['links'])} links")
    print(
        f"{answers.count(True)} answer, {answers.count(False)} do not, "
        f"{answers.count(None) - 1} were not asked"
    )
    for reason in snapshot["why"]:
        print(reason)


def _service_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--database", metavar="FILE|URL", help="an SQLite file or a postgresql:// URL; default: the config's"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--stop", action="store_true", help="is none any more")
    what.add_argument("--status", action="store_true", help="only shows what is so")


def _service(arguments: Namespace, call: Call) -> int:
    if arguments.database is not None and (arguments.stop or arguments.status):
        raise UsageError("--database goes with neither --stop nor --status.")
    if arguments.status:
        answer = call("GET", "/route-service", None)
    elif arguments.stop:
        answer = call("DELETE", "/route-service", {})
    else:
        body = {} if arguments.database is None else {"database": arguments.database}
        answer = call("POST", "/route-service", body)
    if arguments.json:
        print_json(answer)
    else:
        _show(answer)
    return 0


def _show(answer: Json) -> None:
    serves = answer["serves"]
    if serves is None:
        print("This node is no route service.")
    else:
        print(f"This node is a route service: {serves['records']} records, kept in {serves['database']}")
        print(
            f"{serves['looks']} looks, {serves['questions']} questions, {serves['refused']} refused, "
            f"{size(serves['sent_bytes'])} sent, {serves['callers']} callers now"
        )
        for note in serves["notes"]:
            print(note)
    rows: list[list[Any]] = [
        [each["key"][:16], each["complete"], each["lists"], each["records"], size(each["bytes"]), each["why"]]
        for each in answer["services"]
    ]
    if rows:
        print()
        print_table(("ASKS", "WHOLE", "LISTS", "RECORDS", "BYTES", "WHY NOT"), rows)


CRAWL: Final = (
    Verb("crawl", "what nodes there are, and which of them answer", _crawl_arguments, _crawl),
    Verb("route-service", "makes this node keep the whole graph for others", _service_arguments, _service),
)
