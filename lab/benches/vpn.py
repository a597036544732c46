"""Bench `vpn`: IP packets from a to b through r, the project beside other overlay networks, in the same run.

Rounds go through all networks in turn, each time beginning with another one; a ratio is taken within a round,
and the row is the median of the rounds. Ratios with a target are against Yggdrasil, under loss against
wireguard-go. Everything stands all the time, in hosts of its own; only what is measured has traffic. Under
loss the cables carry packets of 1,500 bytes, as wires do; otherwise those that the kernel hands over.

With `profile` a network of the project is started once more under the profiler, after all figures were taken.
"""

from __future__ import annotations

import pstats
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Literal, TypeVar

from attrs import define, field, fields, frozen

from lab.benches.contest import NETWORKS, OURS, Round, Stand
from lab.benches.ours import Meshnet
from lab.benches.rows import OTHERS, Options, Row, row_of
from lab.namespaces import refusal, require
from lab.processes import Processes
from lab.traffic import flood, tcp
from meshnet.errors import MissingDependencyError, UsageError

KERNEL: Final = "kernel"
RIVAL: Final = "yggdrasil"
RIVAL_UNDER_LOSS: Final = "wireguard-go"
LOSS: Final = 0.01
RELAYS: Final = 3
Sample = TypeVar("Sample")
FIGURES: Final = {
    "tcp_mbps": ("Mbit/s", "one flow of iperf3"),
    "udp_pps": ("1/s", "delivered, 1,200 B, under flood"),
    "cpu_per_gb": ("s", "CPU of the network's processes on all hosts for a GB over TCP"),
    "rtt_idle_ms": ("ms", "median of the pings of a round, alone"),
    "rtt_loaded_ms": ("ms", "the same beside a TCP flow"),
}


@frozen
class Target:
    """A row of the contest: which figure, what is asked of the ratio, what would be splendid."""

    name: str
    figure: str
    must: float
    stretch: float
    better: Literal["lower", "higher"]


TARGETS: Final = (
    Target("vpn_tcp_ratio", "tcp_mbps", 1.7, 2.5, "higher"),
    Target("vpn_udp_ratio", "udp_pps", 1.8, 3.0, "higher"),
    Target("vpn_cpu_per_gb_ratio", "cpu_per_gb", 0.6, 0.4, "lower"),
    Target("vpn_rtt_idle_ratio", "rtt_idle_ms", 1.2, 0.8, "lower"),
    Target("vpn_rtt_loaded_ratio", "rtt_loaded_ms", 1.0, 0.5, "lower"),
)
OVER_RELAYS: Final = Target("vpn_tcp_3relay_ratio", "tcp_mbps", 1.3, 2.0, "higher")
UNDER_LOSS: Final = Target("vpn_loss1_vs_wireguard_go", "tcp_mbps", 1.0, 2.0, "higher")


@define(eq=False)
class Stage:
    """Where the networks stand."""

    processes: Processes
    folder: Path
    hosts: ExitStack = field(factory=ExitStack)
    _builds: int = 0

    def up(self, names: Sequence[str], relays: int) -> dict[str, Stand]:
        """These networks over so many relays."""
        stands = {}
        for name in names:
            _say(f"starting {name} over {relays} {'relay' if relays == 1 else 'relays'}")
            self._builds += 1
            home = self.folder / f"{self._builds}-{name}"
            stands[name] = Stand.up(name, relays, self.processes, home, self.hosts)
        return stands

    def clear(self) -> None:
        """Ends all that stand."""
        self.processes.stop()
        self.processes.all.clear()
        self.hosts.close()


def run(options: Options) -> list[Row]:
    """The rows with targets, then the figures behind them. Raises MissingDependencyError, UsageError."""
    against = _against(options)
    rounds, seconds = (1, 1) if options.quick else (options.rounds, options.seconds)
    with stage() as it:
        rows = _rounds(it, [OURS, *against, KERNEL], rounds, seconds)
        if RIVAL in against:
            rows += _one_row(it, OVER_RELAYS, RIVAL, rounds, seconds, RELAYS)
        if RIVAL_UNDER_LOSS in against:
            rows += _one_row(it, UNDER_LOSS, RIVAL_UNDER_LOSS, rounds, seconds, 1, LOSS)
        if options.profile:
            _profile(it, seconds)
    for name in {RIVAL, RIVAL_UNDER_LOSS} - {*against}:
        print(f"vpn: without {name} in --against, the rows against it are left out", file=sys.stderr)
    named = [row for row in rows if row.target is not None]
    return [*named, *(row for row in rows if row.target is None)]


def _against(options: Options) -> tuple[str, ...]:
    """The networks asked for, all there and startable."""
    against = options.against or (RIVAL, RIVAL_UNDER_LOSS)
    wrong = [name for name in against if name not in OTHERS]
    if wrong:
        raise UsageError(f"{wrong[0]!r} is no network to be measured; choices: {', '.join(OTHERS)}.")
    programs = [program for name in against for program in NETWORKS[name].programs]
    require("ip", "nft", "iperf3", "ping", *programs)
    why = refusal()
    if why:
        raise MissingDependencyError(why)
    return tuple(dict.fromkeys(against))


