"""`./mesh lab SHAPE [--run CMD [--on HOST]] [--json] [--keep --state DIR]`, `./mesh lab --stop --state DIR`.

Hosts in network namespaces (root), in each a real node. Without options a person tries things out in them
until Ctrl-C; `--run` runs a shell command in a host instead. What a lab starts it ends; only `--keep` leaves
it up, for `--stop` to end. `./mesh lab simulate …` is routers in virtual time (`lab.scenarios`).
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from lab import scenarios
from lab.hosted import Hosted
from lab.namespaces import Hosts, is_name, kept, remove
from lab.processes import Processes
from lab.shapes import Shape, shape
from meshnet.errors import LocalError, MeshError, UsageError

MOST_NODES: Final = 64
"""Hosts of a lab: each has a process of 50 MB."""
FILE: Final = "lab.json"


def main(arguments: list[str]) -> int:
    """Exit code: that of the command run, 0 after Ctrl-C, else the error's (2 usage, 3 no root …)."""
    if arguments[:1] == ["simulate"]:
        return scenarios.main(arguments[1:])
    options = _options(arguments)
    try:
        if options.stop:
            return _stop(options)
        return _keep(options) if options.keep else _stay(options)
    except MeshError as error:
        print(f"./mesh lab: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print()
        return 0 if options.run is None else 130


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./mesh lab",
        description="Real nodes in network namespaces (root). `./mesh lab simulate`: in virtual time.",
    )
    parser.add_argument(
        "shape", nargs="?", help="line:3, ring:5, star:5, grid:3x3, or a file: a graph in JSON, ours in TOML"
    )
    parser.add_argument("--run", metavar="CMD", help="run a shell command in a host; its exit code is ours")
    parser.add_argument("--on", metavar="HOST", help="the host of --run (default: the first)")
    parser.add_argument("--json", action="store_true", help="print the hosts as JSON")
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--keep", action="store_true", help="leave everything up")
    way.add_argument("--stop", action="store_true", help="end what --keep left up")
    parser.add_argument("--state", type=Path, metavar="DIR", help="where a kept lab is")
    options = parser.parse_args(arguments)
    if (options.keep or options.stop) and options.state is None:
        parser.error("--keep and --stop need --state DIR")
    if options.stop == (options.shape is not None):
        parser.error("name a shape, such as line:3" if not options.stop else "--stop takes no shape")
    if options.stop and options.run is not None:
        parser.error("--stop and --run do not go together")
    if options.on is not None and options.run is None:
        parser.error("--on is for --run")
    return options


def _stay(options: argparse.Namespace) -> int:
    """A lab for as long as a command runs, or until Ctrl-C."""
    wanted = _shape(options)
    with (
        tempfile.TemporaryDirectory(prefix="meshlab-") as name,
        Hosts() as hosts,
        Processes() as processes,
    ):
        lab = Hosted.build(wanted, hosts, Path(name))
        _say(f"starting {len(lab.plans)} nodes …")
        lab.start(processes)
        if options.run is not None:
            if options.json:
                print(json.dumps(lab.rows()), flush=True)
            return _run(lab, options)
        print(json.dumps(lab.rows()) if options.json else told(lab), flush=True)
        while True:
            time.sleep(3_600)


def _shape(options: argparse.Namespace) -> Shape:
    wanted = shape(options.shape)
    if len(wanted.hosts) > MOST_NODES:
        text = f"{options.shape} has {len(wanted.hosts)} hosts; a lab of real nodes has at most {MOST_NODES}."
        raise UsageError(text)
    if options.on is not None and options.on not in wanted.hosts:
        raise UsageError(f"{options.on!r} is no host of it; hosts: {', '.join(wanted.hosts)}.")
    return wanted


def _run(lab: Hosted, options: argparse.Namespace) -> int:
    name = options.on or next(iter(lab.plans))
    words = lab.hosts[name].command("sh", "-c", options.run)
    return subprocess.run(words, env=lab.surroundings(name), cwd=lab.plans[name].folder).returncode


def _keep(options: argparse.Namespace) -> int:
    state: Path = options.state.absolute()
    if (state / FILE).exists():
        text = f"A lab is kept there already; end it with ./mesh lab --stop --state {state}."
        raise LocalError(text)
    state.mkdir(parents=True, exist_ok=True)
    wanted = _shape(options)
    with Hosts(kept=True) as hosts:
        lab = Hosted.build(wanted, hosts, state)
        lab.start(Processes(detached=True))
        rows = lab.rows()
        (state / FILE).write_text(json.dumps(rows, indent=1) + "\n")
    print(json.dumps(rows) if options.json else told(lab))
    return 0 if options.run is None else _run(lab, options)


def _stop(options: argparse.Namespace) -> int:
    state: Path = options.state.absolute()
    try:
        rows = json.loads((state / FILE).read_text())
        spaces = [row["namespace"] for row in rows if is_name(row["name"])]
        if len(spaces) != len(rows):
            raise ValueError("a host has no name")
    except FileNotFoundError:
        raise UsageError(f"There is no {FILE} in {state}: no lab was kept there.") from None
    except (OSError, TypeError, KeyError, ValueError) as error:
        raise UsageError(f"{state / FILE} is not what --keep writes: {error}.") from None
    standing = [space for space in kept() if space in spaces]  # no other namespace is ever touched
    remove(standing)
    for row in rows:
        shutil.rmtree(state / row["name"], ignore_errors=True)
    shutil.rmtree(state / "bin", ignore_errors=True)
    (state / FILE).unlink()
    print(json.dumps(rows) if options.json else f"ended: {', '.join(row['name'] for row in rows)}")
    return 0


def told(lab: Hosted) -> str:
    """The hosts for a person, and how to get into them."""
    rows = lab.rows()
    lines = []
    for row in rows:
        addresses = "  ".join(f"{address} to {other}" for other, address in row["addresses"].items())
        lines.append(f"{row['name']:8} {row['role']:6} {row['pubkey']}  {addresses}")
        lines.append(f"         sudo ip netns exec {row['namespace']} {lab.folder}/bin/shell {row['name']}")
    lines.append(
        "There `meshnet` uses the host's node: meshnet status, meshnet ping NAME, meshnet trace NAME."
    )
    return "\n".join(lines)


def _say(text: str) -> None:
    if sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)
