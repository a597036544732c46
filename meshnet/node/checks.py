"""What can be seen wrong of a node by its files, its machine, and what it says of itself.

Each check yields findings: a level, what was looked at, and a sentence that says what is and, where something
is wrong, what to do. Nothing is changed and nothing is sent to other nodes. `installation`, `key_file`,
`directory` and `addresses` need no running node, `running` asks one.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal

from attrs import frozen

from meshnet import __version__
from meshnet.cipher.keys import PublicKey
from meshnet.errors import MeshError, StorageError
from meshnet.limits import RESERVE, SPACE_ENOUGH, SPACE_LOW
from meshnet.node.app import Json
from meshnet.node.config import Settings
from meshnet.node.dropins import Dropins
from meshnet.node.identity import is_encrypted, password_from, read_public
from meshnet.node.presence import absence, age
from meshnet.storage.disk import Disk, LockedError
from meshnet.storage.quarantine import NAME as QUARANTINE
from meshnet.storage.quarantine import Quarantine
from meshnet.storage.reserve import NAME as RESERVE_NAME

Call = Callable[[str, str, Json | None], Json]
Level = Literal["ok", "warning", "problem"]
NEEDED: Final = {"twisted": (26, 10)}
"""Packages and the least version that setup.cfg asks for."""
FILES: Final = 4_096  # descriptors below which a relay runs out of them
YOUNGEST: Final = 1_767_225_600  # 2026-01-01: a wall clock before it is wrong
SOON: Final = 86_400  # seconds before its end that an address should be renewed
LOSSY: Final = 0.05
LATE: Final = 0.1  # seconds; as in docs/operations.md
_SERIES: Final = re.compile(r'^(meshnet_\w+|process_\w+)(?:\{reason="(\w+)"\})? (\S+)$', re.MULTILINE)


@frozen
class Finding:
    """`check` is what was looked at, in a word or two; `text` one sentence."""

    level: Level
    check: str
    text: str


def installation(found: Dropins, lacking: Sequence[str], unix: float) -> Iterator[Finding]:
    """Packages, dropins, the limit of open files, the wall clock."""
    for name, least in NEEDED.items():
        wanted = ".".join(map(str, least))
        try:
            numbers = tuple(int(part) for part in version(name).split(".")[:2])
        except (PackageNotFoundError, ValueError):
            numbers = ()
        if numbers < least:
            yield Finding("problem", name, f"{name} is older than {wanted}: pip install '{name}>={wanted}'.")
        else:
            yield Finding("ok", name, f"{name} is {version(name)}.")
    for text in (*found.broken, *lacking):
        yield Finding("warning", "dropins", text)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES:
        text = f"A process may open {hard} files at most: set LimitNOFILE or ulimit -n to {FILES} or more."
        yield Finding("warning", "open files", text)
    else:
        yield Finding("ok", "open files", "A process may open enough files.")
    if unix < YOUNGEST:
        text = "The wall clock is wrong: set it (NTP); others refuse circuits beyond 5 minutes of difference."
        yield Finding("problem", "clock", text)


def key_file(disk: Disk, settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    """The key: there, ours alone, whole; and that its password will be found at a start."""
    path = settings.node.key
    try:
        public = read_public(disk, path)
        encrypted = is_encrypted(disk, path)
    except MeshError as error:
        yield Finding("problem", "key", _sentence(error))
        return
    yield Finding("ok", "key", f"The key is that of {public.hex()}.")
    yield from _own_key(public, settings)
    if not encrypted:
        return

    def nobody(path: Path) -> bytes:
        return b""

    try:
        known = bool(password_from(disk, settings.node.password_file, environ, nobody)(path))
    except MeshError as error:
        yield Finding("problem", "password", _sentence(error))
        return
    if not known:
        text = (
            "The key is encrypted and [node] password_file names no password: a start asks on the terminal."
        )
        yield Finding("warning", "password", text)


def _own_key(public: PublicKey, settings: Settings) -> Iterator[Finding]:
    if any(peer.key == public for peer in settings.link.peer):
        yield Finding("problem", "peers", "A [[link.peer]] has this node's own key: name another node there.")


def directory(disk: Disk, data: Path, running: bool, unix: Callable[[], float]) -> Iterator[Finding]:
    """The data directory: there, ours, with room, nothing damaged, nothing left over."""
    if not disk.exists(data):
        parent = next(each for each in data.parents if each.exists())
        if os.access(parent, os.W_OK):
            yield Finding("ok", "data", f"{data} is made at the first start.")
        else:
            text = f"{data} cannot be made: {parent} is not writable for this user."
            yield Finding("problem", "data", text)
        return
    status = data.stat()
    if status.st_uid not in (0, os.geteuid()):
        text = f"{data} belongs to another user: run this as that user, or chown it."
        yield Finding("problem", "data", text)
        return
    if status.st_mode & 0o022:
        yield Finding("problem", "data", f"Other users can write into {data}: run chmod 700 {data}.")
    elif not os.access(data, os.W_OK):
        yield Finding("problem", "data", f"{data} is not writable for this user.")
    else:
        yield Finding("ok", "data", f"{data} is this user's.")
    yield from _room(disk, data, running)
    yield from _damaged(disk, data, unix)
    if not running:
        yield from _left_over(disk, data)


def _room(disk: Disk, data: Path, running: bool) -> Iterator[Finding]:
    try:
        free = disk.free_space(str(data))
        reserve = data / RESERVE_NAME
        held = disk.exists(reserve) and disk.stat(reserve).size == RESERVE
    except StorageError as error:
        yield Finding("problem", "disk", _sentence(error))
        return
    if free < SPACE_LOW:
        text = (
            f"Only {free >> 20} MiB are free on the disk of {data}: make room for {SPACE_ENOUGH >> 20} MiB."
        )
        yield Finding("problem", "disk", text)
    else:
        yield Finding("ok", "disk", f"{free / 1e9:.1f} GB are free on the disk of {data}.")
        if running and not held:
            text = "No room is held back for last words: the node makes it when the disk allows."
            yield Finding("warning", "reserve", text)


def _damaged(disk: Disk, data: Path, unix: Callable[[], float]) -> Iterator[Finding]:
    place = data / QUARANTINE
    try:
        items = Quarantine(disk, place, unix).items()
    except StorageError as error:
        yield Finding("problem", "quarantine", _sentence(error))
        return
    for names in items.values():
        why = next((place / name for name in names if name.endswith(".why")), None)
        said = "damaged"
        if why is not None:
            with contextlib.suppress(OSError):
                said = why.read_text(errors="replace").strip()[:200].rstrip(".")
        files = ", ".join(name for name in names if not name.endswith(".why")) or "a file"
        text = f"{files} was set aside ({said}): look at it in {place}, then remove it."
        yield Finding("warning", "quarantine", text)


def _left_over(disk: Disk, data: Path) -> Iterator[Finding]:
    """What a node that is not there has left."""
    lock = data / "lock"
    if disk.exists(lock):
        try:
            disk.lock(lock).release()
        except LockedError:
            text = f"A process holds {lock} but does not answer: look for it with fuser {lock}."
            yield Finding("problem", "lock", text)
            return
        except StorageError as error:
            yield Finding("problem", "lock", _sentence(error))
    for name in ("control.sock", "attach.sock"):
        if disk.exists(data / name):
            text = f"{data / name} is left of a node that was killed; the next start replaces it."
            yield Finding("warning", "sockets", text)


def addresses(settings: Settings, apps: Iterable[tuple[str, tuple[str, int]]]) -> Iterator[Finding]:
    """Whether what the node wants to bind is free, while it does not run. `apps` are keys and addresses."""
    wanted: list[tuple[str, tuple[str, int]]] = [*apps]
    for index, address in enumerate(settings.link.listen):
        kind, _, rest = address.partition(":")
        host, _, port = rest.rpartition(":")
        if kind == "tcp" and port.isdigit():
            wanted.append((f"link.listen.{index}", (host.strip("[]"), int(port))))
    if settings.metrics is not None:
        wanted.append(("metrics.listen", settings.metrics.listen))
    if settings.control.listen is not None:
        wanted.append(("control.listen", settings.control.listen))
    for key, (name, number) in wanted:
        refusal = not_free(name, number)
        if refusal:
            text = f"{key} = {name}:{number} cannot be bound: {refusal}; stop who has it, or take another."
            yield Finding("problem", "ports", text)
    if not settings.link.listen and not settings.link.peer:
        text = "The node neither listens ([link] listen) nor dials anybody ([[link.peer]]): it will be alone."
        yield Finding("problem", "links", text)


def not_free(host: str, port: int) -> str:
    """Why this TCP address cannot be bound; empty if it can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return ""


