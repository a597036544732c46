"""The main demonstration: five nodes, a download over three relays that the source chose.

    alice ── r1 ── r2 ── r3 ── bob ── a web server that lets nobody in but bob's exit address

alice is the user: her SOCKS5 listener sends everything over a circuit through r1, r2 and r3 to bob, who is
the exit and connects from 127.0.0.9. All are real processes on loopback, each with its own key, config file
and data directory. `once` checks every step; `watch` shows it until Ctrl-C.
"""

from __future__ import annotations

import contextlib
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import define, evolve, field

from lab.demos.origin import digest
from lab.demos.view import look, parses, table
from lab.nodes import Network, Plan, chain
from lab.processes import Process, Processes, free_ports, python
from lab.socks import CutOffError, Fetch, get
from meshnet.errors import MeshError

ROLES = {"alice": "user", "r1": "relay", "r2": "relay", "r3": "relay", "bob": "exit"}
EXIT_ADDRESS = "127.0.0.9"
SIZE = 8 << 20
SLOW_SIZE, SLOW_RATE = 64 << 20, 4 << 20
PATIENCE = 45.0
"""Seconds for a stopped download to be reported: a link's tables survive 30 s without a connection."""


def plans(folder: Path) -> list[Plan]:
    """The five nodes under a folder."""
    row = chain(folder, ROLES)
    via, exit_key = [plan.public.hex() for plan in row[1:-1]], row[-1].public.hex()
    more: dict[str, dict[str, Any]] = {
        "alice": {"socks": {"listen": f"127.0.0.1:{free_ports(1)[0]}", "exit": exit_key, "via": via}},
        "bob": {"exit": {"enabled": True, "allow": ["127.0.0.0/8"], "source": EXIT_ADDRESS}},
    }
    return [evolve(plan, more=more.get(plan.name, {})) for plan in row]


@define
class Stage:
    """The running nodes, the web server, and what a person is told meanwhile."""

    network: Network
    server: Process
    port: int
    proxy: tuple[str, int]

    def fetch(self, path: str, progress: Any = None, timeout: float = 20.0) -> Fetch:
        """A download as alice does it: through her SOCKS5 listener."""
        return get(("127.0.0.1", self.port, path), self.proxy, progress, timeout)

    def circuit(self) -> dict[str, Any]:
        """Alice's circuit as she sees it, `relays` by name; empty while she has none."""
        names = {node.plan.public.hex(): node.name for node in self.network.nodes}
        for circuit in self.network["alice"].call("GET", "/circuits")["circuits"]:
            route = [names[key] for key in circuit.get("route", ())]
            if route[-1:] == ["bob"] and circuit["state"] == "open":
                return {**circuit, "relays": route[:-1]}
        return {}

    def ping(self) -> dict[str, Any]:
        """Set-up and round trip of a circuit over the three relays."""
        first, *relays, last = self.network.nodes
        via = [node.plan.public.hex() for node in relays]
        body = {"target": last.plan.public.hex(), "via": via, "count": 5}
        return dict(first.call("POST", "/ping", body))


