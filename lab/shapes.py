"""The shape of a network of the lab: which hosts there are, and which are joined by a cable.

A shape comes from a word or a file:

    line:3  ring:5  star:5  grid:3x3      hosts n0, n1, …; the star's centre is n0
    FILE.json                             as meshnet-lab has its graphs: {"nodes": [{"id"} …],
                                          "links": [{"source", "target"} …]}; other keys are passed over
    FILE.toml                             ours:

        [[host]]                          [[link]]
        name = "alice"                    between = ["alice", "r1"]
        relay = false                     loss = 0.01      share of packets that get lost, each way
        config.exit.enabled = true        mtu = 1400

In TOML hosts need not be listed; `config` are sections of the node's config file. Nothing here does I/O but
`read`.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections import deque
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final

from attrs import evolve, field, frozen

from lab.namespaces import is_name
from meshnet.errors import UsageError
from meshnet.node.schema import Between, Context, FieldError
from meshnet.node.schema import read as checked

MOST: Final = 1_024
"""Hosts of a shape."""
LARGEST: Final = 16 << 20  # bytes of a file
_WORD: Final = re.compile(r"(line|ring|star):(\d{1,4})|grid:(\d{1,3})x(\d{1,3})")


@frozen
class Place:
    """[[host]]: a host; `relay` says whether its node carries circuits of others, `config` is put into its
    node's config."""

    name: str
    relay: bool = True
    config: Mapping[str, Any] = field(factory=dict)


@frozen
class Cable:
    """[[link]]: what joins two hosts. `loss` is the share of packets lost, each way; `mtu` in bytes."""

    between: tuple[str, ...]
    loss: Annotated[float, Between(0, 1)] = 0.0
    mtu: Annotated[int, Between(1_280, 65_535)] = 1_500


@frozen
class Sketch:
    """A TOML file as it is written."""

    host: tuple[Place, ...] = ()
    link: tuple[Cable, ...] = ()


@frozen
class Shape:
    """Hosts by name, in order, and their cables: each pair once, of two different hosts that are there."""

    hosts: Mapping[str, Place]
    cables: tuple[Cable, ...]

    def neighbours(self) -> dict[str, list[str]]:
        """Of each host, in the order of the cables."""
        found: dict[str, list[str]] = {name: [] for name in self.hosts}
        for cable in self.cables:
            one, other = cable.between
            found[one].append(other)
            found[other].append(one)
        return found

    def routes(self, origin: str) -> dict[str, tuple[str, ...]]:
        """From one host to each it can reach: the shortest way's hosts in between, which are relays, all."""
        neighbours = self.neighbours()
        routes: dict[str, tuple[str, ...]] = {origin: ()}
        waiting: deque[tuple[str, tuple[str, ...]]] = deque([(origin, ())])
        while waiting:
            here, via = waiting.popleft()
            if here != origin and not self.hosts[here].relay:
                continue
            onwards = via if here == origin else (*via, here)
            for name in neighbours[here]:
                if name not in routes:
                    routes[name] = onwards
                    waiting.append((name, onwards))
        del routes[origin]
        return routes


def shape(text: str) -> Shape:
    """What a word such as `ring:5`, or else a file's path, stands for. Raises UsageError."""
    match = _WORD.fullmatch(text)
    if match is not None:
        return _by_word(match)
    file = Path(text)
    if file.suffix in (".json", ".toml"):
        return read(file)
    raise UsageError(
        f"{text!r} is no shape; choices: line:N, ring:N, star:N, grid:NxM, or a file FILE.json or FILE.toml."
    )


def _by_word(match: re.Match[str]) -> Shape:
    kind, count, width, height = match.groups()
    size = int(count) if kind else int(width) * int(height)
    least = {"ring": 3, "line": 2, "star": 2}.get(kind, 2)
    if not least <= size <= MOST:
        raise UsageError(f"{match.group()} has {size} hosts; it can have {least} to {MOST:,}.")
    names = [f"n{number}" for number in range(size)]
    pairs = list(pairwise(names))
    if kind == "ring":
        pairs.append((names[-1], names[0]))
    elif kind == "star":
        pairs = [(names[0], name) for name in names[1:]]
    elif kind is None:
        wide = int(width)
        pairs = [pair for pair in pairs if int(pair[1][1:]) % wide]
        pairs += list(zip(names, names[wide:], strict=False))
    return _made((Place(name) for name in names), (Cable(pair) for pair in pairs))


