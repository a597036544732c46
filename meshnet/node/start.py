"""Makes a node of a config file; the way in for the command, for `twist`, and for programs on Twisted.

node = open_node("node.toml", reactor)
node.startService()
await node.linked()          # stands, and has a link to a configured neighbour
…
await node.stopService()
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any, TypeVar

from meshnet.node.clock import NodeClock
from meshnet.node.config import Settings, load
from meshnet.node.dropins import Dropins, find_dropins
from meshnet.node.identity import Password, no_password, password_from, read_key
from meshnet.node.node import Node
from meshnet.node.wiring import make_router
from meshnet.storage.disk import RealDisk

N = TypeVar("N", bound=Node)


def open_node(
    config: str | os.PathLike[str],
    reactor: Any,
    found: Dropins | None = None,
    password: Password = no_password,
) -> Node:
    """A node of this config file, not yet started: `startService` does that. `found` are its apps and
    transports, by default all that are installed; `password` is asked where neither config nor service have
    that of an encrypted key. Raises ConfigError and KeyFileError."""
    return open_kind(Node, config, reactor, find_dropins() if found is None else found, password)


def open_kind(
    kind: type[N],
    config: str | os.PathLike[str],
    reactor: Any,
    found: Dropins,
    password: Password = no_password,
) -> N:
    """The same with a class of the caller's own."""
    disk = RealDisk()
    transports, lacking = found.open_transports(reactor)
    broken = [*found.broken, *lacking]

    def read() -> Settings:
        return load(Path(config), found.apps, transports, broken)

    settings = read()
    asked = password_from(disk, settings.node.password_file, os.environ, password)
    secret = read_key(disk, settings.node.key, asked)
    node = kind(
        settings,
        secret,
        reactor=reactor,
        clock=NodeClock(reactor),
        disk=disk,
        router=lambda node: make_router(node, secret, transports, secrets.token_bytes),
        apps=found.apps,
        notes=broken,
    )
    node.reread = read
    return node