def say(text: str) -> None:
    """Progress, when a person watches."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """Starts everything; on leaving, all of it ends and its folder is gone."""
    with tempfile.TemporaryDirectory(prefix="meshnet-") as name, Processes() as processes:
        folder = Path(name)
        say("starting a web server and five nodes …")
        command = python("-m", "lab.demos.origin", "--only", EXIT_ADDRESS)
        server = processes.start("web server", command, folder / "server.log")
        network = Network.start(processes, plans(folder))
        server.wait_for(lambda: "port" in server.tail(), 10.0, "its port")
        found = re.search(r"port (\d+)", server.tail())
        assert found is not None
        host, port = network["alice"].plan.more["socks"]["listen"].split(":")
        yield Stage(network, server, int(found[1]), (host, int(port)))


def once() -> dict[str, Any]:
    """The whole thing with its checks; `ok` is true only if each holds. Raises MeshError."""
    begun = time.monotonic()
    with stage() as it:
        say("fetching directly, which must be refused …")
        direct = get(("127.0.0.1", it.port, f"/{SIZE}"))
        say("measuring the circuit …")
        measured = it.ping()
        say(f"fetching {SIZE >> 20} MB over three relays …")
        fetch = it.fetch(f"/{SIZE}", timeout=PATIENCE)
        circuit = it.circuit()
        nodes = [look(node) for node in it.network.nodes]
        texts = [node.metrics() for node in it.network.nodes]
        say("killing relay r2 in mid-download …")
        stopped = stops_when_killed(it)
    relays = [node for node in nodes if node.role == "relay"]
    report: dict[str, Any] = {
        "ok": False,
        "seconds": 0.0,
        "circuit": {
            "relays": circuit.get("relays", []),
            "setup_ms": circuit.get("setup_ms", 0.0),
            "rtt_ms": measured["rtt_ms"],
        },
        "fetch": {
            "bytes": fetch.size,
            "sha256_ok": fetch.sha256 == digest(SIZE),
            "mbps": round(fetch.mbps, 1),
        },
        "direct_refused": direct.status == 403,
        "stopped_when_relay_killed": bool(stopped),
        "stopped_with": stopped,
        "nodes": [
            {
                "name": node.name,
                "pubkey": node.pubkey,
                "role": node.role,
                "links": node.links,
                "cells_relayed": node.cells_relayed,
                "metrics_ok": parses(text),
            }
            for node, text in zip(nodes, texts, strict=True)
        ],
        "dropped": _sum([node.dropped for node in nodes]),
    }
    report["seconds"] = round(time.monotonic() - begun, 2)
    covered = all(node.bytes_relayed >= fetch.size for node in relays)
    report["ok"] = covered and _all_hold(report)
    return report


def _all_hold(report: dict[str, Any]) -> bool:
    checks = [
        report["circuit"]["relays"] == ["r1", "r2", "r3"],
        report["circuit"]["setup_ms"] > 0,
        report["fetch"]["bytes"] == SIZE,
        report["fetch"]["sha256_ok"],
        report["direct_refused"],
        report["stopped_when_relay_killed"],
        all(node["metrics_ok"] and node["links"] for node in report["nodes"]),
        all(node["cells_relayed"] > 0 for node in report["nodes"] if node["role"] == "relay"),
    ]
    return all(checks)


def _sum(each: list[dict[str, int]]) -> dict[str, int]:
    reasons = sorted({reason for dropped in each for reason, count in dropped.items() if count})
    return {reason: sum(dropped.get(reason, 0) for dropped in each) for reason in reasons}


def stops_when_killed(it: Stage) -> str:
    """Kills r2 in mid-download: the errors that this download and the next end with; empty if they do not."""
    errors: list[str] = []
    flowing = threading.Event()

    def progress(fetch: Fetch) -> None:
        if fetch.size > 1 << 20:
            flowing.set()

    def download() -> None:
        try:
            it.fetch(f"/{SLOW_SIZE}/{SLOW_RATE}", progress, PATIENCE)
        except CutOffError as error:
            if "timed out" not in str(error):
                errors.append(str(error))
        except MeshError:
            pass
        flowing.set()

    thread = threading.Thread(target=download, daemon=True)
    thread.start()
    flowing.wait(PATIENCE)
    it.network["r2"].process.kill()
    try:
        it.fetch("/1", timeout=PATIENCE)
    except MeshError as error:
        again = str(error)
    else:
        return ""
    thread.join(PATIENCE)
    return f"{errors[0]}; again: {again}" if errors else ""


def told(report: dict[str, Any]) -> str:
    """The report for a person."""
    circuit, fetch = report["circuit"], report["fetch"]
    lines = [
        f"circuit     alice → {' → '.join(circuit['relays'])} → bob, set up in {circuit['setup_ms']} ms, "
        f"round trip {circuit['rtt_ms']} ms",
        f"fetched     {fetch['bytes']:,} bytes at {fetch['mbps']} Mbit/s, "
        f"SHA-256 {'right' if fetch['sha256_ok'] else 'WRONG'}",
        f"directly    {'refused, as it should be' if report['direct_refused'] else 'NOT REFUSED'}",
        f"r2 killed   {report['stopped_with'] or 'THE DOWNLOAD DID NOT STOP WITH AN ERROR'}",
    ]
    for node in report["nodes"]:
        metrics = "metrics ok" if node["metrics_ok"] else "METRICS WRONG"
        links = "1 link" if node["links"] == 1 else f"{node['links']} links"
        lines.append(
            f"{node['name']:11} {node['role']:6} {links}, {node['cells_relayed']} cells relayed, {metrics}"
        )
    dropped = ", ".join(f"{count} {reason}" for reason, count in report["dropped"].items()) or "nothing"
    lines.append(f"dropped     {dropped}")
    lines.append(f"{'all checks hold' if report['ok'] else 'A CHECK FAILED'} ({report['seconds']} s)")
    return "\n".join(lines)


@define
class Downloads:
    """Downloads one after the other, in a thread of their own."""

    stage: Stage
    current: Fetch = field(factory=Fetch)
    done: int = 0
    error: str = ""
    last: float = 0.0

    def run(self) -> None:
        """Until the process ends."""
        while True:
            try:
                self.last = self.stage.fetch(f"/{SIZE}", self._progress).mbps
                self.done += 1
                self.error = ""
            except MeshError as error:
                self.error = str(error)
            time.sleep(1.0)

    def _progress(self, fetch: Fetch) -> None:
        self.current = fetch

    def line(self) -> str:
        """What a person sees of it."""
        share = self.current.size / (self.current.expected or 1)
        error = f"   last error: {self.error}" if self.error else ""
        so_far = f"{share:4.0%} of {SIZE >> 20} MB, {self.current.mbps:6.1f} Mbit/s"
        return f"{self.done + 1}: {so_far}{error}"


def watch() -> None:
    """Shows links, circuit, cells and drops until Ctrl-C; then everything ends."""
    person = sys.stdout.isatty()
    with stage() as it:
        direct = get(("127.0.0.1", it.port, "/1"))
        downloads = Downloads(it)
        threading.Thread(target=downloads.run, daemon=True).start()
        while True:
            time.sleep(1.0 if person else 10.0)
            clear = "\x1b[H\x1b[2J" if person else ""
            lines = [*_head(it, direct, downloads), "", *table([look(node) for node in it.network.nodes])]
            print(clear + "\n".join([*lines, "", "Ctrl-C ends it."]), flush=True)


def _head(it: Stage, direct: Fetch, downloads: Downloads) -> list[str]:
    circuit = it.circuit()
    route = " → ".join(["alice", *circuit.get("relays", ()), "bob"])
    state = (
        f"set up in {circuit['setup_ms']:.1f} ms, round trip {circuit['rtt_ms']:.1f} ms"
        if circuit
        else "none"
    )
    said = direct.text.decode(errors="replace").strip()
    return [
        f"server      http://127.0.0.1:{it.port}/{SIZE}, for {EXIT_ADDRESS} only",
        f"directly    {direct.status}, {said}",
        f"proxy       socks5h://{it.proxy[0]}:{it.proxy[1]}, alice's",
        f"circuit     {route}: {state}",
        f"download    {downloads.line()}",
    ]
