"""A demonstration of a network that knows itself: twelve nodes join by one invite each, and ways are found.

              ┌─ de1 ─┬─ jp1 ─┐
    fetch ─ alice     ╳      bob ─ a web server          us1 fr1 kr1 sg1 ch1 nl1: elsewhere
              ├─ de2 ─┴─ jp2 ─┘
              └─ jp2: the short way, through one country only          mallory: lies about her links

jp1 begins a network; each of the twelve others is given one word by a node that is there, makes itself of it
by `meshnet join`, and knows the network soon after. alice asks for a way through Germany, then Japan, of
three hops at most; `why` says what became of the others. The relay she uses is killed, and the next fetch
goes another way. mallory states fast links to everybody: what nobody else states is marked, and no way trusts
it. All are real processes on loopback. `once` checks every step; `watch` shows them until Ctrl-C.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import define, field, frozen

from lab.demos.multihop import say
from lab.demos.origin import digest
from lab.nodes import Node, Plan
from lab.processes import Processes, environment, free_ports, python
from lab.socks import get
from meshnet.errors import MeshError, TimedOutError, UsageError
from meshnet.node.identity import read_key
from meshnet.storage.disk import RealDisk

POLICY: Final = "countries DE>JP; max_hops 3"
PORT: Final = 80
SIZE: Final = 1 << 20
PATIENCE: Final = 20.0
LIE: Final = "states links that their other ends do not"
STEPS: Final = (
    *(
        "joined",
        "learned",
        "policy_kept",
        "fetched",
        "rejected_named",
        "other_way",
        "liar_marked",
        "liar_avoided",
    ),
)


@frozen
class Guest:
    """A node to be: who invites it, and how many peers the invite may name. Nobody: the founder."""

    name: str
    country: str
    by: str = ""
    peers: int = 1
    relay: bool = True


FOUNDER: Final = Guest("jp1", "JP")
WAVES: Final[tuple[tuple[Guest, ...], ...]] = (
    (Guest("jp2", "JP", "jp1"), Guest("us1", "US", "jp1")),
    (
        *(Guest("de1", "DE", "jp2", 2), Guest("bob", "JP", "jp2", 2, relay=False)),
        *(Guest("kr1", "KR", "us1"), Guest("fr1", "FR", "us1")),
    ),
    (Guest("de2", "DE", "de1", 3), Guest("sg1", "SG", "kr1", 2), Guest("nl1", "NL", "fr1", 2)),
    (
        *(Guest("alice", "CH", "de2", 3, relay=False), Guest("ch1", "CH", "nl1", 2)),
        Guest("mallory", "DE", "nl1", 2),
    ),
)
"""Who joins when: an invite can be given only by who is there."""
GUESTS: Final = [guest for wave in WAVES for guest in wave]


def plans(folder: Path) -> list[Plan]:
    """Nothing to keep: these nodes are made by the command, one after the other."""
    raise UsageError(
        "This demonstration keeps nothing; `meshnet invite` and `meshnet join` make such a network."
    )


@define(eq=False)
class Stage:
    """The running nodes, the web server, and what was seen."""

    processes: Processes
    folder: Path
    nodes: dict[str, Node] = field(factory=dict)
    invites: dict[str, str] = field(factory=dict)
    forward: tuple[str, int] = ("", 0)
    report: dict[str, Any] = field(factory=dict)

    def named(self, keys: Sequence[str]) -> list[str]:
        """Keys as names."""
        names = {node.plan.public.hex(): name for name, node in self.nodes.items()}
        return [names.get(key, key[:8]) for key in keys]

    def command(self, *words: str, node: str | None = None) -> Any:
        """What a verb of `meshnet` answers in JSON; raises MeshError."""
        at = ["--node", str(self.folder / node)] if node else []
        return answer(run_verb([*words, "--json", *at]), words[0])


def run_verb(words: Sequence[str]) -> subprocess.Popen[str]:
    """Starts `meshnet …`."""
    command = python("-m", "meshnet.cli.main", *words)
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment())


def answer(running: subprocess.Popen[str], what: str) -> Any:
    """Its JSON; raises MeshError with its sentence."""
    out, err = running.communicate(timeout=PATIENCE)
    if running.returncode:
        raise MeshError(f"meshnet {what} failed: {err.strip()}")
    return json.loads(out)


def until(holds: Callable[[], bool], what: str, seconds: float = PATIENCE) -> float:
    """Waits, and returns for how long; raises TimedOutError."""
    begun = time.monotonic()
    while not holds():
        if time.monotonic() - begun > seconds:
            raise TimedOutError(f"no sign of {what} in {seconds:g} s")
        time.sleep(0.05)
    return round(time.monotonic() - begun, 2)


# growing


@contextlib.contextmanager
def stage(told: Callable[[str], None]) -> Iterator[Stage]:
    """Lets the network grow; on leaving, all of it ends and its folder is gone."""
    with tempfile.TemporaryDirectory(prefix="meshnet-") as name, Processes() as processes:
        it = Stage(processes, Path(name))
        told("jp1 begins a network, of its own invention")
        grow(it, [FOUNDER])
        for wave in WAVES:
            told(f"{', '.join(f'{guest.name} (by {guest.by})' for guest in wave)} join")
            grow(it, wave)
        serve(it)
        yield it


def grow(it: Stage, guests: Sequence[Guest]) -> None:
    """Makes and starts nodes, all at once; raises MeshError."""
    made = []
    for guest, port in zip(guests, free_ports(len(guests)), strict=True):
        options = ["--name", guest.name, "--listen", f"tcp:127.0.0.1:{port}"]
        options += ["--relay"] if guest.relay else []
        home = str(it.folder / guest.name)
        if guest.by:
            invite = it.nodes[guest.by].call("POST", "/invite", {"peers": guest.peers})["invite"]
            it.invites[guest.name] = invite
            made.append(run_verb(["join", invite, home, *options, "--json"]))
        else:
            made.append(run_verb(["init", home, "--network", "77", *options, "--json"]))
    for guest, running in zip(guests, made, strict=True):
        answer(running, "join" if guest.by else "init")
        it.nodes[guest.name] = start(it, guest)
    for guest in guests:
        it.nodes[guest.name].wait_for_links(guest.peers if guest.by else 0)


def start(it: Stage, guest: Guest) -> Node:
    """A process for a node that was made; its operator says in which country it stands."""
    home = it.folder / guest.name
    config = home / "node.toml"
    with config.open("a") as file:
        file.write(f'\n[topology]\ncountry = "{guest.country}"\n')
    secret = read_key(RealDisk(), home / "key")
    plan = Plan(guest.name, "", secret, home, home / "data" / "control.sock", link="", metrics="")
    module = "lab.liar" if guest.name == "mallory" else "meshnet.cli.main"
    command = python("-m", module, "up", "--config", str(config))
    return Node(plan, it.processes.start(guest.name, command, home / "log"))


def serve(it: Stage) -> None:
    """A web server behind bob, and alice's forward to it, under the policy."""
    server = it.processes.start(
        "web server", python("-m", "lab.demos.origin", "--only", "127.0.0.1"), it.folder / "server.log"
    )
    server.wait_for(lambda: "port" in server.tail(), PATIENCE, "its port")
    found = re.search(r"port (\d+)", server.tail())
    assert found is not None
    it.command("serve", str(PORT), f"127.0.0.1:{found[1]}", node="bob")
    bob = it.nodes["bob"].plan.public.hex()
    made = it.command("forward", "127.0.0.1:0", f"{bob}:{PORT}", "--policy", POLICY, node="alice")
    host, _, port = made["listen"].rpartition(":")
    it.forward = (host, int(port))


