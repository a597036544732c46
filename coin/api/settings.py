"""The section `[coin.api]` of a node's config: where the REST API is served, what of it, to whom.

[coin.api]   listen, sets, hosts, username, password, csrf, header_check, keys, wallets
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from attrs import frozen

from meshnet.node.schema import HostPort

SetName = Literal["READ", "STATUS", "TXN", "WALLET", "NET_CTRL", "INSECURE_WALLET_SEED", "STORAGE"]


@frozen
class ApiSection:
    """`[coin.api]`. `listen` is an address and a port; `sets` what is served; `hosts` are names beside the
    address itself that clients may use for the server, as `host:port`; `username` and the first line of the
    file `password` (0600) are asked for if one is set; `csrf` and `header_check` as in the Go node; `keys`
    says which versions ask for an API key; `wallets` is the folder of the wallets that are served, of which
    withdrawals are paid, too."""

    listen: HostPort = ("127.0.0.1", 6_420)
    sets: tuple[SetName, ...] = ("READ", "TXN")
    hosts: tuple[str, ...] = ()
    username: str = ""
    password: Path | None = None
    csrf: bool = True
    header_check: bool = True
    keys: Literal["none", "v3", "all"] = "v3"
    wallets: Path | None = None
