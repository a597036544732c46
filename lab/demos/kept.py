"""Nodes that outlive the command: `--keep --state DIR` writes DIR/nodes.json, `--stop` reads it.

A process is ended only if it still is the node that was started: its command line names the node's folder.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attrs import asdict, frozen

from lab.nodes import Network, Node, Plan
from lab.processes import Processes, end
from meshnet.errors import LocalError, UsageError


@frozen
class Kept:
    """One row of nodes.json; `socks` is host:port where the node has one."""

    name: str
    role: str
    pubkey: str
    socks: str | None
    metrics: str
    control: str
    pid: int

    def as_json(self) -> dict[str, Any]:
        """The same, as JSON has it."""
        return asdict(self)


def keep(plan: Callable[[Path], Sequence[Plan]], state: Path) -> list[Kept]:
    """Starts the planned nodes under `state` and leaves them; raises LocalError if some run there."""
    state = state.absolute()
    running = [node.name for node in _read(state) if _runs(state, node)] if _file(state).exists() else []
    if running:
        text = f"{', '.join(running)} still run there; end them with ./mesh demo --stop --state {state}"
        raise LocalError(text)
    state.mkdir(parents=True, exist_ok=True)
    plans = plan(state)
    for each in plans:
        shutil.rmtree(each.folder, ignore_errors=True)
    processes = Processes(detached=True)
    try:
        network = Network.start(processes, plans)
    except BaseException:
        processes.stop()
        raise
    kept = [_row(node) for node in network.nodes]
    _file(state).write_text(json.dumps([node.as_json() for node in kept], indent=1) + "\n")
    return kept


def stop(state: Path) -> list[Kept]:
    """Ends the nodes that `keep` left under `state`, and removes their folders; those that ran."""
    state = state.absolute()
    nodes = _read(state)
    running = {node.pid: node for node in nodes if _runs(state, node)}
    end(list(running), lambda pid: _runs(state, running[pid]))
    for node in nodes:
        shutil.rmtree(state / node.name, ignore_errors=True)
    _file(state).unlink()
    return list(running.values())


def _file(state: Path) -> Path:
    return state / "nodes.json"


def _read(state: Path) -> list[Kept]:
    try:
        return [Kept(**row) for row in json.loads(_file(state).read_text())]
    except FileNotFoundError:
        raise UsageError(f"there is no nodes.json in {state}: nothing was kept there") from None
    except (OSError, TypeError, ValueError) as error:
        raise UsageError(f"{_file(state)} is not what --keep writes: {error}") from None


def _row(node: Node) -> Kept:
    plan = node.plan
    socks = plan.more.get("socks", {}).get("listen")
    metrics = f"http://{plan.metrics}/metrics"
    return Kept(plan.name, plan.role, plan.public.hex(), socks, metrics, str(plan.socket), node.process.pid)


def _runs(state: Path, node: Kept) -> bool:
    return str(state / node.name) in _command(node.pid)


def _command(pid: int) -> str:
    """The command line of a process; empty if there is none."""
    if Path("/proc/self/cmdline").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""
    return subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True).stdout