# the steps


def once() -> dict[str, Any]:
    """The whole thing with its checks; `ok` is true only if each holds. Raises MeshError."""
    begun = time.monotonic()
    with stage(lambda words: say(f"{words} …")) as it:
        run(it, lambda words: say(f"{words} …"))
        report = it.report
    report["seconds"] = round(time.monotonic() - begun, 2)
    return {"ok": all(report[step] is True for step in STEPS), **report}


def run(it: Stage, told: Callable[[str], None]) -> None:
    """All steps, each with its result in the report; `told` hears of each before."""
    report = it.report
    report["nodes"], report["policy"] = len(it.nodes), POLICY
    report["joined"] = len(it.invites) == len(GUESTS) == 12
    told("waiting until everybody knows everybody")
    report["learned_seconds"] = until(lambda: all(knows_all(node) for node in it.nodes.values()), "all nodes")
    report["learned"] = True
    liar(it, told)
    told(f"asking for ways: {POLICY}")
    ways(it)
    told("fetching along such a way")
    route, fetched = fetch(it)
    report["route"], report["fetched"] = route, fetched
    report["policy_kept"] = keeps(route)
    told(f"killing {route[0]}, and fetching again")
    it.nodes[route[0]].process.kill()
    begun = time.monotonic()
    again, fetched = fetch(it, without=route[0])
    report["route_after"], report["seconds_to_go_on"] = again, round(time.monotonic() - begun, 2)
    report["other_way"] = fetched and keeps(again) and route[0] not in again


