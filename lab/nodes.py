"""Real nodes for demonstrations and benches: a folder with key and config each, a process, its control.

`chain` plans nodes in a row, each linked to the next; `Network` starts them and waits until they are linked.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.request import urlopen

from attrs import define, evolve, field, frozen

from lab.processes import Process, Processes, free_ports, python
from meshnet.cipher.keys import PublicKey, SecretKey
from meshnet.control.client import ControlClient
from meshnet.control.server import LONGEST_SOCKET_PATH
from meshnet.errors import MeshError, UnreachableError
from meshnet.node.identity import write_key
from meshnet.storage.disk import RealDisk

START_SECONDS = 20.0
DROPINS = Path(__file__).resolve().parent / "dropins"
Sections = Mapping[str, Any]


@frozen
class Plan:
    """A node before it runs: its config, and where it will be found."""

    name: str
    role: str
    secret: SecretKey
    folder: Path
    socket: Path
    link: str
    metrics: str
    peers: tuple[tuple[PublicKey, str], ...] = ()
    more: Sections = field(factory=dict)

    @property
    def public(self) -> PublicKey:
        """The node's key."""
        return self.secret.public

    def write(self) -> Path:
        """Writes the key (0600) and the config file; returns the latter's path."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_key(RealDisk(), self.folder / "key", self.secret)
        sections: dict[str, Any] = {
            "node": {"name": self.name, "network": 77, "key": "key", "data": "data"},
            "link": {
                "listen": [self.link],
                "peer": [{"key": key.hex(), "address": address} for key, address in self.peers],
            },
            "relay": {"enabled": self.role == "relay"},
            "metrics": {"listen": self.metrics},
            "control": {"socket": str(self.socket)},
        }
        for name, values in self.more.items():
            sections[name] = {**sections.get(name, {}), **values} if isinstance(values, Mapping) else values
        config = self.folder / "node.toml"
        config.write_text(toml(sections))
        return config


def toml(sections: Sections) -> str:
    """Sections as TOML: tables of plain values and lists; lists of tables become [[…]]."""
    lines: list[str] = []
    for name, values in sections.items():
        if isinstance(values, Mapping):
            _table(lines, f"[{name}]", name, values)
        else:
            for each in values:
                _table(lines, f"[[{name}]]", name, each)
    return "\n".join(lines) + "\n"


def _table(lines: list[str], head: str, name: str, values: Sections) -> None:
    nested = {key: value for key, value in values.items() if _is_tables(value)}
    lines.append(head)
    lines += [f"{key} = {_value(value)}" for key, value in values.items() if key not in nested]
    lines.append("")
    for key, tables in nested.items():
        for each in tables:
            _table(lines, f"[[{name}.{key}]]", f"{name}.{key}", each)


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, Mapping) for each in value)


def _value(value: object) -> str:
    """TOML writes texts, numbers, booleans and lists of them as JSON does."""
    return json.dumps(value, ensure_ascii=False)


def chain(folder: Path, names: dict[str, str], more: Mapping[str, Sections] | None = None) -> list[Plan]:
    """Plans of nodes in a row, name → role; each dials the next one. `more` are sections by name."""
    ports = iter(free_ports(2 * len(names)))
    plans: list[Plan] = []
    for name, role in reversed(names.items()):
        peers = ((plans[-1].public, plans[-1].link),) if plans else ()
        home = folder / name
        plans.append(
            Plan(
                name,
                role,
                SecretKey.generate(),
                home,
                control_socket(home),
                link=f"tcp:127.0.0.1:{next(ports)}",
                metrics=f"127.0.0.1:{next(ports)}",
                peers=peers,
                more=(more or {}).get(name, {}),
            )
        )
    plans.reverse()
    return plans


def star(folder: Path, names: Sequence[str], more: Mapping[str, Sections] | None = None) -> list[Plan]:
    """Plans of a relay, the first of `names`, and of users who dial it."""
    first, *others = names
    centre = chain(folder, {first: "relay"}, more)[0]
    peers = ((centre.public, centre.link),)
    users = [chain(folder, {name: "user"}, more)[0] for name in others]
    return [centre, *(evolve(user, peers=peers) for user in users)]


def control_socket(home: Path) -> Path:
    """In the node's folder, or where its path would be too long for a socket, in a temporary one."""
    path = home.absolute() / "control.sock"
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
        return path
    return Path(tempfile.mkdtemp(prefix="meshnet-")) / "control.sock"


