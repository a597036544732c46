"""`python -m lab VERB …`: the demonstrations, benches and tests behind `./mesh demo|bench|lab|test`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERBS = {
    "demo": ("lab.demos.command", "start real nodes on loopback and show what they do"),
    "bench": ("lab.benches.command", "measure a figure"),
    "test": ("lab.suite", "run the test suite; further arguments go to pytest"),
    "lab": ("lab.command", "real nodes in network namespaces (root); `lab simulate`: in virtual time"),
}


def main(arguments: list[str]) -> int:
    """Runs one verb; returns its exit code (2: no such verb)."""
    verb = arguments[0] if arguments else ""
    if verb not in VERBS:
        lines = [f"  {name:6} {summary}" for name, (_, summary) in VERBS.items()]
        print("\n".join(["usage: ./mesh VERB …", *lines]), file=sys.stderr)
        return 2
    if importlib.util.find_spec(VERBS[verb][0]) is None:
        print(f"./mesh {verb}: there is nothing here yet.")
        return 0
    run = importlib.import_module(VERBS[verb][0]).main
    return int(run(arguments[1:]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
