"""Who may import whom: the floors of the house, checked by parsing imports.

`violations(path, source)` is the whole checker; it looks at one file and returns sentences. Floors:
0 errors, limits, cipher, codec, storage · 1 the pure cores, which do not import each other ·
2 transports, control, endpoints, and `driver.py`/`service.py` of floors 0–1 · 3 node · 4 cli. Beside them
stand the apps and the coin, whose rules (`coin/chain`) are as pure as floor 0, its replication as floor 1.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

PURE = {"link": 1, "circuit": 1, "session": 1, "rpc": 1, "topology": 1, "payment": 1}
FLOORS = {
    "": 0,
    "bundle": 0,
    "codel": 0,
    "oneway": 0,
    "streams": 0,
    "errors": 0,
    "limits": 0,
    "cipher": 0,
    "codec": 0,
    "storage": 0,
    **PURE,
    "transports": 2,
    "control": 2,
    "endpoints": 2,
    "stream_transport": 2,
    "stream_protocol": 2,
    "node": 3,
    "cli": 4,
}
IMPURE = {
    *("twisted", "socket", "select", "time", "random", "secrets", "os", "threading", "asyncio", "logging"),
    *("subprocess", "signal", "prometheus_client"),
}
SEAMS = {"meshnet/storage/disk.py", "meshnet/storage/lines.py", "meshnet/cipher/keys.py"}
"""The disk, lines of logs, and key generation."""
REACTOR = {"meshnet/cli/main.py", "meshnet/cli/tap.py"}
UPPER_FILES = {"driver", "service"}
REPLICATION_UPPER = {"coin/replication/service.py", "coin/replication/store_books.py"}
"""Those modules of `coin/replication` that know a reactor; all others are as pure as floor 1."""
UPPER_COIN = (
    "coin.store.service",
    "coin.store.store",
    "coin.store.signing",
    "coin.replication.service",
    "coin.replication.store_books",
    "meshnet.node",
    "meshnet.control",
    "meshnet.transports",
)


def floor(module: str) -> int:
    """The floor of a module of meshnet, by its dotted name; KeyError for a room that has none."""
    parts = module.split(".")
    room = parts[1] if len(parts) > 1 else ""
    number = FLOORS[room]
    if number <= 1 and len(parts) > 2 and parts[2] in UPPER_FILES:
        return 2
    return number


def imports(path: str, source: str) -> Iterator[str]:
    """Dotted names that a file imports, those of `from a import b` as `a.b`; relative ones resolved."""
    package = path.removesuffix(".py").split("/")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{name}.{alias.name}" for alias in node.names)


def violations(path: str, source: str) -> list[str]:
    """Sentences, one for each import of this file (relative path, its text) that the house forbids."""
    own = path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    top = own.split(".")[0]
    found = []
    for name in imports(path, source):
        why = _forbidden(path, own, top, name)
        if why:
            found.append(f"{path} imports {name}: {why}")
    return found


def _forbidden(path: str, own: str, top: str, name: str) -> str:
    target = name.split(".")[0]
    if name.startswith("twisted.internet.reactor") and path not in REACTOR and top != "lab":
        return "only the composition roots import the reactor"
    if target == "lab" and top != "lab":
        return "nothing installed imports the lab"
    if target == "tests":
        return "only tests import tests"
    if top == "apps" and target == "apps":
        mine, other = own.split(".")[1:2], name.split(".")[1:2]
        if mine and other and mine != other:
            return "apps do not import each other"
    if own.startswith("coin.chain") and target in IMPURE:
        return "the rules of the chain do no I/O, read no clock and draw no randomness"
    if own.startswith("coin.chain") and target == "coin" and not name.startswith("coin.chain"):
        return "the rules of the chain know nothing of what is built on them"
    core = own.startswith("coin.replication") and path not in REPLICATION_UPPER
    if core and (target in IMPURE or name.startswith(UPPER_COIN)):
        return "replication's cores do no I/O, read no clock, and know no store but by `Books`"
    if top == "apps" and target == "coin":
        return "apps and the coin do not import each other"
    if top == "coin" and target == "apps":
        return "apps and the coin do not import each other"
    return _forbidden_in_meshnet(path, own, name) if top == "meshnet" else ""


def _forbidden_in_meshnet(path: str, own: str, name: str) -> str:
    target = name.split(".")[0]
    if target in ("coin", "apps"):
        return "meshnet knows no coin and no app"
    if floor(own) <= 1 and target in IMPURE and path not in SEAMS:
        return "floors 0 and 1 do no I/O, read no clock and draw no randomness"
    if target != "meshnet" or name == "meshnet.__version__":
        return ""
    if floor(name) > floor(own):
        return f"floor {floor(own)} does not import floor {floor(name)}"
    mine, other = own.split(".")[1:2], name.split(".")[1:2]
    if floor(own) == 1 and floor(name) == 1 and mine != other:
        return "the pure cores do not import each other"
    return ""
