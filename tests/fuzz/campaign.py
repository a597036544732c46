"""A long run of one target with atheris: `python -m tests.fuzz.campaign NAME [--inputs N] [--seed S]`.

The coverage of meshnet, coin and apps guides it; inputs that reach something new are kept in a folder that
goes with the run. One input in 64 is run under tracemalloc. Ends with one line of JSON, and exit code 1 after
a finding, whose input lies in `--found` (the target's corpus, unless said otherwise).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import tracemalloc
from hashlib import sha256
from pathlib import Path

MEASURED = 64


def main() -> None:
    """Runs and does not return: atheris ends the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--found", type=Path)
    arguments = parser.parse_args()

    import atheris

    with atheris.instrument_imports(include=["meshnet", "coin", "apps"]):
        from tests.fuzz.registry import TARGETS
        from tests.fuzz.target import Finding
    target = TARGETS[arguments.name]
    found = arguments.found or Path(__file__).resolve().parent / "corpus" / target.name
    began, count, taken = time.monotonic(), 0, 0
    report = {"target": target.name, "seed": arguments.seed}

    def say(finding: str) -> None:
        seconds = round(time.monotonic() - began, 1)
        shown = {**report, "inputs": count, "taken": taken, "seconds": seconds, "finding": finding}
        print(json.dumps(shown), flush=True)

    def one(data: bytes) -> None:
        nonlocal count, taken
        count += 1
        try:
            if count % MEASURED:
                taken += target.once(data)
            else:
                tracemalloc.start()
                taken += target.measured(data)
                tracemalloc.stop()
        except Finding as finding:
            found.mkdir(parents=True, exist_ok=True)
            (found / sha256(data).hexdigest()[:16]).write_bytes(data)
            say(str(finding)[:400])
            os._exit(1)
        if count >= arguments.inputs:
            say("")
            os._exit(0)

    with tempfile.TemporaryDirectory(prefix="meshnet-fuzz-") as corpus:
        for number, seed in enumerate([*target.seeds(), *(data for _, data in target.kept())]):
            (Path(corpus) / f"seed{number}").write_bytes(seed)
        options = [f"-max_len={target.longest}", f"-seed={arguments.seed}", "-print_final_stats=0"]
        options += ["-verbosity=0", "-rss_limit_mb=2048", "-timeout=120", "-reload=0", "-use_value_profile=0"]
        atheris.Setup([sys.argv[0], *options, corpus], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
