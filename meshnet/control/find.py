"""Where a running node's sockets are, for programs that were not told exactly.

Looked at in this order: what the caller names (a directory, a config file or a socket), `$MESHNET_CONTROL`
for the control API and `$MESHNET_ATTACH` for the local door, `node.toml` in the current directory, then the
default runtime paths.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from attrs import frozen

from meshnet.errors import ConfigError, UnreachableError, UsageError

CONFIG_NAME: Final = "node.toml"
RUNTIME: Final = Path("/run/meshnet")


@frozen
class Kind:
    """One of a node's sockets: its usual file name, the [control] key that moves it, the variable and the
    option that name it, and what people call it."""

    file: str
    key: str
    variable: str
    option: str
    called: str


CONTROL: Final = Kind("control.sock", "socket", "MESHNET_CONTROL", "--node DIR", "control socket")
ATTACH: Final = Kind(
    "attach.sock", "attach", "MESHNET_ATTACH", "--node DIR (node=DIR in an endpoint)", "local door"
)


def named_path(text: str) -> Path:
    """The path that somebody wrote, `~` resolved; raises UsageError where nobody has such a home."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UsageError(f"{text[:200]!r} begins with a home directory that is not there.") from None


def runtime_sockets(environ: Mapping[str, str], kind: Kind = CONTROL) -> list[Path]:
    """The default paths: the user's runtime directory, then the system's."""
    found = [RUNTIME / kind.file]
    if environ.get("XDG_RUNTIME_DIR"):
        found.insert(0, Path(environ["XDG_RUNTIME_DIR"]) / "meshnet" / kind.file)
    return found


def find_socket(node: str | None, environ: Mapping[str, str], here: Path, kind: Kind = CONTROL) -> Path:
    """The socket to use; raises UsageError or UnreachableError with what to do."""
    named = node or environ.get(kind.variable)
    if named:
        return _of(named_path(named), kind)
    if (here / CONFIG_NAME).is_file():
        return _of_config(here / CONFIG_NAME, kind)
    for path in runtime_sockets(environ, kind):
        if path.exists():
            return path
    raise UnreachableError(
        f"No node found here: name one with {kind.option} or ${kind.variable}, or start one with meshnet up."
    )


def _of(path: Path, kind: Kind) -> Path:
    if path.is_dir():
        return _of_directory(path, kind)
    if path.suffix == ".toml" and path.is_file():
        return _of_config(path, kind)
    if path.is_socket() or (path.suffix == ".sock" and not path.exists()):
        return _sibling(path, kind)
    if not path.exists():
        raise UsageError(
            f"There is no {path}; name a node's directory, its config file or its {kind.called}."
        )
    raise UsageError(f"{path} is neither a node's directory nor its config file nor its {kind.called}.")


def _sibling(path: Path, kind: Kind) -> Path:
    """Who names a node by its other socket means the node."""
    others = [other.file for other in (CONTROL, ATTACH) if other is not kind]
    return path.with_name(kind.file) if path.name in others else path


def _of_directory(path: Path, kind: Kind) -> Path:
    if (path / CONFIG_NAME).is_file():
        return _of_config(path / CONFIG_NAME, kind)
    for candidate in (path / kind.file, path / "data" / kind.file):
        if candidate.exists():
            return candidate
    raise UsageError(f"{path} holds neither {CONFIG_NAME} nor {kind.file}.")


def _of_config(file: Path, kind: Kind) -> Path:
    """Only the few keys that say where the socket is; the node checks the rest."""
    try:
        table = tomllib.loads(file.read_text())
        control = table.get("control", {})
        base = file.absolute().parent
        named = control.get(kind.key)
        if named:
            return base / named_path(named)
        if kind is ATTACH and control.get("socket"):
            return (base / named_path(control["socket"])).parent / kind.file
        data = table.get("node", {}).get("data", "data")
        return base / named_path(data) / kind.file
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, UsageError) as error:
        why = str(error).rstrip(".")
        raise ConfigError(f"Cannot read {file}: {why}.") from None
