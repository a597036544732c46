"""The verbs `paths`, `why`, `map`: what a running node knows of the network and how it chooses ways.

meshnet paths PUBKEY [--policy P]       the ways to a node, the best first; exit 4 if there is none
meshnet paths PUBKEY --ask SERVICE      the same as a route service knows them; it learns PUBKEY
meshnet why PUBKEY [--policy P]         which is taken, and why not the others
meshnet map [--svg FILE]                nodes and links: a table, a drawing, or --json
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from math import cos, pi, sin
from typing import Any, Final
from xml.sax.saxutils import escape

from meshnet.cli.show import print_json, print_table
from meshnet.errors import UsageError
from meshnet.node.app import Json, Verb
from meshnet.storage.disk import RealDisk
from meshnet.storage.files import write_file

Call = Callable[[str, str, Json | None], Json]
UNREACHABLE: Final = 4  # exit code
_WIDTH: Final = 900


def _target(parser: ArgumentParser) -> None:
    parser.add_argument("target", metavar="PUBKEY", help="public key (66 hex digits) or known name")
    parser.add_argument(
        "--policy",
        metavar="P",
        help='a path policy, such as "countries DE>JP; max_hops 3" or private; default: the config\'s',
    )


def _ask(arguments: Namespace, call: Call) -> Json:
    body: Json = {"target": arguments.target}
    if arguments.policy is not None:
        body["policy"] = arguments.policy
    return call("POST", "/paths", body)


def _row(way: Json) -> list[Any]:
    relays = " → ".join(key[:8] for key in way["relays"]) or "direct"
    countries = ">".join(each or "?" for each in way["countries"]) or "-"
    marks = ", ".join(way["marks"]) or "-"
    return [
        way["hops"], way["delay_ms"], round(way["loss"] * 100, 2), way["capacity_mbit"], way["price"],
        countries, relays, marks,
    ]  # fmt: skip


_HEADS: Final = ("HOPS", "ms", "LOSS %", "Mbit/s", "PRICE", "COUNTRIES", "RELAYS", "DISTRUSTED")


def _paths_arguments(parser: ArgumentParser) -> None:
    _target(parser)
    parser.add_argument("--ask", metavar="SERVICE", help="asks this route service, which learns PUBKEY")
    parser.add_argument("--source", metavar="KEY", help="with --ask, where the ways begin; default: here")


def _asked(arguments: Namespace, call: Call) -> Json:
    """What a route service answers, in the shape of our own answers."""
    body: Json = {"service": arguments.ask, "target": arguments.target, "policy": arguments.policy or ""}
    if arguments.source is not None:
        body["source"] = arguments.source
    answer = call("POST", "/paths/ask", body)
    for way in answer["ways"]:
        way.update(countries=[], marks=[])
    return answer


def _paths(arguments: Namespace, call: Call) -> int:
    if arguments.ask is None and arguments.source is not None:
        raise UsageError("--source goes only with --ask.")
    answer = _ask(arguments, call) if arguments.ask is None else _asked(arguments, call)
    if arguments.json:
        print_json(answer)
    elif answer["ways"]:
        print_table(_HEADS, [_row(way) for way in answer["ways"]])
    else:
        print(answer["reason"])
    return 0 if answer["ways"] else UNREACHABLE


def _why(arguments: Namespace, call: Call) -> int:
    answer = _ask(arguments, call)
    if arguments.json:
        print_json(answer)
        return 0 if answer["ways"] else UNREACHABLE
    policy = answer["policy"] or "latency (no policy is set)"
    print(f"policy     {policy}")
    for way in answer["ways"]:
        print(f"taken      {_told(way)}")
    for way in answer["rejected"]:
        print(f"not taken  {_told(way)}: {way['reason']}")
    if not answer["ways"]:
        print(answer["reason"])
    return 0 if answer["ways"] else UNREACHABLE


def _told(way: Json) -> str:
    relays = " → ".join(
        f"{key[:8]}{f' ({country})' if country else ''}"
        for key, country in zip(way["relays"], way["countries"], strict=True)
    )
    lasting = ", ".join(key[:8] for key in way["no_onion_key"])
    without = f", no onion key of {lasting}" if lasting else ""
    measured = " (measured)" if way["measured"] else ""
    return f"{relays or 'direct'}, {way['delay_ms']:.1f} ms{measured}{without}"


def _map_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--svg", metavar="FILE", help="draws it into a file")


def _map(arguments: Namespace, call: Call) -> int:
    answer = call("GET", "/topology", None)
    if arguments.svg is not None:
        write_file(RealDisk(), arguments.svg, drawing(answer).encode(), mode=0o644)
    if arguments.json:
        print_json(answer)
    elif arguments.svg is None:
        _tables(answer)
    return 0


def _tables(answer: Json) -> None:
    print_table(
        ("NODE", "COUNTRY", "RELAYS", "LINKS", "PRICE", "DISTRUSTED"),
        [
            [
                each["key"][:16] + (" (this)" if each["key"] == answer["own"] else ""), each["country"],
                each["relays"], each["links"], each["price"], ", ".join(each["marks"]) or "-",
            ]
            for each in answer["nodes"]
        ],
    )  # fmt: skip
    print()
    print_table(
        ("LINK", "", "ms", "LOSS %", "Mbit/s", "DISTRUSTED"),
        [
            [
                each["ends"][0][:8], each["ends"][1][:8], each["delay_ms"], round(each["loss"] * 100, 2),
                each["capacity_mbit"], ", ".join(each["marks"]) or "-",
            ]
            for each in answer["links"]
        ],
    )  # fmt: skip


# the drawing


def drawing(answer: Json) -> str:
    """The map as SVG: this node in the middle, the others around it by how many links they are away."""
    places = _places(answer)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_WIDTH}" font-family="sans-serif" '
        'font-size="11">',
        f'<rect width="{_WIDTH}" height="{_WIDTH}" fill="white"/>',
    ]
    for link in answer["links"]:
        one, other = (places.get(key) for key in link["ends"])
        if one is None or other is None:
            continue
        colour = "#c0392b" if link["marks"] else "#9aa5b1"
        title = escape(f"{link['delay_ms']} ms, {link['capacity_mbit']} Mbit/s")
        parts.append(
            f'<line x1="{one[0]:.1f}" y1="{one[1]:.1f}" x2="{other[0]:.1f}" y2="{other[1]:.1f}" '
            f'stroke="{colour}"><title>{title}</title></line>'
        )
    for node in answer["nodes"]:
        x, y = places[node["key"]]
        fill = "#c0392b" if node["marks"] else "#1f6feb" if node["key"] == answer["own"] else "#2e7d32"
        label = escape(f"{node['key'][:8]} {node['country'] or ''}".strip())
        title = escape(f"{node['key']} {', '.join(node['marks'])}".strip())
        parts.append(
            f'<g><circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="{fill}"><title>{title}</title></circle>'
            f'<text x="{x + 8:.1f}" y="{y + 4:.1f}">{label}</text></g>'
        )
    return "\n".join([*parts, "</svg>", ""])


def _places(answer: Json) -> dict[str, tuple[float, float]]:
    """Rings around this node; on each, the nodes in the order of those that they hang on."""
    links: dict[str, list[str]] = {node["key"]: [] for node in answer["nodes"]}
    for link in answer["links"]:
        one, other = link["ends"]
        if one in links and other in links:
            links[one].append(other)
            links[other].append(one)
    rings = _rings(answer["own"], links)
    middle = _WIDTH / 2
    step = (middle - 70) / max(len(rings) - 1, 1)
    places = {}
    for number, ring in enumerate(rings):
        for index, key in enumerate(ring):
            angle = 2 * pi * index / len(ring) - pi / 2 + number / 3
            radius = number * step
            places[key] = (middle + radius * cos(angle), middle + radius * sin(angle))
    return places


def _rings(own: str, links: Mapping[str, Iterable[str]]) -> list[list[str]]:
    rings, seen, todo = [[own]], {own}, deque([(own, 0)])
    while todo:
        key, ring = todo.popleft()
        for other in sorted(links.get(key, ())):
            if other not in seen:
                seen.add(other)
                if len(rings) == ring + 1:
                    rings.append([])
                rings[ring + 1].append(other)
                todo.append((other, ring + 1))
    return rings


PATHS: Final = (
    Verb("paths", "the ways to a node under a path policy", _paths_arguments, _paths),
    Verb("why", "which way to a node is taken, and why not the others", _target, _why),
    Verb("map", "the nodes and links that this node knows of", _map_arguments, _map),
)
