"""`meshnet stats`: how much of what a node did, over the last second, ten seconds, minute and hour.

The node keeps rings of samples anyway (docs/operations.md, `GET /history`); this only asks for them and
computes. A rate over a span is the mean over its complete steps, or over those since the node started.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from typing import Any, Final

from meshnet.cli.show import print_json, print_table, size
from meshnet.cli.watch import watch, watch_arguments
from meshnet.node.app import Json, Verb

Call = Callable[[str, str, Json | None], Json]
SPANS: Final = (("1s", "1s", 1), ("10s", "1s", 10), ("1min", "1s", 60), ("1h", "10s", 360))
"""Name of a span, the ring it is read from, and how many of its steps it has."""
_BARS: Final = "▁▂▃▄▅▆▇█"
_WIDTH: Final = 40
_SECONDS: Final = 300  # places of the ring of seconds
_BYTES: Final = "bytes"


def rate(steps: Sequence[float], count: int, seconds: float) -> float:
    """The mean per `seconds` over the last `count` complete steps; the running step, the last one, counts
    only where there is no other."""
    complete = steps[:-1][-count:] or steps[-1:]
    return sum(complete) / (len(complete) * seconds) if complete else 0.0


def sparkline(values: Sequence[float], width: int = _WIDTH) -> str:
    """A graph one line high of the last `width` values; the highest is the full block."""
    shown = values[-width:]
    top = max(shown, default=0.0)
    if top <= 0:
        return _BARS[0] * len(shown)
    last = len(_BARS) - 1
    return "".join(_BARS[min(last, round(max(0.0, value) / top * last))] for value in shown)


def collect(call: Call, ring: str) -> Json:
    """Every series with its mean over each span and its samples in `ring`, and the rates of every link."""
    rings = {name: call("GET", f"/history?ring={name}", None) for name in {"1s", "10s", ring}}
    gauges = set(rings["1s"]["gauges"])
    series: dict[str, Any] = {}
    for name in rings["1s"]["series"]:
        means = {}
        for span, source, count in SPANS:
            of = rings["1s"] if _young(rings["1s"], name) else rings[source]
            step = 1.0 if name in gauges else of["step_seconds"]
            means[span] = round(rate(of["series"].get(name, []), count, step), 6)
        series[name] = {"gauge": name in gauges, **means, "samples": rings[ring]["series"].get(name, [])}
    keys = ("peer", "name", "up", "rates_in", "rates_out")
    links = [{key: link.get(key) for key in keys} for link in call("GET", "/links", None)["links"]]
    return {"ring": ring, "step_seconds": rings[ring]["step_seconds"], "series": series, "links": links}


def collect_past(call: Call, what: str, ring: str) -> Json:
    """The same of every link or path: `what` is `links` or `paths`. A series is named by its nodes."""
    rings = {name: call("GET", f"/history/{what}?ring={name}", None) for name in {"1s", "10s", ring}}
    flat = {name: {**of, "gauges": [], "series": {}} for name, of in rings.items()}
    for name, of in rings.items():
        for trail in of[what]:
            nodes = " → ".join(key[:8] for key in trail["nodes"])
            for series, values in trail["series"].items():
                flat[name]["series"][f"{nodes} {series}"] = values
                if series in trail["gauges"]:
                    flat[name]["gauges"].append(f"{nodes} {series}")
    answers = {f"/history?ring={name}": of for name, of in flat.items()}
    return collect(lambda method, path, body: answers.get(path, {"links": []}), ring)


def _young(ring: Json, name: str) -> bool:
    """Whether the ring of seconds still holds all there is: then it is the most exact for every span."""
    return len(ring["series"][name]) < _SECONDS


def rows(stats: Json, everything: bool) -> list[list[object]]:
    """A line for each series that has done something, and for each link; bytes in units of bytes."""
    spans = [span for span, _, _ in SPANS]
    found: list[list[object]] = []
    for name, of in stats["series"].items():
        if everything or any(of[span] for span in spans) or any(of["samples"]):
            unit = "/s" if not of["gauge"] else ""
            found.append([name, *(_amount(name, of[span], unit) for span in spans), sparkline(of["samples"])])
    for link in stats["links"]:
        who = link["name"] or f"{link['peer'][:10]}…"
        for direction, rates in (("in", link["rates_in"]), ("out", link["rates_out"])):
            if rates:
                found.append(
                    [f"link {who} {direction}", *(size(rates.get(span, 0)) + "/s" for span in spans), ""]
                )
    return found


def _amount(name: str, value: float, unit: str) -> str:
    name = name.rpartition(" ")[2]
    if name.startswith(_BYTES) or f"_{_BYTES}_" in name or name.endswith(f"_{_BYTES}"):
        return size(value) + unit
    return f"{value:.3g}{unit}" if value < 1000 else f"{value:,.0f}{unit}"


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--ring", choices=("1s", "10s", "1min", "1h"), default="1s", help="steps of the graph"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--links", action="store_true", help="of each link: round trip, loss, bytes")
    what.add_argument("--paths", action="store_true", help="of each path of circuits begun here")
    parser.add_argument("--all", action="store_true", help="also what has done nothing")
    watch_arguments(parser)


def _stats(arguments: Namespace, call: Call) -> int:
    def show() -> None:
        what = "links" if arguments.links else "paths" if arguments.paths else ""
        stats = collect_past(call, what, arguments.ring) if what else collect(call, arguments.ring)
        if arguments.json:
            print_json(stats)
            return
        heads = [
            "SERIES",
            *(span for span, _, _ in SPANS),
            f"LAST {_WIDTH} STEPS OF {stats['step_seconds']:g} s",
        ]
        print_table(heads, rows(stats, arguments.all))

    return watch(show, arguments)


STATS = Verb("stats", "rates over 1 s, 10 s, 1 min and 1 h, with a graph", _arguments, _stats)
