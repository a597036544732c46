"""What a bench measures and how it is said: rows with a value, a target and whether it was met.

A bench is a module with `run(options: Options) -> list[Row]`, named in `BENCHES`.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, Literal

from attrs import asdict, frozen

LONG = frozenset({"soak", "topology", "vpn", "vpn_soak"})
"""Benches that `all` leaves out: they take long, or need root and other programs."""
BENCHES = {
    "coin": "blocks into the coin's store, signatures in processes",
    "coinapi": "the coin's API on a large chain: supply, balances, histories, deposits, requests a second",
    "codec": "messages against bare struct calls, and against the reflective codec",
    "flood": "what a stream through a flooded node keeps of its rate, and the node's memory",
    "idle": "what a node with twenty quiet neighbours uses",
    "paths": "ways through a graph of ten thousand nodes; its first sync and its memory",
    "packets": "what a session costs for packets, over the crypto calls in it",
    "relay": "the relay step over the bare crypto calls it makes",
    "rpc": "what a call costs: in memory beside AMP, and over a link of two nodes",
    "setup": "circuit set-up over three relays, and how many one relay does",
    "soak": "a long run of eight nodes with falls: what was lost, what grew (--minutes)",
    "vpn_soak": "a long run of the VPN with relays killed (root): what leaked, stalled, grew (--minutes)",
    "storage": "the journal's group commit on a real disk; power cuts on simulated ones",
    "stream": "a stream through three relays, five processes",
    "attach": "a stream between two programs beside their nodes, over the same inside the nodes",
    "topology": "how soon nodes know their network, what it costs, what heals (minutes; --long)",
    "vpn": "packets over a relay, beside other overlay networks (root; --against, --rounds, --seconds)",
}
"""Name of each bench (a module of this package) and what it measures."""
PROFILES_NODES = frozenset({"vpn"})
"""Benches whose own process only waits: they profile nodes, and print that themselves."""
OTHERS = ("yggdrasil", "tinc", "nebula", "wireguard-go")
"""Networks that `vpn` may be run against (`lab.peers`)."""


@frozen
class Options:
    """How to run a bench: `profile` adds a profile of what is measured on stderr, `quick` takes small
    numbers of samples (for tests; its figures mean nothing), `minutes` are those of a soak (None: its own).
    `against` names the other networks of `vpn`, which takes so many `rounds` with flows of so many `seconds`.
    `long` adds what takes minutes more."""

    profile: bool = False
    quick: bool = False
    minutes: float | None = None
    against: tuple[str, ...] = ()
    rounds: int = 5
    seconds: int = 3
    long: bool = False


@frozen
class Row:
    """One figure. `value` is the median of `n` samples, `spread` half the distance of their quartiles.

    `target` is None where nothing is asked; `better` says on which side of it is good. `note` states what
    matters (sizes, flows, seed).
    """

    name: str
    value: float
    unit: str
    n: int
    spread: float = 0.0
    target: float | None = None
    better: Literal["lower", "higher"] = "lower"
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target was met; None without one."""
        if self.target is None:
            return None
        return self.value <= self.target if self.better == "lower" else self.value >= self.target

    def as_json(self) -> dict[str, Any]:
        """The keys name, value, unit, n, spread, target, met, note."""
        keys = asdict(self)
        del keys["better"]
        note = keys.pop("note")
        keys.update(value=_short(self.value), spread=_short(self.spread), met=self.met, note=note)
        return keys


def row_of(name: str, samples: Sequence[float], unit: str, **more: Any) -> Row:
    """A row of the median of samples (at least one) and half the distance of their quartiles."""
    spread = 0.0
    if len(samples) > 1:
        low, _, high = statistics.quantiles(samples, n=4)
        spread = (high - low) / 2
    return Row(name, statistics.median(samples), unit, len(samples), spread, **more)


def table(rows: Sequence[Row]) -> str:
    """Rows for a person, one line each, aligned."""
    lines = []
    for row in rows:
        verdict = {None: "", True: "met", False: "MISSED"}[row.met]
        sign = "≤" if row.better == "lower" else "≥"
        target = "" if row.target is None else f"{sign} {_short(row.target)}"
        value = f"{_short(row.value)} {row.unit}".strip()
        lines.append((row.name, value, f"± {_short(row.spread)}", f"n={row.n}", target, verdict, row.note))
    widths = [max(len(line[i]) for line in lines) for i in range(6)] if lines else []
    widths.append(0)
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def _short(value: float) -> float:
    """Four significant digits; large values whole."""
    return float(f"{value:.4g}") if abs(value) < 1000 else float(round(value))