@contextmanager
def stage() -> Iterator[Stage]:
    """Everything on it is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="meshlab-") as name, Processes() as processes:
        it = Stage(processes, Path(name))
        try:
            yield it
        finally:
            it.clear()


def in_turn(names: Sequence[str], rounds: int, take: Callable[[str], Sample]) -> dict[str, list[Sample]]:
    """A sample of each name in each round; every round begins one name further."""
    taken: dict[str, list[Sample]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in [*names[first:], *names[:first]]:
            taken[name].append(take(name))
            _say(f"{number + 1} of {rounds}: {name} {taken[name][-1]}")
    return taken


def _rounds(it: Stage, names: Sequence[str], rounds: int, seconds: int) -> list[Row]:
    """All figures over one relay, and the ratios against the rival."""
    stands = it.up(names, 1)
    taken = in_turn(names, rounds, lambda name: stands[name].measure(seconds))
    it.clear()
    rows = []
    for target in TARGETS if RIVAL in taken else ():
        ours, theirs = ([getattr(each, target.figure) for each in taken[name]] for name in (OURS, RIVAL))
        rows.append(ratio(target, ours, theirs, RIVAL, seconds))
    for figure in fields(Round):
        unit, what = FIGURES[figure.name]
        for name in names:
            samples = [getattr(each, figure.name) for each in taken[name]]
            if name != KERNEL or figure.name != "cpu_per_gb":
                rows.append(row_of(f"vpn_{figure.name}_{_word(name)}", samples, unit, note=what))
    return rows


def _one_row(
    it: Stage, target: Target, rival: str, rounds: int, seconds: int, relays: int, loss: float = 0.0
) -> list[Row]:
    """TCP over so many relays with so much loss, the project and one rival in turn."""
    stands = it.up([OURS, rival], relays)
    for stand in stands.values():
        if loss:
            stand.lossy(loss)
    taken = in_turn([*stands], rounds, lambda name: stands[name].mbps(seconds))
    it.clear()
    suffix = f"{relays}relay" if relays > 1 else "loss1"
    rows = [ratio(target, taken[OURS], taken[rival], rival, seconds)]
    for name, samples in taken.items():
        rows.append(row_of(f"vpn_tcp_{suffix}_mbps_{_word(name)}", samples, "Mbit/s", note="one flow"))
    return rows


def ratio(target: Target, ours: Sequence[float], theirs: Sequence[float], rival: str, seconds: int) -> Row:
    """The row of a target: the median of the rounds' ratios."""
    samples = [one / other if other else 0.0 for one, other in zip(ours, theirs, strict=True)]
    medians = f"{statistics.median(ours):.4g} over {statistics.median(theirs):.4g} of {rival}"
    sign = "≥" if target.better == "higher" else "≤"
    note = f"{medians} (medians), {seconds} s each; stretch {sign} {target.stretch:g}"
    return row_of(target.name, samples, "", target=target.must, better=target.better, note=note)


def _word(name: str) -> str:
    return name.replace("-", "_")


def _say(text: str) -> None:
    """Progress, for a person."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)


def _profile(it: Stage, seconds: int) -> None:
    """What the nodes of the project spend their time on, over TCP and under a flood, as tables on stderr."""
    folder = it.folder / "profiles"
    folder.mkdir()
    Meshnet.profile = folder
    try:
        (stand,) = it.up([OURS], 1).values()
    finally:
        Meshnet.profile = None
    assert isinstance(stand.network, Meshnet)
    stand.network.profile_from_now()
    tcp(stand.client, stand.server, seconds)
    flood(stand.client, stand.server, seconds)
    stand.network.down()
    for file in sorted(folder.glob("*.pstats")):
        print(f"--- {file.stem}\n{costs(pstats.Stats(str(file)))}", file=sys.stderr)
    it.clear()


WAITING: Final = ("poll", "epoll", "select", "acquire", "sleep")
"""Calls that wait: no cost."""


def costs(stats: pstats.Stats, most: int = 20) -> str:
    """The dearest functions of a profile: their share of the time that was not spent waiting, µs per call."""
    found = []
    for (file, line, name), (_, calls, own, _, _) in stats.stats.items():  # type: ignore[attr-defined]
        if not any(word in name for word in WAITING):
            found.append((own, calls, name if file == "~" else f"{_short(file)}:{line} {name}"))
    total = sum(own for own, _, _ in found) or 1.0
    lines = ["  share       µs     calls  function"]
    for own, calls, name in sorted(found, reverse=True)[:most]:
        lines.append(f"{own / total:7.1%}  {own / calls * 1e6:7.1f}  {calls:8}  {name}")
    return "\n".join(lines)


def _short(file: str) -> str:
    """A path from the package on."""
    for mark in ("/site-packages/", "/meshnet/", "/apps/"):
        _, found, after = file.rpartition(mark)
        if found:
            return after if "packages" in mark else f"{mark[1:]}{after}"
    return file
