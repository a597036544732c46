"""A node whose power is cut a thousand times: it starts again each time, with all that it acknowledged.

    simulated   everything a node keeps, on a simulated disk with the rules of each file system in turn
                (`lab/crash/cuts.py`): cut at a random operation, a random legal part of the rest remains
    killed      the same on the real disk, in processes that get SIGKILL (`lab/crash/killed.py`)
    node        a relay between two others, a real node with circuits through it all the time: SIGKILL,
                started again, asked for its key, its hidden service and the onions it has seen

Where root may mount FUSE, some of the killed processes work on a file system that forgets what was not synced
(`lab/crash/fuse.py`). `once` does all of it; `watch` shows the counts as they grow.
"""

from __future__ import annotations

import contextlib
import json
import random
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import define, field

from lab.crash import fuse, sqlite
from lab.crash.cuts import Outcome, simulated
from lab.nodes import Network, Node, Plan, chain
from lab.processes import Processes, python
from lab.simulation.models import MODELS
from meshnet.circuit.replay_log import RECORD
from meshnet.errors import MeshError

CUTS = {"simulated": 880, "killed": 108, "node": 12}
"""How many of each kind: a thousand together."""
ROLES = {"alice": "user", "relay": "relay", "bob": "user"}
ROUND_SECONDS = 30.0


def plans(folder: Path) -> list[Plan]:
    """The three nodes of the last kind, under a folder."""
    return chain(folder, ROLES)


def once() -> dict[str, Any]:
    """All the cuts; `ok` is true only if each start worked and nothing was lost. Raises MeshError."""
    begun = time.monotonic()
    seed = secrets.randbelow(1 << 32)
    report: dict[str, Any] = {"ok": False, "cuts": 0, "lost": 0, "started": 0, "seed": seed, "seconds": 0.0}
    total, kinds = Outcome(), dict[str, Any]()
    for kind, run in KINDS.items():
        found = run(CUTS[kind], seed, lambda outcome, kind=kind: _progress(kind, outcome, total))  # type: ignore[misc]
        total.add(found)
        kinds[kind] = {"cuts": found.cuts, "lost": found.lost, "started": found.started, "told": found.told}
    if sys.stderr.isatty():
        print(file=sys.stderr)
    report.update(
        cuts=total.cuts, lost=total.lost, started=total.started, acknowledged=total.told, kinds=kinds
    )
    report["models"] = [model.name for model in MODELS]
    report["database_in_simulation"] = sqlite.available()
    report["fuse"] = fuse.why_not() or "used"
    report["why"] = total.why
    report["seconds"] = round(time.monotonic() - begun, 2)
    report["ok"] = total.lost == 0 and total.started == total.cuts == sum(CUTS.values())
    return report


def watch() -> None:
    """The same, for a person to look at."""
    print(told(once()))


def told(report: dict[str, Any]) -> str:
    """The report for a person."""
    lines = [f"{'':10}  {'cuts':>6}  {'started':>8}  {'lost':>5}  what was acknowledged"]
    for kind, one in report["kinds"].items():
        things = ", ".join(f"{count} {name}" for name, count in sorted(one["told"].items()))
        lines.append(f"{kind:10}  {one['cuts']:6}  {one['started']:8}  {one['lost']:5}  {things}")
    whole = (report["cuts"], report["started"], report["lost"])
    lines.append(f"{'together':10}  {whole[0]:6}  {whole[1]:8}  {whole[2]:5}  seed {report['seed']}")
    if not report["database_in_simulation"]:
        lines.append("Databases met real kills only: APSW is missing, ./mesh test installs it.")
    if report["fuse"] != "used":
        lines.append(f"No real programs on a file system that forgets: {report['fuse']}")
    lines += report["why"]
    return "\n".join(lines)


Seen = Callable[[Outcome], object]


def _progress(kind: str, outcome: Outcome, before: Outcome) -> None:
    if sys.stderr.isatty():
        text = f"\r{kind:10} {before.cuts + outcome.cuts:5} cuts, {before.lost + outcome.lost} lost "
        print(text, end="", file=sys.stderr, flush=True)


# Killed processes


def _killed(count: int, seed: int, seen: Seen) -> Outcome:
    """Half of them on the lab's file system, where that is possible."""
    total = Outcome()
    forgetting = count // 2 if fuse.why_not() is None else 0
    with tempfile.TemporaryDirectory(prefix="meshnet-") as name, Processes() as processes:
        for where, many in (("fuse", forgetting), ("disk", count - forgetting)):
            if many:
                total.add(_rounds(processes, Path(name), where, many, seed, seen))
    return total


