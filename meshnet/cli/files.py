"""The verbs that work on a node's files, without a running node: init, key show, config check."""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from meshnet.cipher.keys import SecretKey, dns_label, mesh_ipv6, parse_public_key
from meshnet.cli.show import print_json
from meshnet.control.find import CONFIG_NAME
from meshnet.errors import LocalError, UsageError
from meshnet.node.config import Settings, from_table, load
from meshnet.node.dropins import Dropins
from meshnet.node.identity import read_key, write_key
from meshnet.storage.disk import RealDisk
from meshnet.storage.files import write_file


def config_file(named: str | None) -> Path:
    """The config file of a directory or path; default: the current directory's. Raises UsageError."""
    path = Path(named or ".").expanduser()
    if path.is_dir():
        path = path / CONFIG_NAME
    if not path.is_file():
        raise UsageError(f"There is no {path}; make a node with: meshnet init {path.parent}")
    return path


def load_settings(named: str | None, found: Dropins) -> Settings:
    """The checked config of a directory or file; raises ConfigError."""
    transports, lacking = found.open_transports(None)
    return load(config_file(named), found.apps, transports, (*found.broken, *lacking))


def init_arguments(parser: ArgumentParser) -> None:
    """`meshnet init`."""
    parser.add_argument("directory", nargs="?", default=".", help="where all its files go (default: here)")
    parser.add_argument("--name", default="", help="shown in status only")
    parser.add_argument("--network", type=int, default=1, help="network id (default 1)")
    parser.add_argument(
        "--listen",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="such as tcp:0.0.0.0:7001; repeatable",
    )
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="KEY@ADDRESS",
        help="a neighbour to dial; repeatable",
    )
    parser.add_argument("--metrics", metavar="HOST:PORT", help="for Prometheus, such as 127.0.0.1:9100")


def init(arguments: Namespace) -> int:
    """Makes a key and a config; an existing key is kept, an existing config refused."""
    directory = Path(arguments.directory).expanduser()
    file = directory / CONFIG_NAME
    if file.exists():
        raise LocalError(f"{file} exists already; edit it, or choose another directory.")
    table = _table(arguments)
    from_table(table, file)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "data").mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise LocalError(f"Cannot make {directory}: {error.strerror}.") from None
    disk, key = RealDisk(), directory / "key"
    if not key.exists():
        write_key(disk, key, SecretKey.generate())
    secret = read_key(disk, key)
    write_file(disk, str(file), _toml(table).encode(), mode=0o644)
    if arguments.json:
        print_json({"public_key": secret.public.hex(), "config": str(file), "key": str(key)})
    else:
        print(
            f"{secret.public.hex()}\nkey and config are in {directory}; start it with: meshnet up {directory}"
        )
    return 0


def _table(arguments: Namespace) -> dict[str, Any]:
    peers = []
    for text in arguments.peer:
        key, at, address = text.partition("@")
        if not at or not address:
            raise UsageError(f"--peer {text!r} is not KEY@ADDRESS, such as 02…@tcp:192.0.2.1:7001.")
        parse_public_key(key)
        peers.append({"key": key, "address": address})
    node: dict[str, Any] = {"network": arguments.network}
    if arguments.name:
        node = {"name": arguments.name, **node}
    table: dict[str, Any] = {"node": node, "link": {"listen": arguments.listen, "peer": peers}}
    if arguments.metrics:
        table["metrics"] = {"listen": arguments.metrics}
    return table


def _toml(table: dict[str, Any]) -> str:
    """The few shapes of `_table` as TOML. JSON's strings, numbers and lists of strings are TOML's too."""
    lines = ["# Made by meshnet init. Relative paths are relative to this file."]
    for section, values in table.items():
        lines += ["", f"[{section}]"]
        plain = {key: value for key, value in values.items() if key != "peer"}
        lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in plain.items()]
        for peer in values.get("peer", []):
            lines += ["", f"[[{section}.peer]]"]
            lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in peer.items()]
    return "\n".join(lines) + "\n"


def directory_argument(parser: ArgumentParser) -> None:
    """The node's directory or config file."""
    parser.add_argument("directory", nargs="?", help=f"the node's directory or {CONFIG_NAME} (default: here)")


def key_show(arguments: Namespace, found: Dropins) -> int:
    """Prints the public key and the names derived from it; never the secret."""
    path = Path(arguments.directory or arguments.node or ".").expanduser()
    if path.is_dir() or path.suffix == ".toml":
        path = load_settings(str(path), found).node.key
    public = read_key(RealDisk(), path).public
    names = {"public_key": public.hex(), "dns": f"{dns_label(public)}.mesh", "ipv6": str(mesh_ipv6(public))}
    if arguments.json:
        print_json(names)
    else:
        print("\n".join(names.values()))
    return 0


def config_check(arguments: Namespace, found: Dropins) -> int:
    """Reads config and key and says what is wrong; exit code 2 if anything is."""
    settings = load_settings(arguments.directory or arguments.node, found)
    public = read_key(RealDisk(), settings.node.key).public
    for peer in settings.link.peer:
        if peer.key == public:
            raise UsageError(f"{settings.file}: a peer has this node's own key.")
    data = settings.node.data
    if not os.access(data if data.exists() else data.parent, os.W_OK):
        raise LocalError(f"The data directory {data} is not writable.")
    if arguments.json:
        print_json({"ok": True, "config": str(settings.file), "notes": list(settings.notes)})
        return 0
    for note in settings.notes:
        print(f"note: {note}")
    print(f"{settings.file} is right")
    return 0