def read(file: Path) -> Shape:
    """The shape in a file, JSON or TOML by its name. Raises UsageError that says what is wrong with it."""
    try:
        with file.open("rb") as opened:
            data = opened.read(LARGEST + 1)
    except OSError as error:
        raise UsageError(f"Cannot read {file}: {error.strerror}.") from None
    if len(data) > LARGEST:
        raise UsageError(f"{file} is larger than {LARGEST >> 20} MiB; that is no shape.")
    try:
        return parse(data, file.suffix == ".toml", str(file))
    except FieldError as error:  # names the file already
        raise UsageError(str(error)) from None
    except (UsageError, ValueError, RecursionError) as error:
        raise UsageError(f"{file}: {str(error).rstrip('.')}.") from None


def parse(data: bytes, toml: bool, source: str = "the shape") -> Shape:
    """The same of its bytes; raises UsageError, ValueError."""
    if toml:
        table = tomllib.loads(data.decode())
        configs = _configs(table)
        sketch = checked(Sketch, table, "", Context(base=Path(), source=source))
        return _made(
            (evolve(place, config=configs.get(place.name, {})) for place in sketch.host), sketch.link
        )
    graph = json.loads(data)
    if not isinstance(graph, dict) or not isinstance(graph.get("links"), list):
        raise UsageError("It has no list of links; a graph is {nodes: [{id}], links: [{source, target}]}")
    nodes = [
        _text(_part(node, "id") if isinstance(node, dict) else node) for node in graph.get("nodes") or ()
    ]
    pairs = [(_text(_part(link, "source")), _text(_part(link, "target"))) for link in graph["links"]]
    # A graph may name both directions of a link, and may link what it does not list.
    kept = {frozenset(pair): pair for pair in reversed(pairs)}
    return _made(map(Place, nodes), (Cable(pair) for pair in reversed(kept.values())))


def _configs(table: dict[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Takes `config` out of each host: what it may hold the node itself will say."""
    found: dict[str, Mapping[str, Any]] = {}
    hosts = table.get("host")
    for entry in hosts if isinstance(hosts, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("config"), dict):
            found[str(entry.get("name"))] = entry.pop("config")
    return found


def _part(entry: object, key: str) -> object:
    if not isinstance(entry, dict) or key not in entry:
        raise UsageError(f"An entry has no {key}: {json.dumps(entry)[:80]}")
    return entry[key]


def _text(name: object) -> str:
    if not isinstance(name, str | int) or isinstance(name, bool):
        raise UsageError(f"{json.dumps(name)[:80]} names no host")
    return str(name)


def _made(places: Iterable[Place], cables: Iterable[Cable]) -> Shape:
    """Checks what holds for every shape."""
    hosts: dict[str, Place] = {}
    for place in places:
        if place.name in hosts:
            raise UsageError(f"{place.name} is there twice")
        hosts[place.name] = place
    joined: set[frozenset[str]] = set()
    found = []
    for cable in cables:
        pair = frozenset(cable.between)
        if len(cable.between) != 2 or len(pair) != 2:
            raise UsageError(
                f"{', '.join(cable.between) or 'nothing'}: a link is between two different hosts"
            )
        if pair in joined:
            raise UsageError(f"{' and '.join(cable.between)} are linked twice")
        joined.add(pair)
        for name in cable.between:
            hosts.setdefault(name, Place(name))
        found.append(cable)
    wrong = next((name for name in hosts if not is_name(name)), None)
    if wrong is not None:
        raise UsageError(f"{wrong!r} names no host: 1 to 32 letters, digits, - and _")
    if not 1 <= len(hosts) <= MOST:
        raise UsageError(f"It has {len(hosts)} hosts; it can have 1 to {MOST:,}")
    return Shape(hosts, tuple(found))
