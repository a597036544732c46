"""A dump of a running node for a bug report: much about the program, little about people, nothing secret.

Secrets are never looked at: no key, password or token is among what this reads, but for what the config
holds, and there values of such keys are left out. Then every text is gone through: public keys, addresses of
services, IP addresses and pet names become `key-1`, `address-2`, …, the same one each time, so that who
reads it can follow one neighbour through the report without knowing who it is. Whatever else looks like long
random text is cut out, too, in case a secret has strayed into a line of the log. Host names stay.
"""

from __future__ import annotations

import gc
import os
import platform
import re
import resource
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import attrs

from meshnet import __version__
from meshnet.node.app import Json
from meshnet.node.config import Settings

PACKAGES: Final = ("twisted", "cryptography", "pynacl", "coincurve", "attrs", "automat", "prometheus-client")
HIDDEN_KEYS: Final = ("password", "username", "token", "secret")
"""Parts of names whose values are left out."""
LEFT_OUT: Final = "(left out)"
_OCTET: Final = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
_H: Final = r"[0-9a-fA-F]{1,4}"
_SIDE: Final = rf"(?:{_H}(?::{_H})*)?"
_PATTERNS: Final = (
    ("key", re.compile(r"\b0[23][0-9a-fA-F]{64}\b")),
    ("service", re.compile(r"\bmesh1[a-z0-9]{20,}\b|\b[a-z2-7]{100,}\b")),
    ("label", re.compile(r"\b[a-z2-7]{53}\b")),
    ("address", re.compile(rf"\b{_OCTET}(?:\.{_OCTET}){{3}}\b")),
    ("address", re.compile(rf"(?<![\w:])(?:{_H}(?::{_H}){{7}}|{_SIDE}::{_SIDE})(?![\w:])")),
    ("begin", re.compile(r"\b0[23][0-9a-f]{5,30}(?=…)")),
)
_LONG: Final = re.compile(
    r"[0-9a-fA-F]{32,}|[A-Za-z0-9+_=-]{40,}|(?<![\w.])(?=[^/\s]*[/+=])[A-Za-z0-9+/]{42,}={0,2}"
)
"""Hex digits, base64 for URLs, base64."""
_WHO: Final = ("name", "public_key", "pid", "control")
_OPEN: Final = ("127.0.0.1", "0.0.0.0", "::", "::1")  # noqa: S104  (nobody's)


class Redaction:
    """Replaces what names somebody by words that only tell them apart."""

    def __init__(self) -> None:
        self._words: dict[str, str] = {}
        self._counts: Counter[str] = Counter()
        self._exact: list[tuple[str, str]] = []

    def replace(self, text: str, by: str) -> None:
        """Puts `by` wherever this very text stands."""
        if text:
            self._exact.append((text, by))
            self._exact.sort(key=lambda pair: -len(pair[0]))

    def word(self, kind: str, text: str) -> str:
        """The same word for the same text."""
        found = self._words.get(text)
        if found is None:
            self._counts[kind] += 1
            found = self._words[text] = f"{kind}-{self._counts[kind]}"
        return found

    def text(self, text: str) -> str:
        """A text without names, addresses and long random parts."""
        for exact, by in self._exact:
            text = text.replace(exact, by)
        for kind, pattern in _PATTERNS:
            text = pattern.sub(lambda match, kind=kind: self._known(kind, match[0]), text)  # type: ignore[misc]
        return _LONG.sub(LEFT_OUT, text)

    def value(self, value: Any, name: str = "") -> Any:
        """A JSON value so treated, names of objects' members included."""
        if any(part in name.lower() for part in HIDDEN_KEYS) and isinstance(value, str) and value:
            return LEFT_OUT
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.value(each, str(key)) for key, each in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(each, name) for each in value]
        if value is None or isinstance(value, bool | int | float):
            return value
        return self.text(_plain(value))

    def _known(self, kind: str, text: str) -> str:
        return text if text in _OPEN else self.word(kind, text)