def _rounds(processes: Processes, folder: Path, where: str, count: int, seed: int, seen: Seen) -> Outcome:
    """A process of its own makes the children: it has one thread, so it may fork."""
    room, log = folder / where, folder / f"{where}.log"
    room.mkdir()
    command = python("-m", "lab.crash.killed", str(room), str(count), str(seed), where)
    process = processes.start(where, command, log)
    limit = time.monotonic() + 10 * ROUND_SECONDS
    while process.running and time.monotonic() < limit:
        time.sleep(0.1)
        with contextlib.suppress(ValueError, IndexError, TypeError):
            seen(_last(log))
    process.stop()
    try:
        return _last(log)
    except (ValueError, IndexError, TypeError):
        raise MeshError(f"The killed processes told nothing:\n{process.tail()}") from None


def _last(log: Path) -> Outcome:
    lines = [line for line in log.read_text().splitlines() if line.startswith("{")]
    return Outcome(**json.loads(lines[-1]))


# A real node


@define
class Traffic:
    """alice pings bob through the relay, all the time; `pings` that came back."""

    alice: Node
    route: list[str]
    bob: str
    pings: int = 0
    _ended: threading.Event = field(factory=threading.Event)

    def run(self) -> None:
        """Until `end`; what fails while the relay is away is tried again."""
        while not self._ended.is_set():
            with contextlib.suppress(MeshError):
                self.ping()

    def ping(self) -> None:
        """One, over a circuit of its own."""
        body = {"target": self.bob, "via": self.route, "count": 1}
        self.alice.call("POST", "/ping", body, timeout=5.0)
        self.pings += 1

    def end(self) -> None:
        """No more."""
        self._ended.set()


def _node(count: int, seed: int, seen: Seen) -> Outcome:
    """The relay of three nodes is killed, again and again, with circuits being made through it."""
    outcome, chance = Outcome(), random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="meshnet-") as name, Processes() as processes:
        network = Network.start(processes, plans(Path(name)))
        alice, relay, bob = network.nodes
        relay.call("POST", "/addresses", {"name": "kept", "hops": []})
        kept = relay.call("GET", "/addresses")
        traffic = Traffic(alice, [relay.plan.public.hex()], bob.plan.public.hex())
        thread = threading.Thread(target=traffic.run, daemon=True)
        thread.start()
        try:
            for _ in range(count):
                _one_kill(network, processes, traffic, kept, chance, outcome)
                seen(outcome)
        finally:
            traffic.end()
            thread.join(10.0)
    return outcome


def _one_kill(
    network: Network,
    processes: Processes,
    traffic: Traffic,
    kept: Any,
    chance: random.Random,
    outcome: Outcome,
) -> None:
    relay = network["relay"]
    pings = traffic.pings
    relay.process.wait_for(lambda: traffic.pings > pings + 1, ROUND_SECONDS, "a ping")
    time.sleep(chance.random() * 0.3)
    relay.process.kill()
    outcome.cuts += 1
    onions = _onions(relay.plan.folder)
    for _ in onions:
        outcome.count("onion")
    try:
        network.restart(processes, "relay")
        relay.process = network["relay"].process
        status = relay.call("GET", "/status")
    except MeshError as fault:
        outcome.why.append(f"the relay does not start: {fault}")
        outcome.lost += 1
        return
    outcome.started += 1
    missing = []
    if status["public_key"] != relay.plan.public.hex():
        missing.append("the relay has another key")
    if relay.call("GET", "/addresses") != kept:
        missing.append("the relay's hidden service is another one")
    if onions - _onions(relay.plan.folder):
        missing.append("the relay has forgotten onions")
    outcome.count("identity")
    outcome.count("service")
    outcome.lost += len(missing)
    outcome.why += missing


def _onions(folder: Path) -> set[bytes]:
    """Every whole record of the relay's replay log."""
    found = set[bytes]()
    for file in (folder / "data" / "replay").glob("*.tags"):
        data = file.read_bytes()
        found |= {
            file.name.encode() + data[at : at + RECORD] for at in range(0, len(data) - RECORD + 1, RECORD)
        }
    return found


KINDS: dict[str, Callable[[int, int, Seen], Outcome]] = {
    "simulated": simulated,
    "killed": _killed,
    "node": _node,
}
