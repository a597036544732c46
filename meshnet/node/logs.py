"""What a node logs: which lines, in which shape, where to, and never more of one kind than a person reads.

    2026-11-22T17:15:06.123Z info  link: link to 02ab… up over tcp:192.0.2.1:7001
    {"time": "2026-11-22T17:15:06.123Z", "part": "link", "level": "info", "message": "…", "fields": {…}}

A *part* is the package a line comes from (`link`, `circuit`, `node`, `vpn`, …). Lines of one place in the
sources come at most `LOG_BURST` in `LOG_WINDOW` seconds; those left out are counted, and the next line of the
log says so. The last `LOG_RECENT` lines stay in memory for `meshnet state`. Nothing here reads a config file.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from attrs import define
from twisted.logger import ILogObserver, LogEvent, LogLevel, eventAsText, formatEvent
from zope.interface import implementer

from meshnet.limits import LOG_BURST, LOG_FIELD, LOG_KINDS, LOG_LINE, LOG_RECENT, LOG_WINDOW
from meshnet.node.config import LogSettings
from meshnet.storage.lines import LineFile

_ORDER: Final = {name: place for place, name in enumerate(("debug", "info", "warn", "error", "critical"))}
_TWISTED: Final = "twisted"
_LEGACY: Final = frozenset(("message", "time", "system", "isError", "format", "failure"))
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Lines(Protocol):
    """Where lines go."""

    def write(self, line: str, /) -> Any:
        """Takes a line with its end."""


@define
class _Kind:
    """Lines of one place in the sources, in one window of time."""

    until: float
    count: int = 0


def part_of(namespace: str) -> str:
    """The part of a logger's namespace: `link` of `meshnet.link.driver`, `vpn` of `apps.vpn.service`; other
    packages by their own name."""
    head, _, rest = namespace.partition(".")
    if head in ("meshnet", "apps") and rest:
        return rest.partition(".")[0]
    return _TWISTED if head in (_TWISTED, "log_legacy", "-", "") else head


@implementer(ILogObserver)
class NodeLog:
    """An observer of Twisted's log. Until `apply`, it writes text of level info to `stderr`."""

    def __init__(self, stderr: Lines, level: str | None = None) -> None:
        """`level` is the operator's word on the command line, and beats that of the config."""
        self._stderr = stderr
        self._level = level
        self._settings = LogSettings()
        self._file: LineFile | None = None
        self._kinds: dict[tuple[str, str], _Kind] = {}
        self._left_out = 0
        self.recent: deque[str] = deque(maxlen=LOG_RECENT)
        """The last lines, oldest first, without ends."""

    def apply(self, settings: LogSettings) -> None:
        """Writes so from now on. Raises StorageError if the file cannot be opened: then all stays."""
        old, path = self._file, settings.file
        if path is None:
            self._file = None
        elif old is None or old.path != str(path):
            self._file = LineFile(path)
        if old is not None and old is not self._file:
            old.close()
        self._settings = settings

    def reopen(self) -> None:
        """After the file was moved away (logrotate): goes on in a new one. Raises StorageError."""
        if self._file is not None:
            self._file.reopen()

    def __call__(self, event: LogEvent) -> None:
        """One event; nothing that is wrong with it, or with the disk, goes further than here."""
        with contextlib.suppress(Exception):
            self._take(event)

    def wants(self, part: str, level: str) -> bool:
        """Whether lines of this part and level are written. Twisted's own come from warnings on, unless the
        config names the part or all is wanted."""
        settings = self._settings
        least = self._level or settings.level
        if part in settings.parts:
            least = settings.parts[part]
        elif part == _TWISTED and least == "info":
            least = "warn"
        return _ORDER[level] >= _ORDER[least]

    def _take(self, event: LogEvent) -> None:
        level = event.get("log_level", LogLevel.info).name
        part = part_of(str(event.get("log_namespace", "")))
        if not self.wants(part, level):
            return
        unix = float(event.get("log_time", 0.0))
        kind = (str(event.get("log_namespace")), str(event.get("log_format")))
        if not self._room(kind, unix):
            return
        if self._left_out:
            left_out, self._left_out = self._left_out, 0
            text = f"{left_out} lines were left out: each kind may come {LOG_BURST} times in {LOG_WINDOW:g} s"
            self._write(unix, "node", "warn", text, {"left_out": left_out})
        if event.get("log_failure") is not None:
            text = eventAsText(event, includeTraceback=True, includeTimestamp=False, includeSystem=False)
        else:
            text = formatEvent(event)
        self._write(unix, part, level, text, fields_of(event))

    def _room(self, kind: tuple[str, str], unix: float) -> bool:
        """Counts a line of this kind; false if there were enough."""
        found = self._kinds.get(kind)
        if found is None or not found.until - LOG_WINDOW <= unix < found.until:
            if found is None and len(self._kinds) >= LOG_KINDS:
                self._kinds.clear()
            found = self._kinds[kind] = _Kind(unix + LOG_WINDOW)
        found.count += 1
        if found.count > LOG_BURST:
            self._left_out += 1
            return False
        return True

    def _write(self, unix: float, part: str, level: str, text: str, fields: Mapping[str, Any]) -> None:
        shape = json_line if self._settings.format == "json" else text_line
        line = shape(unix, part, level, text[:LOG_LINE], fields)
        self.recent.append(line)
        (self._file or self._stderr).write(line + "\n")


def text_line(unix: float, part: str, level: str, text: str, fields: Mapping[str, Any]) -> str:
    """For a person. Control characters, which a stranger may have sent, are shown as such."""
    shown = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
    return f"{_time(unix)} {level:<5} {part}: {shown}"


def json_line(unix: float, part: str, level: str, text: str, fields: Mapping[str, Any]) -> str:
    """One JSON object without line breaks."""
    found = {"time": _time(unix), "part": part, "level": level, "message": text, "fields": dict(fields)}
    return json.dumps(found, ensure_ascii=True)


def fields_of(event: LogEvent) -> dict[str, Any]:
    """What the message was made of: numbers and texts as they are, all else as text, none of it long."""
    fields: dict[str, Any] = {}
    for name, value in event.items():
        if name.startswith("log_") or name in _LEGACY:
            continue
        plain = value if value is None or isinstance(value, bool | int | float) else str(value)[:LOG_FIELD]
        fields[name] = plain
    return fields


def _time(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
