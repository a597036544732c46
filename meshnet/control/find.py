"""Where a running node's control socket is, for programs that were not told exactly.

Looked at in this order: what the caller names (a directory, a config file or a socket), `$MESHNET_CONTROL`,
`node.toml` in the current directory, then the default runtime paths.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

from meshnet.errors import ConfigError, UnreachableError, UsageError

CONFIG_NAME = "node.toml"
SOCKET_NAME = "control.sock"


def runtime_sockets(environ: Mapping[str, str]) -> list[Path]:
    """The default paths: the user's runtime directory, then the system's."""
    found = [Path("/run/meshnet") / SOCKET_NAME]
    if environ.get("XDG_RUNTIME_DIR"):
        found.insert(0, Path(environ["XDG_RUNTIME_DIR"]) / "meshnet" / SOCKET_NAME)
    return found


def find_socket(node: str | None, environ: Mapping[str, str], here: Path) -> Path:
    """The socket to use; raises UsageError or UnreachableError with what to do."""
    named = node or environ.get("MESHNET_CONTROL")
    if named:
        return _of(Path(named).expanduser())
    if (here / CONFIG_NAME).is_file():
        return _of_config(here / CONFIG_NAME)
    for path in runtime_sockets(environ):
        if path.exists():
            return path
    raise UnreachableError(
        "No node found here: name one with --node DIR or $MESHNET_CONTROL, or start one with meshnet up."
    )


def _of(path: Path) -> Path:
    if path.is_dir():
        return _of_directory(path)
    if path.suffix == ".toml" and path.is_file():
        return _of_config(path)
    if path.is_socket() or (path.suffix == ".sock" and not path.exists()):
        return path
    if not path.exists():
        raise UsageError(
            f"There is no {path}; name a node's directory, its config file or its control socket."
        )
    raise UsageError(f"{path} is neither a node's directory nor its config file nor its control socket.")


def _of_directory(path: Path) -> Path:
    if (path / CONFIG_NAME).is_file():
        return _of_config(path / CONFIG_NAME)
    for candidate in (path / SOCKET_NAME, path / "data" / SOCKET_NAME):
        if candidate.exists():
            return candidate
    raise UsageError(f"{path} holds neither {CONFIG_NAME} nor {SOCKET_NAME}.")


def _of_config(file: Path) -> Path:
    """Only the two keys that say where the socket is; the node checks the rest."""
    try:
        table = tomllib.loads(file.read_text())
        socket = table.get("control", {}).get("socket")
        data = table.get("node", {}).get("data", "data")
        base = file.absolute().parent
        return base / Path(socket).expanduser() if socket else base / Path(data).expanduser() / SOCKET_NAME
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"Cannot read {file}: {error}.") from None