def _plain(value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex()
    return str(value)


def dump(
    settings: Settings, status: Json, snapshot: Json, log: Iterable[str], reactor: Any, redaction: Redaction
) -> Json:
    """Everything, as a JSON object. `snapshot` is the router's."""
    _learn(settings, redaction)
    found = {
        "versions": versions(),
        "config": config(settings),
        "status": {
            key: value for key, value in status.items() if key not in ("name", "public_key", "pid", "control")
        },
        "links": [_link(link) for link in snapshot["links"]],
        "circuits": circuits(snapshot["circuits"]),
        "tables": {
            name: value
            for name, value in snapshot.items()
            if name not in ("links", "circuits") and isinstance(value, int | float | dict)
        },
        "process": process(),
        "reactor": running(reactor),
        "threads": threads(),
        "log": list(log),
    }
    return dict(redaction.value(found))


def _learn(settings: Settings, redaction: Redaction) -> None:
    """What stands in this config and must not be in the dump, wherever it turns up: secrets, and what people
    call themselves, each other and their directories."""
    for name in (*settings.names, settings.node.name):
        if len(name) > 2:  # shorter ones would spoil more words than they hide
            redaction.replace(name, redaction.word("name", name))
    for path, by in ((settings.node.data, "(data)"), (Path.home(), "~")):
        if len(path.parts) > 1:
            redaction.replace(str(path), by)
    for app in settings.apps.values():
        for text in _secrets(_settings(app)):
            redaction.replace(text, LEFT_OUT)


def _secrets(value: Any, name: str = "") -> Iterable[str]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _secrets(each, key)
    elif isinstance(value, list):
        for each in value:
            yield from _secrets(each, name)
    elif isinstance(value, str) and any(part in name for part in HIDDEN_KEYS):
        yield value


def versions() -> Json:
    """What runs this node."""
    found: dict[str, str] = {"meshnet": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not found"
    found["system"] = f"{platform.system()} {platform.release()} {platform.machine()}"
    return found


def config(settings: Settings) -> Json:
    """The config as it holds; paths by their last part, since homes tell who somebody is."""
    found: dict[str, Any] = {}
    for attribute in attrs.fields(type(settings)):
        if attribute.name not in ("file", "names", "apps", "notes"):
            found[attribute.name] = _settings(getattr(settings, attribute.name))
    found["known"] = len(settings.known)
    found["apps"] = {name: _settings(each) for name, each in settings.apps.items()}
    return found


def _settings(value: Any) -> Any:
    if attrs.has(type(value)):
        fields = {each.name: getattr(value, each.name) for each in attrs.fields(type(value))}
        return {name: _settings(each) for name, each in fields.items() if name != "name"}
    if isinstance(value, tuple | list):
        return [_settings(each) for each in value]
    return Path(value).name if isinstance(value, Path) else value


def _link(link: Json) -> Json:
    return {key: value for key, value in link.items() if key != "lane"}


def circuits(found: Sequence[Json]) -> Json:
    """How many of each role and state, how old the oldest is, how many streams; no routes."""
    kinds = Counter(f"{each.get('role')} {each.get('state')}" for each in found)
    ages = [float(each.get("age") or 0.0) for each in found]
    streams = [each["streams"] for each in found if isinstance(each.get("streams"), int)]
    return {
        "by_role_and_state": dict(kinds),
        "oldest_seconds": max(ages, default=0.0),
        "streams": sum(streams),
    }


def process() -> Json:
    """Memory, processor, open files by kind and their limit."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 2),
        "peak_memory_kib": used.ru_maxrss,
        "open_files": open_files(),
        "open_files_limit": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "objects": len(gc.get_objects()),
        "collections": [each["collections"] for each in gc.get_stats()],
    }


def open_files() -> Json:
    """Descriptors by kind; empty where the system does not list them."""
    kinds: Counter[str] = Counter()
    try:
        numbers = os.listdir("/proc/self/fd")
    except OSError:
        return {}
    for number in numbers:
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
        kind = target.partition(":")[0] if ":" in target and not target.startswith("/") else "file"
        kinds[kind] += 1
    return dict(kinds)


def running(reactor: Any) -> Json:
    """What the reactor has to do."""
    found: dict[str, Any] = {"kind": type(reactor).__name__}
    for name, method in (("readers", "getReaders"), ("writers", "getWriters"), ("timers", "getDelayedCalls")):
        if hasattr(reactor, method):
            found[name] = len(getattr(reactor, method)())
    return found


def threads() -> Json:
    """Every thread, and the functions it is in, innermost last: no values."""
    frames = sys._current_frames()
    found: dict[str, list[str]] = {}
    for thread in threading.enumerate():
        frame, names = frames.get(thread.ident or 0), list[str]()
        while frame is not None and len(names) < 12:
            names.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}")
            frame = frame.f_back
        found[thread.name] = names[::-1]
    return found
