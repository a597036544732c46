"""Real nodes in the hosts of a shape: a process in each, linked to its neighbours, knowing all by name.

Cables, keys, configs and processes come from the shape alone. A node listens on its host's cables and dials
the neighbours that the shape names second; `[[known]]` has every other node, `[[route]]` the shortest way to
each that is within reach. Control sockets lie in the file system, which all hosts share; what listens on an
address is reached from its own host only (`Host.inside`).
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Self

from attrs import define, field

from lab.impair import drop
from lab.namespaces import Host, Hosts
from lab.nodes import Node, Plan, Sections, command, control_socket
from lab.processes import ROOT, Processes, environment
from lab.shapes import Place, Shape
from meshnet import limits
from meshnet.cipher.keys import SecretKey
from meshnet.errors import UsageError

PORT: Final = 7_001
METRICS: Final = "127.0.0.1:9100"
More = Callable[[Place], Sections]


@define(eq=False)
class Hosted:
    """All of it; `nodes` are filled by `start`."""

    shape: Shape
    hosts: Mapping[str, Host]
    folder: Path
    plans: dict[str, Plan]
    nodes: dict[str, Node] = field(factory=dict)

    @classmethod
    def build(cls, shape: Shape, hosts: Hosts, folder: Path, more: More = lambda place: {}) -> Self:
        """Hosts with their cables, and plans of their nodes as `plan` makes them. Raises UsageError."""
        for name in shape.hosts:
            hosts.add(name)
        for cable in shape.cables:
            one, other = (hosts[name] for name in cable.between)
            hosts.cable(one, other, cable.mtu)
            if cable.loss:
                drop(one, cable.loss, one.towards(other).name)
                drop(other, cable.loss, other.towards(one).name)
        return cls.plan(shape, hosts.all, folder, more)

    @classmethod
    def plan(
        cls, shape: Shape, hosts: Mapping[str, Host], folder: Path, more: More = lambda place: {}
    ) -> Self:
        """Plans, written, of nodes in hosts that have this shape already; `more` are sections for a node
        beside those of its place. No process runs yet. Raises UsageError."""
        secrets = {name: SecretKey.generate() for name in shape.hosts}
        plans = {
            name: _plan(shape, hosts[name], folder / name, secrets, more(place))
            for name, place in shape.hosts.items()
        }
        for plan in plans.values():
            plan.write()
        _write_commands(folder)
        return cls(shape, hosts, folder, plans)

    def start(self, processes: Processes, profile: Path | None = None) -> None:
        """Starts every node and waits for its links; raises MeshError with the log of who did not come up."""
        for name in self.plans:
            self.launch(processes, name, profile)
        for name, neighbours in self.shape.neighbours().items():
            self.nodes[name].wait_for_links(len(neighbours))

    def launch(self, processes: Processes, name: str, profile: Path | None = None) -> Node:
        """Starts one node, or starts it again; it may not stand yet."""
        plan = self.plans[name]
        words = command(plan, profile)
        process = self.hosts[name].start(processes, name, words, plan.folder / "log")
        if name in self.nodes:
            self.nodes[name].process = process
        else:
            self.nodes[name] = Node(plan, process)
        return self.nodes[name]

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    def metrics(self, name: str) -> str:
        """What a node tells Prometheus, asked in its host."""
        return self.hosts[name].inside(self.nodes[name].metrics)

    def meshnet(self, name: str, *words: str, seconds: float = 60.0) -> str:
        """Runs `meshnet …` in a host, for its node; what it printed. Raises MeshError."""
        verb, *rest = words
        node = ["--node", str(self.plans[name].folder)]
        return self.hosts[name].run(*_program(), verb, *rest, *node, seconds=seconds)

    def surroundings(self, name: str) -> Mapping[str, str]:
        """Environment of programs in this host: `meshnet` is on their path and finds the host's node."""
        path = os.pathsep.join([str(self.folder / "bin"), os.environ.get("PATH", os.defpath), "/usr/sbin"])
        return {**environment(), "PATH": path, "MESHNET_CONTROL": str(self.plans[name].socket)}

    def rows(self) -> list[dict[str, Any]]:
        """A row for each host, as JSON has it."""
        return [_row(self.hosts[name], plan, self.nodes.get(name)) for name, plan in self.plans.items()]


def _plan(shape: Shape, host: Host, home: Path, secrets: Mapping[str, SecretKey], more: Sections) -> Plan:
    place = shape.hosts[host.name]
    dialled = [cable.between[1] for cable in shape.cables if cable.between[0] == host.name]
    peers = tuple((secrets[name].public, f"tcp:{host.cables[name].far4}:{PORT}") for name in dialled)
    known = [{"name": name, "key": key.public.hex()} for name, key in secrets.items() if name != host.name]
    within = {name: via for name, via in shape.routes(host.name).items() if 0 < len(via) < limits.HOPS}
    routes = [{"to": name, "via": list(via)} for name, via in within.items()]
    role = "relay" if place.relay else "user"
    sections: dict[str, Any] = {"known": known, "route": routes}
    for given in (more, place.config):
        for name, values in given.items():
            both = isinstance(values, Mapping) and isinstance(sections.get(name, {}), Mapping)
            sections[name] = {**sections.get(name, {}), **values} if both else values
    if "link" in sections and "peer" in sections["link"]:
        raise UsageError(f"{host.name}: the links of a host are those of the shape, not of its config.")
    return Plan(
        host.name,
        role,
        secrets[host.name],
        home,
        control_socket(home),
        link=f"tcp:0.0.0.0:{PORT}",
        metrics=METRICS,
        peers=peers,
        more=sections,
    )


def _program() -> list[str]:
    return [sys.executable, "-P", "-m", "meshnet.cli.main"]


def _write_commands(folder: Path) -> None:
    """For people and their scripts in the hosts of a lab: `meshnet`, and a shell beside a node's config."""
    path, here = shlex.quote(str(ROOT)), shlex.quote(str(folder))
    run = f'PYTHONPATH={path} exec {shlex.join(_program())} "$@"'
    shell = f'cd {here}/"$1" && PATH={here}/bin:$PATH exec "${{SHELL:-/bin/sh}}"'
    for name, line in (("meshnet", run), ("shell", shell)):
        file = folder / "bin" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/bin/sh\n{line}\n")
        file.chmod(0o755)


def _row(host: Host, plan: Plan, node: Node | None) -> dict[str, Any]:
    return {
        "name": host.name,
        "role": plan.role,
        "pubkey": plan.public.hex(),
        "namespace": host.space,
        "addresses": {other: str(end.own4) for other, end in host.cables.items()},
        "folder": str(plan.folder),
        "control": str(plan.socket),
        "pid": node.process.pid if node else None,
    }
