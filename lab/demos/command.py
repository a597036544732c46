"""`./mesh demo [--once] [--json]`: so far there is nothing to show, and it says so."""

from __future__ import annotations

import argparse
import json


def main(arguments: list[str]) -> int:
    """Says what there is: nothing yet."""
    parser = argparse.ArgumentParser(prog="./mesh demo")
    parser.add_argument("--once", action="store_true", help="do it once, with checks")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    if options.json:
        print(json.dumps({"ok": True, "nodes": [], "note": "nothing is there yet"}))
    else:
        print("The demonstration starts no nodes yet: there are none to start.")
    return 0
