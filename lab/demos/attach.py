"""A demonstration of programs beside their nodes: stock `twist web` on one, a download on another.

    fetch ─ alice ── r1 ── r2 ── r3 ── bob ─ twist web
                           └── the address ──┘

bob's web server and alice's download are programs of their own, stock Twisted with `mesh:` endpoint
strings; they reach their nodes by the local doors. alice knows only an address that begins at r2 and tells
nothing of r3 and bob. In the middle of a large download her circuits are replaced under it, and then relay
r2 is killed and started again; the download goes on. At last bob's node itself is restarted: the web server
takes its port again, and the next download works. `once` checks every step; `watch` shows them until Ctrl-C.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from attrs import define, field

from lab.demos.multihop import say
from lab.nodes import Network, Plan, chain
from lab.processes import Process, Processes, python
from meshnet.cipher.address import Address, parse_target
from meshnet.errors import MeshError, TimedOutError

ROLES = {"alice": "user", "r1": "relay", "r2": "relay", "r3": "relay", "bob": "user"}
PORT, SERVICE = 80, "web"
SIZE, RATE = 64 << 20, 12 << 20
"""The large file, and how fast it is fetched: slow enough that things can happen meanwhile."""
PATIENCE = 60.0
STEPS = ("hidden", "fetched", "renewed", "restarted_relay", "sha256_ok", "node_restarted")


def plans(folder: Path) -> list[Plan]:
    """The five nodes under a folder."""
    return chain(folder, ROLES)


@define
class Download:
    """A running download, as its program tells of it."""

    process: Process

    @property
    def facts(self) -> dict[str, Any]:
        """The last line it wrote."""
        lines = [line for line in self.process.log.read_text().splitlines() if line.startswith("{")]
        return dict(json.loads(lines[-1])) if lines else {}

    @property
    def size(self) -> int:
        """Bytes so far."""
        return int(self.facts.get("bytes", 0))

    def reach(self, size: int) -> None:
        """Waits until so many bytes have come; raises MeshError if they do not."""
        limit = time.monotonic() + PATIENCE
        while self.size < size:
            self._check(limit, f"{size:,} bytes")
            time.sleep(0.02)

    def end(self) -> dict[str, Any]:
        """Waits for its end and returns what it says; raises MeshError."""
        limit = time.monotonic() + PATIENCE
        while not self.facts.get("done"):
            self._check(limit, "the end")
            time.sleep(0.02)
        return self.facts

    def _check(self, limit: float, what: str) -> None:
        if "error" in self.facts:
            raise MeshError(f"the download failed: {self.facts['error']}")
        if not self.process.running and not self.facts.get("done"):
            raise MeshError(f"the download ended before {what}:\n{self.process.tail()}")
        if time.monotonic() > limit:
            raise TimedOutError(f"the download: no sign of {what} in {PATIENCE:g} s")


@define
class Stage:
    """The running nodes and the web server."""

    network: Network
    processes: Processes
    folder: Path
    server: Process
    sha256: str
    address: str
    count: int = 0
    report: dict[str, Any] = field(factory=dict)

    def download(self, path: str, rate: int = 0) -> Download:
        """Starts the outsider's program at alice's door."""
        self.count += 1
        via, door = self.network["r1"].plan.public.hex(), self.network["alice"].plan.socket.parent
        string = f"mesh:{self.address}:{PORT}:via={via}:node={door}"
        command = python("-m", "lab.demos.fetch", string, path, str(rate))
        log = self.folder / f"fetch{self.count}.log"
        return Download(self.processes.start(f"download {self.count}", command, log))

    def circuits(self) -> set[str]:
        """Labels of the circuits that alice has open."""
        found = self.network["alice"].call("GET", "/circuits")["circuits"]
        return {json.dumps(each.get("label", each)) for each in found if each["state"] == "open"}


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """Starts everything; on leaving, all of it ends and its folder is gone."""
    with tempfile.TemporaryDirectory(prefix="meshnet-") as name, Processes() as processes:
        folder = Path(name)
        say("starting five nodes and a web server …")
        network = Network.start(processes, plans(folder))
        www = folder / "www"
        www.mkdir()
        (www / "small").write_text("hello\n")
        large = random.Random("attach").randbytes(SIZE)
        (www / "large").write_bytes(large)
        address = new_address(network)
        listen = f"mesh:{PORT}:address={SERVICE}:node={network['bob'].plan.socket.parent}"
        command = python("-m", "twisted", "web", "--path", str(www), "--listen", listen)
        server = processes.start("twist web", command, folder / "web.log")
        server.wait_for(lambda: "Starting reactor" in server.tail(), 20.0, "its start")
        yield Stage(network, processes, folder, server, hashlib.sha256(large).hexdigest(), address)


def new_address(network: Network) -> str:
    """A hidden address of bob that leads over r2 and r3, as the command makes it."""
    hops = ",".join(network[name].plan.public.hex() for name in ("r2", "r3"))
    words = ["address", "new", "--hops", hops, "--name", SERVICE, "--json"]
    node = ["--node", str(network["bob"].plan.socket)]
    done = subprocess.run(
        python("-m", "meshnet.cli.main", *words, *node), capture_output=True, text=True, timeout=30
    )
    if done.returncode:
        raise MeshError(f"no address was made: {done.stderr.strip()}")
    return str(json.loads(done.stdout)["address"])


def once() -> dict[str, Any]:
    """The whole thing with its checks; `ok` is true only if each holds. Raises MeshError."""
    begun = time.monotonic()
    with stage() as it:
        run(it, lambda words: say(f"{words} …"))
        report = it.report
    report["seconds"] = round(time.monotonic() - begun, 2)
    return {"ok": all(report[step] is True for step in STEPS), **report}


def run(it: Stage, told: Callable[[str], None]) -> None:
    """All steps, each with its result in the report; `told` hears of each before."""
    report = it.report
    report["hidden"] = hidden(it)
    told("fetching a small page over three relays")
    small = it.download("/small").end()
    report["fetched"] = small["sha256"] == hashlib.sha256(b"hello\n").hexdigest()
    told(f"fetching {SIZE >> 20} MB")
    download = it.download("/large", RATE)
    download.reach(SIZE // 6)
    told("replacing the circuits under the download")
    report["renewed"] = renewed(it, download)
    download.reach(SIZE // 3)
    told("killing relay r2 in mid-download, and starting it again")
    report["restarted_relay"] = restarted(it, download)
    told("waiting for the rest of the download")
    whole = download.end()
    report["bytes"], report["sha256_ok"] = whole["bytes"], whole["sha256"] == it.sha256
    report["mbps"] = round(whole["bytes"] * 8 / whole["seconds"] / 1e6, 1)
    told("restarting bob's node; the web server takes its port again")
    report["node_restarted"] = comes_back(it)


def hidden(it: Stage) -> bool:
    """Whether the address names r2 and neither r3 nor bob."""
    names = {node.name: node.plan.public for node in it.network.nodes}
    address = parse_target(it.address)
    if not isinstance(address, Address):
        return False
    tail = {hop.key for hop in address.tail}
    nobody = {names["r3"], names["bob"]}.isdisjoint({*tail, address.service})
    return nobody and address.introduction == names["r2"]


def renewed(it: Stage, download: Download) -> bool:
    """Whether the circuit under the download was replaced while it went on."""
    before, size = it.circuits(), download.size
    answer = it.network["alice"].call("POST", "/circuits/renew", {})["renewed"]
    it.report["renewal"] = answer
    download.reach(size + (1 << 20))
    return any(each["streams"] and "error" not in each for each in answer) and it.circuits() != before


def restarted(it: Stage, download: Download) -> bool:
    """Whether the download went on after a relay of its circuit was killed and came back."""
    it.network["r2"].process.kill()
    size = download.size
    it.network.restart(it.processes, "r2")
    begun = time.monotonic()
    download.reach(min(SIZE, size + (SIZE >> 3)))
    it.report["seconds_to_go_on"] = round(time.monotonic() - begun, 2)
    return size < SIZE


def comes_back(it: Stage) -> bool:
    """Whether a download works after the serving node was restarted under the web server."""
    it.network["bob"].process.stop()
    it.network.restart(it.processes, "bob")
    limit = time.monotonic() + PATIENCE
    while time.monotonic() < limit:
        try:
            if it.download("/small").end()["status"] == 200:
                return it.server.running
        except MeshError as error:
            it.report["meanwhile"] = str(error)
        time.sleep(0.3)
    return False


def told(report: dict[str, Any]) -> str:
    """The report for a person."""
    lines = [f"{step.replace('_', ' '):16} {'yes' if report[step] else 'NO'}" for step in STEPS]
    lines.append(f"{'fetched':16} {report['bytes']:,} bytes at {report['mbps']} Mbit/s")
    lines.append(f"{'all checks hold' if report['ok'] else 'A CHECK FAILED'} ({report['seconds']} s)")
    return "\n".join(lines)


def watch() -> None:
    """The steps again and again until Ctrl-C; then everything ends."""
    with stage() as it:
        while True:
            run(it, lambda words: print(f"{words} …", flush=True))
            for step in STEPS:
                print(f"  {step.replace('_', ' '):16} {'yes' if it.report[step] else 'NO'}", flush=True)
            print("Ctrl-C ends it.", flush=True)
