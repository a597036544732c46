"""The VPN in network namespaces (root): three hops to the old internet, and nothing beside them.

    client ── r1 ── r2 ── exit ── web        real nodes on all but web, which knows of no mesh

`client` is told `meshnet vpn up --exit exit --via r1,r2 --killswitch`. Then iperf3, ping, DNS and a page go
through it in both families, while captures look on: web sees the exit's address only, r1 and r2 see nothing
that could be read. The exit is killed; the kill switch must let not one packet out but the link's own. The
client's node is killed too, and nothing at all leaves. `vpn down` puts everything back as it was.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from attrs import define, field

from lab.capture import Capture, Seen
from lab.demos.oldnet import PAGE
from lab.hosted import PORT, Hosted
from lab.namespaces import CommandError, Host, Hosts, refusal, require
from lab.nodes import Plan, Sections
from lab.processes import Process, Processes, python
from lab.shapes import Cable, Place, Shape
from lab.traffic import Echoes, Server, ping, tcp
from meshnet.errors import MeshError, MissingDependencyError, TimedOutError, UsageError

NAMES: Final = ("client", "r1", "r2", "exit")
NAME: Final = "page.example"
WEB4: Final = "198.51.100.10"
WEB6: Final = "2001:db8:10::10"
PROGRAMS: Final = ("ip", "nft", "ping", "iperf3", "dig", "curl")
SECONDS: Final = 2
"""Of iperf3."""
SILENCE: Final = 3.0
"""Seconds for which the captures look on after the exit is gone."""


def plans(folder: Path) -> list[Plan]:
    """Kept labs are another verb's business."""
    raise UsageError("This demonstration keeps nothing; for hosts that stay there is ./mesh lab.")


