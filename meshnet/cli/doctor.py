"""`meshnet doctor`: what is wrong with a node, and how to mend it; whether the node runs or not.

Exit code 0 if nothing is wrong, 7 if there are warnings only, 1 if there are problems: things that keep a
node from starting, or from doing what it is there for.
"""

from __future__ import annotations

import os
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs

from meshnet.cli.files import directory_argument, load_settings
from meshnet.cli.show import print_json
from meshnet.control.client import ControlClient
from meshnet.control.find import find_socket, named_path
from meshnet.errors import MeshError, UnreachableError
from meshnet.node.checks import Finding, addresses, directory, installation, key_file, running
from meshnet.node.config import Settings
from meshnet.node.dropins import Dropins
from meshnet.storage.disk import RealDisk

WARNINGS: Final = 7  # exit code
_SIGNS: Final = {"ok": "ok      ", "warning": "warning ", "problem": "PROBLEM "}
_COLOURS: Final = {"ok": "32", "warning": "33", "problem": "31"}


def doctor_arguments(parser: ArgumentParser) -> None:
    """Which node."""
    directory_argument(parser)
    parser.add_argument("--config", metavar="FILE", help="the config file, instead of a directory")


def doctor(arguments: Namespace, found: Dropins) -> int:
    """Looks at everything, prints a line for each finding."""
    findings = list(examine(arguments, found))
    problems = sum(1 for each in findings if each.level == "problem")
    warnings = sum(1 for each in findings if each.level == "warning")
    if arguments.json:
        counts = {"ok": not problems and not warnings, "problems": problems, "warnings": warnings}
        print_json({**counts, "findings": [attrs.asdict(each) for each in findings]})
    else:
        for each in findings:
            print(f"{_sign(each.level)}{each.check}: {each.text}")
    return 1 if problems else WARNINGS if warnings else 0


def examine(arguments: Namespace, found: Dropins) -> Iterator[Finding]:
    """Every finding, in the order in which a person would mend them."""
    disk, unix = RealDisk(), time.time
    _, lacking = found.open_transports(None)
    yield from installation(found, lacking, unix())
    named: str | None = arguments.config or arguments.directory or arguments.node
    settings: Settings | None = None
    try:
        settings = load_settings(named, found)
        yield Finding("ok", "config", f"{settings.file} is right.")
        yield from (Finding("warning", "config", note) for note in settings.notes)
    except MeshError as error:
        if not (named and Path(named).is_socket()):
            yield Finding("problem", "config", str(error))
    client = _client(named, settings)
    answers, refusal = client is not None, ""
    if client is not None:
        try:
            client.call("GET", "/status")
        except UnreachableError as error:
            answers, refusal = False, str(error)
        except MeshError as error:
            answers, refusal = True, str(error)
    if settings is not None:
        yield from key_file(disk, settings, os.environ)
        yield from directory(disk, settings.node.data, answers, unix)
        if not answers:
            yield from addresses(settings, _of_apps(settings))
    if client is None or not answers:
        where = f" {named}" if named else ""
        yield Finding("warning", "node", f"The node does not run; start it with meshnet up{where}.")
    elif refusal:
        yield Finding("problem", "node", refusal)
    else:
        try:
            yield from running(client.call, settings, unix())
        except MeshError as error:
            yield Finding("problem", "node", str(error))


def _client(named: str | None, settings: Settings | None) -> ControlClient | None:
    """Where the node would answer; with a config that cannot be read, at the usual places beside it."""
    if settings is not None:
        return ControlClient(settings.control_socket, timeout=20.0)
    try:
        return ControlClient(find_socket(named, os.environ, Path.cwd()), timeout=20.0)
    except MeshError:
        here = named_path(named or ".")
        home = here if here.is_dir() else here.parent
        usual = (home / "data" / "control.sock", home / "control.sock")
        return next((ControlClient(each, timeout=20.0) for each in usual if each.exists()), None)


def _of_apps(settings: Settings) -> Iterator[tuple[str, tuple[str, int]]]:
    """Local addresses in the sections of apps: whatever has a key `listen` with host and port."""
    for app in settings.apps.values():
        for attribute in attrs.fields(type(app)):
            value: Any = getattr(app, attribute.name)
            several = value if isinstance(value, tuple) else (value,)
            for index, each in enumerate(several):
                listen = getattr(each, "listen", None)
                if isinstance(listen, tuple) and len(listen) == 2:
                    place = f".{index}" if isinstance(value, tuple) else ""
                    yield f"{attribute.name}{place}.listen", listen


def _sign(level: str) -> str:
    sign = _SIGNS[level]
    return f"\x1b[{_COLOURS[level]}m{sign}\x1b[0m" if sys.stdout.isatty() else sign
