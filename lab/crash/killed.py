"""Real processes killed at random moments: `python -m lab.crash.killed FOLDER COUNT SEED [fuse]`.

Each round a child opens everything that a node keeps in FOLDER (`node_stores.py`) on the real disk, works,
and says through a pipe what may be relied on; after a random number of words and a random wait it gets
SIGKILL. The next child opens the same files and is asked for all that was ever said. This tries the logic of
writing and opening with the real system calls, not the loss of power: what a killed process wrote, the
system still has. With `between`, something may happen to the disk in that moment (`fuse.py`).

The children are forks of one interpreter, so that a round takes milliseconds.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import asdict

from lab.crash.cuts import Outcome
from lab.crash.fuse import Mounted
from lab.crash.node_stores import NodeStores, Told
from lab.simulation.models import MODELS
from meshnet.storage.disk import RealDisk
from meshnet.storage.sqlite import connect_sqlite

UNIX = 1_800_000_000.0
WORDS = 25
"""A child says at most about so many words before it is killed."""
PATIENCE = 20.0


def rounds(
    folder: Path,
    count: int,
    seed: int = 0,
    between: Callable[[], object] | None = None,
    seen: Callable[[Outcome], object] = lambda _: None,
) -> Outcome:
    """So many rounds. With `between`, called after each death, the machine counts as fallen."""
    total, told, chance = Outcome(), Told(), random.Random(seed)
    for number in range(count):
        boot = f"boot {number}" if between else "boot"
        before = len(told)
        told += _killed(folder, boot, chance)
        for kind, _ in told[before:]:
            total.count(kind)
        total.cuts += 1
        if between is not None:
            between()
        missing = [f"it failed: {value}" for kind, value in told[before:] if kind == "failed"]
        missing += _asked(folder, f"{boot} after" if between else boot, told)
        total.started += not any(why.startswith("it does not start") for why in missing)
        total.lost += len(missing)
        total.why += [f"seed {seed}, round {number}: {why}" for why in missing]
        seen(total)
        if missing:
            break
    return total


def _stores(folder: Path, boot: str) -> NodeStores:
    return NodeStores(RealDisk(), folder, boot, UNIX, connect_sqlite)


def _killed(folder: Path, boot: str, chance: random.Random) -> Told:
    """Let a child work, and kill it; what it said."""
    seed, words = chance.random(), chance.randint(0, WORDS)
    child, pipe = _child(lambda say: _work(_stores(folder, boot), random.Random(seed), say))
    told: Told = []
    try:
        lines = _lines(pipe)
        for _ in range(words):
            line = next(lines, None)
            if line is None:
                break
            told.append(line)
        time.sleep(chance.random() ** 2 * 0.004)
    finally:
        os.kill(child, signal.SIGKILL)
        told += [line for line in lines if line is not None]  # said before it died
        os.waitpid(child, 0)
        os.close(pipe)
    return told


def _work(stores: NodeStores, chance: random.Random, say: Callable[[str, str], object]) -> None:
    stores.open()
    stores.tell_identity(say)
    while True:
        stores.step(chance, say)


def _asked(folder: Path, boot: str, told: Told) -> list[str]:
    """Open everything in a new process; what is not there of what was told."""

    def answer(say: Callable[[str, str], object]) -> None:
        stores = _stores(folder, boot)
        stores.open()
        for why in stores.check(told):
            say("missing", why)
        stores.close()
        say("done", "")

    child, pipe = _child(answer)
    lines = list(_lines(pipe))
    os.waitpid(child, 0)
    os.close(pipe)
    missing = [value for kind, value in lines if kind in ("missing", "failed")]
    if ("done", "") not in lines:
        missing = [f"it does not start: {missing[-1] if missing else 'no answer'}"]
    return missing


def _child(work: Callable[[Callable[[str, str], object]], object]) -> tuple[int, int]:
    """Fork; the child runs `work(say)` and ends. Its process id, and the pipe that it says things to."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    try:
        os.close(reader)

        def say(kind: str, value: str) -> None:
            os.write(writer, f"{kind} {value}\n".encode())

        try:
            work(say)
        except BaseException as fault:
            say("failed", " ".join("".join(traceback.format_exception_only(fault)).split()))
    finally:
        os._exit(0)


def _lines(pipe: int) -> Iterator[tuple[str, str]]:
    """What a child says, until it ends."""
    rest = b""
    while True:
        data = os.read(pipe, 1 << 16)
        if not data:
            return
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            kind, _, value = line.decode().partition(" ")
            yield kind, value


def forgetting(
    folder: Path, count: int, seed: int = 0, seen: Callable[[Outcome], object] = lambda _: None
) -> Outcome:
    """Rounds on the lab's own file system, mounted on `folder` with each model in turn: with each death of a
    child the power goes, too."""
    total = Outcome()
    for place, model in enumerate(MODELS):
        some = count * (place + 1) // len(MODELS) - count * place // len(MODELS)
        with Mounted(folder, model, seed + place) as mounted:
            total.add(rounds(folder / "node", some, seed + place, mounted.cut))
        seen(total)
    return total


def main(arguments: list[str]) -> int:
    """Prints the outcome as a line of JSON, at each round that is a multiple of ten and at the end."""
    folder, count, seed = Path(arguments[0]), int(arguments[1]), int(arguments[2])

    def seen(outcome: Outcome) -> None:
        if outcome.cuts % 10 == 0:
            print(json.dumps(asdict(outcome)), flush=True)

    forgets = arguments[3:] == ["fuse"]
    total = forgetting(folder, count, seed, seen) if forgets else rounds(folder, count, seed, seen=seen)
    print(json.dumps(asdict(total)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
