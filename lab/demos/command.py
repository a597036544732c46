"""`./mesh demo [NAME] [--once] [--json] [--keep --state DIR | --stop --state DIR]`.

Without options a person watches until Ctrl-C; `--once` does it once, with checks. What a demonstration
starts, it ends; only `--keep` leaves nodes up, for `--stop` to end.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

from lab.demos import kept
from meshnet.errors import MeshError

DEMOS = {
    "multihop": "a download over three relays that the source chose",
    "attach": "programs beside their nodes: stock twist web, and a download that outlives circuit and relay",
    "coin": "a private chain on three nodes: payments, and kills in mid-block",
    "exchange": "deposits by events, withdrawals paid once, an exchange that is killed twice",
    "vpn": "namespaces (root): a VPN of three hops, its kill switch when the exit dies, all as before",
    "topology": "twelve nodes join by an invite each; ways by policy, a relay dies, a node lies",
    "powercut": "a node whose power is cut a thousand times loses nothing and starts each time",
}


def main(arguments: list[str]) -> int:
    """Exit code: 0 all checks hold, 1 one does not, else the error's own (2 usage, 4 unreachable …)."""
    options = _options(arguments)
    demo = importlib.import_module(f"lab.demos.{options.name}")
    try:
        if options.stop:
            return _print(kept.stop(options.state), options.json, "ended: {}")
        if options.keep:
            return _print(kept.keep(demo.plans, options.state), options.json, "up: {}")
        if not options.once:
            demo.watch()
            return 0
        report = demo.once()
    except MeshError as error:
        if options.json:
            print(json.dumps({"ok": False, "error": str(error)}))
        print(f"./mesh demo: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print()
        return 0 if not options.once else 130
    print(json.dumps(report) if options.json else demo.told(report))
    return 0 if report["ok"] else 1


def _options(arguments: list[str]) -> argparse.Namespace:
    listed = "\n".join(f"  {name:10} {what}" for name, what in DEMOS.items())
    parser = argparse.ArgumentParser(
        prog="./mesh demo", epilog=listed, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", default="multihop", choices=DEMOS, metavar="NAME")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--once", action="store_true", help="do it once, check every step, and end")
    way.add_argument("--keep", action="store_true", help="start the nodes and leave them up")
    way.add_argument("--stop", action="store_true", help="end nodes that --keep left up")
    parser.add_argument("--state", type=Path, metavar="DIR", help="where kept nodes are")
    options = parser.parse_args(arguments)
    if (options.keep or options.stop) and options.state is None:
        parser.error("--keep and --stop need --state DIR")
    if options.json and not (options.once or options.keep or options.stop):
        parser.error("--json needs --once, --keep or --stop")
    return options


def _print(nodes: list[kept.Kept], as_json: bool, words: str) -> int:
    if as_json:
        print(json.dumps([node.as_json() for node in nodes]))
        return 0
    print(words.format(", ".join(node.name for node in nodes) or "nothing"))
    for node in nodes:
        socks = f"  socks5 {node.socks}" if node.socks else ""
        print(f"  {node.name:6} {node.role:6} {node.pubkey}  metrics {node.metrics}{socks}")
    return 0