def knows_all(node: Node) -> bool:
    """Whether a node's map has all of them, as connected."""
    return len(node.call("GET", "/topology")["nodes"]) == 1 + len(GUESTS)


def liar(it: Stage, told: Callable[[str], None]) -> None:
    """Whether everybody honest has marked who lies, and nobody else, and no way is wider for the lie."""
    told("waiting for mallory's lies to be seen")
    honest = [node for name, node in it.nodes.items() if name != "mallory"]
    it.report["marked_seconds"] = until(lambda: all(marked(it, node) for node in honest), "the mark")
    it.report["liar_marked"] = all(marked(it, node) == ["mallory"] for node in honest)
    until(lambda: links_of_liar(it) == ["fr1", "nl1"], "her two links, and no more")
    it.report["liar_links"] = links_of_liar(it)
    it.report["liar_avoided"] = it.report["liar_links"] == ["fr1", "nl1"]


def links_of_liar(it: Stage) -> list[str]:
    """Whom mallory is linked with, as alice has it."""
    links = it.nodes["alice"].call("GET", "/topology")["links"]
    ends = [set(it.named(link["ends"])) for link in links]
    return sorted("".join(each - {"mallory"}) for each in ends if "mallory" in each)


def marked(it: Stage, node: Node) -> list[str]:
    """Whom a node distrusts for links that are stated by one end alone."""
    nodes = node.call("GET", "/topology")["nodes"]
    return it.named([each["key"] for each in nodes if LIE in each["marks"]])


def ways(it: Stage) -> None:
    """What `why` says: the ways taken keep the policy, and those that were not have their reasons."""
    bob = it.nodes["bob"].plan.public.hex()
    told = it.command("why", bob, "--policy", POLICY, node="alice")
    rejected = [{"relays": it.named(way["relays"]), "reason": way["reason"]} for way in told["rejected"]]
    it.report["ways"] = [it.named(way["relays"]) for way in told["ways"]]
    it.report["rejected"] = rejected
    it.report["rejected_named"] = bool(rejected) and all(way["reason"] for way in rejected)
    it.report["liar_avoided"] &= all("mallory" not in way for way in it.report["ways"])


def keeps(route: Sequence[str]) -> bool:
    """Whether these relays are one in Germany, then one in Japan."""
    return len(route) == 2 and route[0] in ("de1", "de2") and route[1] in ("jp1", "jp2")


def fetch(it: Stage, without: str = "") -> tuple[list[str], bool]:
    """A download by alice's forward, tried until it comes: the relays of its circuit; whether it is whole."""
    host, port = it.forward
    limit = time.monotonic() + PATIENCE
    while True:
        try:
            fetched = get((host, port, f"/{SIZE}"), timeout=PATIENCE)
        except MeshError as error:
            it.report["meanwhile"] = str(error)
            if time.monotonic() > limit:
                raise
            time.sleep(0.2)
            continue
        routes = [relays(it, each) for each in it.nodes["alice"].call("GET", "/circuits")["circuits"]]
        route = next((each for each in routes if each and without not in each), [])
        return route, fetched.sha256 == digest(SIZE)


def relays(it: Stage, circuit: dict[str, Any]) -> list[str]:
    """The relays of a circuit of alice's that leads to bob and is open; else nothing."""
    route = it.named(circuit.get("route", ()))
    return route[:-1] if route[-1:] == ["bob"] and circuit["state"] == "open" else []


def told(report: dict[str, Any]) -> str:
    """The report for a person."""
    lines = [f"{step.replace('_', ' '):16} {'yes' if report[step] else 'NO'}" for step in STEPS]
    lines.append(f"{'the way':16} alice → {' → '.join(report['route'])} → bob")
    lines.append(f"{'after the kill':16} alice → {' → '.join(report['route_after'])} → bob")
    for way in report["rejected"]:
        lines.append(f"{'not taken':16} {' → '.join(way['relays']) or 'direct'}: {way['reason']}")
    lines.append(f"{'all checks hold' if report['ok'] else 'A CHECK FAILED'} ({report['seconds']} s)")
    return "\n".join(lines)


def watch() -> None:
    """The steps, then the map of the network until Ctrl-C; then everything ends."""

    def aloud(words: str) -> None:
        print(f"{words} …", flush=True)

    begun = time.monotonic()
    with stage(aloud) as it:
        run(it, aloud)
        seconds = round(time.monotonic() - begun, 2)
        print(told({"ok": all(it.report[step] is True for step in STEPS), "seconds": seconds, **it.report}))
        print(f"A person may go on, for instance: ./mesh map --node {it.folder / 'alice'}; Ctrl-C ends it.")
        while True:
            time.sleep(1.0)