def running(call: Call, settings: Settings | None, unix: float) -> Iterator[Finding]:
    """What a running node says of itself. Raises MeshError if it does not answer."""
    status = call("GET", "/status", None)
    since = age(status["uptime_seconds"])
    yield Finding("ok", "node", f"The node runs since {since} as process {status['pid']}.")
    if status["version"] != __version__:
        text = f"The node runs version {status['version']}, installed is {__version__}: restart it."
        yield Finding("warning", "version", text)
    yield from _changed(status, settings, unix)
    for note in status["notes"]:
        yield Finding("warning", "note", _sentence(note))
    for name, app in status["apps"].items():
        if "error" in app:
            yield Finding(
                "problem", "apps", f"App {name} fails: {app['error'].rstrip('.')}; its log says why."
            )
    yield from links(call("GET", "/links", None)["links"])
    yield from _reachable(status["listen"])
    yield from figures(call("GET", "/metrics", None)["text"])
    yield from hidden(call("GET", "/addresses", None)["services"], unix)


def _changed(status: Json, settings: Settings | None, unix: float) -> Iterator[Finding]:
    if settings is None or settings.file is None:
        return
    with contextlib.suppress(OSError):
        if settings.file.stat().st_mtime > unix - status["uptime_seconds"] + 1:
            text = (
                f"{settings.file} was changed since the start: meshnet reload takes it over, if you have not."
            )
            yield Finding("warning", "config", text)


