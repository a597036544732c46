"""The section `[coin]` of a node's config: which chain, where it is kept, whom to talk to.

[coin]   chain, data, listen, peers, mesh_peers, mesh_port, exchange, publish, interval; [coin.api]
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Final, Literal

from attrs import frozen

from coin.api.settings import ApiSection
from coin.chain.params import Chain, read_fiber
from coin.chain.skycoin import SKYCOIN
from meshnet.cipher.keys import PublicKey
from meshnet.errors import ConfigError
from meshnet.node.schema import Between, HostPort, Port
from meshnet.storage.disk import Disk
from meshnet.storage.files import read_file

LARGEST_CHAIN_FILE: Final = 64 << 10
Known = Literal["skycoin"] | Path


@frozen
class CoinSection:
    """`[coin]`. `chain` is "skycoin" or a chain file; `data` a directory; `listen` TCP addresses; `peers` TCP
    addresses that are always dialled, beside the chain's own if `exchange`; `mesh_peers` nodes of the mesh
    that are; `publish` the key file of who makes blocks, one each `interval` seconds if there is anything;
    `api` the REST API, if there is one."""

    chain: Known = "skycoin"
    data: Path = Path("data/coin")
    listen: tuple[HostPort, ...] = ()
    peers: tuple[HostPort, ...] = ()
    mesh_peers: tuple[PublicKey, ...] = ()
    mesh_port: Port = 6_000
    exchange: bool = True
    publish: Path | None = None
    interval: Annotated[float, Between(0.1, 3_600)] = 10.0
    api: ApiSection | None = None


@frozen
class CoinSettings:
    """What the app reads; without a section `[coin]` it does nothing."""

    coin: CoinSection | None = None


def load_chain(disk: Disk, known: Known) -> Chain:
    """The chain of a config: the known one, or that of a file; raises ConfigError, StorageError."""
    if known == "skycoin":
        return SKYCOIN
    path = Path(known)
    data = read_file(disk, path, LARGEST_CHAIN_FILE)
    try:
        table = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} is no chain file: {error}.") from None
    node = table.get("node")
    name = node.get("coin_name", path.stem) if isinstance(node, dict) else path.stem
    return read_fiber(str(name).lower(), table)