@define(eq=False)
class Node:
    """A running node."""

    plan: Plan
    process: Process

    @property
    def name(self) -> str:
        """Its name."""
        return self.plan.name

    def call(self, method: str, path: str, body: dict[str, Any] | None = None, timeout: float = 60.0) -> Any:
        """A call of its control API; raises MeshError."""
        return ControlClient(self.plan.socket, timeout).call(method, path, body)

    def metrics(self) -> str:
        """What it tells Prometheus."""
        with urlopen(f"http://{self.plan.metrics}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    def links_up(self) -> int:
        """How many neighbours it is linked to; -1 while it does not answer."""
        try:
            return sum(1 for link in self.call("GET", "/links")["links"] if link["up"])
        except MeshError:
            if not self.process.running:
                raise UnreachableError(f"{self.name} has ended:\n{self.process.tail()}") from None
            return -1

    def wait_for_links(self, count: int) -> None:
        """Waits until it answers and has so many links; raises MeshError with the end of its log."""
        self.process.wait_for(lambda: self.links_up() >= count, START_SECONDS, f"{count} links")


def crowd(processes: Processes, plans: Sequence[Plan], seconds: float = 2 * START_SECONDS) -> Process:
    """Nodes that share a process, written and started (`lab.crowd`); raises MeshError with its log."""
    configs = [str(plan.write()) for plan in plans]
    process = processes.start("crowd", python("-m", "lab.crowd", *configs), plans[0].folder / "log")
    process.wait_for(lambda: "stand" in process.tail(1_000).splitlines(), seconds, "all of its nodes")
    return process


def command(plan: Plan, profile: Path | None = None) -> list[str]:
    """What runs a planned node; with `profile` it writes one into that folder when it ends."""
    config = plan.folder / "node.toml"
    watched = profile / f"{plan.name}.pstats" if profile else None
    return python("-m", "meshnet.cli.main", "up", "--config", str(config), profile=watched)


def launch(processes: Processes, plan: Plan, profile: Path | None = None, probe: bool = False) -> Process:
    """A process for a planned node whose files are written; it may not stand yet."""
    path = DROPINS if probe else None
    return processes.start(plan.name, command(plan, profile), plan.folder / "log", path)


@define(eq=False)
class Network:
    """Nodes in a row, started and linked."""

    nodes: list[Node]

    @classmethod
    def start(
        cls, processes: Processes, plans: Sequence[Plan], profile: Path | None = None, probe: bool = False
    ) -> Self:
        """Starts the nodes and waits for their links; raises MeshError with the log of who did not come up.

        With `profile`, each writes one into that folder when it ends; with `probe` they load the lab's app.
        """
        nodes = []
        for plan in reversed(plans):  # who is dialled first, so that nobody has to dial twice
            plan.write()
            nodes.append(Node(plan, launch(processes, plan, profile, probe)))
            nodes[-1].wait_for_links(0)
        nodes.reverse()
        for place, node in enumerate(nodes):
            node.wait_for_links(len(nodes[max(0, place - 1) : place + 2]) - 1)
        return cls(nodes)

    def restart(self, processes: Processes, name: str) -> None:
        """Starts a node again that has ended, and waits until it has its links; raises MeshError."""
        node = self[name]
        node.process = launch(processes, node.plan)
        place = self.nodes.index(node)
        node.wait_for_links(len(self.nodes[max(0, place - 1) : place + 2]) - 1)

    def __getitem__(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)