def links(found: Sequence[Json]) -> Iterator[Finding]:
    """Neighbours that are not linked and why, ways that lose."""
    up = [link for link in found if link["up"]]
    if not up:
        text = "The node has no link: it can neither call nor be called."
        yield Finding("problem" if found else "warning", "links", text)
    else:
        yield Finding("ok", "links", f"{len(up)} of {len(found)} neighbours are linked.")
    for link in found:
        who = link.get("name") or f"{link['peer'][:16]}…"
        if not link["up"]:
            why = absence(link["lost_seconds"], link["why"] or "").rstrip(".")
            text = f"{who} at {link.get('address') or 'no address'} is {why}; is it up, and is its key right?"
            yield Finding("warning", "links", text)
        elif link.get("loss", 0) > LOSSY:
            text = (
                f"{who} answers only {1 - link['loss']:.0%} of the pings: the way to it is bad or too full."
            )
            yield Finding("warning", "links", text)


def _reachable(listening: Sequence[str]) -> Iterator[Finding]:
    """That the link addresses answer from this machine; whether a firewall lets others in, is not seen."""
    for address in listening:
        kind, _, rest = address.partition(":")
        host, _, port = rest.rpartition(":")
        if kind != "tcp" or not port.isdigit():
            continue
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host.strip("[]"), host.strip("[]"))  # noqa: S104
        try:
            socket.create_connection((host, int(port)), 2.0).close()
        except OSError as error:
            text = (
                f"{address} does not answer ({(error.strerror or str(error)).lower()}): is there a firewall?"
            )
            yield Finding("problem", "ports", text)


def figures(page: str) -> Iterator[Finding]:
    """What the metrics page shows of trouble."""
    series = {(name, reason): float(value) for name, reason, value in _SERIES.findall(page)}

    def of(name: str, reason: str = "") -> float:
        return series.get((name, reason), 0.0)

    if of("meshnet_reactor_lag_seconds") > LATE:
        late = of("meshnet_reactor_lag_seconds")
        text = (
            f"The node is {late:.1f} s late: it has too much to do; lower [relay] max_rate or max_circuits."
        )
        yield Finding("warning", "load", text)
    most = of("process_max_fds")
    if most and of("process_open_fds") > 0.8 * most:
        text = f"{of('process_open_fds'):.0f} of {most:.0f} file descriptors are in use: raise LimitNOFILE."
        yield Finding("problem", "open files", text)
    if skewed := of("meshnet_circuits_refused_total", "clock_skew"):
        text = f"{skewed:.0f} circuits were refused since clocks differ: is this machine's clock right (NTP)?"
        yield Finding("warning", "clock", text)
    if busy := of("meshnet_circuits_refused_total", "busy"):
        text = f"{busy:.0f} circuits were refused as busy: a limit of [relay] was reached (meshnet status)."
        yield Finding("warning", "limits", text)


def hidden(services: Sequence[Json], unix: float) -> Iterator[Finding]:
    """Addresses of hidden services that end, or whose tail does not stand."""
    for service in services:
        for address in service["addresses"]:
            left = address["expires_unix"] - unix
            renew = f"meshnet address renew {service['name']}"
            if left <= 0:
                text = f"An address of {service['name']} has expired: {renew}."
                yield Finding("warning", "addresses", text)
            elif left < SOON:
                text = f"An address of {service['name']} expires in {age(left)}: {renew}."
                yield Finding("warning", "addresses", text)
            if left > 0 and address["state"] != "ready":
                why = address["state"].rstrip(".")
                text = f"An address of {service['name']} cannot be reached ({why}): {renew}."
                yield Finding("problem", "addresses", text)


def _sentence(what: Any) -> str:
    text = str(what).strip()
    return text[:1].upper() + text[1:].rstrip(".") + "."