@define(eq=False)
class Stage:
    """What stands: hosts, nodes, the old internet."""

    hosts: Hosts
    lab: Hosted
    web: Host
    processes: Processes
    server: Process
    iperf: Server
    log: Path
    checks: dict[str, bool] = field(factory=dict)

    @property
    def client(self) -> Host:
        """Whose packets they are."""
        return self.hosts["client"]

    def check(self, name: str, holds: bool) -> bool:
        """Notes the outcome of a step."""
        self.checks[name] = bool(holds)
        say(f"  {name}: {'yes' if holds else 'NO'}")
        return bool(holds)

    def vpn(self, *words: str) -> dict[str, Any]:
        """`meshnet vpn …` at the client."""
        return dict(json.loads(self.lab.meshnet("client", "vpn", *words, "--json")))

    def tries(self, *words: str, seconds: float = 10.0) -> str:
        """What a program at the client prints; empty if it fails."""
        try:
            return self.client.run(*words, seconds=seconds)
        except (CommandError, TimedOutError):
            return ""

    def asked(self, kind: str) -> set[str]:
        """Who has asked the old internet for that, by its own account."""
        lines = (line.split() for line in self.server.log.read_text().splitlines())
        return {words[1] for words in lines if words[:1] == [kind]}

    def system(self) -> dict[str, str]:
        """All of the client's system that a VPN may change."""
        looks = {
            "addresses": ("ip", "-o", "addr"),
            "routes": ("ip", "route", "show", "table", "all"),
            "routes6": ("ip", "-6", "route", "show", "table", "all"),
            "rules": ("ip", "rule"),
            "rules6": ("ip", "-6", "rule"),
            "nftables": ("nft", "list", "ruleset"),
            "resolv.conf": ("cat", "/etc/resolv.conf"),
            "sysctls": ("cat", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv4/conf/all/rp_filter"),
        }
        return {name: self.client.run(*words) for name, words in looks.items()}


def say(text: str) -> None:
    """Progress, when a person watches."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)


def _sections(place: Place) -> Sections:
    if place.name != "exit":
        return {}
    allow = ["public", f"{WEB4}/32", f"{WEB6}/128"]  # the addresses of examples are nobody's, so not public
    return {"exit": {"enabled": True, "packets": True, "allow": allow, "dns": [WEB4]}}


def row() -> Shape:
    """The hosts that have nodes."""
    places = {name: Place(name, relay=name in NAMES[1:3]) for name in NAMES}
    return Shape(places, tuple(Cable(pair) for pair in pairwise(NAMES)))


@contextlib.contextmanager
def stage(shape: Shape) -> Iterator[Stage]:
    """Nodes in this shape, and web behind the one called exit; on leaving, all of it is gone."""
    why = refusal()
    if why:
        raise MissingDependencyError(why)
    require(*PROGRAMS)
    with (
        tempfile.TemporaryDirectory(prefix="meshlab-") as name,
        Hosts() as hosts,
        Processes() as processes,
    ):
        folder = Path(name)
        lab = Hosted.build(shape, hosts, folder, _sections)
        web = _old_internet(hosts)
        addresses = [word for address in (WEB4, WEB6) for word in ("--address", address)]
        words = python("-m", "lab.demos.oldnet", "--name", NAME, *addresses)
        server = web.start(processes, "web", words, folder / "web.log")
        say(f"starting {len(lab.plans)} nodes and a piece of the old internet …")
        lab.start(processes)
        server.wait_for(lambda: "ready" in server.tail(), 10.0, "its word")
        iperf = Server.start(processes, web, WEB4, folder / "iperf3.log")
        yield Stage(hosts, lab, web, processes, server, iperf, folder)


def _old_internet(hosts: Hosts) -> Host:
    """A host behind the exit, which is its only neighbour and to which alone it knows the way."""
    web, way_out, client, first = hosts.add("web"), hosts["exit"], hosts["client"], hosts["r1"]
    hosts.cable(way_out, web)
    web.configure(f"addr add {WEB4}/32 dev lo", f"addr add {WEB6}/128 dev lo")
    end = way_out.towards(web)
    way_out.configure(f"route add default via {end.far4}", f"route add default via {end.far6}")
    # The client's old way out: a neighbour that passes nothing on, as far as this mesh knows.
    end = client.towards(first)
    client.configure(f"route add default via {end.far4}", f"route add default via {end.far6}")
    client.resolve_by(str(end.far4))
    return web


def once() -> dict[str, Any]:
    """The whole thing with its checks; `ok` is true only if each holds. Raises MeshError."""
    begun = time.monotonic()
    with stage(row()) as it:
        before = it.system()
        it.check("unreachable_before", not it.tries("curl", "-sm2", f"http://{WEB4}/"))
        say("bringing the VPN up over three hops …")
        tunnel = it.vpn("up", "--exit", "exit", "--via", "r1,r2", "--killswitch")["tunnel"]
        it.check("up", tunnel["state"] == "up")
        used = _use(it)
        status = it.vpn("status")
        hops = [hop.get("rtt_ms") for hop in status["hops"] or ()]
        it.check("three_hops", len(hops) == 3 and None not in hops)
        kill_switch = _kill_switch(it)
        say("bringing it down …")
        it.check("down", it.vpn("down")["down"])
        _as_before(it, before)
    report = {
        "ok": all(it.checks.values()),
        "seconds": round(time.monotonic() - begun, 2),
        "lease": tunnel.get("lease"),
        "hops": hops,
        **used,
        **kill_switch,
        "checks": it.checks,
    }
    return report


def _use(it: Stage) -> dict[str, Any]:
    """What people do, while captures look on."""
    relays = [it.hosts[name] for name in ("r1", "r2")]
    with contextlib.ExitStack() as looking:
        captures = [looking.enter_context(Capture(relay, snap=1 << 16)) for relay in relays]
        at_web = looking.enter_context(Capture(it.web, it.web.towards(it.hosts["exit"]).name))
        say("ping, DNS and a page through it …")
        echoes = {address: ping(it.client, address, 20) for address in (WEB4, WEB6)}
        found = it.tries("dig", "+short", "+tries=1", NAME).split()
        found6 = it.tries("dig", "+short", "+tries=1", NAME, "AAAA").split()
        pages = [it.tries("curl", "-sm10", way, f"http://{NAME}/").encode() for way in ("-4", "-6")]
    exits = {str(end) for end in _addresses(it.hosts["exit"], it.web)}
    sources = {seen.ends.source for seen in at_web.whole() if seen.ends and not seen.outgoing}
    it.check("ping", all(each.times and each.lost <= 1 for each in echoes.values()))
    it.check("names", found == [WEB4] and found6 == [WEB6])
    it.check("page", pages == [PAGE, PAGE])
    it.check("web_sees_the_exit_only", it.asked("page") == exits and sources - _neighbours(sources) <= exits)
    passed = [sum(len(seen.data) for seen in capture.packets) for capture in captures]
    clear = [_reads(capture.whole()) for capture in captures]
    it.check("relays_carry_it_and_read_nothing", all(size > 10_000 for size in passed) and not any(clear))
    say("iperf3 through it …")
    flow = tcp(it.client, it.iperf, SECONDS)
    it.check("iperf3", flow.mbps > 0)
    return {
        "ping_ms": {address: _median(each) for address, each in echoes.items()},
        "tcp_mbps": round(flow.mbps, 1),
    }


def _addresses(host: Host, other: Host) -> tuple[object, object]:
    end = host.towards(other)
    return end.own4, end.own6


def _neighbours(sources: set[str]) -> set[str]:
    """Link-local addresses: neighbour discovery, which comes from no further than the cable."""
    return {source for source in sources if source.startswith("fe80:") or source == "::"}


def _median(echoes: Echoes) -> float | None:
    return sorted(echoes.times)[len(echoes.times) // 2] if echoes.times else None


def _reads(packets: Sequence[Seen]) -> bool:
    """Whether anything of ours stands in these packets as it was said."""
    words = (PAGE.strip(), NAME.partition(".")[0].encode() + b"\x07example", b"GET / HTTP")
    return any(word in seen.data for seen in packets for word in words)


def foreign(it: Stage, packets: Iterable[Seen]) -> list[Seen]:
    """Which of them left the client by a cable and are not of a link of its node, nor neighbour discovery."""
    links = {(end.name, str(end.own4), str(end.far4), 6, PORT) for end in it.client.cables.values()}
    cables = {end.name for end in it.client.cables.values()}

    def is_link(seen: Seen) -> bool:
        ends = seen.ends
        link = ends and (seen.interface, ends.source, ends.target, ends.protocol, ends.dport)
        return link in links

    return [seen for seen in packets if seen.interface in cables and seen.leaves and not is_link(seen)]


def _programs(it: Stage) -> None:
    """Programs that know nothing of it, all at once: each tries to get out in its own way."""
    cable = it.client.towards(it.hosts["r1"])
    tries = [
        ("ping", "-n", "-c", "3", "-i", "0.3", "-W", "1", WEB4),
        ("ping", "-n", "-c", "3", "-i", "0.3", "-W", "1", WEB6),
        ("ping", "-n", "-c", "2", "-W", "1", str(cable.far4)),
        ("dig", "+tries=2", "+time=1", NAME),
        ("dig", "+tries=1", "+time=1", f"@{cable.far4}", NAME),
        # Bound to the cable: no route leads these into the tunnel.
        ("ping", "-n", "-c", "2", "-W", "1", "-I", cable.name, WEB4),
        ("curl", "-sm3", "--interface", cable.name, f"http://{WEB4}/"),
        ("curl", "-sm3", f"http://{WEB4}/"),
        ("curl", "-sm3", "-g", f"http://[{WEB6}]/"),
        ("curl", "-sm3", f"http://{NAME}/"),
    ]
    running = [
        subprocess.Popen(it.client.command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        for words in tries
    ]
    for each in running:
        each.wait()


def _kill_switch(it: Stage) -> dict[str, Any]:
    """Kills the exit, then the client's own node, and looks what leaves."""
    say("killing the exit …")
    with Capture(it.client, it.client.towards(it.hosts["r1"]).name) as capture:
        it.lab["exit"].process.kill()
        _silence(lambda: _programs(it))
    leaked = foreign(it, capture.whole())
    it.check("kill_switch_exit_dead", not leaked and bool(capture.packets))
    say("killing the client's node as well …")
    with Capture(it.client, it.client.towards(it.hosts["r1"]).name) as capture:
        it.lab["client"].process.kill()
        _silence(lambda: _programs(it))
    leaked_alone = foreign(it, capture.whole())
    it.check("kill_switch_node_dead", not leaked_alone)
    it.lab.launch(it.processes, "client").wait_for_links(1)
    return {"leaked_packets": len(leaked) + len(leaked_alone)}


def _silence(action: Callable[[], None]) -> None:
    """Does it, and lasts at least as long as is looked on."""
    until = time.monotonic() + SILENCE
    action()
    time.sleep(max(0.0, until - time.monotonic()))


def _as_before(it: Stage, before: dict[str, str]) -> None:
    after = it.system()
    for name, text in before.items():
        if after[name] != text:
            say(f"  {name} was\n{text}\n  and is\n{after[name]}")
    it.check("as_before", after == before)


def told(report: dict[str, Any]) -> str:
    """The report for a person."""
    pings = ", ".join(f"{address} {ms} ms" for address, ms in report["ping_ms"].items())
    lines = [
        f"hops        {', '.join(f'{ms:.1f} ms' for ms in report['hops'] if ms)}",
        f"ping        {pings}",
        f"iperf3      {report['tcp_mbps']} Mbit/s through three hops",
        f"leaked      {report['leaked_packets']} packets while the exit and then the node were dead",
    ]
    for name, holds in report["checks"].items():
        lines.append(f"{'yes' if holds else 'NO':<11} {name.replace('_', ' ')}")
    lines.append(f"{'all checks hold' if report['ok'] else 'A CHECK FAILED'} ({report['seconds']} s)")
    return "\n".join(lines)


def watch() -> None:
    """The VPN up, its status every second, and how to get into the hosts, until Ctrl-C."""
    with stage(row()) as it:
        it.vpn("up", "--exit", "exit", "--via", "r1,r2", "--killswitch")
        shell = f"ip netns exec {it.client.space} {it.lab.folder}/bin/shell client"
        clear = "\x1b[H\x1b[2J" if sys.stdout.isatty() else ""
        while True:
            with contextlib.suppress(MeshError):
                status = it.lab.meshnet("client", "vpn", "status", "--no-trace")
                print(f"{clear}{status}\nat the client: sudo {shell}")
                print(f"there: ping {WEB4}, curl http://{NAME}/\nCtrl-C ends it.", flush=True)
            time.sleep(1.0 if clear else 10.0)
