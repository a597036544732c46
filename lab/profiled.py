"""A node under the profiler, from a signal on: `python -m lab.profiled FILE up --config …`.

The arguments after FILE are those of `meshnet`. SIGUSR1 switches the profiler on, so that what a node does at
its start is not in it; the profile is written when the node ends.
"""

from __future__ import annotations

import cProfile
import signal
import sys

from meshnet.cli.main import main

START = signal.SIGUSR1


def run(file: str, arguments: list[str]) -> int:
    """The command's exit code; the profile of what ran since the signal is in the file then."""
    profile = cProfile.Profile()
    signal.signal(START, lambda number, frame: profile.enable())
    try:
        return main(arguments)
    finally:
        profile.disable()
        profile.create_stats()
        profile.dump_stats(file)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], sys.argv[2:]))
