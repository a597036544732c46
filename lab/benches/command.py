"""`./mesh bench NAME … [--json] [--profile] [--out FILE]`: measures; tells missed targets."""

from __future__ import annotations

import argparse
import cProfile
import importlib
import json
import pstats
import sys
from pathlib import Path

from lab.benches.rows import BENCHES, LONG, OTHERS, PROFILES_NODES, Options, Row, table
from meshnet.errors import MeshError


def measure(name: str, options: Options) -> list[Row]:
    """Runs one bench of this package; with `options.profile` its own process is profiled too, if it works."""
    run = importlib.import_module(f"lab.benches.{name}").run
    if not options.profile or name in PROFILES_NODES:
        return list(run(options))
    profile = cProfile.Profile()
    rows = profile.runcall(run, options)
    pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(25)
    return list(rows)


def _taken(options: argparse.Namespace) -> Options:
    against = tuple(filter(None, options.against.split(",")))
    return Options(
        *(options.profile, options.quick, options.minutes, against, options.rounds, options.seconds),
        long=options.long,
    )


def main(arguments: list[str]) -> int:
    """Exit code 0 if every target was met, 1 if one was missed, 2 for an unknown name, else the error's."""
    listed = "\n".join(f"  {name:8} {what}" for name, what in BENCHES.items())
    parser = argparse.ArgumentParser(
        prog="./mesh bench", epilog=listed, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="+", choices=[*BENCHES, "all"], metavar="NAME")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--profile", action="store_true", help="profile what is measured (on stderr)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the rows as JSON there")
    parser.add_argument("--quick", action="store_true", help="few samples: a try-out, not a measurement")
    parser.add_argument("--minutes", type=float, metavar="N", help="of soak (30) and vpn_soak (10)")
    parser.add_argument(
        "--against", default="", metavar="A,B", help=f"for vpn, other networks: {', '.join(OTHERS)}"
    )
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="of vpn (5)")
    parser.add_argument("--seconds", type=int, default=3, metavar="N", help="of each flow of vpn (3)")
    parser.add_argument("--long", action="store_true", help="topology: also 961 whole routers")
    options = parser.parse_args(arguments)
    if not 1 <= options.rounds <= 1_000 or not 1 <= options.seconds <= 3_600:
        parser.error("--rounds takes 1 to 1000, --seconds 1 to 3600")
    names = [name for name in BENCHES if name not in LONG] if "all" in options.names else options.names
    rows: list[Row] = []
    try:
        for name in names:
            rows += measure(name, _taken(options))
    except MeshError as error:
        print(f"./mesh bench: {error}", file=sys.stderr)
        return error.exit_code
    text = json.dumps([row.as_json() for row in rows], indent=1)
    if options.out:
        options.out.write_text(text + "\n")
    print(text if options.json else table(rows))
    return 1 if any(row.met is False for row in rows) else 0
