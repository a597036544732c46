"""Gives a router what the config says: limits, neighbours, backend, and where it keeps replay tags."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from meshnet.cipher import aead
from meshnet.cipher.keys import PublicKey, SecretKey
from meshnet.circuit.policy import Policy
from meshnet.node.config import LinkSettings, RelaySettings
from meshnet.node.node import Node
from meshnet.node.replay import ReplayKeeper
from meshnet.node.router import Router
from meshnet.transports import changes
from meshnet.transports.registry import Transports


def circuit_policy(relay: RelaySettings) -> Policy:
    """[relay] as the circuits' policy."""
    return Policy(
        enabled=relay.enabled,
        max_rate=relay.max_rate,
        max_circuits=relay.max_circuits,
        max_circuits_per_neighbour=relay.max_circuits_per_neighbour,
        creates_per_second=relay.creates_per_second,
        create_burst=relay.create_burst,
        creates_in_all=relay.creates_in_all,
    )


def accepted(link: LinkSettings) -> frozenset[PublicKey] | None:
    """Who may link: None for anyone; the dialled peers always."""
    if link.accept == "any":
        return None
    return frozenset(link.accept) | {peer.key for peer in link.peer}


def make_router(
    node: Node, secret: SecretKey, transports: Transports, random: Callable[[int], bytes]
) -> Router:
    """The router of this node, not yet started."""
    settings = node.settings
    return Router(
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
    )
