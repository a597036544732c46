"""The verbs that work on a node's files, without a running node: init, config check."""

from __future__ import annotations

import json
import os
import shlex
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from meshnet.cipher.keys import PublicKey, SecretKey, parse_public_key
from meshnet.cli.show import print_json
from meshnet.control.find import CONFIG_NAME, named_path
from meshnet.errors import LocalError, StorageError, UsageError
from meshnet.node.config import Settings, check_addresses, from_table, load
from meshnet.node.dropins import Dropins
from meshnet.node.identity import read_public, write_key
from meshnet.storage.disk import RealDisk
from meshnet.storage.files import make_directory, write_file

_COMMENTS: Final = {
    ("link", "accept"): [
        '# Who may link to this node: "any" or a list of keys; the peers it dials always may.'
    ],
    ("relay", "enabled"): ["# Whether circuits of others may lead on through this node to its neighbours."],
}
"""Sentences above keys that decide what strangers may do."""


def config_file(named: str | None) -> Path:
    """The config file of a directory or path; default: the current directory's. Raises UsageError."""
    path = named_path(named or ".")
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
    parser.add_argument("--network", type=int, default=1, help="network id (default 1)")
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="KEY@ADDRESS",
        help="a neighbour to dial; repeatable",
    )
    node_arguments(parser)


def node_arguments(parser: ArgumentParser) -> None:
    """What a new node is and does, wherever its peers come from."""
    parser.add_argument("--name", default="", help="shown in status only")
    parser.add_argument(
        "--listen",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="such as tcp:0.0.0.0:7001; repeatable",
    )
    parser.add_argument(
        "--accept",
        metavar="KEYS",
        help="with --listen: only these keys, separated by commas, may link to this node (default: anyone)",
    )
    parser.add_argument(
        "--relay",
        action="store_true",
        help="carry circuits of others on through this node (default: do not)",
    )
    parser.add_argument("--metrics", metavar="HOST:PORT", help="for Prometheus, such as 127.0.0.1:9100")


def init(arguments: Namespace, found: Dropins) -> int:
    """Makes a key and a config; an existing key is kept, an existing config refused. The config says in
    full whom the node accepts and whether it relays, since that is what an operator has to know."""
    directory = named_path(arguments.directory)
    file = directory / CONFIG_NAME
    if file.exists():
        raise LocalError(f"{file} exists already; edit it, or choose another directory.")
    settings, public = make_node(directory, _table(arguments), found)
    if arguments.json:
        print_json(
            {
                "public_key": public.hex(),
                "config": str(file),
                "key": str(directory / "key"),
                "relay": settings.relay.enabled,
            }
        )
    else:
        tell_made(directory, settings, public)
    return 0


def make_node(directory: Path, table: Mapping[str, Any], found: Dropins) -> tuple[Settings, PublicKey]:
    """Writes a config, and a key unless there is one; raises FieldError, before anything is written, and
    LocalError."""
    file = directory / CONFIG_NAME
    settings = from_table(table, file)
    transports, _ = found.open_transports(None)
    if found.transports:  # without any, `up` says what is wrong with the installation
        check_addresses(settings, transports)
    disk, key = RealDisk(), directory / "key"
    try:
        make_directory(disk, directory, 0o755)
        make_directory(disk, directory / "data")
    except StorageError as error:
        raise LocalError(f"No node can be made in {directory}: {error}.") from None
    if not key.exists():
        write_key(disk, key, SecretKey.generate())
    public = read_public(disk, key)
    write_file(disk, str(file), _toml(table).encode(), mode=0o644)
    return settings, public


def tell_made(directory: Path, settings: Settings, public: PublicKey) -> None:
    """What was made, for a person."""
    print(public.hex())
    print(f"key and config are in {directory}; start it with: meshnet up {shlex.quote(str(directory))}")
    print(_summary(settings))


def _summary(settings: Settings) -> str:
    """What the node will do for others, in one sentence."""
    link = settings.link
    who = "anyone" if link.accept == "any" else f"{len(link.accept)} keys"
    accepts = (
        f"it accepts links from {who} on {', '.join(link.listen)}" if link.listen else "nobody can dial it"
    )
    relays = "relays" if settings.relay.enabled else "does not relay"
    return f"{accepts}; it {relays} for others"


def _table(arguments: Namespace) -> dict[str, Any]:
    table = node_table(arguments, arguments.network)
    peers = table["link"]["peer"]
    for text in arguments.peer:
        key, at, address = text.partition("@")
        if not at or not address:
            raise UsageError(f"--peer {text!r} is not KEY@ADDRESS, such as 02…@tcp:192.0.2.1:7001.")
        peers.append({"key": _key(key, "--peer"), "address": address})
    return table


def node_table(arguments: Namespace, network: int) -> dict[str, Any]:
    """The config of a new node, as yet without peers, out of `node_arguments`; raises UsageError."""
    node: dict[str, Any] = {"network": network}
    if arguments.name:
        node = {"name": arguments.name, **node}
    accept: str | list[str] = "any"
    if arguments.accept is not None:
        if not arguments.listen:
            raise UsageError("--accept says who may dial this node; without --listen nobody can.")
        accept = [_key(key.strip(), "--accept") for key in arguments.accept.split(",") if key.strip()]
    link = {"listen": arguments.listen, "accept": accept, "peer": []}
    table: dict[str, Any] = {"node": node, "link": link, "relay": {"enabled": arguments.relay}}
    if arguments.metrics:
        table["metrics"] = {"listen": arguments.metrics}
    return table


def _key(text: str, option: str) -> str:
    try:
        return parse_public_key(text).hex()
    except UsageError as error:
        raise UsageError(f"{option}: {error}.") from None


def _toml(table: Mapping[str, Any]) -> str:
    """The few shapes of `_table` as TOML. JSON's strings, numbers and lists of strings are TOML's too."""
    lines = [
        "# Made by meshnet init. Relative paths are relative to this file; docs/operations.md has every key."
    ]
    for section, values in table.items():
        lines += ["", f"[{section}]"]
        for key, value in values.items():
            if key != "peer":
                lines += [
                    *_COMMENTS.get((section, key), ()),
                    f"{key} = {json.dumps(value, ensure_ascii=False)}",
                ]
        lines += peer_lines(values.get("peer", []))
    return "\n".join(lines) + "\n"


def peer_lines(peers: Sequence[Mapping[str, Any]]) -> list[str]:
    """[[link.peer]] sections."""
    lines = []
    for peer in peers:
        lines += ["", "[[link.peer]]"]
        lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in peer.items()]
    return lines


def directory_argument(parser: ArgumentParser) -> None:
    """The node's directory or config file."""
    parser.add_argument("directory", nargs="?", help=f"the node's directory or {CONFIG_NAME} (default: here)")


def config_check(arguments: Namespace, found: Dropins) -> int:
    """Reads config and key and says what is wrong; exit code 2 if anything is."""
    settings = load_settings(arguments.directory or arguments.node, found)
    public = read_public(RealDisk(), settings.node.key)
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
