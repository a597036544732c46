"""Gives a router what the config says: limits, neighbours, backend, and where it keeps replay tags."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from twisted.logger import Logger

from meshnet.cipher import aead
from meshnet.cipher.keys import SecretKey
from meshnet.errors import StorageError
from meshnet.node.node import Node
from meshnet.node.onion_keys import OnionKeys
from meshnet.node.reload import accepted, circuit_policy
from meshnet.node.replay import ReplayKeeper
from meshnet.node.router import Router
from meshnet.node.topology import KEPT_BYTES, KEPT_FILE, Topology
from meshnet.storage.kept import KeptFile
from meshnet.transports import changes
from meshnet.transports.known import LARGEST
from meshnet.transports.registry import Transports

NAMES: Final = "names"
"""The file of last addresses, in the data directory."""

_log = Logger()


def make_router(
    node: Node, secret: SecretKey, transports: Transports, random: Callable[[int], bytes]
) -> Router:
    """The router of this node, not yet started."""
    settings = node.settings
    _keep_names(node, transports)
    router = Router(
        secret,
        settings.node.network,
        transports=transports,
        clock=node.clock,
        random=random,
        backend=aead.backend(settings.node.cipher),
        policy=circuit_policy(settings.relay),
        memory=ReplayKeeper(node.disk, node.data, settings.node.key, node.reactor, node.space.release),
        accept=accepted(settings.link),
        lanes=settings.link.lanes,
        watch=partial(changes.watch, node.reactor),
        onion_keys=OnionKeys(secret, random, node.disk, node.data),
    )
    if settings.topology.enabled:
        router.know(
            Topology(
                secret,
                settings.node.network,
                settings.topology,
                router,
                relays=settings.relay.enabled,
                unix=node.clock.unix,
                random=random,
                lookup=node.lookup,
                kept=KeptFile(node.disk, node.data / KEPT_FILE, KEPT_BYTES, node.quarantine),
            )
        )
    return router


def _keep_names(node: Node, transports: Transports) -> None:
    """Where names cannot be looked up neighbours are dialled where they were last."""
    try:
        for note in transports.keep(KeptFile(node.disk, node.data / NAMES, LARGEST, node.quarantine)):
            _log.warn("{note}", note=note)
    except StorageError as why:
        _log.warn("the last addresses of neighbours cannot be read: {why}", why=str(why))
